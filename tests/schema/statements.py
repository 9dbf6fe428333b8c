#!/usr/bin/env python3
"""Writes the SQL statements that the program of a commit runs: statements.py COMMIT > tests/schema/SET-NNNN.sql

SET is control or agent (second argument), NNNN the newest schema that the commit knows. A migration must leave all of
them valid (tests/blackbox/test_schema.py). Run it when a version is released."""

import re
import subprocess
import sys

SOURCES = {"control": "src/control/db", "agent": "src/agent"}
LITERAL = r'"(?:[^"\\\n]|\\.)*"'
TEXT = re.compile(rf"(?:{LITERAL}|[A-Z]+_SELECT)(?:\s*(?:{LITERAL}|[A-Z]+_SELECT))*")


def git(*words):
    return subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout


def plain(text, macros):
    """A run of literals and macros as the one string that it is."""
    out = ""
    for token in re.findall(rf"{LITERAL}|[A-Z]+_SELECT", text):
        out += macros.get(token, "") if token[0] != '"' else token[1:-1].encode().decode("unicode_escape")
    return out


def statements(commit, folder):
    files = [f for f in git("ls-tree", "-r", "--name-only", commit, folder).split() if re.search(r"(?<!_test)\.[ch]$", f)]
    sources = [re.sub(r"\\\n", " ", git("show", f"{commit}:{f}")) for f in files]
    macros = {}
    for source in sources:
        for name, value in re.findall(rf"#define\s+([A-Z]+_SELECT)\s+((?:{LITERAL}\s*)+)", source):
            macros[name] = plain(value, {})
    found = set()
    for source in sources:
        for match in TEXT.finditer(re.sub(r"#define\s+[A-Z]+_SELECT[^\n]*", "", source)):
            text = plain(match[0], macros)
            if re.match(r"(SELECT|INSERT INTO|UPDATE|DELETE FROM|WITH) ", text):
                found.add(text)
    return sorted(found)


def main():
    commit, name = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "control"
    print(f"-- The statements of {git('describe', '--always', '--match=', commit).strip()}, by tests/schema/statements.py.")
    for text in statements(commit, SOURCES[name]):
        print(text + ";")


if __name__ == "__main__":
    main()
