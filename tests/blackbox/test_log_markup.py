"""GitHub's commands in a job's output, from the VM to the terminal."""

import json
import os
import pty
import shutil
import subprocess

import pytest

from system import NIMBUS, PATIENCE, System

pytestmark = [pytest.mark.once,
              pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="no qemu-system-x86_64")]

SCRIPT = r"""
echo '::group::Build it'
echo 'cc a.c'
echo '::error file=src/a%2Cb.c,line=3,col=7,title=No such::undeclared%0Ahere'
echo '::endgroup::'
echo '##[warning]an old form' >&2
echo '::add-mask::hunter2-of-the-test'
echo 'it is hunter2-of-the-test, and ::error:: in the middle'
echo '::stop-commands::tok3n'
echo '::error::not one'
echo '::tok3n::'
echo '::notice::done with hunter2-of-the-test'
"""


@pytest.fixture(scope="module")
def system():
    with System() as made:
        yield made


@pytest.fixture(scope="module")
def job(system):
    done = system.cli("jobs", "submit", "--wait", "--json", "--", "sh", "-c", SCRIPT)
    return json.loads(done.stdout)["id"]


def on_a_terminal(system, *words):
    """What a command writes to a terminal."""
    ours, theirs = pty.openpty()
    done = subprocess.Popen([NIMBUS, *words], env={**system.env, "TERM": "xterm", "NO_COLOR": "1"},
                            stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:
            break
        if not piece:
            break
        seen += piece
    os.close(ours)
    assert done.wait(PATIENCE) == 0, seen
    return seen.decode().replace("\r\n", "\n")


def test_commands_are_stored_as_what_they_are(system, job):
    lines = [json.loads(line) for line in system.cli("logs", str(job), "--json").stdout.splitlines()]
    found = [(line.get("markup"), line["level"]) for line in lines if line.get("markup")]
    assert sorted(found) == sorted([
        ("group", "info"), ("error", "error"), ("endgroup", "info"), ("warning", "warning"), ("add-mask", "info"),
        ("stop-commands", "info"), ("resume-commands", "info"), ("notice", "info")])
    error = next(line for line in lines if line.get("markup") == "error")
    assert error["command"] == {"text": "undeclared\nhere", "title": "No such", "file": "src/a,b.c", "line": 3, "col": 7}
    assert error["message"].startswith("::error file=")
    text = system.cli("logs", str(job), "--json").stdout.decode()
    assert "hunter2" not in text, "the value of add-mask is stored nowhere"
    assert "it is ***, and ::error:: in the middle" in text
    for path in system.data.rglob("*"):
        assert not path.is_file() or b"hunter2" not in path.read_bytes() or path.name.startswith("control.db"), path


def test_a_pipe_gets_what_the_job_wrote(system, job):
    out = system.cli("logs", str(job)).stdout.decode()
    assert out.startswith("::group::Build it\ncc a.c\n::error file=src/a%2Cb.c")
    assert "::error::not one\n" in out


def test_a_terminal_gets_headings_and_places(system, job):
    seen = on_a_terminal(system, "logs", str(job))
    assert "▾ Build it\n  cc a.c\n  error: src/a,b.c:3:7: No such: undeclared\n  here\n" in seen
    assert "warning: an old form" in seen
    assert "::error::not one" in seen
    for hidden in ("::group::", "::endgroup::", "add-mask", "stop-commands", "tok3n"):
        assert hidden not in seen
    assert "::group::Build it" in on_a_terminal(system, "logs", "--raw", str(job))


def test_annotations_stand_apart(system, job):
    shown = system.cli("jobs", "show", "--annotations", str(job)).stdout.decode()
    annotations = shown.rstrip().split("\n\n")[-1]
    assert sorted(annotations.splitlines()) == sorted([
        "error: src/a,b.c:3:7: No such: undeclared", "  here", "warning: an old form", "notice: done with ***"])
    found = json.loads(system.cli("jobs", "show", "--annotations", "--json", str(job)).stdout)["annotations"]
    assert sorted(line["markup"] for line in found) == ["error", "notice", "warning"]
    errors = system.cli("logs", str(job), "--errors").stdout.decode()
    assert "undeclared" in errors and "cc a.c" not in errors
