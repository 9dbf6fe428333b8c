"""nimbus demo chaos: its line, and that nothing is left of it, however it ends."""

import json
import os
import pathlib
import shutil
import signal
import subprocess

import pytest

from chaos import size
from system import NIMBUS, PATIENCE, open_folder

pytestmark = [pytest.mark.once,
              pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="no qemu-system-x86_64")]


def start(folder, *words):
    # A configuration of the caller's that would lead it astray.
    env = {k: v for k, v in os.environ.items() if not k.startswith("NIMBUS_")}
    env |= {"TMPDIR": folder, "NIMBUS_URL": "http://127.0.0.1:1", "NIMBUS_TOKEN": "not-a-token"}
    return subprocess.Popen([NIMBUS, "demo", "chaos", *words], env=env, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def left(folder):
    """Files, and processes that have one open."""
    found = [str(path) for path in pathlib.Path(folder).iterdir()]
    for process in pathlib.Path("/proc").iterdir():
        try:
            found += [f"{process.name}: {name}" for fd in (process / "fd").iterdir()
                      if (name := os.readlink(fd)).startswith(folder)] if process.name.isdigit() else []
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            pass
    return found


def test_jobs_live_through_kill_9_of_everything():
    jobs = size(3, 20)
    with open_folder() as folder:
        process = start(folder, "--jobs", str(jobs), "--json")
        out, talk = process.communicate(timeout=600)
        assert process.returncode == 0, out + talk
        found = json.loads(out)
        assert (found["done"], found["lost"], found["doubled"], found["lines_missing"]) == (jobs, 0, 0, 0), talk
        assert found["kills"] >= 4, talk
        for role in ("control-plane", "logging-pipeline", "host-agent", "supervisor"):
            assert f"the {role}" in talk
        assert left(folder) == []


def test_ctrl_c_leaves_nothing():
    with open_folder() as folder:
        process = start(folder)
        talk = ""
        while "kill -9" not in talk:
            line = process.stderr.readline()
            assert line, talk
            talk += line
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 130
        assert "done" not in out
        assert left(folder) == []
