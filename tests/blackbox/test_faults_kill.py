"""kill -9 of every role, at random moments while jobs run on clones: what was promised before it still holds after it.

Every kill that counts has hit a running clone of a template: fewer than WANTED of them for any role fail the test, for
it has shown nothing then. On PostgreSQL the database is one of the roles."""

import random
import signal
import threading
import time

import pytest

import database
from chaos import (AGENT, CONTROL, PATIENCE, PIPELINE, Client, check_invariants, check_log, counting, needs_qemu_reason,
                   new_seed, report, size, wait_shipped, wait_until)
from system import System, alive, cmdline, descendants

pytestmark = pytest.mark.skipif(needs_qemu_reason is not None, reason=str(needs_qemu_reason))

JOBS = size(6, 200)
WANTED = size(1, 5)
LINES = 60


class Killer(threading.Thread):
    """Kills one after the other, those with the fewest hits first, until each has as many as are wanted."""

    def __init__(self, system, seed):
        super().__init__(daemon=True)
        self.system = system
        self.rng = random.Random(seed)
        self.over = threading.Event()
        self.orphans = []
        self.error = None
        self.database = database.server() if database.kind() == "postgresql" else None
        self.roles = [CONTROL, AGENT, PIPELINE, "shim", "up"] + (["database"] if self.database else [])
        self.kills = dict.fromkeys(self.roles, 0)
        self.hits = dict.fromkeys(self.roles, 0)

    @property
    def satisfied(self):
        return min(self.hits.values()) >= WANTED

    def run(self):
        try:
            while not self.satisfied and not self.over.wait(self.rng.uniform(0.2, size(1.5, 5))):
                self.wait_for_clone()
                fewest = min(self.hits.values())
                self.kill(self.rng.choice([role for role in self.roles if self.hits[role] == fewest]))
        except BaseException as error:  # shown by the test
            self.error = error

    def clones(self):
        return [vm for vm in self.system.vmms() if "-incoming" in cmdline(vm)]

    def wait_for_clone(self):
        """Mostly: what happens before a VM is there is of interest, too. VMs boot while a new agent reads its templates."""
        until = time.monotonic() + size(20, 10)
        while self.rng.random() < 0.95 and time.monotonic() < until and not self.clones():
            if self.over.wait(0.1):
                return

    def kill(self, role):
        clones = self.clones()
        if role == "shim":
            done = self.kill_shim(clones)
        elif role == "up":
            done = self.kill_up()
        elif role == "database":
            self.database.kill()
            done = True
        else:
            done = self.system.kill_role(role) is not None
        if done:
            self.kills[role] += 1
            self.hits[role] += bool(clones)
        if role == "database":
            self.over.wait(self.rng.uniform(0, 1))
            self.database.start()
        if role == "up":
            self.start_up()

    def kill_shim(self, vms):
        if not vms:
            return False
        vm = self.rng.choice(sorted(vms))
        try:
            with open(f"/proc/{vm}/stat", encoding="utf-8") as file:
                shim = int(file.read().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            return False  # it has just ended
        if cmdline(shim)[1:2] != ["shim"]:
            return False
        self.system.signal_pid(shim, signal.SIGKILL)
        return True

    def kill_up(self):
        up = self.system.process
        # One that has just ended has no words any more.
        self.orphans = [pid for pid in descendants(up.pid) if (words := cmdline(pid)) and words[1:2] != ["shim"]
                        and "qemu" not in words[0]]
        up.kill()
        up.wait()
        return True

    def start_up(self):
        wait_until(lambda: not any(alive(pid) for pid in self.orphans), "the roles to die with their supervisor")
        self.system.endpoints_path.unlink(missing_ok=True)
        self.system.start()


def is_clone(job):
    return job["metadata"].get("boot.accel", "").endswith("clone")


def wait_for_clones(client):
    """The same machine, asked for until jobs begin as clones."""
    wait_until(lambda: is_clone(client.wait_final(client.submit("true"))), "a job to begin as a clone", 4 * PATIENCE)


def test_kill_9_of_every_role_while_jobs_run():
    seed = new_seed()
    env = {"NIMBUS_JOB_LEASE_TTL": "6", "NIMBUS_VM_SHUTDOWN_GRACE": "1", "NIMBUS_AGENT_VCPUS": "3"}
    with System(env=env) as system:
        client, killer = Client(system), Killer(system, seed)
        wait_for_clones(client)
        started = time.monotonic()
        scripts, ids = [], []

        def submit(count):
            more = [counting(len(ids) + n, LINES, f"sleep {size(3, 1)}; echo end") for n in range(count)]
            scripts.extend(more)
            ids.extend(client.submit(script) for script, _ in more)

        submit(JOBS)
        killer.start()
        try:
            for job_id in ids:  # which grows: quick jobs are over before all has been killed
                client.wait_final(job_id, size(300, 1800), unless=lambda: killer.error)
                if job_id == ids[-1] and not killer.satisfied and len(ids) < 4 * JOBS:
                    submit(3)
        finally:
            killer.over.set()
            killer.join(PATIENCE)
        if killer.error:
            raise killer.error
        assert len(set(ids)) == len(ids), "a submission that was repeated made a second job"
        jobs = [client.job(job_id) for job_id in ids]
        requeues = sum(job["attempt"] - 1 for job in jobs)
        clones = sum(map(is_clone, jobs))
        report(f"kill -9, {'PostgreSQL' if killer.database else 'SQLite'}, seed {seed}: {len(ids)} jobs in "
               f"{time.monotonic() - started:.0f} s, {clones} ended on a clone; kills {killer.kills}, of them "
               f"while a clone ran {killer.hits}, re-queues {requeues}")
        wait_until(lambda: system.role_pid(PIPELINE) and system.role_pid(AGENT) and system.role_pid(CONTROL),
                   "the roles to be back")
        for job, (_, printed) in zip(jobs, scripts):
            assert job["state"] == "succeeded", job
            check_log(system, job["id"], printed + "end\n")
        wait_shipped(system)
        check_invariants(system)
        assert killer.satisfied, f"too few kills hit a running job, this run has shown nothing: {killer.hits}"
