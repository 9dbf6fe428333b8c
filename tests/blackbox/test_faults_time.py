"""Time that goes wrong: roles stopped for longer than a lease, clocks that jump by an hour.

No lease is lost by a jump and none is kept by it: inside a process time is monotonic, across processes it is the
database's. What tokens do is in docs/testing.md."""

import os
import pathlib
import signal
import struct
import subprocess
import time

import pytest

import database
from chaos import (AGENT, CONTROL, FULL, PIPELINE, ROLES, Client, Parts, PythonAgent, admin_session,
                   check_invariants, check_log, needs_qemu_reason, numbers, report, submit_by_hand, wait_shipped,
                   wait_until)
from system import ROOT, System, alive

pytestmark = pytest.mark.skipif(needs_qemu_reason is not None, reason=str(needs_qemu_reason))

# --- stopped ---

STOP_TTL = 3
SCRIPT = "echo begun; sleep 5; echo done"


def postgres_pids(server):
    from postgresql import children

    return [server.pid(), *children(server.pid())]


def shim_of(vm):
    return int(pathlib.Path(f"/proc/{vm}/stat").read_text().rpartition(")")[2].split()[1])


# Who is stopped, and in which attempt the job succeeds: where nobody renews, the VM ends on time and another one runs.
STOPS = [(CONTROL, 2)] + ([(AGENT, 2), ("shim", 1), (PIPELINE, 1), ("up", 1), ("database", 2)] if FULL else [])


@pytest.mark.parametrize("role,attempt", STOPS)
def test_a_role_that_stands_still_for_longer_than_a_lease(role, attempt):
    if role == "database" and database.kind() != "postgresql":
        pytest.skip("SQLite has no process of its own")
    with System(env={"NIMBUS_JOB_LEASE_TTL": str(STOP_TTL), "NIMBUS_VM_SHUTDOWN_GRACE": "1"}) as system:
        client = Client(system)
        job_id = client.submit(SCRIPT)
        wait_until(lambda: client.job(job_id)["state"] == "running", "the job to run")
        vm = system.vmms()[0]
        pids = {"shim": lambda: [shim_of(vm)], "up": lambda: [system.process.pid],
                "database": lambda: postgres_pids(database.server())}.get(role, lambda: [system.role_pid(role)])()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        stopped = time.monotonic()
        try:
            if attempt == 2:
                # Not a second longer than its lease, which was renewed at most a moment before.
                wait_until(lambda: not alive(vm), "the VM to end with its lease")
                assert role == "database" or time.monotonic() - stopped < STOP_TTL + 5
            time.sleep(max(0, stopped + STOP_TTL + 1.5 - time.monotonic()))
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        job = client.wait_final(job_id)
        assert (job["state"], job["attempt"]) == ("succeeded", attempt), job
        check_log(system, job_id, "begun\ndone\n")
        wait_shipped(system)
        check_invariants(system)
        report(f"SIGSTOP of {role} for {STOP_TTL + 1.5} s, lease {STOP_TTL} s: succeeded in attempt {job['attempt']}")


@pytest.mark.once
def test_a_vm_that_stands_still_while_it_boots_is_started_once_more():
    with System(env={"NIMBUS_ACCEL": "tcg", "NIMBUS_TEMPLATES": "false"}) as system:
        client = Client(system)
        job_id = client.submit("echo done")
        vm = wait_until(system.vmms, "a VM")[0]
        os.kill(vm, signal.SIGSTOP)
        # Its time is a minute at most, and the next one has the same.
        job = client.wait_final(job_id, 240)
        assert (job["state"], job["attempt"]) == ("succeeded", 1), job
        assert not alive(vm)
        assert "a VM did not come up: it is started once more" in system.log()
        restarts = numbers(system.endpoints["agent_metrics"])["nimbus_host_agent_vm_restarts_total"]
        shown = system.cli("logs", str(job_id))
        assert "the VM did not come up (the guest did not answer in time): it is started once more" in shown.stderr.decode()
        assert shown.stdout == b"done\n" and restarts == 1


# --- jumping clocks ---

JUMP_TTL = 2


