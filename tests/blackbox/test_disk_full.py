"""A disk that fills up, at any point: refused first, resumed after, nothing acknowledged lost. A tmpfs is the disk."""

import contextlib
import hashlib
import os
import pathlib
import random
import subprocess
import tempfile

import pytest

from pipeline import lines
from system import System, wait_until
from test_webhooks import SECRET, payload, post

SEED = int(os.environ.get("NIMBUS_TEST_SEED", "0")) or random.randrange(1, 1 << 32)
ROUNDS = 12


class Disk:
    """A file system of its own, of which all but a number of bytes can be taken."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.filler = self.path / "filler"

    def fill(self, leave):
        self.free()
        with open(self.filler, "wb") as file:
            while True:
                state = os.statvfs(self.path)
                taken = file.seek(0, os.SEEK_END)
                more = state.f_bavail * state.f_frsize - leave
                if more <= 0:
                    return
                # Others write meanwhile: what is not there any more cannot be taken.
                with contextlib.suppress(OSError):
                    os.posix_fallocate(file.fileno(), taken, more)
                    return

    def free(self):
        self.filler.unlink(missing_ok=True)


@contextlib.contextmanager
def small_disk(size):
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    with tempfile.TemporaryDirectory(prefix="nimbus-disk-") as folder:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", folder],
                                 capture_output=True, check=False)
        if mounted.returncode != 0:
            pytest.skip("a small disk cannot be mounted here: " + mounted.stderr.decode().strip())
        try:
            yield Disk(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


def leavings():
    """How many bytes are left, round by round: none, a little, then at random up to what a few writes need."""
    print(f"seed {SEED} (NIMBUS_TEST_SEED)")
    chance = random.Random(SEED)
    return [0, 4096] + [chance.randrange(0, 256 * 1024) for _ in range(ROUNDS - 2)]


def test_a_pipeline_refuses_first_and_goes_on(make_pipeline, issuer):
    with small_disk("48m") as disk:
        pipeline = make_pipeline({"NIMBUS_MIN_FREE_DISK": "8M"}, folder=disk.path / "data").start()
        token = issuer.pusher_token(3)
        assert pipeline.post(token, lines(1, 1, 10)).status_code == 202
        disk.fill(1 << 20)  # the reserve is at most a sixteenth of the disk
        refused = pipeline.post(token, lines(1, 11, 20))
        assert refused.status_code == 503 and "disk_full" in refused.text, refused.text
        disk.free()
        assert pipeline.post(token, lines(1, 11, 20)).status_code == 202
        assert pipeline.stop() == 0


def test_a_pipeline_keeps_every_acknowledged_line_whenever_the_disk_fills(make_pipeline, issuer):
    """Without the reserve, so that the kernel itself says no in the middle of a write."""
    with small_disk("48m") as disk:
        pipeline = make_pipeline({"NIMBUS_MIN_FREE_DISK": "0"}, folder=disk.path / "data").start()
        token = issuer.pusher_token(3)
        next_seq = 1
        refusals = 0
        for leave in leavings():
            disk.fill(leave)
            for _ in range(30):
                noise = [{**line, "message": f"line {line['seq']} {random.randbytes(400).hex()}"}
                         for line in lines(1, next_seq, next_seq + 9)]
                answer = pipeline.post(token, noise)
                if answer.status_code != 202:
                    assert answer.status_code == 503, answer.text
                    refusals += 1
                    break
                next_seq += 10
            disk.free()
            assert pipeline.post(token, lines(1, next_seq, next_seq)).status_code == 202
            next_seq += 1
        assert refusals >= ROUNDS // 2
        assert pipeline.seal(3, 1, 1, next_seq - 1).status_code == 202
        pipeline.kill()
        pipeline.start()
        stored = [line["seq"] for line in pipeline.tail_lines(issuer.reader_token(3), job_id=1, attempt=1)
                  if "seq" in line]
        assert stored == list(range(1, next_seq))
        assert pipeline.stop() == 0


def test_every_role_lives_through_a_full_disk():
    with small_disk("384m") as disk:
        data = disk.path / "data"
        data.mkdir(mode=0o755)
        env = {"NIMBUS_GITHUB_WEBHOOK_SECRET": SECRET, "NIMBUS_GITHUB_DRY_RUN": "true", "NIMBUS_MIN_FREE_DISK": "0"}
        with System(data=data, env=env) as system:
            roles = {role: system.role_pid(role) for role in ("control-plane", "logging-pipeline", "host-agent")}
            job = system.submit("sh", "-c", "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo line $i; done; sleep 3;"
                                "while [ $i -lt 6000 ]; do i=$((i+1)); echo line $i; done")
            system.wait_state(job, "running")
            accepted = []
            refusals = 0
            for number, leave in enumerate(leavings()):
                disk.fill(leave)
                for job_id in range(5000 + number * 40, 5040 + number * 40):
                    status = post(system, payload(job_id)).status_code
                    if status != 202:
                        assert status == 503, status
                        refusals += 1
                        break
                    accepted.append(job_id)
                disk.free()
                assert post(system, payload(9000 + number)).status_code == 202
                accepted.append(9000 + number)
            assert refusals >= ROUNDS // 2
            # A job that comes while there is no room waits, and runs when there is some.
            assert system.wait_final(job)["state"] == "succeeded"
            assert system.output(job) == "".join(f"line {i}\n" for i in range(1, 6001))
            later = system.submit("echo", "room again")
            assert system.wait_final(later)["state"] == "succeeded"

            def all_known():
                return set(accepted) <= {found["github_job_id"] for found in
                                         system.cli_json("jobs", "recent", "--limit", "1000")}

            wait_until(all_known, "every accepted webhook to become a job")
            assert {role: system.role_pid(role) for role in roles} == roles, system.log()


def test_a_job_stands_still_while_its_hosts_disk_is_full():
    """Its own disk is not full: what it writes finds no room beneath, and waits."""
    mark = "the host's disk is full: the VM stands still"
    with small_disk("384m") as disk:
        data = disk.path / "data"
        data.mkdir(mode=0o755)
        with System(data=data, env={"NIMBUS_MIN_FREE_DISK": "0"}) as system:
            job = system.submit("sh", "-c", "yes nimbus | head -c 1048576 > /one; sleep 1; i=0; while [ $i -lt 10 ]; do "
                                "i=$((i+1)); cp /one /file.$i; sync; done; cat /file.* | sha256sum")
            system.wait_state(job, "running")
            disk.fill(4 << 20)
            wait_until(lambda: mark in system.log(), "the shim to say that the disk is full")
            assert system.job(job)["state"] == "running"
            disk.free()
            assert system.wait_final(job)["state"] == "succeeded"
            whole = hashlib.sha256((b"nimbus\n" * (1 << 18))[:1 << 20] * 10).hexdigest()
            logs = system.cli("logs", str(job))
            assert whole in logs.stdout.decode()
            assert "the job stands still until there is room" in (logs.stdout + logs.stderr).decode()
