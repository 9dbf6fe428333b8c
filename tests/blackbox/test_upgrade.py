"""Another program takes the place of a running one: no connection refused, no job failed, no line lost."""

import concurrent.futures
import os
import pathlib
import re
import shutil
import signal
import sqlite3
import subprocess
import threading
import time

import pytest
import requests

import database as databases
import previous
from system import BUILD, NIMBUS, System, alive, open_folder, wait_until

ROLES = ("control-plane", "logging-pipeline", "host-agent")
JOBS = 10
PATIENCE_S = 1  # with a role that hangs
MEMORY_MB = 128  # the least that a job may have
SLOTS = {"NIMBUS_AGENT_VCPUS": str(JOBS + 1), "NIMBUS_AGENT_MEMORY_MB": str((JOBS + 1) * 256)}
# Lines until somebody says that it is over.
STEADY = "i=0; while [ ! -e /tmp/over ]; do i=$((i+1)); echo line $i; usleep 200000; done; echo over after $i"

# What is said of a role that does not come up (tests/peers/broken.c).
WHY = {"falls": r"does not start under .* \(exit status 3\)",
       "hangs": "hangs under .*without being ready .*did not answer in time.*, so it was ended",
       "refuses": "hangs under .*without being ready .*counting its fingers.*, so it was ended"}

OLDER_JOBS = 2  # as many as the older program has slots
LINES = 300
SCRIPT = f"i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo line $i; usleep 20000; done"


@pytest.fixture
def installed():
    """The program at a place of its own, where another may be put."""
    with open_folder() as name:
        folder = pathlib.Path(name)
        shutil.copy2(NIMBUS, folder / "nimbus")
        (folder / "share").symlink_to(BUILD / "share")
        yield folder / "nimbus"


def put(program, bytes_of):
    """As a package manager does: another file under the same name."""
    new = program.with_suffix(".new")
    shutil.copy2(bytes_of, new)
    new.rename(program)


def put_broken(program, role, how):
    """One of which that role does not come up: tests/peers/broken.c."""
    put(program, BUILD / "nimbus-broken")
    program.with_name("nimbus.broken").write_text(f"{role} {how}")


def be_impatient(system):
    """From the next upgrade on, and in it: the other roles of the broken program ask for time as they start."""
    (system.data / "nimbus.env").write_text(f"NIMBUS_UPGRADE_PATIENCE={PATIENCE_S}\n")


def upgrade(system, program=NIMBUS):
    return subprocess.run([program, "upgrade", "--data", system.data], env=system.env, stdin=subprocess.DEVNULL,
                          capture_output=True, timeout=180, check=False)


class Caller:
    """Asks a service again and again, each time by a connection of its own, or by one that is kept as long as the
    service lets it be, and counts what was not answered."""

    def __init__(self, url, keep=False):
        self.url = url
        self.session = requests.Session()
        self.headers = {} if keep else {"Connection": "close"}
        self.answered = 0
        self.failed = []
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.call)

    def call(self):
        while not self.over.is_set():
            try:
                status = self.session.get(self.url + "/healthz", timeout=30, headers=self.headers).status_code
                if status == 200:
                    self.answered += 1
                else:
                    self.failed.append(status)
            except requests.RequestException as error:
                self.failed.append(repr(error))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


def make_template(system):
    """So that the jobs of a test begin as clones: the second who asks for a machine has one made."""
    for _ in range(2):
        assert system.wait_final(system.submit("true", options=("--memory", str(MEMORY_MB))))["state"] == "succeeded"
    wait_until(lambda: list((system.data / "agent" / "templates").glob("template-*")), "a template to be made")


def lines_of(system, job):
    return system.output(job).count("\n")


def finish(system, job):
    done = subprocess.run([NIMBUS, "shell", str(job)], env=system.env, input=b"touch /tmp/over\n", capture_output=True,
                          timeout=120, check=False)
    # The job may end, and its machine with it, before the shell in it has said that it is done.
    assert done.returncode == 0 or b"the job has ended" in done.stderr, done.stderr.decode()


