"""VMs that are ready before their jobs come: whose they are, what they know, and when they go."""

import os
import pathlib
import re
import signal
import tempfile
import time
import urllib.request

import pytest

from system import System, alive, wait_until
from test_templates import CANARY, CLOCKS_AGREE, build_look, look, names, run

pytestmark = pytest.mark.once


def started(**env):
    return System(env={"NIMBUS_ACCEL": "tcg", **env})


def waited(job):
    """Whether its VM was one of the pool."""
    return "boot.waited_ms" in job["metadata"] or "boot.early" in job["metadata"]


def metric(system, name):
    with urllib.request.urlopen(system.endpoints["agent_metrics"] + "/metrics", timeout=10) as answer:
        found = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", answer.read().decode(), re.MULTILINE)
    return sum(map(float, found))


def ready(system):
    return metric(system, "nimbus_host_agent_pool_clones")


def fill(system):
    """Jobs of one kind, until the pool has a VM for the next one."""
    def asked():
        run(system, "true")
        until = time.monotonic() + 5
        while time.monotonic() < until and not ready(system):
            time.sleep(0.1)
        return ready(system)

    wait_until(asked, "a VM to be ready", 240)


def vms(system):
    return {path.name for path in (pathlib.Path(system.data) / "agent" / "vms").iterdir()}


# Nothing here has that much memory: AddressSanitizer reserves terabytes for what it knows of the rest.
RESERVED = 64 << 30


def memory_has(pid, text):
    """Whether a process has it in its memory; of a VMM that is its guest's memory, too."""
    with open(f"/proc/{pid}/maps", encoding="ascii") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            if line.split()[1][0] != "r":
                continue
            begin, end = (int(n, 16) for n in line.split()[0].split("-"))
            if end - begin > RESERVED:
                continue
            for at in range(begin, end, 16 << 20):
                try:
                    memory.seek(at)
                    if text in memory.read(min(16 << 20, end - at) + len(text)):
                        return True
                except (OSError, OverflowError, ValueError):
                    break  # a mapping without memory behind it
    return False


def test_jobs_from_the_pool_are_machines_of_their_own():
    """And what waits for them has nothing of anybody's."""
    with started(CANARY=CANARY, NIMBUS_GITHUB_WEBHOOK_SECRET=CANARY) as system:
        fill(system)
        assert 1 << 20 <= metric(system, "nimbus_host_agent_pool_bytes") != 64 << 20  # measured, not assumed
        seen = []
        with tempfile.TemporaryDirectory(prefix="nimbus-look-") as place:
            program = build_look(pathlib.Path(place))
            while len(seen) < 4:
                wait_until(lambda: ready(system) >= 1, "a VM to be ready", 60)
                hits = metric(system, "nimbus_host_agent_pool_hits_total")
                facts, least, most = look(system, program)
                assert least <= CLOCKS_AGREE and most >= -CLOCKS_AGREE
                if metric(system, "nimbus_host_agent_pool_hits_total") > hits:
                    seen.append(facts)
        for fact in zip(*seen):
            assert len(set(fact)) == len(seen), fact
        wait_until(lambda: ready(system) >= 1, "a VM to be ready", 60)
        if os.geteuid() == 0:
            assert memory_has(os.getpid(), CANARY.encode())  # one that has it
            spares = system.spares() + system.spare_vmms()
            assert len(spares) >= 2
            assert not any(memory_has(pid, CANARY.encode()) for pid in spares)


def test_nothing_is_left_of_the_pool():
    """When its agent is killed, when another comes, when all is stopped."""
    with started() as system:
        fill(system)
        shims, vmms = system.spares(), system.spare_vmms()
        assert shims and vmms
        system.kill_role("host-agent")
        wait_until(lambda: not any(alive(pid) for pid in shims + vmms), "the pool to go with its agent", 5)
        wait_until(lambda: not vms(system), "the next agent to remove the folders")
        fill(system)
        shims, vmms = system.spares(), system.spare_vmms()
        system.stop()
        assert not any(alive(pid) for pid in shims + vmms)
        assert not vms(system)


