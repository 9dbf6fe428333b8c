"""Templates of VMs and their clones: what a job sees first, and what becomes of a template that is not what was made."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

import pytest

from chaos import FULL, numbers, report
from system import BUILD, NIMBUS, PATIENCE, System, wait_until

pytestmark = pytest.mark.once

CANARY = "canary-7f3a9c51e2d84b06-9e1c55aa07d3f2b8"
CLOCKS_AGREE = 0.05  # seconds


def folder(system):
    return pathlib.Path(system.data) / "agent" / "templates"


def names(system):
    return {path.name for path in folder(system).glob("template-*")}


def accel(job):
    return job["metadata"]["boot.accel"]


def run(system, *command):
    job = system.wait_final(system.submit(*command))
    assert job["state"] == "succeeded", (job, system.log())
    return job


def make_template(system):
    """By asking for the same machine twice."""
    before = names(system)
    for _ in range(2):
        assert accel(run(system, "true")) == "tcg"
    wait_until(lambda: names(system) - before, "a template to be made")
    wait_until(lambda: accel(run(system, "true")) == "tcg clone", "a job to begin as a clone")
    return (names(system) - before).pop()


@contextlib.contextmanager
def started(**env):
    with System(env={"NIMBUS_ACCEL": "tcg", **env}) as system:
        yield system


def build_look(folder):
    """The static program of look.c, in a folder that the jobs get."""
    subprocess.run([os.environ.get("CC", "cc"), "-O1", "-static", "-o", folder / "look",
                    pathlib.Path(__file__).with_name("look.c")], check=True)
    return folder


def clocks(line):
    """The wall clock; and the least and the most that it was ahead of the monotonic one."""
    before, real, after = map(float, line.split())
    return real, real - after, real - before


def ask_clock(process):
    """The job's clocks, and the least and the most that its wall clock is ahead of the host's."""
    before = time.time()
    process.stdin.write(b"\n")
    process.stdin.flush()
    said = clocks(process.stdout.readline())
    return said, said[0] - time.time(), said[0] - before


def look(system, folder):
    """Random bytes, ids and name, as the job's first instructions find them; and how far its clock was off then. That
    is measured a moment later, as closely as the host can; that it is the same clock is told by the monotonic one."""
    with subprocess.Popen([NIMBUS, "run", "-q", "-w", folder, "--", "./look"], env=system.env, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        facts = [process.stdout.readline() for _ in range(4)]
        if not all(facts):
            raise AssertionError(facts, process.stderr.read(), system.log())
        first = clocks(process.stdout.readline())

        def closely():
            asked = ask_clock(process)
            return asked if asked[2] - asked[1] < CLOCKS_AGREE else None

        said, least, most = wait_until(closely, "an answer of the job's within that time")
        assert said[1] < first[2] + 0.001 and first[1] < said[2] + 0.001, (first, said)
        process.stdin.close()
        assert process.wait(PATIENCE) == 0
    return facts, least, most


def check_clones(system, count):
    before = numbers(system.endpoints["agent_metrics"])["nimbus_host_agent_clones_total"]
    with tempfile.TemporaryDirectory(prefix="nimbus-look-") as place:
        folder = build_look(pathlib.Path(place))
        seen = [look(system, folder) for _ in range(count)]
    clones = numbers(system.endpoints["agent_metrics"])["nimbus_host_agent_clones_total"] - before
    assert clones == count, (clones, system.log())
    for fact in zip(*(facts for facts, _, _ in seen)):
        assert len(set(fact)) == count, fact
    # 0 where host and guest may agree; else what they are apart at least.
    apart = max(max(least, -most, 0) for _, least, most in seen)
    most_apart = max(max(-least, most) for _, least, most in seen)
    report(f"{count} clones: nothing the same; clocks {apart * 1e3:.1f} to {most_apart * 1e3:.1f} ms apart")
    assert apart <= CLOCKS_AGREE


def check_disks(system):
    """Two clones at once: what one writes, the other does not see."""
    writer = system.submit("sh", "-c", "echo secret >/mine; sync; echo written; sleep 600")
    try:
        wait_until(lambda: system.output(writer) == "written\n", "the first clone to write")
        reader = run(system, "sh", "-c", "test ! -e /mine; echo $?; ls /; echo other >/mine; cat /mine")
        assert accel(system.job(writer)) == accel(reader) == "tcg clone"
        shown = system.output(reader["id"]).split("\n")
        assert shown[0] == "0" and shown[-2] == "other" and "mine" not in shown[1:-2]
    finally:
        system.cli("jobs", "cancel", str(writer))
        system.wait_final(writer)


def check_secrets(template):
    for path in template.iterdir():
        assert path.stat().st_mode & 0o077 == 0
        found = subprocess.run(["grep", "-c", CANARY, path], capture_output=True, check=False)
        assert found.stdout.strip() == b"0", path


def flip(path):
    with open(path, "r+b") as file:
        byte = file.read(1)
        file.seek(0)
        file.write(bytes([byte[0] ^ 1]))


def cut(path):
    with open(path, "r+b") as file:
        file.truncate(100)


def give_away(path):
    os.chown(path, 65534, 65534)


def check_harm(system, harm, part):
    """The VM boots, the log tells why, and there is another template soon. Gives its name."""
    name, = names(system)
    harm(folder(system) / name / part)
    assert accel(run(system, "true")) == "tcg"
    assert f"a template cannot be used: VMs boot, and it is made again template={name}" in system.log()
    wait_until(lambda: name not in names(system) and names(system), "another template")
    wait_until(lambda: accel(run(system, "true")) == "tcg clone", "a clone of the other template")


def test_clones_of_a_template_and_what_becomes_of_one_that_was_touched():
    with started(CANARY=CANARY, NIMBUS_GITHUB_WEBHOOK_SECRET=CANARY, NIMBUS_AGENT_VCPUS="2") as system:
        assert CANARY.encode() in pathlib.Path(f"/proc/{system.role_pid('host-agent')}/environ").read_bytes()
        name = make_template(system)
        check_clones(system, 100 if FULL else 5)
        check_disks(system)
        check_secrets(folder(system) / name)
        check_harm(system, flip, "memory")
        check_harm(system, cut, "state")
        if os.geteuid() == 0:
            check_harm(system, give_away, "disk")


def test_an_agent_reads_the_templates_of_its_predecessor_through():
    """A good one is used again; one with a wrong manifest or left half made is removed, which is told."""
    with started() as system:
        name = make_template(system)
        (folder(system) / "new-0123456789abcdef").mkdir()
        system.kill_role("host-agent")
        wait_until(lambda: accel(run(system, "true")) == "tcg clone", "the template to be used again")
        assert names(system) == {name}
        wait_until(lambda: not list(folder(system).glob("new-*")), "what was half made to be removed")
        flip(folder(system) / name / "manifest")
        system.kill_role("host-agent")
        assert accel(run(system, "true")) == "tcg"
        assert "a template is not what was made: it is removed" in system.log()
        wait_until(lambda: name not in names(system), "the template to be removed")


def test_a_maker_that_is_killed_leaves_nothing_that_counts():
    with started() as system:
        for delay in [n / 10 for n in range(30)] if FULL else [0.5]:
            for _ in range(2):
                run(system, "true")
            wait_until(system.makers, "a template to be in the making")
            time.sleep(delay)
            for pid in system.makers():
                system.signal_pid(pid, signal.SIGKILL)
            wait_until(lambda: not system.makers(), "the makers to be gone")
            if names(system):
                return  # it was done before
            system.kill_role("host-agent")  # else the next try is a minute away
        for _ in range(2):
            run(system, "true")
        wait_until(lambda: names(system), "a template after all")
        assert not list(folder(system).glob("new-*"))


class Maker:
    """`nimbus template-maker` by itself, as the agent starts it, in folders of its own."""

    CALLS = ("mkdirat", "ftruncate", "linkat", "sendmsg", "write", "fsync", "renameat")

    def __init__(self, place):
        self.folder, self.scratch, self.trace = place / "templates", place / "scratch", place / "trace"
        self.folder.mkdir(mode=0o700)
        self.scratch.mkdir()

    def run(self, what, *words, strace=()):
        share = BUILD / "share"
        files = [self.folder, self.scratch, share / "vmlinux", share / "initrd", share / "demo.squashfs"]
        script = 'exec 3<"$1" 4<"$2" 5<"$3" 6<"$4" 7<"$5"; shift 5; exec "$@"'
        return subprocess.run(["bash", "-c", script, "maker", *files, *strace, NIMBUS, "template-maker", what, *words],
                              capture_output=True, check=False, timeout=PATIENCE * 3)

    def make(self, *options):
        return self.run("make", "demo", "tcg", "1", "256", "64", "0", "0", "qemu-system-x86_64",
                        strace=("strace", "-o", self.trace, "-e", "trace=" + ",".join(self.CALLS), *options))

    def makes_at_once(self):
        """Not where the boot of the first machine was disturbed: what the next one's calls are, others do not have."""
        done = self.make()
        assert done.returncode == 0, done.stderr
        return self.calls().count("mkdirat") == 1

    def calls(self):
        """How often it asks whether QEMU has saved everything is chance: that counts once."""
        lines = [line for line in self.trace.read_text().splitlines() if line.startswith(self.CALLS)]
        asked = [i for i, line in enumerate(lines) if "query-migrate" in line]
        assert asked, lines
        return [line.split("(")[0] for i, line in enumerate(lines) if i not in asked[1:]]

    def names(self):
        return {path.name for path in self.folder.iterdir()} - {"key"}


