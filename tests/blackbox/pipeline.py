"""The logging pipeline alone, with a control plane that is only a page of keys."""

import base64
import hashlib
import http.server
import json
import os
import re
import signal
import subprocess
import threading
import time

import requests

from system import NIMBUS, PATIENCE

ADMIN_SECRET = "an-admin-secret-of-these-tests-only"


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def openssl(*words, data=None):
    return subprocess.run(["openssl", *words], input=data, capture_output=True, check=True).stdout


def raw_signature(der):
    """ECDSA's DER pair of integers as JWS wants it: 32 bytes each."""
    numbers = []
    at = 2
    for _ in range(2):
        length = der[at + 1]
        numbers.append(int.from_bytes(der[at + 2:at + 2 + length], "big").to_bytes(32, "big"))
        at += 2 + length
    return b"".join(numbers)


class Issuer:
    """Signs tokens, and serves its public key as the control plane does."""

    def __init__(self, folder):
        self.key_path = folder / "issuer.pem"
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(self.key_path))
        point = openssl("ec", "-in", str(self.key_path), "-pubout", "-outform", "DER")[-64:]
        jwk = {"crv": "P-256", "kty": "EC", "x": base64url(point[:32]), "y": base64url(point[32:])}
        canonical = json.dumps(jwk, sort_keys=True, separators=(",", ":")).encode()
        self.kid = base64url(hashlib.sha256(canonical).digest())
        document = json.dumps({"keys": [{**jwk, "kid": self.kid, "alg": "ES256", "use": "sig"}]}).encode()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):  # the name is the library's
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(document)))
                self.end_headers()
                self.wfile.write(document)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def token(self, aud, lifetime=3600, header=None, **claims):
        now = int(time.time())
        head = {"alg": "ES256", "typ": "JWT", "kid": self.kid, **(header or {})}
        body = {"sub": "test", "aud": aud, "iat": now - 7200, "exp": now + lifetime, **claims}
        text = ".".join(base64url(json.dumps(part).encode()) for part in (head, body))
        der = openssl("dgst", "-sha256", "-sign", str(self.key_path), data=text.encode())
        return f"{text}.{base64url(raw_signature(der))}"

    def job_token(self, org, job_id, attempt=1, **more):
        return self.token("job", org=org, job_id=job_id, attempt=attempt, scope=f"push:org-{org}", **more)

    def reader_token(self, org):
        return self.token("user", org=org, scope=f"pull:org-{org}")

    def pusher_token(self, org):
        return self.token("job", org=org, scope=f"push:org-{org}")

    def seal_token(self):
        return self.token("admin", scope="seal")


class Pipeline:
    """One data directory, over any number of lives of the process."""

    watcher = None  # of secrets and outputs (leaks.py)

    def __init__(self, folder, issuer, env=None):
        self.data = folder
        self.issuer = issuer
        self.argv = [NIMBUS, "logging-pipeline", "--data", str(folder)]
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("NIMBUS_")}
        self.env.update({"NIMBUS_CONTROL_PLANE_URL": issuer.url, "NIMBUS_LOGGING_PORT": "0",
                         "NIMBUS_JWT_SECRET": ADMIN_SECRET, **(env or {})})
        self.process = None
        self.url = None
        self.log = []
        self.ready = threading.Event()
        self.reader = None

    def _read_log(self, pipe):
        for line in pipe:
            self.log.append(line)
            found = re.search(r": ready .*\bport=(\d+)", line)
            if found:
                self.url = f"http://127.0.0.1:{found[1]}"
                self.ready.set()
        self.ready.set()

    def start(self):
        self.url = None
        self.ready.clear()
        self.process = subprocess.Popen(self.argv, env=self.env, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                        text=True)
        self.reader = threading.Thread(target=self._read_log, args=(self.process.stderr,), daemon=True)
        self.reader.start()
        assert self.ready.wait(PATIENCE) and self.url is not None, self.text()
        return self

    def tell_watcher(self):
        if self.watcher is not None:
            self.watcher.environment(self.env)
            self.watcher.said(self.text().encode(), f"the log of the logging pipeline of {self.data}")

    def _end(self, number):
        if self.process is None:
            return None
        self.process.send_signal(number)
        status = self.process.wait(PATIENCE)
        self.reader.join(PATIENCE)
        self.process.stderr.close()
        self.process = None
        self.tell_watcher()
        return status

    def stop(self):
        return self._end(signal.SIGTERM)

    def kill(self):
        return self._end(signal.SIGKILL)

    def text(self):
        return "".join(self.log)

    # --- what clients say ---

    def request(self, method, path, token=None, **more):
        headers = {**more.pop("headers", {})}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        deadline = time.monotonic() + 10
        while True:
            answer = requests.request(method, self.url + path, headers=headers, timeout=PATIENCE, **more)
            # Right after its start, on a busy machine: what a client of ours tries again, too.
            if answer.status_code != 503 or "keys are being fetched" not in answer.text or time.monotonic() > deadline:
                return answer
            time.sleep(0.05)

    def post(self, token, lines):
        return self.request("POST", "/logs", token, data="\n".join(map(json.dumps, lines)))

    def seal(self, org, job_id, attempt, last_seq, token=None):
        return self.request("POST", "/logs/seal", token or self.issuer.seal_token(),
                            json={"org_id": org, "job_id": job_id, "attempt": attempt, "last_seq": last_seq})

    def query(self, token, **parameters):
        answer = self.request("GET", "/logs/query", token, params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def tail(self, token, headers=None, **parameters):
        """The streamed answer; the caller closes it."""
        return self.request("GET", "/logs/tail", token, params=parameters, stream=True, headers=headers or {})

    def tail_lines(self, token, **parameters):
        """All there is until the stream ends."""
        with self.tail(token, **parameters) as answer:
            assert answer.status_code == 200, answer.text
            return [json.loads(line) for line in answer.iter_lines() if line]


def lines(job_id, first, last, attempt=1, **more):
    return [{"job_id": job_id, "attempt": attempt, "seq": seq, "message": f"line {seq}", "stream": "stdout",
             "level": "info", "timestamp": f"2026-11-21T12:00:00.{seq % 1000000:06}Z", **more}
            for seq in range(first, last + 1)]
