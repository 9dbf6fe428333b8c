"""What jobs reach: their services without a network, and with one what the host reaches. The whole of Nimbus runs in a
network namespace of its own, whose one neighbour stands for everything else: the internet, and a cloud's metadata."""

import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap

import pytest

from system import NIMBUS, System, wait_until

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="no qemu-system-x86_64"),
]

HOST, NEIGHBOUR, INTERNET, METADATA = "192.0.2.1", "192.0.2.2", "198.51.100.1", "169.254.169.254"

# Serves a word on each address and port that is named: one process in a namespace, which ends with its standard input.
SERVER = textwrap.dedent("""
    import socket, struct, sys, threading

    def words(listener, word):
        while True:
            peer, _ = listener.accept()
            peer.sendall(word.encode() + b"\\n")
            peer.close()

    # RFC 1035, for any name: one A record, or 60 of them, which fit no datagram.
    def names(listener):
        while True:
            peer, _ = listener.accept()
            while len(head := peer.recv(2)) == 2:
                query = peer.recv(struct.unpack(">H", head)[0])
                count = 60 if b"\\4many" in query else 1
                record = b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x3c\\0\\4" + socket.inet_aton("198.51.100.1")
                end = query.index(b"\\0", 12) + 5
                kind = query[end - 4:end - 2]
                count = count if kind == b"\\0\\1" else 0
                answer = query[:2] + b"\\x81\\x80\\0\\1" + struct.pack(">H", count) + bytes(4) + query[12:end]
                answer += record * count
                peer.sendall(struct.pack(">H", len(answer)) + answer)
            peer.close()

    for argument in sys.argv[1:]:
        address, port, word = argument.split("=")
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = socket.create_server((address, int(port)), family=family, backlog=16)
        run = (names, (listener,)) if word == "DNS" else (words, (listener, word))
        threading.Thread(target=run[0], args=run[1], daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()
""")


class Namespace:
    """A network namespace, and a mount namespace beside it, held by a process."""

    def __init__(self):
        self.holder = subprocess.Popen(["unshare", "--net", "--mount", "sh", "-c", "echo ready; exec cat"],
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.made = self.holder.stdout.readline() == b"ready\n"
        self.servers = []

    def enter(self):
        return ["nsenter", "--net", "--mount", "--target", str(self.holder.pid)]

    def run(self, *words):
        subprocess.run([*self.enter(), *words], check=True, capture_output=True)

    def serve(self, *where):
        server = subprocess.Popen([*self.enter(), sys.executable, "-c", SERVER, *where], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE)
        self.servers.append(server)
        assert server.stdout.readline() == b"ready\n"

    def link_local(self, link):
        said = subprocess.run([*self.enter(), "ip", "-6", "address", "show", "dev", link, "scope", "link"], check=True,
                              capture_output=True).stdout.decode()
        found = re.search(r"inet6 (fe80:[0-9a-f:]+)", said)
        return found.group(1) if found else "fe80::1"

    def close(self):
        for process in [*self.servers, self.holder]:
            process.stdin.close()
            process.wait()
            process.stdout.close()


class InNamespace(System):
    """`nimbus up` and the command line, both in there."""

    def __init__(self, folder, namespace, env=None):
        self.namespace = namespace
        self.wrapper = folder / "nimbus"
        self.wrapper.write_text(f"#!/bin/sh\nexec {' '.join(namespace.enter())} {NIMBUS} \"$@\"\n")
        self.wrapper.chmod(0o755)
        super().__init__(env=env, program=self.wrapper)

    def cli(self, *words, check=True, patience=120, stdin=subprocess.DEVNULL):
        done = subprocess.run([self.wrapper, *words], env=self.env, stdin=stdin, capture_output=True, timeout=patience,
                              check=False)
        assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}\n{self.log()[-8000:]}"
        return done

    def get_inside(self, url):
        program = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())"
        return subprocess.run([*self.namespace.enter(), sys.executable, "-c", program, url], check=True,
                              capture_output=True).stdout.decode()

    def run(self, script, *options):
        """Gives the job and what it printed."""
        job_id = self.submit("sh", "-c", script, options=options)
        return self.wait_final(job_id), self.output(job_id)


def set_up(stack):
    for program in ("ip", "unshare", "nsenter"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program}")
    host, other = Namespace(), Namespace()
    stack.callback(other.close)
    stack.callback(host.close)
    if not (host.made and other.made):
        pytest.skip("no namespaces can be made here")
    try:
        host.run("ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth1", "netns", str(other.holder.pid))
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no veth pair can be made here: {error.stderr.decode().strip()}")
    for namespace, link, address in ((host, "veth0", HOST), (other, "veth1", NEIGHBOUR)):
        namespace.run("ip", "link", "set", "lo", "up")
        namespace.run("ip", "address", "add", f"{address}/24", "dev", link)
        namespace.run("ip", "link", "set", link, "up")
    for address in (INTERNET, METADATA):
        other.run("ip", "address", "add", f"{address}/32", "dev", "lo")
    host.run("ip", "route", "add", "default", "via", NEIGHBOUR)
    # What is on no side is refused at once, instead of after a long silence.
    host.run("ip", "route", "add", "unreachable", "10.0.0.0/8")
    return host, other