def kills(calls):
    """Each call that changes something, as which of its kind it is; in CI's size the last of each kind."""
    every = [(name, calls[:i + 1].count(name)) for i, name in enumerate(calls)]
    return every if FULL else list(dict(every).items())


def test_a_maker_that_is_killed_at_every_step():
    """Before each call by which it changes a file or speaks with QEMU. What then counts as a template is one."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    with tempfile.TemporaryDirectory(prefix="nimbus-maker-") as place:
        maker = Maker(pathlib.Path(place))
        maker.makes_at_once()  # from then on there are a key and an empty disk to copy
        wait_until(maker.makes_at_once, "a template from the first machine")
        steps = kills(maker.calls())
        assert len(steps) >= len(Maker.CALLS)
        for name, number in steps:
            before = maker.names()
            done = maker.make("-e", f"inject={name}:signal=KILL:when={number}")
            assert done.returncode != 0, (name, number, done.stderr)
            left = maker.names() - before
            for one in left:
                checked = maker.run("check", one)
                assert one.startswith("new-") or checked.returncode == 0, (name, number, one, checked.stderr)
        report(f"a maker killed before each of {len(steps)} calls: {len(maker.names())} folders left, "
               f"{sum(one.startswith('template-') for one in maker.names())} of them templates, each whole")
        assert maker.make().returncode == 0


def test_a_clone_that_fails_boots_instead():
    """A QEMU that can boot and cannot restore."""
    with tempfile.TemporaryDirectory(prefix="nimbus-qemu-") as place:
        broken = pathlib.Path(place) / "qemu"
        broken.write_text("#!/bin/sh\ncase \"$*\" in *-incoming*) echo it cannot be >&2; exit 1;; esac\n"
                          f"exec {shutil.which('qemu-system-x86_64')} \"$@\"\n")
        broken.chmod(0o755)
        os.chmod(place, 0o755)
        with started(NIMBUS_QEMU_BIN=str(broken)) as system:
            for _ in range(2):
                run(system, "true")
            wait_until(lambda: names(system), "a template to be made")
            wait_until(lambda: accel(run(system, "true")) == "tcg" and "a clone could not be used" in system.log(),
                       "a clone that fails")
            assert "a clone could not be used: the VM boots instead" in system.log()
            assert "it cannot be" in system.log() and "a template cannot be used" in system.log()


def test_templates_can_be_off():
    with started(NIMBUS_TEMPLATES="false") as system:
        for _ in range(2):
            assert accel(run(system, "true")) == "tcg"
        assert not list(folder(system).iterdir())