def wall_clock(folder):
    """The library of tests/chaos/wallclock.c."""
    library = folder / "wallclock.so"
    subprocess.run([os.environ.get("CC", "cc"), "-O1", "-shared", "-fPIC", "-o", library,
                    ROOT / "tests" / "chaos" / "wallclock.c"], check=True)
    return library


class Clocks:
    """A wall clock for each role, which the test sets; what is monotonic stays true."""

    def __init__(self, system):
        self.library = wall_clock(system.data)
        self.files = {role: system.data / f"clock-{role}" for role in ROLES}
        for role, file in self.files.items():
            file.write_bytes(bytes(8))
            system.more[role] = {"LD_PRELOAD": str(self.library), "WALLCLOCK_FILE": str(file),
                                 "ASAN_OPTIONS": "verify_asan_link_order=0:" + os.environ.get("ASAN_OPTIONS", "")}

    def set(self, roles, hours):
        for role in roles:
            with open(self.files[role], "r+b") as file:
                file.write(struct.pack("=q", hours * 3600 * 10**9))


JUMPS = [(ROLES, 1), (ROLES, -1)] + ([((role,), hours) for role in ROLES for hours in (1, -1)] if FULL else [])


@pytest.fixture(scope="module")
def jumpy():
    with Parts(env={"NIMBUS_JOB_LEASE_TTL": str(JUMP_TTL), "NIMBUS_VM_SHUTDOWN_GRACE": "1"}) as system:
        system.clocks = Clocks(system)
        system.start_parts()
        yield system




@pytest.mark.parametrize("roles,hours", JUMPS, ids=[f"{'all' if len(r) > 1 else r[0]}{h:+d}h" for r, h in JUMPS])
def test_a_clock_that_jumps_an_hour(jumpy, roles, hours):
    system, clocks = jumpy, jumpy.clocks
    client, session = Client(system), admin_session(system)
    agent = PythonAgent(system, "unrenewed")
    job_id = client.submit(f"echo begun; sleep {2 * JUMP_TTL}; echo done")
    wait_until(lambda: client.job(job_id)["state"] == "running", "the job to run")
    label = f"jump-{job_id}"
    by_hand = submit_by_hand(system, session, label)[0]
    lease = agent.lease(labels=[label])
    taken = time.monotonic()
    assert lease["job"]["job_id"] == by_hand
    try:
        clocks.set(roles, hours)
        # Kept wrongly: nobody renews it, so it ends; by the clock it would have ended at once, or in an hour.
        wait_until(lambda: client.job(by_hand)["state"] == "queued", "the lease that nobody renewed to end")
        lasted = time.monotonic() - taken
        assert lasted > JUMP_TTL - 0.5, f"the lease was over after {lasted:.1f} s"
        assert agent.renew(lease).status_code == 409
        # Lost wrongly: the job runs for longer than its lease, in one attempt.
        job = client.wait_final(job_id)
        assert (job["state"], job["attempt"]) == ("succeeded", 1), job
        check_log(system, job_id, "begun\ndone\n")
        # And what begins now works too.
        later = client.submit("echo later")
        job = client.wait_final(later)
        assert (job["state"], job["attempt"]) == ("succeeded", 1), job
        check_log(system, later, "later\n")
    finally:
        clocks.set(ROLES, 0)
    client.call("POST", f"/api/jobs/{by_hand}/cancel")
    wait_shipped(system)
    check_invariants(system)
    report(f"clock of {'all roles' if len(roles) > 1 else roles[0]} {hours:+d} h: the unrenewed lease of {JUMP_TTL} s "
           f"ended after {lasted:.1f} s, the job kept its own")


def test_the_clocks_of_these_tests_do_jump(jumpy):
    """Else the tests above would have shown nothing."""
    for role in ROLES:
        for hours in (1, -1):
            jumpy.clocks.set((role,), hours)
            said = subprocess.run(["date", "+%s"], env={**jumpy.env, **jumpy.more[role]}, capture_output=True, check=True)
            assert abs(int(said.stdout) - time.time() - hours * 3600) < 60
            jumpy.clocks.set((role,), 0)
        assert str(jumpy.clocks.library) in pathlib.Path(f"/proc/{jumpy.role_pid(role)}/maps").read_text()