@pytest.fixture(scope="module")
def place():
    with contextlib.ExitStack() as stack:
        host, other = set_up(stack)
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nimbus-netns-")))
        folder.chmod(0o755)
        resolv = folder / "resolv.conf"
        resolv.write_text(f"# the first is away\nnameserver 127.0.0.9\nnameserver {NEIGHBOUR}\n")
        host.run("mount", "--bind", str(resolv), "/etc/resolv.conf")
        host.serve("127.0.0.1=9001=LOOPBACK", "0.0.0.0=9002=EVERYWHERE", f"{HOST}=9003=OWN", "::1=9001=LOOPBACK", "::=9004=EVERYWHERE")
        other.serve(f"{NEIGHBOUR}=53=DNS", f"{INTERNET}=80=INTERNET", f"{METADATA}=80=METADATA")
        yield stack.enter_context(InNamespace(folder, host)), host


# All at once, since what is silent takes its time. The asker's side stays open: an old passt may lose what comes after it
# was closed.
ASK = "mkfifo /tmp/open; exec 3<>/tmp/open; ask() { echo \"$1:$2=$(timeout 4 nc $1 $2 <&3 2>&1 | tr '\\n' ' ')\" & }; "
GET = "get() { echo \"$1:$2=$(printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' | timeout 4 nc $1 $2 2>&1 | tr '\\n' ' ')\" & }; "


def test_a_job_without_a_network_reaches_nothing(place):
    nimbus, _ = place
    job, said = nimbus.run(f"{ASK} ls /sys/class/net; ask {INTERNET} 80; ask {HOST} 9002; ask 127.0.0.1 9001; "
                           f"ask {METADATA} 80; ask 10.0.2.2 9001; wait; nslookup internet.test 2>&1")
    assert job["network"] == "none"
    assert said.splitlines()[0] == "lo"
    for word in ("INTERNET", "EVERYWHERE", "LOOPBACK", "METADATA"):
        assert word not in said, said


def test_its_services_are_there_all_the_same(place):
    nimbus, _ = place
    request = "GET /logs/query?order=oldest HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n"
    job, said = nimbus.run(
        "echo first-line; echo $NIMBUS_LOGS_URL; sleep 1; "
        f"printf '{request}' | nc -w 20 127.0.0.1 8002 | tr -d '\\r'; echo; "
        "printf 'GET /metrics HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n' | nc -w 20 127.0.0.1 8002; echo; "
        "printf 'nonsense\\r\\n\\r\\n' | nc -w 20 127.0.0.1 8002; echo; "
        "env")
    assert job["state"] == "succeeded", said
    assert "http://127.0.0.1:8002" in said
    assert "HTTP/1.1 200 OK" in said
    assert '"message":"first-line"' in said, said
    assert "HTTP/1.1 404" in said and "a job's calls of this service are" in said
    assert "HTTP/1.1 400" in said and "first line is not" in said
    # No token is anywhere in there.
    assert "eyJ" not in said


def test_bodies_come_in_chunks_and_connections_are_kept(place):
    nimbus, _ = place
    entry = b'{"entries":[{"job_id":%s,"message":"in chunks","level":"info"}]}'.decode()
    job, said = nimbus.run(
        "J=$(hostname | sed s/nimbus-//); "
        f"B=$(printf '{entry}' $J); "
        "{ printf 'POST /logs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\n'; "
        "printf '%s' \"$B\" | head -c 5; printf '\r\n%x\r\n' $((${#B} - 5)); printf '%s' \"$B\" | tail -c +6; "
        "printf '\r\n0\r\nAuthorization: Bearer mine\r\n\r\n'; "
        "printf 'GET /logs/query HTTP/1.1\r\nHost: x\r\n\r\n'; "
        "printf 'GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n'; } | nc -w 20 127.0.0.1 8002; echo; "
        "printf 'POST /logs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n' | "
        "nc -w 20 127.0.0.1 8002; echo; "
        "printf 'POST /logs HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n' | "
        "nc -w 20 127.0.0.1 8002; echo")
    assert job["state"] == "succeeded", said
    assert re.findall(r"HTTP/1\.1 (\d+)", said) == ["202", "200", "404", "400", "400"], said
    assert "a chunk's size is no number" in said and "says twice" in said
    assert '"message":"in chunks"' in said, said
    # The agent counts, when the job has ended at the latest.
    url = nimbus.endpoints["agent_metrics"]
    shown = nimbus.get_inside(f"{url}/metrics")
    assert int(re.search(r'service_requests_total{service="logs"} (\d+)', shown).group(1)) >= 2, shown
    assert int(re.search(r'service_refused_total{reason="no_such_call"} (\d+)', shown).group(1)) >= 1, shown
    assert int(re.search(r'service_refused_total{reason="malformed"} (\d+)', shown).group(1)) >= 2, shown


