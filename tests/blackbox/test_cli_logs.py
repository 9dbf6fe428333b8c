"""nimbus logs: which lines, in what order, what a terminal gets of them, and that following loses and doubles none."""

import json
import os
import pty
import re
import select
import subprocess
import time

import pytest
import requests

from system import NIMBUS, PATIENCE, System, wait_until

TALK = r"""i=1; while [ $i -le 40 ]; do echo "line $i"; i=$((i+1)); done
echo 'Error: a thing failed' >&2
printf 'with \033[31mcolour\033[0m and \033]0;a title\007 and \033[2Ja screen\n'
echo LINE in capitals"""


@pytest.fixture(scope="module")
def system():
    with System() as running:
        yield running


@pytest.fixture(scope="module")
def talk(system):
    job_id = system.submit("sh", "-c", TALK)
    assert system.wait_final(job_id)["state"] == "succeeded"
    return str(job_id)


def out(system, *words):
    return system.cli("logs", *words).stdout.decode().splitlines()


def test_tail_and_grep(system, talk):
    whole = out(system, talk)
    assert len(whole) == 42 and whole[:2] == ["line 1", "line 2"]
    done = system.cli("logs", talk, "--tail", "4")
    assert done.stdout.decode().splitlines() + done.stderr.decode().splitlines() == [
        "line 40", *whole[-2:], "Error: a thing failed"]
    assert out(system, talk, "--tail", "0") == []
    assert out(system, talk, "--tail", "1000") == whole
    assert out(system, talk, "--grep", "line 4") == ["line 4", "line 40"]
    assert out(system, talk, "--grep", "LINE") == ["LINE in capitals"]
    assert out(system, talk, "--grep", "line 4", "--tail", "1") == ["line 40"]
    assert out(system, talk, "--grep", "not there") == []
    assert out(system, talk, "-f", "--grep", "line 4") == ["line 4", "line 40"]
    # Which of the two streams is read first at the end, nobody promises.
    done = system.cli("logs", talk, "-f", "--tail", "1")
    assert done.stdout + done.stderr in (b"LINE in capitals\n", b"Error: a thing failed\n")


def test_errors(system, talk):
    done = system.cli("logs", talk, "--errors")
    assert (done.stdout, done.stderr) == (b"", b"Error: a thing failed\n")


def test_since_until_and_timestamps(system, talk):
    stamped = [line.split(" ", 1) for line in out(system, talk, "--timestamps")]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", stamp) for stamp, _ in stamped)
    times = [stamp for stamp, _ in stamped]
    middle = times[20]
    assert out(system, talk, "--since", middle) == [text for stamp, text in stamped if stamp >= middle]
    assert out(system, talk, "--until", middle) == [text for stamp, text in stamped if stamp < middle]
    assert len(out(system, talk, "--since", "1d")) == len(stamped)
    assert out(system, talk, "--until", "1d") == []


@pytest.mark.parametrize("words", [("--since", "yesterday"), ("--until", ""), ("--tail", "-1"), ("--tail", "x"),
                                   ("--grep", "a", "--contains", "b"), ("--job-id", "1"), ("--follow", "--limit", "5"),
                                   ("--limit", "501"), ("--attempt", "1001")])
def test_wrong_use_is_one_line_and_exit_2(system, words):
    done = system.cli("logs", "1", *words, check=False)
    assert done.returncode == 2, done.stderr
    assert [line.split(b":")[0] for line in done.stderr.splitlines()] == [b"error", b"hint"]


def test_a_search_finds_the_newest_first_in_the_seeds_form(system, talk):
    found = out(system, talk, "--contains", "LINE 4")
    assert [line.split(" ", 1)[1] for line in found] == [f"job={talk} level=info line 40", f"job={talk} level=info line 4"]
    assert re.match(r"\[\d{4}-\d\d-\d\dT[0-9:.]+Z\] job=", found[0])
    assert len(out(system, "--job-id", talk)) == 43
    assert len(out(system, "--logs-url", system.endpoints["logging_pipeline"], "--job-id", talk, "--limit", "7")) == 7
    raw = json.loads(system.cli("logs", "--job-id", talk, "--contains", "line 4", "--json").stdout)
    assert [(row["job_id"], row["message"]) for row in raw] == [(int(talk), "line 40"), (int(talk), "line 4")]
    assert {"job_id", "org_id", "repo_id", "timestamp", "level", "message"} <= set(raw[0])


