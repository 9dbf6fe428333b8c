"""The whole of Nimbus on one machine, as a user starts it: `nimbus up` in a temporary data directory."""

import json
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time

import database

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = ROOT / os.environ.get("NIMBUS_BUILD", "build")
NIMBUS = BUILD / "nimbus"
# Generous: sanitizers and emulation are slow, and no test asserts a time. A wait that ends here is a failure.
PATIENCE = float(os.environ.get("NIMBUS_TEST_PATIENCE", "120"))


def wait_until(check, what, patience=PATIENCE):
    """Polls check() until it gives something true, and gives that."""
    deadline = time.monotonic() + patience
    while True:
        found = check()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience:.0f} s in vain: {what}")
        time.sleep(0.02)


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def cmdline(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def descendants(pid):
    parents = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                pass
    found = []
    frontier = [pid]
    while frontier:
        parent = frontier.pop()
        children = [child for child, above in parents.items() if above == parent]
        found += children
        frontier += children
    return found


def open_folder():
    """A temporary folder that the service user may enter, which pytest's own are not."""
    folder = tempfile.TemporaryDirectory(prefix="nimbus-test-")
    os.chmod(folder.name, 0o755)
    return folder


class System:
    """Starts on `start()`, and is wholly gone after `stop()`."""

    watcher = None  # of secrets and outputs (leaks.py)

    def __init__(self, data=None, env=None, program=None):
        self.program = program
        self.temporary = None
        if data is None:
            self.temporary = open_folder()
            data = self.temporary.name
        self.data = pathlib.Path(data)
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("NIMBUS_")}
        self.env["NIMBUS_DATA_DIR"] = str(self.data)
        self.database = database.fresh()
        self.env.update(self.database)
        # Tests do in a second what people do in an hour; those of the limits set their own.
        self.env |= {"NIMBUS_ORG_JOB_RATE_LIMIT": "0", "NIMBUS_ADMIN_RATE_LIMIT": "0",
                     "NIMBUS_AGENT_TOKEN_RATE_LIMIT": "0"}
        self.env.update(env or {})
        self.process = None
        self.log_path = self.data / "up.log"

    def start(self):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [self.program or NIMBUS, "up", "--data", self.data, "--port-base", "0"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env)
        wait_until(lambda: self.endpoints_path.exists() or self.process.poll() is not None, "endpoints.json")
        assert self.process.poll() is None, self.log()
        return self

    def stop(self):
        """Ctrl-C, as a user ends it; gives the exit status."""
        if self.process is None:
            return None
        status = self.process.poll()
        if status is None:
            self.process.send_signal(signal.SIGINT)
            try:
                status = self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError("`up` did not end after Ctrl-C:\n" + self.log()) from None
        self.process = None
        return status

    def tell_watcher(self):
        if self.watcher is not None:
            self.watcher.environment(self.env)
            self.watcher.secret_files(self.data)
            self.watcher.file(self.log_path)

    def kill(self):
        """What is left of it, whatever state it is in."""
        self.tell_watcher()
        if self.process is not None:
            pids = descendants(self.process.pid)
            self.process.kill()
            self.process.wait()
            self.process = None
            for pid in pids:
                self.signal_pid(pid, signal.SIGKILL)
        for pid in self._all_shims() + self._all_vmms():
            self.signal_pid(pid, signal.SIGKILL)

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.kill()
            raise

    def __exit__(self, kind, *_):
        try:
            if kind is None:
                self.stop()
        finally:
            self.kill()
            if kind is not None:
                print(self.log()[-int(os.environ.get("NIMBUS_TEST_LOG_BYTES", "20000")):])
            database.drop(self.database)
            if self.temporary is not None:
                self.temporary.cleanup()

    # --- what it says ---

    @property
    def endpoints_path(self):
        return self.data / "run" / "endpoints.json"

    @property
    def endpoints(self):
        return json.loads(self.endpoints_path.read_text())

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    # --- its processes ---

    def role_pid(self, role):
        """The live process of a role, children of `up` only; None while it is being restarted."""
        for pid in descendants(self.process.pid):
            if cmdline(pid)[1:2] == [role] and alive(pid):
                return pid
        return None

    def _pids_with(self, word):
        """Processes of this system by their open data directory: shims outlive their agent, so parents do not tell."""
        found = []
        marker = str(self.data).encode()
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if len(words) > 1 and word(words) and self._touches(entry, marker) and alive(int(entry.name)):
                    found.append(int(entry.name))
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                pass
        return found

    @staticmethod
    def _touches(entry, marker):
        for fd in (entry / "fd").iterdir():
            try:
                if os.readlink(fd).encode().startswith(marker):
                    return True
            except FileNotFoundError:
                pass
        return False

    def _is_spare(self, shim):
        """Its folder is not any job's: it waits for one."""
        try:
            return "/agent/vms/spare-" in os.readlink(f"/proc/{shim}/fd/3")
        except (FileNotFoundError, ProcessLookupError):
            return False

    @staticmethod
    def _parent(pid):
        try:
            return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            return 0

    def _all_shims(self):
        return self._pids_with(lambda words: words[1] == b"shim")

    def _all_vmms(self):
        return self._pids_with(lambda words: b"qemu-system" in words[0] and b"nimbus-template" not in words)

    def shims(self):
        """Of jobs."""
        return [pid for pid in self._all_shims() if not self._is_spare(pid)]

    def vmms(self):
        """Of jobs."""
        return [pid for pid in self._all_vmms() if not self._is_spare(self._parent(pid))]

    def spares(self):
        """Shims of VMs that wait for a job."""
        return [pid for pid in self._all_shims() if self._is_spare(pid)]

    def spare_vmms(self):
        return [pid for pid in self._all_vmms() if self._is_spare(self._parent(pid))]

    def makers(self):
        """What makes or checks templates, in the background."""
        return self._pids_with(lambda words: words[1] == b"template-maker" or b"nimbus-template" in words)

    @staticmethod
    def signal_pid(pid, number):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass

    def kill_role(self, role):
        """kill -9, when it runs. Gives the pid, or None."""
        pid = self.role_pid(role)
        if pid is not None:
            self.signal_pid(pid, signal.SIGKILL)
        return pid

    # --- its command line ---

    def cli(self, *words, check=True, patience=PATIENCE, stdin=subprocess.DEVNULL):
        done = subprocess.run([NIMBUS, *words], env=self.env, stdin=stdin, capture_output=True, timeout=patience,
                              check=False)
        if check and done.returncode != 0:
            raise AssertionError(f"nimbus {' '.join(map(str, words))}: exit {done.returncode}\n"
                                 f"{done.stdout.decode()}{done.stderr.decode()}\n{self.log()[-8000:]}")
        return done

    def cli_start(self, *words):
        return subprocess.Popen([NIMBUS, *words], env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, bufsize=0)

    def cli_json(self, *words):
        return json.loads(self.cli(*words, "--json").stdout)

    def submit(self, *command, options=()):
        """Gives the id."""
        return json.loads(self.cli("jobs", "submit", "--json", *options, "--", *command).stdout)["id"]

    def job(self, job_id):
        return self.cli_json("jobs", "show", str(job_id))

    def wait_state(self, job_id, *states, patience=PATIENCE):
        def reached():
            job = self.job(job_id)
            return job if job["state"] in states else None

        return wait_until(reached, f"job {job_id} to become {' or '.join(states)}", patience)

    def wait_final(self, job_id, patience=PATIENCE):
        return self.wait_state(job_id, "succeeded", "failed", "cancelled", "timed_out", "dead", patience=patience)

    def output(self, job_id):
        return self.cli("logs", str(job_id)).stdout.decode()

    def secrets(self):
        """Every secret of the installation, to look for in output."""
        found = []
        for path in (self.data / "secrets").rglob("*"):
            if path.is_file():
                found += re.findall(r"[A-Za-z0-9_\-./+=]{20,}", path.read_text(errors="replace"))
        return found