@pytest.mark.once
def test_jobs_and_callers_do_not_notice(installed):
    """Ten jobs run all through it, each in a machine of its own."""
    with System(program=installed, env=SLOTS) as system:
        make_template(system)
        jobs = [system.submit("sh", "-c", STEADY, options=("--memory", str(MEMORY_MB))) for _ in range(JOBS)]
        for job in jobs:
            system.wait_state(job, "running")
            wait_until(lambda job=job: lines_of(system, job), f"a line of job {job}")
        before = {role: system.role_pid(role) for role in ROLES}
        pid = system.process.pid
        put(installed, NIMBUS)
        with Caller(system.endpoints["control_plane"]) as control, \
                Caller(system.endpoints["control_plane"], keep=True) as keeper, \
                Caller(system.endpoints["logging_pipeline"]) as logs:
            waiting = system.submit("echo", "in the middle of it")
            done = upgrade(system)
            assert done.returncode == 0, done.stderr.decode() + system.log()
            assert system.process.poll() is None and system.process.pid == pid
            assert system.endpoints["pid"] == pid
            time.sleep(0.2)
        for caller in control, keeper, logs:
            assert caller.failed == [] and caller.answered > 0, caller.failed[:3]
        for role in ROLES:
            assert system.role_pid(role) not in (None, before[role]) and not alive(before[role]), role
            now = pathlib.Path(f"/proc/{system.role_pid(role)}/exe").resolve()
            assert str(now) == str(installed), "the new file, not the one that was removed"
        for job in jobs:
            had = lines_of(system, job)
            wait_until(lambda job=job, had=had: lines_of(system, job) > had, f"more lines of job {job}")
        for job in jobs:
            finish(system, job)
        for job in [*jobs, waiting]:
            ended = system.wait_final(job)
            assert ended["state"] == "succeeded" and ended["attempt"] == 1, ended
        for job in jobs:
            *lines, last = system.output(job).splitlines()
            assert lines == [f"line {i}" for i in range(1, len(lines) + 1)]
            assert last == f"over after {len(lines)}"
        assert system.stop() == 0


@pytest.mark.once
def test_what_cannot_run_does_not_take_over(installed):
    with System(program=installed) as system:
        before = {role: system.role_pid(role) for role in ROLES}
        installed.unlink()
        installed.write_text("#!/bin/sh\nexit 3\n")
        installed.chmod(0o755)
        done = upgrade(system)
        assert done.returncode == 1 and b"version' failed (exit status 3), so it does not take over" in done.stderr
        installed.unlink()
        done = upgrade(system)
        assert done.returncode == 1 and b"No such file" in done.stderr
        put(installed, NIMBUS)
        (system.data / "nimbus.env").write_text("NIMBUS_JOB_LEASE_TTL=-5\n")
        done = upgrade(system)
        assert done.returncode == 1 and b"config check" in done.stderr
        assert {role: system.role_pid(role) for role in ROLES} == before, "all stays as it was"
        (system.data / "nimbus.env").write_text("NIMBUS_JOB_LEASE_TTL=77\n")
        done = upgrade(system)
        assert done.returncode == 0, done.stderr
        assert system.cli("jobs", "recent", check=False).returncode == 0


