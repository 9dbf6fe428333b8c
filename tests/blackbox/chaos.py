"""What the tests of faults share: sizes and seeds, the invariants' checker, and Nimbus in parts, each role a process of
its own that can be given another address, another clock, another signal.

NIMBUS_CHAOS=full runs the full sizes (`make chaos`), else they are those of CI. NIMBUS_TEST_SEED repeats a run."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid

import requests

from system import BUILD, NIMBUS, PATIENCE, ROOT, System, alive, wait_until
from ports import free_port

sys.path[:0] = [str(ROOT / "tests" / "chaos")]

FULL = os.environ.get("NIMBUS_CHAOS") == "full"
CONTROL, AGENT, PIPELINE = "control-plane", "host-agent", "logging-pipeline"
ROLES = (CONTROL, PIPELINE, AGENT)


def size(ci, full):
    return full if FULL else ci


def new_seed():
    value = int(os.environ.get("NIMBUS_TEST_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"NIMBUS_TEST_SEED={value}" + (" NIMBUS_CHAOS=full" if FULL else ""), flush=True)
    return value


def report(text):
    """A line for the people who read the run: also when the test passes, where NIMBUS_CHAOS_REPORT names a file."""
    print(text, flush=True)
    if os.environ.get("NIMBUS_CHAOS_REPORT"):
        with open(os.environ["NIMBUS_CHAOS_REPORT"], "a", encoding="utf-8") as file:
            file.write(text + "\n")


def check_invariants(system):
    """The checker of docs/architecture.md, as an operator would run it."""
    done = subprocess.run([sys.executable, ROOT / "tests" / "checker" / "check.py", "--data", system.data,
                           "--nimbus", NIMBUS, "--settle", "75"],  # a seal is tried again after a minute at most
                          capture_output=True, check=False, env=system.env, timeout=600)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    report("  " + done.stdout.decode().strip().splitlines()[-1])


def numbers(url):
    """Every metric by its name and labels."""
    found = {}
    for line in requests.get(url + "/metrics", timeout=PATIENCE).text.splitlines():
        if line and not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            found[name] = float(value)
    return found


class PythonAgent:
    """Speaks the agent's side of the API by hand, so that it can say what a stale agent would."""

    def __init__(self, system, name, base=None):
        self.name = name
        self.base = base or system.endpoints["control_plane"]
        self.logs = system.endpoints["logging_pipeline"]
        self.token = json.loads(system.cli("auth", "--agent-id", name, "--json").stdout)["token"]
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {self.token}"

    def post(self, path, body, base=None, token=None):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self.session.post((base or self.base) + path, json=body, timeout=60, headers=headers)

    def lease_call(self, **more):
        return self.post("/api/jobs/lease", {"agent_id": self.name, "agent_version": "0.1.0",
                                             "capabilities": ["firecracker"], "hardware": {},
                                             "labels": ["by-hand"], **more})

    def lease(self, **more):
        answer = self.lease_call(**more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def renew(self, lease):
        return self.post("/api/jobs/lease/renew", {"job_id": lease["job"]["job_id"], "agent_id": self.name,
                                                   "fence_token": lease["fence_token"]})

    def status(self, lease, status, **more):
        return self.post("/api/jobs/status", {"agent_id": self.name, "job_id": lease["job"]["job_id"],
                                              "fence_token": lease["fence_token"], "status": status, **more})

    def log(self, lease, first, lines):
        job = lease["job"]
        entries = [{"job_id": job["job_id"], "attempt": job["attempt"], "seq": first + i, "stream": "stdout",
                    "agent_id": self.name, "level": "info", "message": line,
                    "timestamp": "2026-11-21T12:00:00Z"} for i, line in enumerate(lines)]
        return self.post("/logs", {"entries": entries}, base=self.logs, token=job["log_token"])


FINAL = {"succeeded", "failed", "cancelled", "timed_out", "dead"}


class Client:
    """Submits and asks as a client does that is not told of faults: again, until there is an answer."""

    def __init__(self, system):
        self.system = system
        self.session = admin_session(system)

    def call(self, method, path, **more):
        until = time.monotonic() + PATIENCE
        while True:
            try:
                answer = self.session.request(method, self.system.endpoints["control_plane"] + path, timeout=10, **more)
                if answer.status_code < 500 and answer.status_code != 429:
                    answer.json()  # requests takes an answer that was cut off for a whole one
                    return answer
                last = answer.text
            except (requests.RequestException, FileNotFoundError, ValueError) as error:
                last = error
            assert time.monotonic() < until, f"{method} {path}: no answer in {PATIENCE} s, the last: {last}"
            time.sleep(0.1)

    def submit(self, script, **more):
        answer = self.call("POST", "/api/jobs", json={
            "image": "demo", "argv": ["sh", "-c", script], "max_attempts": 10, "idempotency_key": str(uuid.uuid4()),
            **more})
        assert answer.status_code in (200, 201, 202), answer.text
        return answer.json()["id"]

    def job(self, job_id):
        answer = self.call("GET", f"/api/jobs/{job_id}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def wait_final(self, job_id, patience=PATIENCE, unless=lambda: None):
        """unless() may say why to stop waiting."""
        wait_until(lambda: unless() or self.job(job_id)["state"] in FINAL, f"job {job_id} to end", patience)
        return self.job(job_id)


def counting(n, lines, then=""):
    """A script that prints so many lines of its own, and what it prints."""
    return (f"for i in $(seq 1 {lines}); do echo {n}-$i; done; {then}",
            "".join(f"{n}-{i}\n" for i in range(1, lines + 1)))


def check_log(system, job_id, expected):
    """Followed until it says that it is whole."""
    until = time.monotonic() + PATIENCE
    while True:
        done = system.cli("logs", "-f", str(job_id), check=False)
        if done.returncode in (0, 5):
            break
        assert time.monotonic() < until, f"the log of job {job_id}: exit {done.returncode}, {done.stderr.decode()}"
        time.sleep(0.2)
    got = done.stdout.decode()
    assert got == expected, f"job {job_id}: {got[:2000]!r}"


def admin_session(system):
    session = requests.Session()
    token = (system.data / "secrets" / "admin-token").read_text().strip()
    session.headers["Authorization"] = f"Bearer {token}"
    return session


def submit_by_hand(system, session=None, label="by-hand", count=1):
    """Jobs that only scripted agents take; over HTTP, which is cheaper than a process each."""
    session = session or admin_session(system)
    ids = []
    for _ in range(count):
        answer = session.post(system.endpoints["control_plane"] + "/api/jobs", timeout=60,
                              json={"image": "demo", "argv": ["true"], "labels": [label]})
        assert answer.status_code in (200, 201, 202), answer.text
        ids.append(answer.json()["id"])
    return ids


class Parts(System):
    """The roles of one machine, each started by the test. `up` has made their secrets. `reach[role]` says under which
    URL others find a role (a proxy's, say); `more[role]` has variables of one role."""

    def __init__(self, env=None):
        super().__init__(env=env)
        self.parts = {}
        self.ports = {}
        self.reach = {}
        self.more = {}

    def __enter__(self):
        try:
            self.prepare()
            return self
        except BaseException:
            self.kill()
            raise

    def prepare(self):
        self.start()
        self.stop()
        (self.data / "run").mkdir(exist_ok=True)
        self.ports = {role: free_port() for role in ROLES}
        self.reach = {role: f"http://127.0.0.1:{port}" for role, port in self.ports.items()}
        self.reach |= dict.fromkeys(("agent-control", "shim", "cli-control", "cli-logs", "jwks", "seal"))

    def write_endpoints(self):
        self.endpoints_path.write_text(json.dumps({
            "control_plane": self.reach["cli-control"] or self.reach[CONTROL],
            "logging_pipeline": self.reach["cli-logs"] or self.reach[PIPELINE],
            "agent_metrics": self.reach[AGENT], "pid": os.getpid(), "version": "test"}))

    def part_env(self, role):
        secrets = self.data / "secrets"
        control = {AGENT: self.reach["agent-control"], PIPELINE: self.reach["jwks"]}.get(role) or self.reach[CONTROL]
        sink = {CONTROL: self.reach["seal"], AGENT: self.reach["shim"]}.get(role) or self.reach[PIPELINE]
        return {**self.env, "NIMBUS_CONTROL_PLANE_PORT": str(self.ports[CONTROL]),
                "NIMBUS_LOGGING_PORT": str(self.ports[PIPELINE]), "NIMBUS_AGENT_METRICS_PORT": str(self.ports[AGENT]),
                "NIMBUS_CONTROL_PLANE_URL": control, "NIMBUS_LOG_SINK_URL": sink,
                "NIMBUS_AGENT_ID": socket.gethostname(), "NIMBUS_JWT_SECRET_FILE": str(secrets / "jwt-secret"),
                "NIMBUS_AGENT_TOKEN_SECRET_FILE": str(secrets / "agent-token-secret"),
                "NIMBUS_GITHUB_WEBHOOK_SECRET_FILE": str(secrets / "github-webhook-secret"),
                "NIMBUS_CONTROL_PLANE_TOKEN_FILE": str(secrets / "agent-token"), **self.more.get(role, {})}

    def start_part(self, role):
        with open(self.log_path, "ab") as log:
            self.parts[role] = subprocess.Popen([NIMBUS, role], env=self.part_env(role), stdin=subprocess.DEVNULL,
                                                stdout=log, stderr=log)
        url = f"http://127.0.0.1:{self.ports[role]}/readyz"

        def ready():
            assert self.parts[role].poll() is None, self.log()[-4000:]
            try:
                return requests.get(url, timeout=5).status_code == 200
            except requests.RequestException:
                return False

        wait_until(ready, f"{role} to be ready")

    def start_parts(self):
        self.write_endpoints()
        for role in ROLES:
            self.start_part(role)

    def role_pid(self, role):
        part = self.parts.get(role)
        return part.pid if part is not None and part.poll() is None else None

    def kill_part(self, role):
        self.parts[role].kill()
        self.parts[role].wait()

    def stop(self):
        """Each asked, twice where it has jobs; gives the exit statuses, which are all 0."""
        if self.process is not None:
            return super().stop()
        statuses = []
        for role in reversed(ROLES):
            part = self.parts.pop(role, None)
            if part is None:
                continue
            self.signal_pid(part.pid, signal.SIGCONT)
            for _ in range(2 if role == AGENT else 1):
                part.send_signal(signal.SIGTERM)
            try:
                statuses.append((role, part.wait(PATIENCE)))
            except subprocess.TimeoutExpired:
                part.kill()
                raise AssertionError(f"{role} did not end\n" + self.log()[-4000:]) from None
        assert all(status == 0 for _, status in statuses), statuses
        return 0

    def kill(self):
        for part in self.parts.values():
            if part.poll() is None:
                part.kill()
                part.wait()
        super().kill()


def wait_shipped(system):
    wait_until(lambda: not system.shims() and not system.vmms(), "the shims to have shipped and gone")


needs_qemu_reason = None if shutil.which("qemu-system-x86_64") else "no qemu-system-x86_64"
__all__ = ["AGENT", "BUILD", "CONTROL", "Client", "FULL", "NIMBUS", "PIPELINE", "PATIENCE", "ROLES", "Parts", "PythonAgent",
           "admin_session", "alive", "check_invariants", "check_log", "counting", "needs_qemu_reason", "new_seed", "numbers",
           "report", "size", "submit_by_hand", "wait_shipped", "wait_until"]
