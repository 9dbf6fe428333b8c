"""A real terminal, tmux's, with a shell of ours in it."""

import os
import shutil
import subprocess
import tempfile

import pytest

from system import PATIENCE, wait_until

wanted = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")


class Terminal:
    """A window of a tmux server of its own, in a folder of its own; gone, with all in it, at the end."""

    def __init__(self, env, columns=80, rows=24):
        self.temporary = tempfile.TemporaryDirectory(prefix="nimbus-tmux-")
        self.folder = self.temporary.name
        self.env = {**env, "ENV": "", "HOME": self.folder, "TERM": "xterm-256color", "LANG": "C.UTF-8"}
        self.socket = os.path.join(self.folder, "tmux")
        self.tmux("new-session", "-d", "-c", self.folder, "-x", str(columns), "-y", str(rows), "exec sh")
        self.wait(lambda lines: lines, "the shell's prompt")  # else it is drawn in the middle of what is typed

    def tmux(self, *words):
        return subprocess.run(["tmux", "-S", self.socket, "-f", "/dev/null", *words], env=self.env, check=True,
                              capture_output=True, text=True, timeout=PATIENCE).stdout

    def type(self, text):
        self.tmux("send-keys", "-l", text)
        self.tmux("send-keys", "Enter")

    def press(self, key):
        self.tmux("send-keys", key)

    def resize(self, columns, rows):
        self.tmux("resize-window", "-x", str(columns), "-y", str(rows))

    def shown(self):
        """What one sees now."""
        return self.tmux("capture-pane", "-p")

    def lines(self):
        """What has been shown, as far as it was not drawn over: without empty lines."""
        return [line.rstrip() for line in self.tmux("capture-pane", "-p", "-S", "-").split("\n") if line.strip()]

    def wait(self, check, what):
        try:
            return wait_until(lambda: check(self.lines()), what)
        except AssertionError as error:
            raise AssertionError("\n".join([str(error), *self.lines()])) from None

    def wait_line(self, wanted):
        self.wait(lambda lines: wanted in lines, f"the line {wanted!r}")

    def wait_shown(self, text):
        """Gives the page."""
        return self.wait(lambda _: (page := self.shown()) and text in page and page, f"{text!r}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        subprocess.run(["tmux", "-S", self.socket, "kill-server"], check=False, capture_output=True)
        self.temporary.cleanup()
