"""`nimbus run` and `nimbus shell` on a terminal: a real one, tmux's."""

import os
import shutil
import subprocess
import tempfile

import pytest

from system import NIMBUS, System, alive, wait_until

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed"),
]


class Terminal:
    """A window with a shell of ours in it; gone, with all in it, at the end."""

    def __init__(self, env, rows=24, columns=80):
        self.folder = tempfile.TemporaryDirectory(prefix="nimbus-tmux-")
        env = env | {"ENV": "", "HOME": self.folder.name}
        self.socket = os.path.join(self.folder.name, "tmux")
        self.tmux("new-session", "-d", "-c", self.folder.name, "-x", str(columns), "-y", str(rows), "exec sh", env=env)

    def tmux(self, *words, **more):
        return subprocess.run(["tmux", "-S", self.socket, "-f", "/dev/null", *words], check=True, capture_output=True,
                              text=True, **more).stdout

    def type(self, text):
        self.tmux("send-keys", "-l", text)
        self.tmux("send-keys", "Enter")

    def press(self, key):
        self.tmux("send-keys", key)

    def lines(self):
        return [line.rstrip() for line in self.tmux("capture-pane", "-p", "-S", "-").split("\n") if line.strip()]

    def wait(self, check, what):
        try:
            return wait_until(lambda: check(self.lines()), what)
        except AssertionError as error:
            raise AssertionError("\n".join([str(error), *self.lines()])) from None

    def wait_line(self, wanted):
        self.wait(lambda lines: wanted in lines, f"the line {wanted!r}")

    def resize(self, rows, columns):
        self.tmux("resize-window", "-x", str(columns), "-y", str(rows))

    def close(self):
        subprocess.run(["tmux", "-S", self.socket, "kill-server"], check=False, capture_output=True)
        self.folder.cleanup()


@pytest.fixture(scope="module")
def system():
    with System() as running:
        yield running


@pytest.fixture
def terminal(system):
    opened = Terminal(system.env)
    yield opened
    opened.close()


def test_a_shell_is_a_terminal_and_ours_comes_back(system, terminal):
    terminal.type("stty -a > before; cd /; clear")
    terminal.type(f"TERM=vt100 {NIMBUS} shell; echo status=$?")
    terminal.wait(lambda lines: lines[-1] == "/ #", "the prompt of the demo image")
    terminal.type("stty size; echo TERM=$TERM; tty")
    terminal.wait_line("24 80")
    terminal.wait_line("TERM=vt100")
    terminal.resize(30, 100)
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
    with open(os.path.join(terminal.folder.name, "pid"), encoding="ascii") as file:
        pid = int(file.read())
    assert alive(pid)

    terminal.tmux("kill-server")

    wait_until(lambda: not alive(pid), "the client to be gone")
    wait_until(lambda: not system.shims() and not system.vmms(), "the job's microVM to be gone")
