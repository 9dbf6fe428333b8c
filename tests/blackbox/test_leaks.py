"""The search for secrets in everything that the suite saw must be able to fail."""

import base64
import json
import os
import pathlib
import subprocess
import sys
import types
import urllib.parse

import pytest

from leaks import Leaks
from system import NIMBUS

SECRET = 'a "secret" of/these+tests, ä'


@pytest.fixture
def leaks():
    made = Leaks()
    yield made
    made.close()


@pytest.mark.parametrize("form", ["plain", "base64", "base64 within", "base64url", "URL", "form", "JSON", "hex"])
def test_a_planted_secret_is_found(leaks, form):
    value = SECRET.encode()
    planted = {
        "plain": value,
        "base64": base64.b64encode(value),
        "base64 within": base64.b64encode(b'{"password":"' + value + b'"}'),
        "base64url": base64.urlsafe_b64encode(value).rstrip(b"="),
        "URL": urllib.parse.quote(SECRET, safe="").encode(),
        "form": urllib.parse.quote_plus(SECRET).encode(),
        "JSON": json.dumps(SECRET).encode(),
        "hex": value.hex().encode(),
    }[form]
    leaks.secret(SECRET, "the planted one")
    leaks.said(b"nothing here", "an innocent output")
    assert leaks.find() == []
    leaks.said(b"before " + planted + b" after", "the log of a role")
    leaks.said(b"nothing here either", "another output")
    assert leaks.find() == ["the planted one stands in: the log of a role"]


def test_a_secret_that_others_may_say_by_chance_is_refused(leaks):
    with pytest.raises(AssertionError, match="NIMBUS_JWT_SECRET is too plain"):
        leaks.environment({"NIMBUS_JWT_SECRET": "x" * 40})


def test_commands_and_answers_are_watched(leaks):
    token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg"
    done = subprocess.CompletedProcess([], 0, stdout=token.encode(), stderr=b"")
    leaks.ran(["auth", "--agent-id", "a"], {}, done)
    assert leaks.find() == [], "a command that is for that may print one"
    leaks.ran(["jobs", "show", "1", "--secret-env", "KEY=value-of-the-environment"],
              {"NIMBUS_DATABASE_URL": "postgresql://nimbus:pass%40word-of-it@db/x"},
              subprocess.CompletedProcess([], 1, stdout=b"value-of-the-environment", stderr=b"cannot reach pass@word-of-it"))
    leaks.ran(["jobs", "recent"], {}, done)
    request = types.SimpleNamespace(url="http://x/api/status", method="GET", body=None, headers={})
    leaks.answered(request, types.SimpleNamespace(ok=True, headers={"X": token}, content=b""))
    assert leaks.find() == [
        "--secret-env KEY stands in: nimbus jobs show 1: standard output",
        "NIMBUS_DATABASE_URL, its password stands in: nimbus jobs show 1: standard error",
        "a token from nimbus auth --agent-id a stands in: answer to GET /api/status",
        "a token from nimbus auth --agent-id a stands in: nimbus jobs recent: standard output",
    ]


def test_a_run_of_the_suite_with_a_leak_fails(tmp_path):
    """A whole run of its own, in which the program is made to say a secret."""
    (tmp_path / "test_planted.py").write_text(f"""
import os, subprocess
def test_everything_is_fine():
    secret = "planted-secret-0123456789"
    done = subprocess.run([{str(NIMBUS)!r}, "jobs", "show", secret], capture_output=True, check=False,
                          env={{"PATH": os.environ["PATH"], "HOME": os.getcwd(), "NIMBUS_JWT_SECRET": secret}})
    assert done.returncode == 2
""")
    here = str(pathlib.Path(__file__).parent)
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "conftest", tmp_path],
                          env={**os.environ, "PYTHONPATH": here}, capture_output=True, check=False, text=True, cwd=tmp_path)
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 1, done.stdout + done.stderr
    assert "LEAK: NIMBUS_JWT_SECRET stands in: nimbus jobs show planted-secret-0123456789: standard error" in done.stdout
