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

from system import System, wait_until

pytestmark = pytest.mark.once

CANARY = "canary-7f3a9c51e2d84b06-9e1c55aa07d3f2b8"
FULL = os.environ.get("NIMBUS_CHAOS") == "full"
# The first thing that the job does, before any other program of it has read a random byte.
LOOK = ("adjtimex | grep time.tv_; head -c 32 /dev/urandom | md5sum; cat /etc/machine-id "
        "/proc/sys/kernel/random/boot_id; hostname")


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


def check_clones(system, count):
    """Random bytes, ids, names and clock, as the job's first instruction finds them."""
    seen = []
    for _ in range(count):
        before = time.time()
        job = run(system, "sh", "-c", LOOK)
        after = time.time()
        assert accel(job) == "tcg clone", system.log()
        lines = system.output(job["id"]).split("\n")
        clock = int(lines[0].split(":")[1]) + int(lines[1].split(":")[1]) / 1e6
        assert before - 0.05 <= clock <= after + 0.05
        seen.append(lines[2:6])
    for fact in zip(*seen):
        assert len(set(fact)) == len(seen), fact


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
    with started(CANARY=CANARY, NIMBUS_GITHUB_WEBHOOK_SECRET=CANARY) as system:
        name = make_template(system)
        check_clones(system, 100 if FULL else 5)
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
