"""Peers that mean no good: slow ones, too many, and those that hide one request in another behind real proxies."""

import contextlib
import http.client
import json
import multiprocessing
import os
import re
import selectors
import shutil
import signal
import socket
import ssl
import subprocess
import time
import urllib.parse

import pytest

import system
from system import System, open_folder, wait_until
from ports import free_port


def port_of(nimbus, role=0):
    """From where `up` remembers them: with TLS the endpoints are unix sockets."""
    return int((nimbus.data / "run" / "ports").read_text().split()[role])


def healthy(port, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/healthz", headers=headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


def metric(nimbus, name):
    connection = http.client.HTTPConnection("127.0.0.1", port_of(nimbus), timeout=60)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return float(re.search(rf"^{re.escape(name)} (\S+)$", text, re.M).group(1))


# --- slow peers ---

SLOW = 1000


def test_a_thousand_slow_peers_are_cut_and_nobody_else_is():
    with System() as nimbus:
        port = port_of(nimbus)
        peers = selectors.DefaultSelector()
        answers = {}
        for i in range(SLOW):
            peer = socket.create_connection(("127.0.0.1", port))
            peer.setblocking(False)
            peer.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: " if i % 2 else
                      b"POST /webhooks/github HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
            peers.register(peer, selectors.EVENT_READ)
        deadline = time.monotonic() + system.PATIENCE
        asked = 0
        while len(answers) < SLOW:
            assert time.monotonic() < deadline, f"{SLOW - len(answers)} are still there"
            assert healthy(port).status == 200
            asked += 1
            for key, _ in peers.select(timeout=0.05):
                try:
                    answers[key.fileobj] = key.fileobj.recv(4096)
                except ConnectionError:
                    answers[key.fileobj] = b""
                peers.unregister(key.fileobj)
            if asked % 20 == 0:  # about a byte a second each
                for key in list(peers.get_map().values()):
                    with contextlib.suppress(OSError):
                        key.fileobj.send(b"x")
        for peer in answers:
            peer.close()
        told = [text for text in answers.values() if text.startswith(b"HTTP/1.1 408 ")]
        # A reset may take an answer from a peer that was sending, but the rule is that it is told.
        assert len(told) > SLOW * 0.9
        assert json.loads(told[0].split(b"\r\n\r\n", 1)[1])["code"] == "too_slow"
        assert metric(nimbus, 'nimbus_http_connections_cut_total{reason="slow_header"}') >= SLOW / 2
        assert metric(nimbus, "nimbus_http_connections") < 20


# --- too many ---

def hold(port, count, results, done):
    """In a process of its own, which has descriptors of its own."""
    held = []
    for _ in range(count):
        with contextlib.suppress(OSError):
            held.append(socket.create_connection(("127.0.0.1", port), timeout=30))
    refused = 0
    for peer in held:
        peer.setblocking(False)
        try:
            refused += peer.recv(32).startswith(b"HTTP/1.1 503 ")
        except ConnectionError:
            refused += 1
        except BlockingIOError:
            pass
    results.put((len(held), refused))
    done.wait()


def test_twenty_thousand_connections_at_the_file_limit(monkeypatch, tmp_path):
    script = tmp_path / "nimbus"
    script.write_text(f'#!/bin/sh\nulimit -n 4096\nexec {system.NIMBUS} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setattr(system, "NIMBUS", script)
    with System() as nimbus:
        port = port_of(nimbus)
        before = nimbus.role_pid("control-plane")
        assert metric(nimbus, "nimbus_http_connections_limit") == 4096 - 512
        results, done = multiprocessing.Queue(), multiprocessing.Event()
        holders = [multiprocessing.Process(target=hold, args=(port, 5000, results, done)) for _ in range(4)]
        for holder in holders:
            holder.start()
        counts = [results.get(timeout=system.PATIENCE) for _ in holders]
        assert sum(held for held, _ in counts) == 20000
        # Whoever is not in was told, and nobody hangs; not all answers may have come yet when they were looked at.
        assert sum(refused for _, refused in counts) > 10000
        done.set()
        for holder in holders:
            holder.join()
        wait_until(lambda: healthy(port).status == 200, "room again")
        wait_until(lambda: metric(nimbus, "nimbus_http_connections") < 20, "the others to be gone")
        assert metric(nimbus, 'nimbus_http_connections_refused_total{reason="limit"}') >= 20000 - 4096
        assert nimbus.role_pid("control-plane") == before
        job = nimbus.submit("true")
        assert nimbus.wait_final(job)["state"] == "succeeded"


# --- behind proxies ---

NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream nimbus {{ server 127.0.0.1:{port}; keepalive 2; }}
  server {{
    listen 127.0.0.1:{own};
    location / {{
      proxy_pass http://nimbus; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto https;
      proxy_request_buffering off;
    }}
  }}
}}
"""
HAPROXY = """
global
  maxconn 500
