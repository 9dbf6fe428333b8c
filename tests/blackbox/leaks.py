"""No secret in any output: what the whole run of the suite made the program say (commands, logs of roles, answers to
HTTP calls) is kept, and searched at its end for every secret that was used, plain, base64, URL- and JSON-escaped.

Secrets are what lies in a data directory's secrets/ and keys/, values of variables that hold secrets, secret
environment of jobs, and tokens: those that a command or an answer gave out, and those that a call was let in with. Where
giving out a token is what was asked for, that one answer is exempt, and nothing else is."""

import base64
import bisect
import json
import os
import pathlib
import re
import subprocess
import tempfile
import urllib.parse

SHORTEST = 12
DISTINCT_MIN = 6
PIECE_MAX = 1 << 20
TOKEN = re.compile(rb"eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}|[\w-]{20,}\.[0-9a-f]{64}")
SECRET_VARIABLE = re.compile(r"NIMBUS_.*(SECRET|TOKEN|PASSWORD|FALLBACKS)$")
# What prints a token, because that is what it is for.
GIVING_COMMANDS = ("auth", "cache", "bootstrap")
GIVING_PATHS = ("/api/agents/token", "/api/jobs/lease", "/api/jobs/lease/renew")


def base64_forms(value):
    """As it stands within the base64 of a longer text, at each of the three places."""
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for shift in range(3):
            text = encode(b"\0" * shift + value).rstrip(b"=")
            whole = (shift + len(value)) // 3 * 4
            yield text[(0, 2, 3)[shift]:whole]


def forms(value):
    """Every form of a secret that is looked for, each once."""
    found = {value, value.hex().encode()}
    found.update(form for form in base64_forms(value) if len(form) >= SHORTEST)
    text = value.decode("utf-8", "surrogateescape")
    found.add(urllib.parse.quote(value, safe="").encode())
    found.add(urllib.parse.quote_plus(value).encode())
    try:
        found.add(json.dumps(text)[1:-1].encode())
    except UnicodeEncodeError:
        pass
    return {form for form in found if b"\n" not in form}


class Leaks:
    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="nimbus-outputs-")
        self.corpus = open(pathlib.Path(self.folder.name) / "corpus", "wb")
        self.starts, self.names = [], []
        self.secrets = {}  # value: name

    # --- what is secret ---

    def secret(self, value, name):
        value = value.encode() if isinstance(value, str) else value
        if len(value) >= SHORTEST:
            # Another test's output may hold it by chance, and only where both run in one lane.
            assert len(set(value)) >= DISTINCT_MIN, f"{name} is too plain a secret for a test: {value[:20]!r}"
            self.secrets.setdefault(value, name)

    def secret_files(self, data):
        """Those of a data directory, as long as it is there."""
        for path in (pathlib.Path(data) / "secrets").glob("*"):
            if path.is_file():
                for value in re.findall(rb'[^\s"\[\],]+', path.read_bytes()) if path.suffix != ".key" else [path.read_bytes()]:
                    self.secret(value, f"secrets/{path.name}")
        for path in (pathlib.Path(data) / "keys").glob("*.jwk"):
            try:
                self.secret(json.loads(path.read_bytes())["d"], f"keys/{path.name}, its private half")
            except (ValueError, KeyError):
                pass  # a test broke it

    def environment(self, variables):
        for name, value in variables.items():
            if SECRET_VARIABLE.match(name):
                self.secret(value, name)
            password = re.match(r"\w[\w+]*://[^/@]*:([^/@]+)@", value) if name.endswith("_URL") else None
            if password:
                self.secret(urllib.parse.unquote(password[1]), f"{name}, its password")

    def given(self, text, name):
        for token in TOKEN.findall(text):
            self.secret(token, f"a token from {name}")

    # --- what was said ---

    def said(self, text, name):
        if not text:
            return
        self.starts.append(self.corpus.tell())
        self.names.append(name)
        self.corpus.write(text[:PIECE_MAX * 64] + b"\n")

    def file(self, path):
        path = pathlib.Path(path)
        if path.is_file():
            self.said(path.read_bytes(), str(path))

    # --- hooks ---

    def ran(self, words, environment, done):
        """A command ended. words: without the program's name."""
        words = [os.fsdecode(word) for word in words]
        for flag, value in zip(words, words[1:]):
            if flag == "--secret-env":
                self.secret(value.partition("=")[2], f"--secret-env {value.partition('=')[0]}")
        self.environment(environment or {})
        name = "nimbus " + " ".join(words[:3])
        out, err = (part.encode() if isinstance(part, str) else part for part in (done.stdout, done.stderr))
        if words[:1] and words[0] in GIVING_COMMANDS:
            self.given(out or b"", name)
        else:
            self.said(out, f"{name}: standard output")
        self.said(err, f"{name}: standard error")

    def answered(self, request, answer):
        path = urllib.parse.urlsplit(request.url).path
        bearer = request.headers.get("Authorization", "")
        if answer.ok and bearer.startswith("Bearer "):
            self.secret(bearer[len("Bearer "):], f"the token of a call of {path}")
        if path == "/api/jobs" and request.body:
            try:
                for key, value in (json.loads(request.body).get("secret_env") or {}).items():
                    self.secret(value, f"secret_env {key}")
            except (ValueError, AttributeError, TypeError):
                pass
        heads = "".join(f"{name}: {value}\n" for name, value in answer.headers.items()).encode()
        if answer.ok and path in GIVING_PATHS:
            self.given(answer.content, path)
            self.said(heads, f"headers of {request.method} {path}")
        else:
            self.said(heads + answer.content[:PIECE_MAX], f"answer to {request.method} {path}")

    # --- the search ---

    def find(self):
        """Sentences, one for each secret and output."""
        self.corpus.flush()
        patterns = {}
        for value, name in self.secrets.items():
            for form in forms(value):
                patterns.setdefault(form, name)
        listed = pathlib.Path(self.folder.name) / "patterns"
        listed.write_bytes(b"\n".join(sorted(patterns)) + b"\n")
        if not patterns:
            return []
        done = subprocess.run(["grep", "-a", "-o", "-b", "-F", "-f", listed, self.corpus.name], capture_output=True,
                              check=False, env={"LC_ALL": "C"})
        assert done.returncode in (0, 1), done.stderr
        found = set()
        for line in done.stdout.splitlines():
            offset, _, match = line.partition(b":")
            where = self.names[bisect.bisect_right(self.starts, int(offset)) - 1]
            found.add(f"{patterns.get(match, 'a secret')} stands in: {where}")
        return sorted(found)

    def close(self):
        self.corpus.close()
        self.folder.cleanup()


def watch(leaks, program):
    """Has every later call of the program and every HTTP answer pass through `leaks`."""
    import requests

    run, send = subprocess.run, requests.Session.send

    def watched_run(*words, **more):
        done = run(*words, **more)
        argv = words[0] if words else more.get("args", ())
        if isinstance(argv, (list, tuple)) and argv and str(argv[0]) == str(program):
            leaks.ran(argv[1:], more.get("env"), done)
        return done

    def watched_send(session, request, **more):
        answer = send(session, request, **more)
        if not more.get("stream"):
            leaks.answered(request, answer)
        return answer

    subprocess.run, requests.Session.send = watched_run, watched_send
