"""Jobs in real microVMs, as a user runs them. One system for all tests of this file: booting is what costs."""

import base64
import concurrent.futures
import json
import shutil
import signal
import stat

import pytest

from system import System, alive, wait_until

pytestmark = pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="no qemu-system-x86_64")


@pytest.fixture(scope="module")
def nimbus():
    with System(env={"NIMBUS_VM_SHUTDOWN_GRACE": "2", "NIMBUS_GITHUB_DRY_RUN": "true"}) as system:
        yield system


def run(nimbus, *command, options=()):
    return nimbus.cli("jobs", "submit", "--wait", "--follow", *options, "--", *command, check=False)


def test_a_job_runs_in_a_vm_of_its_own(nimbus):
    done = run(nimbus, "uname", "-a")
    assert done.returncode == 0, done.stderr.decode()
    assert b"Linux" in done.stdout
    assert b"cloud-amd64" in done.stdout  # the guest's kernel, not this machine's


def test_output_is_exactly_the_jobs_and_streams_stay_apart(nimbus):
    done = run(nimbus, "sh", "-c", "echo out; echo err >&2; printf 'no newline'")
    assert done.returncode == 0
    assert done.stdout == b"out\nno newline\n" or done.stdout == b"out\nno newline"
    assert b"err\n" in done.stderr
    assert b"out" not in done.stderr


@pytest.mark.parametrize("command, state, code", [
    (["true"], "succeeded", 0),
    (["sh", "-c", "exit 7"], "failed", 7),
    (["no-such-program"], "failed", 127),
])
def test_exit_codes_are_the_jobs(nimbus, command, state, code):
    job_id = nimbus.submit(*command)
    job = nimbus.wait_final(job_id)
    assert (job["state"], job["exit_code"]) == (state, code), job


def test_a_failed_job_is_exit_5(nimbus):
    assert run(nimbus, "false").returncode == 5


def test_a_signal_is_told_apart(nimbus):
    job = nimbus.wait_final(nimbus.submit("sh", "-c", "kill -SEGV $$"))
    assert job["state"] == "failed"
    assert job["signal"] == signal.SIGSEGV, job


def test_running_out_of_memory_is_told_apart(nimbus):
    job = nimbus.wait_final(nimbus.submit("tail", "-n", "1", "/dev/zero"))
    assert job["state"] == "failed"
    assert "memory" in job["last_message"], job


def test_a_timeout_is_its_own_state(nimbus):
    done = nimbus.cli("jobs", "submit", "--wait", "--timeout", "2", "--", "sleep", "600", check=False)
    assert done.returncode == 5
    recent = nimbus.cli_json("jobs", "recent")
    assert recent[0]["state"] == "timed_out"


def test_a_cancelled_job_gets_sigterm_first(nimbus):
    job_id = nimbus.submit("sh", "-c", "trap 'echo got TERM; exit 0' TERM; echo ready; while :; do sleep 0.1; done")
    wait_until(lambda: "ready" in nimbus.output(job_id), "the job's first line")
    nimbus.cli("jobs", "cancel", str(job_id))
    assert nimbus.wait_final(job_id)["state"] == "cancelled"
    wait_until(lambda: "got TERM" in nimbus.output(job_id), "the line of the trap")


def test_environment_and_secrets(nimbus):
    secret = "s3cret-Value/with+signs"
    done = run(nimbus, "sh", "-c", 'echo "$GREETING"; echo "$TOKEN"; printf %s "$TOKEN" | base64; echo "${#TOKEN}"',
               options=["--env", "GREETING=hello", "--secret-env", f"TOKEN={secret}"])
    assert done.returncode == 0, done.stderr.decode()
    text = done.stdout.decode()
    assert "hello\n" in text
    assert f"{len(secret)}\n" in text, "the job itself had the whole value"
    assert secret not in text
    assert base64.b64encode(secret.encode()).decode() not in text
    assert "***" in text


