"""The README's quick start, as it stands there: each line of its console blocks, typed one after the other."""

import json
import os
import pty
import re
import signal
import subprocess

import pytest

from system import BUILD, NIMBUS, PATIENCE, ROOT, System, alive, descendants, open_folder, wait_until

pytestmark = pytest.mark.once

# Lines that cannot run here, each with its reason.
NOT_HERE = {"make test": "it is what runs this"}
# What else than 0 a command may exit with: doctor judges the machine, which is not ours to choose.
STATUSES = {"build/nimbus doctor": (0, 1)}


def console_blocks():
    """The blocks of the section, each a list of commands without their comments."""
    page = (ROOT / "README.md").read_text()
    section = page.split("\n## Try it\n", 1)[1].split("\n## ", 1)[0]
    blocks = re.findall(r"^```console\n(.*?)^```", section, re.M | re.S)
    assert blocks
    return [[re.sub(r"\s+# .*", "", line) for line in block.splitlines() if line.strip()] for block in blocks]


def as_in_a_terminal():
    """Lanes run in the background, where shells ignore Ctrl-C, and so would what they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal(System):
    """Somebody who has cloned the repository, at the prompt in it. What runs is the build under test."""

    def __init__(self):
        super().__init__()
        self.home = open_folder()
        self.place = open_folder()
        for entry in ROOT.iterdir():
            if entry.name not in ("build", ".git"):
                os.symlink(entry, os.path.join(self.place.name, entry.name))
        os.symlink(BUILD.resolve(), os.path.join(self.place.name, "build"))
        # Somebody's own terminal, not the make that runs these tests.
        for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MESON_FLAGS", "BUILD"):
            self.env.pop(name, None)
        # Free ports, whatever else runs on this machine.
        self.env |= {"HOME": self.home.name, "NIMBUS_CONTROL_PLANE_PORT": "0", "NIMBUS_LOGGING_PORT": "0",
                     "NIMBUS_AGENT_METRICS_PORT": "0"}

    def type(self, line):
        """A line that ends, or one that goes on: with '&', or `make run`, which leaves Nimbus running."""
        if line in NOT_HERE:
            return
        if re.sub(r"\s*#.*", "", line).endswith("nimbus shell"):
            self.type_into_shell(re.sub(r"\s*#.*", "", line))
            return
        stays = line.endswith("&") or line == "make run"
        with open(self.log_path, "ab") as log:
            process = subprocess.Popen(["bash", "-c", f"exec {line.rstrip('& ')}" if line == "make run" else
                                        re.sub(r"&$", "", line)], cwd=self.place.name, env=self.env,
                                       stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                                       preexec_fn=as_in_a_terminal)
        if stays:
            self.process = process
            wait_until(lambda: self.endpoints_path.exists() or process.poll() is not None, line)
            if line == "make run":
                wait_until(lambda: "goes on running" in self.log() or process.poll() is not None, line)
            assert process.poll() is None, self.log()
        else:
            allowed = STATUSES.get(line, (0,))
            assert process.wait(PATIENCE) in allowed, f"{line}\n{self.log()}"

    def type_into_shell(self, line):
        """A prompt wants a terminal, and somebody who leaves it."""
        master, slave = pty.openpty()
        process = subprocess.Popen(line.split(), cwd=self.place.name, env=self.env, stdin=slave, stdout=slave, stderr=slave,
                                   start_new_session=True, preexec_fn=as_in_a_terminal)
        os.close(slave)
        os.write(master, b"exit 0\n")
        said = b""
        while True:
            try:
                part = os.read(master, 4096)
            except OSError:  # the last one has closed it
                break
            if not part:
                break
            said += part
        os.close(master)
        assert process.wait(PATIENCE) == 0, f"{line}\n{said.decode(errors='replace')}\n{self.log()}"

    def interrupt(self):
        """Ctrl-C: to all of what was started in this terminal."""
        pids = [self.process.pid, *descendants(self.process.pid)]
        os.killpg(self.process.pid, signal.SIGINT)
        wait_until(lambda: self.process.poll() is not None and not self.endpoints_path.exists(), "the end after Ctrl-C")
        self.process = None
        wait_until(lambda: not any(alive(pid) for pid in pids), "no process to be left")

    def __enter__(self):
        return self

    def __exit__(self, kind, *rest):
        super().__exit__(kind or ValueError, *rest)  # kills what is left, and prints its log where a test failed
        self.home.cleanup()
        self.place.cleanup()


def build_is_current():
    built = json.loads(subprocess.run([NIMBUS, "version", "--json"], capture_output=True, timeout=PATIENCE, check=True).stdout)
    now = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12", "--match="], cwd=ROOT, capture_output=True,
                         text=True, timeout=PATIENCE, check=False).stdout.strip()
    return now in ("", built["commit"])


def test_the_quick_start_is_true():
    if not build_is_current():
        pytest.skip("the build is not of this commit, and `make run` would replace it under other tests")
    if not (BUILD / "share" / "manifest").exists():
        pytest.skip("no assets were built")
    blocks = console_blocks()
    assert any("make run" in block for block in blocks) and any("nimbus jobs submit" in line for block in blocks for line in block)
    with Terminal() as terminal:
        for block in blocks:
            if any(line.endswith("&") for line in block) and terminal.process is not None:
                terminal.interrupt()
            for line in block:
                terminal.type(line)
        log = terminal.log()
        assert "a microVM of its own" in log and re.search(r"^hello from \S+$", log, re.M)
        assert "[ ok ] control plane" in log and "accepted: queued" in log
        terminal.interrupt()