def private_dirty_kb(pid):
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"Private_Dirty: *(\d+)", text).group(1))


def test_a_job_that_takes_all_connections_holds_up_nobody(place):
    """More than there may be, each in the middle of a request: the rest wait, in the guest."""
    nimbus, _ = place
    query = "printf 'GET /logs/query HTTP/1.0\\r\\n\\r\\n' | nc -w 20 127.0.0.1 8002"
    job_id = nimbus.submit("sh", "-c", (
        "mkfifo /tmp/open; exec 3<>/tmp/open; H=0; "
        "while [ $H -lt 80 ]; do H=$((H + 1)); { printf 'POST /logs HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 99999\\r\\n"
        "\\r\\n'; cat /tmp/open; } | nc 127.0.0.1 8002 >/dev/null & done; "
        "until [ $(netstat -tn | grep -c ':8002.*ESTABLISHED') -ge 80 ]; do sleep 0.2; done; echo all-taken; "
        f"sleep 8; killall nc cat; until {query} | grep -q all-taken; do sleep 0.2; done; echo free-again"))
    wait_until(lambda: "all-taken" in nimbus.output(job_id), "all connections to be taken", 60)
    for shim in nimbus.shims():
        assert private_dirty_kb(shim) < 24 * 1024
    other, said = nimbus.run(f"echo word; until {query} | grep word; do sleep 0.2; done")
    assert other["state"] == "succeeded" and '"message":"word"' in said, said
    job = nimbus.wait_final(job_id)
    assert job["state"] == "succeeded" and "free-again" in nimbus.output(job_id), job


def test_it_reads_no_other_jobs_log_and_cannot_forge_its_own(place):
    nimbus, _ = place
    other = 1  # the first test's
    job, said = nimbus.run(
        f"printf 'GET /logs/query?job_id={other} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n' | nc -w 20 127.0.0.1 8002; echo; "
        "post() { printf 'POST /logs HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: %d\\r\\n\\r\\n%s' ${#1} \"$1\" | "
        "nc -w 20 127.0.0.1 8002; echo; }; "
        "J=$(hostname | sed s/nimbus-//); "
        "post '{\"entries\":[{\"job_id\":'$J',\"attempt\":1,\"seq\":1,\"message\":\"forged\",\"level\":\"info\"}]}'; "
        "post '{\"entries\":[{\"job_id\":'$J',\"message\":\"by the job\",\"level\":\"info\"}]}'")
    assert f"the token is for job {job['id']}, not {other}" in said, said
    assert "HTTP/1.1 403" in said
    assert "HTTP/1.1 202" in said, said
    assert "forged" not in nimbus.output(job["id"]).replace(said, "")