def test_a_search_without_a_job_looks_at_every_organisation(system, talk):
    env = dict(system.env)
    done = subprocess.run([NIMBUS, "github", "simulate", "queued", "--repo", "acme/web"], env=env, capture_output=True,
                          timeout=PATIENCE, check=True)
    jobs = wait_until(lambda: [job for job in system.cli_json("jobs", "recent") if job["org_id"] != 1], done)
    token = (system.data / "secrets" / "admin-token").read_text().strip()
    entry = {"job_id": jobs[0]["id"], "attempt": 1, "seq": 1, "org_id": jobs[0]["org_id"], "message": "line 4 of acme",
             "timestamp": "2099-01-01T00:00:00Z"}
    answer = requests.post(system.endpoints["logging_pipeline"] + "/logs", json=[entry], timeout=PATIENCE,
                           headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 202, answer.text
    found = [line.split(" ", 2)[2] for line in out(system, "--contains", "line 4")]
    assert found[0] == "level=info line 4 of acme" and "level=info line 40" in found
    assert out(system, "--contains", "line 4", "--limit", "1")[0].endswith("line 4 of acme")
    assert not any("acme" in line for line in out(system, "--contains", "line 4", "--org-id", "1"))


# --- terminals ---


def on_terminal(system, *words, env=None):
    """What a terminal would get."""
    primary, secondary = pty.openpty()
    process = subprocess.Popen([NIMBUS, *words], env={**system.env, **(env or {})}, stdin=subprocess.DEVNULL,
                               stdout=secondary, stderr=secondary)
    os.close(secondary)
    got = b""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            if select.select([primary], [], [], 1)[0]:
                piece = os.read(primary, 65536)
                if not piece:
                    break
                got += piece
        except OSError:
            break
    os.close(primary)
    assert process.wait(PATIENCE) == 0
    return got.replace(b"\r\n", b"\n")


def test_a_job_cannot_steer_a_terminal(system, talk):
    shown = on_terminal(system, "logs", talk)
    assert b"with \x1b[31mcolour\x1b[0m and ^[]0;a title^G and ^[[2Ja screen\n" in shown
    assert shown.endswith(b"\x1b[0m")
    assert set(re.findall(rb"\x1b[^m]*m", shown)) == {b"\x1b[31m", b"\x1b[0m"}
    assert b"\x1b]0;a title\x07" in on_terminal(system, "logs", talk, "--raw")
    search = on_terminal(system, "logs", talk, "--contains", "with")
    assert b"\x1b]" not in search and b"\x1b[31m" in search
    assert b"\x1b" not in on_terminal(system, "logs", talk, "--json")
    piped = system.cli("logs", talk).stdout
    assert b"with \x1b[31mcolour\x1b[0m and \x1b]0;a title\x07 and \x1b[2Ja screen\n" in piped


# --- following ---


def follow_through_kills(system, words, job_id, wanted):
    """nimbus logs -f, with kill -9 of the pipeline at several points of the output."""
    follower = system.cli_start("logs", "-f", *words, str(job_id))
    os.set_blocking(follower.stdout.fileno(), False)
    got = b""
    kills = 0
    deadline = time.monotonic() + PATIENCE
    while follower.poll() is None or select.select([follower.stdout], [], [], 0)[0]:
        assert time.monotonic() < deadline, got[-200:]
        if not select.select([follower.stdout], [], [], 0.05)[0]:
            continue
        piece = follower.stdout.read()
        if not piece:
            break
        got += piece
        if kills < 3 and got.count(b"\n") >= 40 * (kills + 1) and system.kill_role("logging-pipeline"):
            kills += 1
    assert follower.wait(PATIENCE) == 0, follower.stderr.read()
    follower.stdout.close()
    follower.stderr.close()
    assert kills == 3
    assert got == wanted


def test_following_through_kills_of_the_pipeline_loses_and_doubles_no_line(system):
    script = "i=1; while [ $i -le 200 ]; do echo line $i of many; i=$((i+1)); sleep 0.03; done"
    job_id = system.submit("sh", "-c", script)
    follow_through_kills(system, (), job_id, "".join(f"line {i} of many\n" for i in range(1, 201)).encode())
    # Ended long ago: from the store alone, and with a filter, whose cursor moves without lines.
    assert system.output(job_id) == "".join(f"line {i} of many\n" for i in range(1, 201))
    assert out(system, "-f", str(job_id), "--grep", "0 of") == [f"line {i}0 of many" for i in range(1, 21)]
    assert out(system, "-f", str(job_id), "--tail", "2") == ["line 199 of many", "line 200 of many"]
