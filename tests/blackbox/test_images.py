"""The image of a job: the lease names its digest, the agent proves it, a running job keeps the one it started with."""

import hashlib
import json
import os
import pathlib
import shutil
import subprocess

import pytest

from system import NIMBUS, System, wait_until

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="no qemu-system-x86_64"),
    pytest.mark.skipif(shutil.which("mksquashfs") is None, reason="squashfs-tools is not installed"),
]


@pytest.fixture(scope="module")
def nimbus():
    with System() as system:
        yield system


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def rebuild(nimbus, folder, text, *words):
    """The demo image with another motd, as version `mine` of the folder that the running system uses."""
    assets = pathlib.Path(nimbus.data) / "assets"
    (folder / "over/etc").mkdir(parents=True, exist_ok=True)
    (folder / "over/etc/motd").write_text(text)
    demo = (assets / "demo.squashfs").resolve()
    config = {"output_dir": str(assets), "versions": [{"name": "mine", "base_path": str(demo), "overlay_dir": "over"}]}
    (folder / "rootfs.yaml").write_text(json.dumps({"rootfs": config}))
    subprocess.run([NIMBUS, "rootfs", "build", *words], cwd=folder, check=True, capture_output=True)
    return os.readlink(assets / "mine.squashfs")


def test_what_booted_is_in_the_jobs_record(nimbus):
    job = nimbus.wait_final(nimbus.submit("true"))
    assert job["state"] == "succeeded", job
    assert job["metadata"]["rootfs_hash"] == digest(pathlib.Path(nimbus.data) / "assets/demo.squashfs")
    assert job["metadata"]["rootfs_verity"] == "enforced"


def test_a_running_job_keeps_its_image(nimbus, tmp_path):
    first = rebuild(nimbus, tmp_path, "first\n")
    old = nimbus.submit("sh", "-c", "trap 'cat /etc/motd; exit' TERM; cat /etc/motd; sleep 60 & wait",
                        options=["--image", "mine"])
    nimbus.wait_state(old, "running")
    second = rebuild(nimbus, tmp_path, "second\n", "--set-default", "--version", "mine")
    assert first != second
    # Nobody's name any more, and kept: a VM runs from it.
    done = subprocess.run([NIMBUS, "rootfs", "gc", "--json"], cwd=tmp_path, check=True, capture_output=True)
    assert [(r["sha256"], r["kept"]) for r in json.loads(done.stdout)] == [(first, "a VM runs from it")]
    new = nimbus.wait_final(nimbus.submit("cat", "/etc/motd"))  # names none: the active one
    assert new["metadata"]["rootfs_hash"] == second and nimbus.output(new["id"]) == "second\n"
    nimbus.cli("jobs", "cancel", str(old))
    job = nimbus.wait_final(old)
    assert job["metadata"]["rootfs_hash"] == first and nimbus.output(old) == "first\nfirst\n"
    wait_until(lambda: not nimbus.vmms(), "no VM is left")
    subprocess.run([NIMBUS, "rootfs", "gc"], cwd=tmp_path, check=True, capture_output=True)
    assert not (pathlib.Path(nimbus.data) / "assets" / first).exists()


def test_a_retry_runs_in_the_image_of_before(nimbus, tmp_path):
    """As long as it is there; afterwards in another, which is said. Or in the newest, where that is asked for."""
    first = rebuild(nimbus, tmp_path, "first of a retry\n")
    old = nimbus.submit("sh", "-c", "cat /etc/motd", options=["--image", "mine"])
    ended = nimbus.wait_final(old)
    assert ended["metadata"].get("rootfs_hash") == first, json.dumps(ended)
    second = rebuild(nimbus, tmp_path, "second of a retry\n")
    assert first != second

    def retry(*words):
        done = nimbus.cli("jobs", "retry", str(old), *words)
        job = nimbus.wait_final(int(done.stdout))
        shown = nimbus.cli("jobs", "show", str(job["id"])).stdout.decode()
        return done.stderr.decode(), nimbus.output(job["id"]), shown

    said, output, shown = retry()
    assert (said, output) == ("", "first of a retry\n")
    assert f"image file sha256:{first}, as job {old}\n" in shown
    said, output, shown = retry("--newest-image")
    assert (said, output) == ("", "second of a retry\n") and f"image file sha256:{second}\n" in shown
    (pathlib.Path(nimbus.data) / "assets" / first).unlink()
    said, output, shown = retry()
    assert f"warning: job {old} ran in another 'mine': sha256:{first[:12]} is gone" in said and second[:12] in said
    assert output == "second of a retry\n"
    assert f"image file sha256:{second}\n" in shown and f"job {old} ran in sha256:{first}, which was gone" in shown


def test_a_changed_image_fails_the_job_before_any_secret(nimbus, tmp_path):
    image = pathlib.Path(nimbus.data) / "assets" / rebuild(nimbus, tmp_path, "to be changed\n")
    image.chmod(0o644)
    with open(image, "r+b") as file:
        file.seek(5000)
        byte = file.read(1)
        file.seek(5000)
        file.write(bytes([byte[0] ^ 1]))
    job = nimbus.wait_final(nimbus.submit("true", options=["--image", "mine", "--secret-env", "TOKEN=sesame"]))
    assert (job["state"], job["reason"]) == ("failed", "start_failed"), job
    assert "image 'mine' is not what it says" in json.dumps(job)
    assert "rootfs_hash" not in (job["metadata"] or {})
    assert job["started_at"] is None