def test_an_open_job_reaches_what_its_host_reaches_but_not_its_loopback(place):
    nimbus, host = place
    # The roles and the agent's metrics are on the host's loopback.
    own = " ".join(f"get 127.0.0.1 {port}; get 10.0.2.2 {port};" for port in re.findall(r":(\d+)", str(nimbus.endpoints)))
    assert own
    link_local = host.link_local("veth0")
    job, said = nimbus.run(
        f"{ASK} ask {INTERNET} 80; ask {METADATA} 80; ask {HOST} 9002; ask {HOST} 9003; ask 127.0.0.1 9001; "
        f"{GET} {own} ask ::1 9001; ask ::1 9004; ask ::ffff:127.0.0.1 9001; ask {link_local}%eth0 9004; ask 0.0.0.0 9002; "
        "ask 127.0.0.1 9002; ask 10.0.2.2 9001; ask 10.0.2.2 9002; ask 10.0.2.15 9001; wait; "
        "cat /etc/resolv.conf; nslookup internet.test 127.0.0.1 2>&1; "
        # An answer that fits no datagram: asked by TCP, at the same place.
        "printf '\\0\\033\\1\\2\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\4many\\4test\\0\\0\\1\\0\\1' | "
        "echo cut=$(timeout 10 nc 127.0.0.1 53 | wc -c); "
        # Its root makes 127.0.0.1 an address of somebody else, and sends there.
        "ip address del 127.0.0.1/8 dev lo; ip link set lo down; "
        "for i in all eth0; do echo 1 >/proc/sys/net/ipv4/conf/$i/route_localnet; done; "
        "ip route del table local 127.0.0.0/8 dev lo 2>/dev/null; ip route del table local 127.0.0.1 dev lo 2>/dev/null; "
        f"ip route add 127.0.0.0/8 via 10.0.2.2 src 10.0.2.15 && echo by-force; ask 127.0.0.1 9001; {own} "
        f"ask {HOST} 9002; wait",
        "--network", "open")
    assert job["network"] == "open"
    # What the log says stays open, does.
    remark = nimbus.cli("logs", str(job["id"])).stderr.decode()
    assert "network 'open': this job reaches all that its host reaches" in remark
    assert f"{INTERNET}:80=INTERNET" in said, said
    # Told at once, not after a long silence.
    assert re.search(rf"^{METADATA}:80=.*(No route to host|unreachable)", said, re.MULTILINE), said
    assert f"{HOST}:9002=EVERYWHERE" in said
    assert f"{HOST}:9003=OWN" in said
    # And the host's loopback is not, by whichever address, nor anything of it by IPv6.
    assert "LOOPBACK" not in said
    assert not re.search(r"^[0-9a-f]*::.*=EVERYWHERE", said, re.MULTILINE), said
    assert "HTTP/" not in said, said
    for address in ("127.0.0.1:9001", "127.0.0.1:9002", "10.0.2.2:9001", "10.0.2.2:9002", "10.0.2.15:9001"):
        assert f"{address}=EVERYWHERE" not in said, said
    # Names are the host's: its first resolver is away, so the second.
    assert "nameserver 127.0.0.1" in said
    assert "Address: 198.51.100.1" in said, said
    assert f"cut={2 + 27 + 60 * 16}\nby-force\n" in said, said
    assert f"{HOST}:9002=EVERYWHERE" in said.split("by-force")[1], said


def test_clones_at_once_have_networks_of_their_own(place):
    """A restore keeps the template's hardware address until the guest has its own: the shim passes nothing on before."""
    nimbus, _ = place
    script = (f"{ASK} cat /sys/class/net/eth0/address; ip address show eth0; ask {INTERNET} 80; wait; "
              "nslookup internet.test 127.0.0.1 2>&1; nslookup -type=aaaa internet.test 127.0.0.1 2>&1; "
              "T=$(cut -d. -f1 /proc/uptime); timeout 8 nc internet.test 80 <&3 2>&1; cat /proc/net/arp")

    def is_clone():
        job = nimbus.wait_final(nimbus.submit("true", options=("--network", "open")))
        assert job["state"] == "succeeded", (job, nimbus.log()[-4000:])
        return job["metadata"]["boot.accel"].endswith(" clone")

    wait_until(is_clone, "a clone with a network", 90)
    ids = [nimbus.submit("sh", "-c", script, options=("--network", "open")) for _ in range(2)]
    macs = set()
    for job_id in ids:
        job, said = nimbus.wait_final(job_id), nimbus.output(job_id)
        assert job["metadata"]["boot.accel"].endswith(" clone"), job["metadata"]
        assert f"{INTERNET}:80=INTERNET" in said, said
        assert "Address: 198.51.100.1" in said, said
        macs.add(said.splitlines()[0])
        # Locally administered, one device's: neither QEMU's nor a kernel's own.
        assert int(said[:2], 16) & 3 == 2 and not said.startswith("52:54:00"), said
    assert len(macs) == 2, macs


def test_a_host_without_a_way_out_fails_the_job_and_says_so(place):
    nimbus, host = place
    host.run("ip", "route", "del", "default")
    try:
        job_id = nimbus.submit("true", options=("--network", "open", "--secret-env", "SECRET=hush-hush-hush"))
        job = nimbus.wait_final(job_id)
    finally:
        host.run("ip", "route", "add", "default", "via", NEIGHBOUR)
    assert (job["state"], job["reason"]) == ("failed", "start_failed"), job
    assert "passt did not start on this host: " in job["last_message"]
    assert nimbus.wait_final(nimbus.submit("true", options=("--network", "open")))["state"] == "succeeded"


def test_nothing_of_a_network_is_left(place):
    nimbus, _ = place
    holder = f"/proc/{nimbus.process.pid}/ns/net"

    def passts():
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if (entry / "comm").read_text().startswith("passt") and \
                        os.readlink(entry / "ns/net") == os.readlink(holder):
                    found.append(entry.name)
        return found

    job_id = nimbus.submit("sleep", "100", options=("--network", "open"))
    nimbus.wait_state(job_id, "running")
    assert passts()
    [shim] = nimbus.shims()
    nimbus.signal_pid(shim, 9)
    wait_until(lambda: not passts(), "passt to end with its shim")
    nimbus.cli("jobs", "cancel", str(job_id), check=False)
