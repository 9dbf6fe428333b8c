#!/usr/bin/env python3
"""Writes the C table of all migrations: embed_migrations.py OUTPUT.c SET/NNNN_name.sql ...

A migration that programs of before cannot live with (it drops or tightens what they use) says so by a line
"-- contract: N", N being the oldest schema that a program must know.
"""

import pathlib
import re
import sys


def c_string(text: str) -> str:
    lines = []
    for line in text.splitlines(keepends=True):
        escaped = line.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
        lines.append(f'\t "{escaped}"')
    return "\n".join(lines)


def main() -> None:
    output, *names = sys.argv[1:]
    found = []
    for path in map(pathlib.Path, names):
        match = re.fullmatch(r"(\d{4})_(\w+)\.sql", path.name)
        if match is None:
            sys.exit(f"{path}: a migration is called NNNN_name.sql")
        text = path.read_text(encoding="utf-8")
        contract = re.search(r"^-- contract: (\d+)$", text, re.M)
        oldest = int(contract[1]) if contract else 0
        if oldest > int(match[1]):
            sys.exit(f"{path}: it cannot ask for a schema that comes after it")
        found.append((path.parent.name, int(match[1]), match[2], oldest, text))
    found.sort()
    last = ("", 0)
    for name, version, *_ in found:
        if version != (last[1] + 1 if name == last[0] else 1):
            sys.exit(f"{name}/{version:04}: versions of a set ascend from 1 without gaps")
        last = (name, version)
    out = ['#include "store/migrations.h"\n', "const struct migration migrations[] = {"]
    for name, version, title, oldest, text in found:
        out.append(f'\t{{"{name}", {version}, "{title}",\n{c_string(text)}, {oldest}}},')
    out.append("};")
    out.append("const size_t migration_count = sizeof(migrations) / sizeof(migrations[0]);")
    pathlib.Path(output).write_text("\n".join(out) + "\n", encoding="utf-8")


main()
