"""nimbus top: on a terminal (tmux), of any size, with a server that goes away and comes back; and in a pipe."""

import json
import os
import signal

import pytest

import terminal as terminals
from chaos import PythonAgent
from system import NIMBUS, System, wait_until

pytestmark = [pytest.mark.once, terminals.wanted]


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
    with terminals.Terminal(system.env, 100, 30) as terminal:
        terminal.type("echo before-it; stty -a > before")
        terminal.wait_shown("before-it")
        terminal.type(f"cd {tmp_path}; stty -a > before; {NIMBUS} top; stty -a > after; echo ended-with $?")
        assert "watched-agent" in terminal.wait_shown("queue 1")
        system.cli("jobs", "submit", "--label", "nobody-offers-this", "--", "true")
        terminal.wait_shown("queue 2")
        terminal.resize(40, 8)
        wait_until(lambda: max(map(len, terminal.shown().splitlines())) <= 40, "a page of the new size")
        terminal.wait_shown("queue 2")
        terminal.resize(100, 30)
        # The server goes away and comes back, as `up` starts it again.
        pid = wait_until(lambda: system.role_pid("control-plane"), "the control plane")
        os.kill(pid, signal.SIGSTOP)
        seen = terminal.wait_shown("not up to date")
        assert "watched-agent" in seen
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: "not up to date" not in terminal.shown() and "queue 2" in terminal.shown(), "the server is back")
        terminal.press("q")
        terminal.wait_shown("ended-with 0")
        # Its page is gone, what was there before is back, and the terminal is as it was.
        assert "watched-agent" not in terminal.shown() and "before-it" in terminal.shown()
        assert (tmp_path / "before").read_text() == (tmp_path / "after").read_text()


def test_ctrl_c_and_a_terminal_that_disappears(system, tmp_path):
    with terminals.Terminal(system.env, 100, 30) as terminal:
        terminal.type(f"{NIMBUS} top; echo ended-with $?")
        terminal.wait_shown("watched-agent")
        terminal.press("C-c")
        terminal.wait_shown("ended-with 0")
        terminal.type(f"echo $$ > {tmp_path}/pid; exec {NIMBUS} top")
        terminal.wait_shown("watched-agent")
        pid = int((tmp_path / "pid").read_text())
        terminal.tmux("kill-server")
        wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "top to end with its terminal")