def test_add_mask_hides_from_then_on(nimbus):
    done = run(nimbus, "sh", "-c", "echo '::add-mask::hunter2-secret'; echo before hunter2-secret after")
    assert b"before *** after" in done.stdout
    assert b"before hunter2-secret" not in done.stdout


def test_secrets_are_erased_when_the_job_ends(nimbus):
    secret = "erase-me-when-it-ends-0123456789"
    nimbus.wait_final(nimbus.submit("true", options=["--secret-env", f"GONE={secret}"]))
    for path in nimbus.data.rglob("*"):
        if path.is_file() and not stat.S_ISSOCK(path.stat().st_mode):
            assert secret.encode() not in path.read_bytes(), path
    assert secret not in nimbus.log()


def test_a_hostile_job_is_gone_and_its_neighbour_is_not_held_up(nimbus):
    hostile = nimbus.submit("sh", "-c", """
        trap '' TERM INT HUP
        (setsid sh -c 'trap "" TERM; while :; do echo flood flood flood flood flood; done' &) &
        (while :; do (sleep 1000 &) ; done) 2>/dev/null &
        dd if=/dev/zero of=/tmp/fill bs=1M 2>/dev/null &
        while :; do echo more; done""")
    wait_until(lambda: nimbus.job(hostile)["state"] == "running", "the hostile job to run")
    neighbour = nimbus.submit("sh", "-c", "for i in 1 2 3; do echo $i; sleep 1; done")
    wait_until(lambda: nimbus.job(neighbour)["state"] in ("running", "succeeded"), "the neighbour to run")
    nimbus.cli("jobs", "cancel", str(hostile))
    assert nimbus.wait_final(hostile)["state"] == "cancelled"
    job = nimbus.wait_final(neighbour)
    assert (job["state"], job["attempt"]) == ("succeeded", 1)
    assert nimbus.output(neighbour) == "1\n2\n3\n"


def test_several_jobs_at_once(nimbus):
    ids = [nimbus.submit("sh", "-c", f"echo job {i}") for i in range(4)]
    for i, job_id in enumerate(ids):
        assert nimbus.wait_final(job_id)["state"] == "succeeded"
        assert nimbus.output(job_id) == f"job {i}\n"


def test_an_idempotency_key_gives_the_same_job(nimbus):
    first = nimbus.submit("true", options=["--idempotency-key", "once"])
    again = nimbus.submit("true", options=["--idempotency-key", "once"])
    assert first == again
    nimbus.wait_final(first)


@pytest.mark.parametrize("options, word", [
    (["--timeout", "-1"], "timeout"),
    (["--image", "nowhere"], "nowhere"),
    (["--image", "nimbus/ai-eval-runner:latest"], "later version"),
    (["--label", "a,b"], "label"),
    (["--env", "1X=y"], "1X"),
    (["--memory", "1"], "memory"),
])
def test_bad_options_are_named_and_nothing_is_stored(nimbus, options, word):
    before = nimbus.cli_json("jobs", "recent")
    done = nimbus.cli("jobs", "submit", *options, "--", "true", check=False)
    assert done.returncode == 2, done.stderr.decode()
    message = done.stderr.decode()
    assert message.startswith("error: ") and "hint: " in message
    assert word in message
    assert [job["id"] for job in before] == [job["id"] for job in nimbus.cli_json("jobs", "recent")]


def test_a_label_that_nobody_offers_is_queued_and_show_says_so(nimbus):
    job_id = nimbus.submit("true", options=["--label", "gpu-of-dreams"])
    assert nimbus.job(job_id)["state"] == "queued"
    assert "gpu-of-dreams" in nimbus.cli("jobs", "show", str(job_id)).stdout.decode()
    nimbus.cli("jobs", "cancel", str(job_id))
    assert nimbus.wait_final(job_id)["state"] == "cancelled"


