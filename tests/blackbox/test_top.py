"""nimbus top: on a terminal (tmux), of any size, with a server that goes away and comes back; and in a pipe."""

import json
import os
import shutil
import signal
import subprocess

import pytest

from chaos import PythonAgent
from system import NIMBUS, PATIENCE, System, wait_until

pytestmark = [pytest.mark.once,
              pytest.mark.skipif(shutil.which("tmux") is None, reason="no tmux")]


class Terminal:
    """A terminal of a tmux server of its own, with a shell in it."""

    def __init__(self, folder, env):
        self.base = ["tmux", "-S", str(folder / "tmux"), "-f", "/dev/null"]
        self.env = {**env, "TERM": "xterm-256color", "LANG": "C.UTF-8"}
        self.tmux("new-session", "-d", "-x", "100", "-y", "30", "sh")

    def tmux(self, *words):
        return subprocess.run([*self.base, *words], env=self.env, check=True, capture_output=True, timeout=PATIENCE,
                              text=True).stdout

    def send(self, *keys):
        self.tmux("send-keys", *keys)

    def seen(self):
        return self.tmux("capture-pane", "-p")

    def wait_for(self, text):
        try:
            return wait_until(lambda: (seen := self.seen()) and text in seen and seen, f"{text!r} on the terminal")
        except AssertionError as error:
            raise AssertionError(f"{error}; it shows:\n{self.seen()}") from None

    def resize(self, columns, rows):
        self.tmux("resize-window", "-x", str(columns), "-y", str(rows))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        subprocess.run([*self.base, "kill-server"], env=self.env, check=False, capture_output=True, timeout=PATIENCE)


@pytest.fixture(scope="module")
def system():
    with System() as made:
        PythonAgent(made, "watched-agent").lease(labels=["nobody-asks-for-this"])
        made.cli("jobs", "submit", "--name", "waits-for-ever", "--label", "nobody-offers-this", "--", "true")
        yield made


def test_a_pipe_gets_one_look(system):
    out = system.cli("top").stdout.decode()
    assert "queue 1" in out and "watched-agent" in out and "\x1b" not in out
    assert json.loads(system.cli("top", "--json").stdout)["queue_length"] == 1
    assert system.cli("top", "--every", "0", check=False).returncode != 0


def test_top_on_a_terminal(system, tmp_path):
    with Terminal(tmp_path, system.env) as terminal:
        terminal.send("echo before-it; stty -a > before", "Enter")
        terminal.wait_for("before-it")
        terminal.send(f"cd {tmp_path}; stty -a > before; {NIMBUS} top; stty -a > after; echo ended-with $?", "Enter")
        assert "watched-agent" in terminal.wait_for("queue 1")
        system.cli("jobs", "submit", "--label", "nobody-offers-this", "--", "true")
        terminal.wait_for("queue 2")
        terminal.resize(40, 8)
        wait_until(lambda: max(map(len, terminal.seen().splitlines())) <= 40, "a page of the new size")
        terminal.wait_for("queue 2")
        terminal.resize(100, 30)
        # The server goes away and comes back, as `up` starts it again.
        pid = wait_until(lambda: system.role_pid("control-plane"), "the control plane")
        os.kill(pid, signal.SIGSTOP)
        seen = terminal.wait_for("not up to date")
        assert "watched-agent" in seen
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: "not up to date" not in terminal.seen() and "queue 2" in terminal.seen(), "the server is back")
        terminal.send("q")
        terminal.wait_for("ended-with 0")
        # Its page is gone, what was there before is back, and the terminal is as it was.
        assert "watched-agent" not in terminal.seen() and "before-it" in terminal.seen()
        assert (tmp_path / "before").read_text() == (tmp_path / "after").read_text()


def test_ctrl_c_and_a_terminal_that_disappears(system, tmp_path):
    with Terminal(tmp_path, system.env) as terminal:
        terminal.send(f"{NIMBUS} top; echo ended-with $?", "Enter")
        terminal.wait_for("watched-agent")
        terminal.send("C-c")
        terminal.wait_for("ended-with 0")
        terminal.send(f"echo $$ > {tmp_path}/pid; exec {NIMBUS} top", "Enter")
        terminal.wait_for("watched-agent")
        pid = int((tmp_path / "pid").read_text())
        terminal.tmux("kill-server")
        wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "top to end with its terminal")
