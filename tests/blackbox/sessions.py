"""Either end of a session (src/proto/session_frame.h), and an agent that is played: it leases jobs that no real agent
takes, and says what a test wants it to."""

import socket
import ssl
import struct
import urllib.parse

import requests

from system import PATIENCE

STDIN, WINSIZE, SIGNAL, CREDIT, STARTED, STDOUT, STDERR, EXIT, NOTICE, GONE = 1, 2, 3, 4, 16, 17, 18, 19, 20, 21


class Refused(Exception):
    def __init__(self, status, body):
        super().__init__(f"{status}: {body}")
        self.status = status
        self.body = body


class End:
    """One end, upgraded. Frames are (type, payload)."""

    def __init__(self, url, token, headers=None, ca=None):
        parts = urllib.parse.urlsplit(url)
        self.socket = socket.create_connection((parts.hostname, parts.port), timeout=PATIENCE)
        if parts.scheme == "https":
            self.socket = ssl.create_default_context(cafile=ca).wrap_socket(self.socket, server_hostname=parts.hostname)
        lines = {"Host": parts.netloc, "Connection": "Upgrade", "Upgrade": "nimbus-session",
                 "Authorization": f"Bearer {token}", **(headers or {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value is not None)
        self.socket.sendall(f"GET {parts.path}{'?' + parts.query if parts.query else ''} HTTP/1.1\r\n{head}\r\n".encode())
        self.buffer = b""
        while b"\r\n\r\n" not in self.buffer:
            got = self.socket.recv(65536)
            if not got:
                raise Refused(0, self.buffer.decode(errors="replace"))
            self.buffer += got
        answer, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        status = int(answer.split()[1])
        if status != 101:
            raise Refused(status, self.buffer.decode(errors="replace"))

    def send(self, kind, payload=b""):
        self.socket.sendall(struct.pack("<IB", len(payload), kind) + payload)

    def exit(self, code=0, reason="exit", text=""):
        self.send(EXIT, struct.pack("<iIqqqq", code, 0, 1, 2, 3, 4) + reason.encode() + b"\0" + text.encode() + b"\0")

    def frame(self):
        """The next; None at the end of the connection."""
        while True:
            if len(self.buffer) >= 5:
                size, kind = struct.unpack_from("<IB", self.buffer)
                if len(self.buffer) >= 5 + size:
                    payload = self.buffer[5:5 + size]
                    self.buffer = self.buffer[5 + size:]
                    return kind, payload
            try:
                got = self.socket.recv(1 << 20)
            except ConnectionError:
                return None
            if not got:
                return None
            self.buffer += got

    def frames(self):
        all_of_them = []
        while (frame := self.frame()) is not None:
            all_of_them.append(frame)
        return all_of_them

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def read_exit(payload):
    code, signal, queued, vm, ran, gone = struct.unpack_from("<iIqqqq", payload)
    reason, text, *_ = payload[40:].split(b"\0")
    return {"code": code, "signal": signal, "queued": queued, "vm": vm, "ran": ran, "gone": gone,
            "reason": reason.decode(), "text": text.decode()}


class Control:
    """The control plane, as its admin."""

    def __init__(self, system, ca=None):
        self.ca = ca
        self.url = system.endpoints["control_plane"]
        self.token = (system.data / "secrets" / "admin-token").read_text().strip()

    def call(self, method, path, token=None, **rest):
        return requests.request(method, self.url + path, timeout=PATIENCE, verify=self.ca or True,
                                headers={"Authorization": f"Bearer {token or self.token}"}, **rest)

    def submit(self, **job):
        answer = self.call("POST", "/api/jobs", json=job if "argv" in job else {"command": "true", **job})
        assert answer.status_code == 201, answer.text
        return answer.json()

    def job(self, job_id):
        return self.call("GET", f"/api/jobs/{job_id}").json()

    def end(self, path, token=None, headers=None):
        return End(self.url + path, token or self.token, headers, self.ca)


class Agent:
    """Offers a label of its own."""

    def __init__(self, control, name):
        self.control = control
        self.name = name
        self.token = control.call("POST", "/api/agents/token", json={"agent_id": name}).json()["token"]

    def call(self, path, **body):
        answer = self.control.call("POST", path, token=self.token, json={"agent_id": self.name, **body})
        assert answer.status_code < 300, answer.text
        return answer.json()

    def lease(self, wait=20):
        lease = self.call("/api/jobs/lease", labels=[self.name], capabilities=["firecracker"], hardware={},
                          wait_seconds=wait, vcpus_free=4, memory_mb_free=4096)
        if lease["job"] is not None:
            self.say(lease, "starting")
        return lease

    def say(self, lease, status, **rest):
        self.call("/api/jobs/status", job_id=lease["job"]["job_id"], fence_token=lease["fence_token"], status=status,
                  attempt=lease["job"]["attempt"], **rest)

    def commands(self, wait=20):
        return self.call("/api/agents/commands", wait_seconds=wait)["commands"]
