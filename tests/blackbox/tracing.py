"""What a process asks of the kernel, and the kernel's answers made worse: strace."""

import pathlib
import re
import shutil
import signal
import subprocess
import tempfile

import pytest

from system import wait_until

# For what is traced until its end: LeakSanitizer cannot work then, and says so with a failure.
WITHOUT_LEAKS = {"ASAN_OPTIONS": "detect_leaks=0"}
STARTED = re.compile(r"^(\d+) +(\d+\.\d+) (\w+)\((.*)$")
RESUMED = re.compile(r"^(\d+) +(\d+\.\d+) <\.\.\. (\w+) resumed>(.*)$")


class Call:
    """One system call: `begun` and `done` are positions in the trace, not times."""

    def __init__(self, name, begun, text):
        self.name = name
        self.begun = begun
        self.done = None
        self.text = text

    @property
    def fd(self):
        found = re.match(r"(\d+)", self.text)
        return int(found[1]) if found else None

    @property
    def result(self):
        found = re.search(r"\) += (-?\d+)", self.text)
        return int(found[1]) if found else None


def parse(text):
    calls = []
    open_calls = {}
    for position, line in enumerate(text.splitlines()):
        if found := RESUMED.match(line):
            call = open_calls.pop((found[1], found[3]), None)
            if call is not None:
                call.done = position
                call.text += found[4]
        elif found := STARTED.match(line):
            call = Call(found[3], position, found[4])
            calls.append(call)
            if call.text.endswith("<unfinished ...>"):
                open_calls[(found[1], found[3])] = call
            else:
                call.done = position
    return calls


class Strace:
    """Attached to all threads of a running process until the block ends; `calls()` is what was seen."""

    def __init__(self, pid, *options):
        if shutil.which("strace") is None:
            pytest.skip("strace is not installed")
        self.folder = tempfile.TemporaryDirectory(prefix="nimbus-strace-")
        self.path = pathlib.Path(self.folder.name) / "trace"
        self.process = subprocess.Popen(["strace", "-f", "-ttt", "-s", "48", "-o", self.path, "-p", str(pid), *options],
                                        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        said = self.process.stderr.readline()
        if "attached" not in said:
            self.process.wait()
            self.folder.cleanup()
            pytest.skip("strace cannot attach here: " + said.strip())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.detach()
        self.folder.cleanup()

    def detach(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                # It sometimes misses that a process with threads has ended, which nobody else can reap before it goes.
                self.process.kill()
                self.process.wait()
        self.process.stderr.close()

    def calls(self):
        return parse(self.path.read_text(errors="replace"))

    def wait_for(self, check, what):
        wait_until(lambda: any(check(call) for call in self.calls()), what)


def answers(calls, request, status):
    """(request read, answer sent) of each exchange on one connection, in the order of the answers."""
    waiting = {}
    found = []
    for call in calls:
        if call.name in ("recvfrom", "read", "recvmsg") and request in call.text:
            waiting[call.fd] = call
        elif call.name in ("sendto", "sendmsg", "write", "writev") and f"HTTP/1.1 {status}" in call.text:
            asked = waiting.pop(call.fd, None)
            if asked is not None:
                found.append((asked, call))
    return found


def syncs(calls):
    return [call for call in calls if call.name in ("fdatasync", "fsync") and call.result == 0]
