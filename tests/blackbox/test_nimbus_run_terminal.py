"""`nimbus run` and `nimbus shell` on a terminal: a real one, tmux's."""

import os

import pytest

import terminal as terminals
from system import NIMBUS, System, alive, wait_until

pytestmark = [pytest.mark.once, terminals.wanted]


@pytest.fixture(scope="module")
def system():
    with System() as running:
        yield running


@pytest.fixture
def terminal(system):
    with terminals.Terminal(system.env) as opened:
        yield opened


def test_a_shell_is_a_terminal_and_ours_comes_back(system, terminal):
    terminal.type("stty -a > before; cd /; clear")
    terminal.type(f"TERM=vt100 {NIMBUS} shell; echo status=$?")
    terminal.wait(lambda lines: lines[-1] == "/ #", "the prompt of the demo image")
    terminal.type("stty size; echo TERM=$TERM; tty")
    terminal.wait_line("24 80")
    terminal.wait_line("TERM=vt100")
    terminal.resize(100, 30)
    terminal.type("stty size")
    terminal.wait_line("30 100")
    terminal.type("sleep 1000; echo slept=$?")
    terminal.wait(lambda lines: lines[-1].endswith("slept=$?"), "the sleep to begin")
    terminal.press("C-c")
    terminal.type("echo int''errupted")
    terminal.wait_line("interrupted")
    terminal.type("exit 5")

    terminal.wait_line("status=5")
    terminal.wait(lambda lines: any(line.startswith("queued ") and " · vm " in line and " · gone " in line
                                    for line in lines), "the times")
    terminal.type("cd; stty -a > after; sed s/30/24/\\;s/100/80/ after | cmp - before && echo terminal-is-as-it-was")
    terminal.wait_line("terminal-is-as-it-was")
    wait_until(lambda: not system.shims() and not system.vmms(), "its microVM to be gone")


def test_ctrl_c_reaches_a_command_and_nothing_is_drawn_into_its_output(system, terminal):
    terminal.type(f"{NIMBUS} run --no-workspace -- sh -c 'trap \"echo caught; exit 9\" INT; echo ready; "
                  "while :; do sleep 0.1; done'; echo status=$?")
    terminal.wait_line("ready")
    terminal.press("C-c")

    terminal.wait_line("status=9")
    assert any(line.endswith("caught") for line in terminal.lines())


def test_a_terminal_that_disappears_ends_the_command_there_too(system, terminal):
    terminal.type(f"echo $$ > pid; exec {NIMBUS} run --no-workspace -- sh -c 'echo ready; sleep 1000'")
    terminal.wait_line("ready")
    with open(os.path.join(terminal.folder, "pid"), encoding="ascii") as file:
        pid = int(file.read())
    assert alive(pid)

    terminal.tmux("kill-server")

    wait_until(lambda: not alive(pid), "the client to be gone")
    wait_until(lambda: not system.shims() and not system.vmms(), "the job's microVM to be gone")