def test_a_simulated_webhook_becomes_a_job_that_runs(nimbus):
    before = {job["id"] for job in nimbus.cli_json("jobs", "recent")}
    nimbus.cli("github", "simulate", "queued")

    def new_job():
        fresh = [job for job in nimbus.cli_json("jobs", "recent") if job["id"] not in before]
        return fresh[0] if fresh else None

    job = wait_until(new_job, "the webhook's job")
    assert nimbus.wait_final(job["id"])["state"] == "succeeded"


def test_nothing_is_left_of_finished_jobs(nimbus):
    wait_until(lambda: not nimbus.vmms() and not nimbus.shims(), "the last VM and shim to go")
    assert [f.name for f in (nimbus.data / "agent" / "vms").iterdir() if not f.name.startswith("spare-")] == []


def test_a_long_log_survives_a_killed_pipeline(nimbus):
    """Ten runs of 100,000 lines, the pipeline killed by -9 in four of them: each prints exactly that."""
    expected = "".join(f"{i}\n" for i in range(1, 100001)).encode()

    def follow(index):
        process = nimbus.cli_start("jobs", "submit", "--wait", "--follow", "--", "seq", "1", "100000")
        if index in (1, 3, 5, 7):
            head = process.stdout.read(20000)  # unbuffered: what is there, so that communicate() has the rest
            assert nimbus.kill_role("logging-pipeline") is not None
        else:
            head = b""
        out, err = process.communicate(timeout=300)
        return process.returncode, head + out, err

    for index in range(10):
        code, out, err = follow(index)
        assert code == 0, err.decode()
        assert out == expected, f"run {index}: {out.count(b'%c' % 10)} lines"


def test_a_killed_agent_loses_no_line_and_no_job(nimbus):
    job_id = nimbus.submit("sh", "-c", "for i in $(seq 1 60); do echo $i; sleep 0.1; done")
    wait_until(lambda: "3\n" in nimbus.output(job_id), "the third line")
    before = nimbus.vmms()
    assert before
    assert nimbus.kill_role("host-agent") is not None
    job = nimbus.wait_final(job_id)
    assert (job["state"], job["attempt"]) == ("succeeded", 1), "the next agent adopted the shim"
    assert nimbus.output(job_id) == "".join(f"{i}\n" for i in range(1, 61))
    wait_until(lambda: not any(alive(pid) for pid in before), "its VM to go")


def test_a_killed_shim_takes_its_vm_and_the_job_runs_again(nimbus):
    wait_until(lambda: not nimbus.shims(), "earlier shims to go")
    job_id = nimbus.submit("sh", "-c", "echo begun; sleep 3; echo done")
    wait_until(lambda: "begun" in nimbus.output(job_id), "the first line")
    (shim,), vmms = nimbus.shims(), nimbus.vmms()
    nimbus.signal_pid(shim, signal.SIGKILL)
    wait_until(lambda: not any(alive(pid) for pid in vmms), "the VM to die with its shim")
    job = nimbus.wait_final(job_id)
    assert (job["state"], job["attempt"]) == ("succeeded", 2), job
    assert nimbus.output(job_id) == "begun\ndone\n"


def test_four_followers_see_the_same(nimbus):
    job_id = nimbus.submit("sh", "-c", "for i in $(seq 1 200); do echo $i; done; sleep 1; echo end")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        outputs = list(pool.map(lambda _: nimbus.cli("logs", "-f", str(job_id)).stdout, range(4)))
    expected = "".join(f"{i}\n" for i in range(1, 201)) + "end\n"
    assert [out.decode() for out in outputs] == [expected] * 4


def test_json_faces(nimbus):
    recent = nimbus.cli_json("jobs", "recent")
    assert recent
    for job in recent:
        assert {"id", "state", "attempt", "exit_code"} <= job.keys()
    endpoints = nimbus.endpoints
    assert {"control_plane", "logging_pipeline", "agent_metrics", "pid", "version"} <= endpoints.keys()
    assert endpoints["pid"] == nimbus.process.pid
    json.dumps(endpoints)