def test_a_job_runs_whatever_becomes_of_its_spare_vm():
    """A shim or a VMM that was killed is replaced; one that cannot go on when its job has come is no harm to the job."""
    with started() as system:
        fill(system)
        for victims in (system.spares, system.spare_vmms):
            wait_until(lambda: ready(system) >= 1, "a VM to be ready", 120)
            for pid in victims():
                system.signal_pid(pid, signal.SIGKILL)
            run(system, "true")
            assert "a spare VM is lost" in system.log()
            system.kill_role("host-agent")  # else the next one is made in a minute
            wait_until(lambda: system.role_pid("host-agent") and not vms(system), "another agent")
            fill(system)
        # Frozen, they cannot notice: the job takes one, and it dies in its hands.
        wait_until(lambda: ready(system) >= 1, "a VM to be ready", 60)
        frozen, hits = system.spares(), metric(system, "nimbus_host_agent_pool_hits_total")
        for pid in frozen:
            system.signal_pid(pid, signal.SIGSTOP)
        job = system.submit("true")
        wait_until(lambda: metric(system, "nimbus_host_agent_pool_hits_total") > hits, "the job to take one")
        for pid in frozen:
            system.signal_pid(pid, signal.SIGKILL)
        done = system.wait_final(job)
        assert (done["state"], done["attempt"]) == ("succeeded", 1), (done, system.log())
        assert not waited(done)
        assert "a spare VM is of no use: an ordinary one is made" in system.log()


def test_spare_vms_of_a_template_that_was_touched_go():
    with started() as system:
        fill(system)
        shims = system.spares()
        name, = names(system)
        memory = pathlib.Path(system.data) / "agent" / "templates" / name / "memory"
        os.utime(memory)
        # Whoever comes first finds it out, the job or the agent by itself: it gets none of these.
        assert not waited(run(system, "true"))
        wait_until(lambda: not any(alive(pid) for pid in shims), "the spare VMs to go")
        fill(system)
        memory = pathlib.Path(system.data) / "agent" / "templates" / names(system).pop() / "memory"
        shims = system.spares()
        os.utime(memory)
        wait_until(lambda: not any(alive(pid) for pid in shims), "the agent to find it out by itself")
        assert "spare VMs are of no use any more" in system.log()


def test_a_drained_agent_keeps_none():
    """Though its call for work waits at the control plane; and it has some again when it gets jobs again."""
    with started() as system:
        fill(system)
        agent, = system.cli_json("agents", "list")
        shims, vmms = system.spares(), system.spare_vmms()
        system.cli("agents", "drain", agent["agent_id"])
        wait_until(lambda: not any(alive(pid) for pid in shims + vmms) and not vms(system), "the pool to go", 15)
        assert ready(system) == 0
        system.cli("agents", "resume", agent["agent_id"])
        wait_until(lambda: ready(system) >= 1, "a VM to be ready", 60)
        assert run(system, "true")["state"] == "succeeded"


@pytest.mark.parametrize("env", [{"NIMBUS_POOL_MAX": "0"}, {"NIMBUS_AGENT_MEMORY_MB": "300"}])
def test_no_pool_where_there_is_to_be_none(env):
    """By a setting, or while a job has all the room there is."""
    with started(**env) as system:
        wait_until(lambda: (run(system, "true"), names(system))[1], "a template", 240)
        if "NIMBUS_POOL_MAX" in env:
            assert not waited(run(system, "true"))
            time.sleep(1)
            assert not system.spares() and metric(system, "nimbus_host_agent_pool_misses_total") >= 1
            return
        fill(system)
        held = system.submit("sleep", "60", options=("--memory", "280"))
        system.wait_state(held, "running")
        assert not system.spares()  # its memory was that job's
        system.cli("jobs", "cancel", str(held))
        system.wait_final(held)
