"""How long the files of jobs stay: what the folder holds and what the database names are the same, and both come to an
end, whenever the control plane dies."""

import random
import sys
import threading
import time
import types

import requests

from chaos import CONTROL, new_seed, size
from sessions import Agent, Control
from system import ROOT, System, wait_until

sys.path.insert(0, str(ROOT / "tests" / "checker"))
from check import open_database  # noqa: E402

SENDERS = 4
KILLS = size(4, 40)
PIECE = b"x" * (64 << 10)


def folder(system):
    return system.data / "control" / "files"


def stored(system):
    """Whole files, by name."""
    return {path.name for path in folder(system).iterdir() if not path.name.startswith(".")}


def half_written(system):
    return {path.name for path in folder(system).iterdir() if path.name.startswith(".")}


def known(system):
    """Files that the database knows."""
    rows = open_database(types.SimpleNamespace(database=system.env.get("NIMBUS_DATABASE_URL"), data=system.data))
    return {row["blob"] for row in rows("SELECT blob FROM job_file")}


def nothing_is_left(system):
    return not stored(system) and not half_written(system) and not known(system)


def ready(control):
    try:
        return control.call("GET", "/readyz").status_code == 200
    except requests.RequestException:
        return False


class Sender(threading.Thread):
    """A client that sends the two files of job after job, in pieces, and now and then only one of them."""

    def __init__(self, control, rng, over):
        super().__init__(daemon=True)
        self.control = control
        self.rng = rng
        self.over = over
        self.jobs = []
        self.promised = set()  # (job, number) of what was said to be durable

    def pieces(self):
        for _ in range(self.rng.randrange(1, 24)):
            yield PIECE
            time.sleep(0.002)  # so that a kill finds files half sent

    def send_job(self):
        job_id = self.control.submit(labels=["nobody"], inputs=[{"path": "/a"}, {"path": "/b"}])["id"]
        self.jobs.append(job_id)
        for n in range(self.rng.choice([1, 2, 2])):
            answer = self.control.call("PUT", f"/api/jobs/{job_id}/inputs/{n}", data=self.pieces())
            if answer.status_code == 200:
                self.promised.add((job_id, n))

    def run(self):
        while not self.over.is_set():
            try:
                self.send_job()
            except (requests.RequestException, AssertionError):
                self.over.wait(0.05)  # it was killed


def test_what_a_killed_control_plane_left_goes():
    seed = new_seed()
    rng = random.Random(seed)
    over = threading.Event()
    with System(env={"NIMBUS_JOB_FILES_KEEP": "2"}) as system:
        control = Control(system)
        senders = [Sender(control, random.Random(rng.random()), over) for _ in range(SENDERS)]
        for sender in senders:
            sender.start()
        for _ in range(KILLS):
            wait_until(lambda: half_written(system), "an upload")
            time.sleep(rng.uniform(0, 0.05))
            pid = system.kill_role(CONTROL)
            wait_until(lambda was=pid: system.role_pid(CONTROL) not in (None, was) and ready(control),
                       "the control plane to be back")
        over.set()
        for sender in senders:
            sender.join()
        jobs = [job for sender in senders for job in sender.jobs]
        # Killed between a file and its row, for sure; and a file that is not ours.
        orphan = folder(system) / f"{jobs[0]}-in-1-00000000000000aa"
        orphan.write_bytes(b"x")
        foreign = folder(system) / "somebodys-notes"
        foreign.write_bytes(b"x")

        wait_until(lambda: not orphan.exists() and stored(system) - {foreign.name} == known(system),
                   "files and rows to be the same")
        assert not half_written(system)
        there = {tuple(name.split("-")[:3:2]) for name in known(system)}
        for sender in senders:
            assert {(str(job), str(n)) for job, n in sender.promised} <= there
        assert there

        for job in jobs:
            assert control.call("POST", f"/api/jobs/{job}/cancel").status_code == 202
        assert foreign.exists()
        foreign.unlink()
        wait_until(lambda: nothing_is_left(system), "the files of jobs that were cancelled to be gone")


def test_outputs_go_after_their_time():
    """Also one that nobody fetched, of a job that nobody asks about, and while the control plane was away."""
    with System(env={"NIMBUS_JOB_FILES_KEEP": "2"}) as system:
        control = Control(system)
        agent = Agent(control, "played")
        job_id = control.submit(labels=["played"], outputs=[{"path": "/out"}], inputs=[{"path": "/in"}])["id"]
        assert control.call("PUT", f"/api/jobs/{job_id}/workspace", data=b"in").status_code == 200
        lease = agent.lease()
        token = lease["job"]["job_token"]
        assert control.call("PUT", f"/api/jobs/{job_id}/outputs/0", token=token, data=b"out").status_code == 200
        assert {name.split("-")[1] for name in known(system)} == {"in", "out"}
        agent.say(lease, "succeeded", exit_code=0, last_seq=0)
        system.kill_role(CONTROL)
        wait_until(lambda: ready(control), "the control plane to be back")
        wait_until(lambda: nothing_is_left(system), "the files to be gone")
        gone = control.call("GET", f"/api/jobs/{job_id}/outputs/0")
        assert gone.status_code == 404 and "removed 2 s after the job's end (NIMBUS_JOB_FILES_KEEP)" in gone.text
