"""A further control plane on a system's database: another process, with a data directory and a port of its own, and the
same keys."""

import shutil
import signal
import subprocess

import requests

from system import NIMBUS, PATIENCE, System, open_folder, wait_until
from ports import free_port


def answers(url, path="/readyz"):
    try:
        return requests.get(url + path, timeout=5).status_code == 200
    except requests.RequestException:
        return False


class Plane:
    def __init__(self, system, share_keys=True, env=None):
        self.folder = open_folder()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_path = f"{self.folder.name}/log"
        if share_keys:
            for name in ("keys", "secrets"):
                shutil.copytree(system.data / name, f"{self.folder.name}/{name}")
        secrets = system.data / "secrets"
        self.env = {**system.env, "NIMBUS_DATA_DIR": self.folder.name,
                    "NIMBUS_CONTROL_PLANE_PORT": str(self.port),
                    "NIMBUS_JWT_SECRET_FILE": str(secrets / "jwt-secret"),
                    "NIMBUS_AGENT_TOKEN_SECRET_FILE": str(secrets / "agent-token-secret"),
                    "NIMBUS_LOG_SINK_URL": system.endpoints["logging_pipeline"], **(env or {})}
        if "NIMBUS_GITHUB_WEBHOOK_SECRET" not in self.env:
            self.env["NIMBUS_GITHUB_WEBHOOK_SECRET_FILE"] = str(secrets / "github-webhook-secret")
        self.process = None

    def launch(self):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen([NIMBUS, "control-plane"], env=self.env, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log)
        return self

    def start(self):
        self.launch()
        wait_until(lambda: self.process.poll() is not None or answers(self.url), "the control plane to be ready")
        assert self.process.poll() is None, self.log()
        return self

    def log(self):
        with open(self.log_path, errors="replace", encoding="utf-8") as log:
            return log.read()

    def end(self, number=signal.SIGTERM):
        """Gives the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_):
        if self.process is not None:
            self.end(signal.SIGKILL)
            if System.watcher is not None:
                System.watcher.file(self.log_path)
        self.folder.cleanup()