@pytest.mark.once
def test_a_damaged_program_does_not_take_over(installed):
    with System(program=installed) as system:
        before = {role: system.role_pid(role) for role in ROLES}
        whole = NIMBUS.read_bytes()

        def refused(content, said):
            new = installed.with_suffix(".new")
            new.write_bytes(content)
            new.chmod(0o755)
            new.rename(installed)
            done = upgrade(system)
            assert done.returncode == 1 and said in done.stderr.decode(), done.stderr.decode()
            assert {role: system.role_pid(role) for role in ROLES} == before, "all stays as it was"

        refused(whole[:len(whole) // 2], f"is cut short: it has {len(whole) // 2} bytes of {len(whole)}")
        refused(whole[:-1], "is cut short")
        refused(whole[:3], "is no program")
        refused(whole[:18] + b"\xf3\0" + whole[20:], "for another processor (ELF machine 243, and this one is ")
        refused(b"", "is no program")
        # A program that its own databases have left behind.
        put(installed, NIMBUS)
        with sqlite3.connect(system.data / "control" / "control.db") as database:
            kept = database.execute("SELECT max(version) FROM schema_migrations").fetchone()[0]
            columns = [row[1] for row in database.execute("PRAGMA table_info(schema_steps)")]
            assert "oldest" in columns, columns
            database.execute("UPDATE schema_steps SET oldest = ? WHERE version = ?", (kept + 1, kept))
        done = upgrade(system)
        assert done.returncode == 1 and f"too old for the database 'control': it knows schema {kept}" in (
            done.stderr.decode()), done.stderr.decode()
        with sqlite3.connect(system.data / "control" / "control.db") as database:
            database.execute("UPDATE schema_steps SET oldest = 0 WHERE version = ?", (kept,))
        assert upgrade(system).returncode == 0


@pytest.mark.once
@pytest.mark.parametrize("broken, how", [*((role, how) for how in ("falls", "hangs") for role in ROLES),
                                         ("host-agent", "refuses")])
def test_a_role_that_does_not_come_up_is_rolled_back(installed, broken, how):
    """The program of before takes its place back: jobs go on, nobody is refused, and the next upgrade works."""
    with System(program=installed) as system:
        job = system.submit("sh", "-c", SCRIPT)
        system.wait_state(job, "running")
        before = {role: system.role_pid(role) for role in ROLES}
        pid = system.process.pid
        first = installed.stat().st_ino
        put_broken(installed, broken, how)
        if how != "falls":
            be_impatient(system)
        with Caller(system.endpoints["control_plane"]) as control, Caller(system.endpoints["logging_pipeline"]) as logs:
            done = upgrade(system)
        said = done.stderr.decode()
        assert done.returncode == 1 and re.search(f"not upgraded: {broken} {WHY[how]}", said), said + system.log()
        assert "the program of before" in said and "hint:" in said
        assert control.failed == [] and logs.failed == [], (control.failed[:3], logs.failed[:3])
        assert system.process.poll() is None and system.process.pid == pid == system.endpoints["pid"]
        order = ("logging-pipeline", "control-plane", "host-agent")
        for role in ROLES:
            now = system.role_pid(role)
            assert pathlib.Path(f"/proc/{now}/exe").stat().st_ino == first, f"{role} is not the program of before"
            untouched = order.index(role) > order.index(broken)
            assert (now == before[role]) == untouched, "those that were not come to are not restarted"
        # What was put there meanwhile is found where it always was.
        put(installed, NIMBUS)
        (system.data / "nimbus.env").unlink(missing_ok=True)
        done = upgrade(system)
        assert done.returncode == 0, done.stderr.decode() + system.log()
        for role in ROLES:
            exe = pathlib.Path(f"/proc/{system.role_pid(role)}/exe")
            assert exe.stat().st_ino == installed.stat().st_ino
        ended = system.wait_final(job)
        assert ended["state"] == "succeeded" and ended["attempt"] == 1, ended
        assert system.output(job) == "".join(f"line {i}\n" for i in range(1, LINES + 1))
        assert system.stop() == 0


@pytest.mark.once
def test_a_role_that_says_that_it_takes_long_is_waited_for(installed):
    """For longer than one that says nothing would be, as one is that migrates a large database."""
    with System(program=installed) as system, concurrent.futures.ThreadPoolExecutor() as pool:
        put_broken(installed, "control-plane", "waits")
        be_impatient(system)
        before = system.role_pid("control-plane")
        upgrading = pool.submit(upgrade, system)
        wait_until(lambda: system.role_pid("control-plane") not in (None, before), "the new control plane")
        time.sleep(3 * PATIENCE_S)
        waiting = not upgrading.done()
        installed.with_name("nimbus.go").touch()
        done = upgrading.result()
        assert waiting and done.returncode == 0, done.stderr.decode() + system.log()
        assert system.cli("jobs", "recent", check=False).returncode == 0


@pytest.mark.parametrize("role, database", [("control-plane", "control"), ("host-agent", "agent")])
def test_a_role_that_migrates_says_so(role, database):
    with open_folder() as folder:
        system = System(data=folder, env={"NIMBUS_CONTROL_PLANE_TOKEN": "none", "NIMBUS_AGENT_METRICS_PORT": "0",
                                          "NIMBUS_CONTROL_PLANE_PORT": "0"})
        (system.data / "assets").mkdir()
        heard, said = os.pipe()
        env = system.env | {"UP_SIGN_FD": str(said)}
        with subprocess.Popen([NIMBUS, role, "--data", folder], env=env, pass_fds=[said], stdin=subprocess.DEVNULL,
                              stderr=subprocess.PIPE) as process, open(heard, encoding="utf-8") as signs:
            os.close(said)
            steps = []
            for line in signs:
                steps.append(line)
                if "migrated" in line:
                    break
            process.kill()
            log = process.stderr.read().decode()
        databases.drop(system.database)
        assert re.fullmatch(rf"\d+ migrating {database}: 0001_\w+\n", steps[0]) if steps else False, log
        assert all(re.fullmatch(rf"\d+ migrating {database}: \d+_\w+\n", step) for step in steps[:-1]), steps
        assert steps[-1] == f"0 migrated {database}\n", steps


@pytest.mark.once
def test_nobody_to_upgrade(tmp_path):
    done = upgrade(System(data=tmp_path))
    assert done.returncode != 0 and b"no 'nimbus up' runs in" in done.stderr and b"hint:" in done.stderr


@pytest.mark.once
def test_twice_and_then_it_stops_well(installed):
    with System(program=installed) as system:
        for _ in range(2):
            assert upgrade(system).returncode == 0
        system.process.send_signal(signal.SIGTERM)
        wait_until(lambda: system.process.poll() is not None, "its end")
        assert system.process.returncode == 0
        assert not system.endpoints_path.exists()


@pytest.mark.once
def test_sighup_reads_the_data_directorys_file_again():
    with System() as system:
        settings = system.data / "nimbus.env"

        def reload(text, said):
            settings.write_text(text)
            system.process.send_signal(signal.SIGHUP)
            wait_until(lambda: said in system.log(), said)

        reload("NIMBUS_LOG_LEVEL=DEBUG\n", 'configuration read again changed="log level debug"')
        reload("NIMBUS_LOG_LEVEL=DEBUG\nNIMBUS_JOB_LEASE_TTL=77\n",
               "(\'nimbus upgrade\' restarts without a pause) changed=NIMBUS_JOB_LEASE_TTL")
        reload("NIMBUS_JOB_LEASE_TTLS=77\n", "unknown variable NIMBUS_JOB_LEASE_TTLS")
        reload("", 'changed="log level info"')
        shown = (system.data / "run" / "roles.env").stat()
        assert shown.st_mode & 0o777 == 0o600


@previous.wanted
def test_the_previous_programs_data_and_running_jobs_go_on_under_this_one(tmp_path):
    older = previous.build(tmp_path)
    with System(program=older) as system:
        ended = system.submit("echo", "before")
        assert system.wait_final(ended)["state"] == "succeeded"
        jobs = [system.submit("sh", "-c", SCRIPT) for _ in range(OLDER_JOBS)]
        for job in jobs:
            system.wait_state(job, "running")
        queued = system.submit("echo", "after")
        before = dict(system.endpoints)
        roles = [system.role_pid(role) for role in ROLES]
        system.process.kill()
        system.process.wait()
        wait_until(lambda: not any(alive(pid) for pid in roles), "the older roles to end")
        system.program = NIMBUS
        system.start()
        wait_until(lambda: system.endpoints_path.exists() and system.endpoints["pid"] != before["pid"], "endpoints")
        for job in [*jobs, queued]:
            found = system.wait_final(job)
            assert found["state"] == "succeeded" and found["attempt"] == 1, found
        for job in jobs:
            assert system.output(job) == "".join(f"line {i}\n" for i in range(1, LINES + 1))
        assert system.output(ended) == "before\n"
        assert system.output(queued) == "after\n"