defaults
  mode http
  timeout connect 10s
  timeout client 10s
  timeout server 10s
  timeout http-request 10s
  http-reuse always
frontend in
  bind 127.0.0.1:{own}
  option forwardfor
  http-request set-header X-Forwarded-Proto https
  default_backend nimbus
backend nimbus
  server one 127.0.0.1:{port}
"""


@contextlib.contextmanager
def proxy(kind, port):
    if not shutil.which(kind) and not os.path.exists(f"/usr/sbin/{kind}"):
        pytest.skip(f"{kind} is not installed")
    with open_folder() as folder:
        own = free_port()
        config = f"{folder}/config"
        with open(config, "w", encoding="ascii") as out:
            out.write({"nginx": NGINX, "haproxy": HAPROXY}[kind].format(folder=folder, port=port, own=own))
        words = {"nginx": ["/usr/sbin/nginx", "-p", folder, "-c", config], "haproxy": ["haproxy", "-db", "-f", config]}
        process = subprocess.Popen(words[kind], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_until(lambda: process.poll() is not None or answers_at(own), kind)
            assert process.poll() is None, kind
            yield own
        finally:
            process.kill()
            process.wait()


def answers_at(port):
    with contextlib.suppress(OSError):
        return healthy(port).status == 200
    return False


HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: x\r\nX-Request-Id: hidden\r\n\r\n"


def ambiguous():
    """Requests with another one in them, which one reader of the two may see and may not."""
    def post(*lines, body=HIDDEN):
        return b"\r\n".join((b"POST /webhooks/github HTTP/1.1", b"Host: x") + lines) + b"\r\n\r\n" + body

    length = b"Content-Length: %d"
    inside = b"0\r\n\r\n" + HIDDEN
    chunk = b"%x\r\n%s\r\n0\r\n\r\n"
    coding = b"Transfer-Encoding: chunked"
    yield "CL.TE", post(length % len(inside), coding, body=inside)
    yield "TE.CL", post(coding, b"Content-Length: 4", body=chunk % (len(HIDDEN), HIDDEN))
    yield "CL.CL", post(b"Content-Length: 0", length % len(HIDDEN))
    yield "CL, CL", post(b"Content-Length: 0, %d" % len(HIDDEN))
    for odd in (b"Transfer-Encoding: xchunked", b"Transfer-Encoding : chunked", b"Transfer-Encoding: chunked, identity",
                b"Transfer-Encoding:\tchunked", b"Transfer-Encoding: \x0bchunked", b"Transfer-Encoding: chunked\r\n ",
                b"X: y\nTransfer-Encoding: chunked", b"Transfer-Encoding\r\n : chunked", b"Transfer-encoding: gzip, chunked",
                b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x", b"X: \0\r\nTransfer-Encoding: chunked"):
        yield repr(odd), post(length % len(inside), odd, body=inside)
    for odd in (b"Content-Length : %d", b"Content-Length: +%d", b"Content-Length: 0%d", b"Content-Length:\r\n %d",
                b"X: y\nContent-Length: %d", b"X: y\rContent-Length: %d"):
        yield repr(odd), post(odd % len(HIDDEN))
    yield "chunk extension", post(coding, body=b"5;\n" + chunk % (len(HIDDEN), HIDDEN))
    yield "bare LF in chunks", post(coding, body=b"2\nok\n0\n\n" + HIDDEN.replace(b"/hidden", b"/hidden?piped"))
    yield "huge chunk", post(coding, body=b"fffffffffffffff1\r\n" + inside)
    yield "expect", post(length % len(HIDDEN), b"Expect: 100-continue")
    yield "absolute", b"GET http://other/healthz HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN
    yield "GET with a body", b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN
    yield "two hosts", b"GET /healthz HTTP/1.1\r\nHost: x\r\nHost: y\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN


# After these, what is hidden begins a request of its own for every reader: the proxy may well pass it on.
PIPELINED = {"bare LF in chunks", "CL.CL", "CL, CL"}


@pytest.mark.parametrize("kind", ["nginx", "haproxy"])
def test_no_request_hides_in_another_behind(kind):
    env = {"NIMBUS_TRUSTED_PROXY_CIDRS": "127.0.0.1", "NIMBUS_LOG_LEVEL": "debug"}
    with System(env=env) as nimbus, proxy(kind, port_of(nimbus)) as own:
        sent = 0
        for number, (name, request) in enumerate(ambiguous()):
            with socket.create_connection(("127.0.0.1", own), timeout=10) as peer:
                peer.sendall(request.replace(b"X-Request-Id: hidden", b"X-Request-Id: hidden-%d" % number))
                peer.settimeout(0.1)
                with contextlib.suppress(OSError):
                    while peer.recv(65536):
                        pass
            # The proxy's connections are used by others now: each must get its own answer.
            for _ in range(4):
                sent += 1
                answer = healthy(own, **{"X-Request-Id": f"honest-{sent}"})
                assert (answer.status, answer.headers["X-Request-Id"]) == (200, f"honest-{sent}"), name
        nimbus_log = wait_until(lambda: nimbus.log() if f"request_id=honest-{sent}\n" in nimbus.log() else None, "the log")
        honest = re.findall(r"request_id=(honest-\d+)$", nimbus_log, re.M)
        assert sorted(honest, key=lambda word: int(word[7:])) == [f"honest-{i + 1}" for i in range(sent)]
        names = [name for name, _ in ambiguous()]
        hidden = [names[int(i)] for i in re.findall(r"request_id=hidden-(\d+)$", nimbus_log, re.M)]
        assert set(hidden) <= PIPELINED, hidden
        # ... and the role is told who asks and how.
        assert "peer=127.0.0.1" in nimbus_log


@pytest.mark.parametrize("kind", ["nginx", "haproxy"])
def test_admin_calls_through_a_proxy(kind):
    """The order of the checks: headers of an unknown proxy, HTTPS, where from."""
    def ask(port, nimbus, **headers):
        token = (nimbus.data / "secrets" / "admin-token").read_text().strip()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/api/jobs/recent", headers={"Authorization": f"Bearer {token}", **headers})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text

    with System() as nimbus, proxy(kind, port_of(nimbus)) as own:
        status, text = ask(own, nimbus)
        assert status == 400 and "Forwarded headers not allowed" in text
        assert ask(port_of(nimbus), nimbus)[0] == 200
    env = {"NIMBUS_TRUSTED_PROXY_CIDRS": '["127.0.0.1"]', "NIMBUS_REQUIRE_HTTPS": "true",
           "NIMBUS_ADMIN_ALLOWED_IPS": "127.0.0.1,192.0.2.0/24"}
    with System(env=env) as nimbus, proxy(kind, port_of(nimbus)) as own:
        assert ask(own, nimbus)[0] == 200
        status, text = ask(port_of(nimbus), nimbus)
        assert status == 400 and "HTTPS required" in text
        status, text = ask(port_of(nimbus), nimbus, **{"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9"})
        assert status == 403 and "Admin source not allowed" in text
        forged = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.1, 203.0.113.9"}
        assert ask(port_of(nimbus), nimbus, **forged)[0] == 403
        assert ask(port_of(nimbus), nimbus, **{"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.1"})[0] == 200


# --- TLS ---

class Certificates:
    def __init__(self, folder):
        self.folder = folder
        self.files = (f"{folder}/server.pem", f"{folder}/server.key")

    def make(self, name, long_ago=False):
        if long_ago and not shutil.which("faketime"):
            pytest.skip("faketime is not installed")
        subprocess.run([*(["faketime", "10 days ago"] if long_ago else []), "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                        "-keyout", self.files[1], "-out", self.files[0], "-days", "2", "-subj", f"/CN={name}",
                        "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
        if os.geteuid() == 0:
            os.chown(self.files[1], 900000, 900000)

    @property
    def env(self):
        return {"NIMBUS_TLS_CERTIFICATE": self.files[0], "NIMBUS_TLS_KEY": self.files[1]}


@pytest.fixture
def certificates():
    with open_folder() as folder:
        made = Certificates(folder)
        made.make("first")
        yield made


def tls(port, certificates=None, **limits):
    context = ssl.create_default_context(cafile=certificates)
    if certificates is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for key, value in limits.items():
        setattr(context, key, value)
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=60), server_hostname="127.0.0.1")


def whole(peer):
    """One answer, with its body."""
    text = b""
    while b"\r\n\r\n" not in text or not text.endswith(b"}"):
        more = peer.recv(4096)
        assert more
        text += more
    return text


def name_served(port):
    with tls(port) as peer:
        der = peer.getpeercert(binary_form=True)
    text = subprocess.run(["openssl", "x509", "-inform", "der", "-noout", "-subject"], input=der, check=True,
                          capture_output=True).stdout.decode()
    return text.strip().rsplit("=", 1)[1].strip()


def test_tls_is_read_again_without_dropping_a_connection(certificates):
    with System(env={**certificates.env, "NIMBUS_REQUIRE_HTTPS": "true"}) as nimbus:
        port = port_of(nimbus)
        request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        with tls(port, certificates.files[0]) as kept, socket.create_connection(("127.0.0.1", port)) as half:
            assert kept.version() == "TLSv1.3"
            half.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")  # a ClientHello that never goes on
            kept.sendall(request)
            assert whole(kept).startswith(b"HTTP/1.1 200 OK")
            with tls(port, maximum_version=ssl.TLSVersion.TLSv1_2) as older:
                assert older.version() == "TLSv1.2"
            with pytest.raises((ssl.SSLError, ConnectionError)):
                tls(port, minimum_version=ssl.TLSVersion.TLSv1, maximum_version=ssl.TLSVersion.TLSv1_1)
            certificates.make("second")
            nimbus.signal_pid(nimbus.role_pid("control-plane"), signal.SIGHUP)
            wait_until(lambda: name_served(port) == "second", "the second certificate")
            with open(certificates.files[0], "w", encoding="ascii") as broken:
                broken.write("nonsense")
            nimbus.signal_pid(nimbus.role_pid("control-plane"), signal.SIGHUP)
            wait_until(lambda: "NIMBUS_TLS_CERTIFICATE is no chain of PEM certificates" in nimbus.log(), "a complaint")
            assert name_served(port) == "second"
            kept.sendall(request)
            assert whole(kept).startswith(b"HTTP/1.1 200 OK")
            # The roles and the CLI came in by unix sockets all the while.
            job = nimbus.submit("true")
            assert nimbus.wait_final(job)["state"] == "succeeded"
            half.settimeout(system.PATIENCE)
            with contextlib.suppress(ConnectionError):
                while half.recv(4096):
                    pass


@pytest.mark.parametrize("damage, words", [
    ("other key", "is not the key of the certificate"),
    ("open key", "is open to others (mode 0644): chmod 0600 it"),
    ("expired", "expired on"),
    ("no key", "NIMBUS_TLS_CERTIFICATE is set and NIMBUS_TLS_KEY is not"),
    ("absent", "No such file"),
])
def test_what_would_not_serve_is_named_at_the_start(certificates, damage, words):
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("NIMBUS_")}
    env = {**inherited, **certificates.env, "NIMBUS_DATA_DIR": certificates.folder + "/data",
           "NIMBUS_GITHUB_WEBHOOK_SECRET": "a-webhook-secret-of-the-hostile-tests"}
    if damage == "other key":
        certificate = open(certificates.files[0], "rb").read()
        certificates.make("other")
        open(certificates.files[0], "wb").write(certificate)
    elif damage == "open key":
        os.chmod(certificates.files[1], 0o644)
    elif damage == "expired":
        certificates.make("old", long_ago=True)
    elif damage == "no key":
        del env["NIMBUS_TLS_KEY"]
    else:
        os.unlink(certificates.files[0])
    done = subprocess.run([system.NIMBUS, "control-plane"], env=env, capture_output=True, timeout=60, check=False)
    assert done.returncode != 0
    assert words in done.stderr.decode()


# --- unix sockets ---

@pytest.mark.once
def test_a_system_that_listens_at_unix_sockets_only(tmp_path):
    with open_folder() as folder:
        os.chmod(folder, 0o777)
        with System(env={"NIMBUS_LISTEN": f"unix:{folder}"}) as nimbus:
            assert urllib.parse.unquote(nimbus.endpoints["control_plane"]) == f"http+unix://{folder}/control-plane.sock"
            job = nimbus.submit("echo", "over a socket")
            assert nimbus.wait_final(job)["state"] == "succeeded"
            assert "over a socket" in nimbus.output(job)
            # No loopback: whoever may open the socket may be a proxy.
            metrics = subprocess.run(["curl", "-s", "--unix-socket", f"{folder}/control-plane.sock", "http://x/metrics"],
                                     capture_output=True, check=True).stdout
            assert json.loads(metrics)["code"] == "forbidden"
            second = subprocess.run([system.NIMBUS, "control-plane", "--data", tmp_path],
                                    env={**nimbus.env, "NIMBUS_DATA_DIR": str(tmp_path)}, capture_output=True,
                                    timeout=60, check=False)
            assert "control-plane.sock is in use by process" in second.stderr.decode()
        assert not [name for name in os.listdir(folder) if name.endswith(".sock")]
