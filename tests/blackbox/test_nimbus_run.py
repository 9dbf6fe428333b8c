"""`nimbus run` and `nimbus shell`: a command in a microVM as if it ran here."""

import hashlib
import http.server
import io
import os
import pathlib
import random
import shutil
import signal
import socket
import struct
import subprocess
import tarfile
import tempfile
import threading
import time

import pytest
import requests

from chaos import size
from sessions import EXIT, STARTED, STDOUT
from system import NIMBUS, PATIENCE, System, wait_until

pytestmark = pytest.mark.once  # nothing here asks the database for more than other tests do


@pytest.fixture(scope="module")
def system():
    with System() as running:
        yield running


@pytest.fixture
def folder():
    """A work tree of git's, that others may enter."""
    with tempfile.TemporaryDirectory(prefix="nimbus-run-") as name:
        os.chmod(name, 0o755)
        path = pathlib.Path(name)
        git(path, "init", "-q")
        yield path


def git(path, *words):
    subprocess.run(["git", "-C", path, "-c", "user.name=x", "-c", "user.email=x@example.org", *words], check=True,
                   capture_output=True)


def run(system, *words, stdin=b"", cwd=None, **more):
    """Gives exit status, standard output, standard error."""
    done = subprocess.run([NIMBUS, "run", *words], env=system.env, input=stdin, capture_output=True, cwd=cwd,
                          timeout=PATIENCE, check=False, **more)
    return done.returncode, done.stdout, done.stderr.decode(errors="replace")


def bare(system, *command, stdin=b""):
    return run(system, "--no-workspace", "--", *command, stdin=stdin)


def jobs(system):
    return system.cli("jobs", "recent", "-q").stdout


def nothing_left(system):
    wait_until(lambda: not system.shims() and not system.vmms(), "its microVM to be gone")


# --- streams, exit codes ---


def test_input_output_and_errors_are_byte_for_byte(system):
    blob = random.Random(7).randbytes(size(1_000_000, 20_000_000))

    status, out, err = bare(system, "sh", "-c", "tee /dev/stderr | sha256sum; exit 3", stdin=blob)

    assert status == 3
    assert out.decode().split()[0] == hashlib.sha256(blob).hexdigest()
    # Standard error came back whole, apart, and as it was.
    raw = subprocess.run([NIMBUS, "run", "--no-workspace", "-q", "--", "sh", "-c", "cat >&2; echo done"],
                         env=system.env, input=blob, capture_output=True, timeout=PATIENCE, check=True)
    assert raw.stderr == blob
    assert raw.stdout == b"done\n"
    nothing_left(system)


def test_a_killed_command_exits_as_one_in_a_shell(system):
    status, out, _ = bare(system, "sh", "-c", "echo before; kill -9 $$")

    assert (status, out) == (137, b"before\n")


def test_a_command_that_is_not_there_is_127(system):
    status, out, err = bare(system, "no-such-command")

    assert (status, out) == (127, b"")
    assert "no-such-command" in err


def test_a_reader_that_goes_away_ends_the_command(system):
    done = subprocess.run(f"{NIMBUS} run --no-workspace -q -- yes | head -n 1", shell=True, env=system.env,
                          capture_output=True, timeout=PATIENCE, check=False)

    assert done.stdout == b"y\n"
    nothing_left(system)


# --- files ---


def test_the_folder_goes_there_as_git_sees_it_and_outputs_come_back(system, folder):
    (folder / ".gitignore").write_text("*.o\n/build/\n")
    (folder / "src").mkdir()
    (folder / "src" / "main.c").write_text("int main;\n")
    (folder / "src" / "main.o").write_text("object\n")
    (folder / "build").mkdir()
    (folder / "build" / "junk").write_text("junk\n")
    (folder / "run.sh").write_text("#!/bin/sh\nmkdir -p dist/deep\nmv src/main.c dist/deep/\nln -s deep dist/link\n")
    (folder / "run.sh").chmod(0o755)
    os.symlink("src/main.c", folder / "link")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "first")
    (folder / "new").write_text("untracked\n")
    data = folder.parent / (folder.name + "-data")
    data.mkdir()
    try:
        (data / "in").write_text("there\n")
        (data / "ro").write_text("read\n")
        status, out, err = run(
            system, "--output", "dist", "-v", f"{data}:/data", "-v", f"{data / 'ro'}:/etc/settings:ro", "-e", "WORD=a b",
            "--", "sh", "-c", "find . -path ./.git -prune -o -print | sort; test -d .git && readlink link && ./run.sh;"
            "echo \"$WORD\" > /data/out; cat /data/in /etc/settings; echo no > /etc/settings", cwd=folder)

        assert status == 0, err
        assert out.decode().split("\n") == [
            ".", "./.gitignore", "./link", "./new", "./run.sh", "./src", "./src/main.c", "src/main.c", "there", "read", ""]
        assert (folder / "dist" / "deep" / "main.c").read_text() == "int main;\n"
        assert os.readlink(folder / "dist" / "link") == "deep"
        assert (data / "out").read_text() == "a b\n"
        assert (data / "ro").read_text() == "read\n"
        assert (folder / "src" / "main.o").exists() and not (folder / "dist" / "junk").exists()
    finally:
        shutil.rmtree(data)
    nothing_left(system)


def test_links_of_a_job_that_lead_out_do_not_come_back(system, folder):
    status, _, err = run(system, "--output", "out", "--", "sh", "-c",
                         "mkdir out; ln -s /etc/passwd out/evil; echo fine > out/good", cwd=folder)

    assert status == 125
    assert "left out: 'out/evil' -> '/etc/passwd'" in err
    assert (folder / "out" / "good").read_text() == "fine\n"
    assert not os.path.lexists(folder / "out" / "evil")


def test_what_a_job_did_not_make_is_said(system, folder):
    status, _, err = run(system, "--output", "never", "--", "true", cwd=folder)
    assert status == 125
    assert "output /workspace/never did not come: there is no" in err
    assert "error: bring back /workspace/never: it did not come" in err and "request id" not in err

    status, _, err = run(system, "--output", "never", "--", "sh", "-c", "exit 4", cwd=folder)
    assert status == 4  # which says more
    assert "/workspace/never" in err


# --- what cannot be sent: before there is a job ---


def test_over_the_bound_the_largest_folders_are_named(system, folder):
    for name, size in {"data/huge": 3 << 20, "data/more": 1 << 20, "src/main": 10}.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"\0" * size)

    before = jobs(system)
    status, _, err = run(system, "--max-upload", "3", "--", "true", cwd=folder)

    assert status == 125
    assert "over the bound of 3.0 MiB: data 4.0 MiB, " in err
    assert "--max-upload" in err
    assert jobs(system) == before


def test_sockets_and_pipes_are_left_out_by_name(system, folder):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "app.sock"))
    os.mkfifo(folder / "queue")
    (folder / "file").write_text("x")

    status, out, err = run(system, "--all", "-T", "--", "ls", cwd=folder)
    listener.close()

    assert (status, out) == (0, b"file\n")
    assert "left out: app.sock (a socket), queue (a pipe)" in err


def test_files_that_cannot_be_read_are_named(system, folder):
    if os.geteuid() != 0:
        pytest.skip("only root can give files to another user")
    (folder / "mine").write_text("secret")
    (folder / "mine").chmod(0o600)
    (folder / "all").write_text("x")
    shutil.rmtree(folder / ".git")
    token = (system.data / "secrets" / "admin-token").read_text().strip()
    env = system.env | {"NIMBUS_URL": system.endpoints["control_plane"], "NIMBUS_TOKEN": token, "HOME": "/nonexistent"}
    env.pop("NIMBUS_DATA_DIR")

    def as_nobody(*words):
        return subprocess.run([NIMBUS, "run", "--all", *words, "--", "ls"], env=env, stdin=subprocess.DEVNULL,
                              capture_output=True, cwd=folder, timeout=PATIENCE, check=False, user=65534, group=65534,
                              extra_groups=[])

    refused = as_nobody()
    assert refused.returncode == 125
    assert b"cannot read mine" in refused.stderr and b"--skip-unreadable" in refused.stderr
    done = as_nobody("--skip-unreadable")
    assert (done.returncode, done.stdout) == (0, b"all\n"), done.stderr
    assert b"left out, as they cannot be read: mine" in done.stderr


def test_wrong_words_are_refused_with_what_to_do(system):
    for words, says in [
            (["run"], "nimbus run -- CMD ARGS"),
            (["run", "make", "-j4"], "[--flags] -- CMD ARGS"),
            (["run", "make", "test"], "stands before '--'"),
            (["run", "-v", "/tmp", "--", "true"], "HOST:GUEST"),
            (["run", "-v", "/not/there:/x", "--", "true"], "No such file"),
            (["run", "--output", "../x", "--", "true"], "'..'"),
            (["run", "--network", "wide", "--", "true"], "none"),
            (["run", "--tty", "--", "true"], "no terminal"),
            (["run", "--secret-env", "NOT_SET_HERE", "--", "true"], "NOT_SET_HERE"),
            (["shell", "seven"], "'seven' is not a job id"),
            (["shell", "999999"], "999999"),
    ]:
        done = system.cli(*words, check=False)
        assert done.returncode == 125, words
        assert says in done.stderr.decode(), words


def test_without_a_server_there_is_a_sentence(tmp_path):
    env = {k: v for k, v in os.environ.items() if not k.startswith("NIMBUS_")}
    env["NIMBUS_DATA_DIR"] = str(tmp_path)
    done = subprocess.run([NIMBUS, "run", "--", "true"], env=env, capture_output=True, timeout=PATIENCE, check=False)
    assert done.returncode == 125
    assert b"no Nimbus found here" in done.stderr and b"nimbus up" in done.stderr
    env["NIMBUS_URL"] = "http://127.0.0.1:9"
    env["NIMBUS_TOKEN"] = "eyJx.y.z"
    done = subprocess.run([NIMBUS, "run", "--no-workspace", "--", "true"], env=env, capture_output=True,
                          timeout=PATIENCE, check=False)
    assert done.returncode == 125
    assert b"nothing listens at http://127.0.0.1:9" in done.stderr


# --- signals ---


def start(system, script):
    process = subprocess.Popen([NIMBUS, "run", "--no-workspace", "--", "sh", "-c", script], env=system.env,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
    assert process.stdout.readline() == b"ready\n"
    return process


def test_the_first_ctrl_c_goes_to_the_command_the_second_cancels(system):
    process = start(system, "trap 'echo caught' INT; echo ready; while :; do sleep 0.1; done")

    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == b"caught\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)

    assert process.returncode == 130
    assert b"cancelling the job" in err
    wait_until(lambda: system.cli_json("jobs", "recent", "--limit", "1")[0]["state"] == "cancelled", "the job's end")
    nothing_left(system)


def test_a_control_plane_killed_in_the_middle_costs_no_byte(system):
    """Both directions are taken up again where they broke off, as often as it takes."""
    data = random.Random(1).randbytes(6_000_000)
    process = subprocess.Popen([NIMBUS, "run", "--no-workspace", "--", "sh", "-c", "cat; echo end >&2; exit 7"],
                               env=system.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    came = io.BytesIO()

    def take():
        while piece := process.stdout.read1(65536):
            came.write(piece)

    reader = threading.Thread(target=take)
    reader.start()
    for i in range(0, len(data), 500_000):
        process.stdin.write(data[i:i + 500_000])
        process.stdin.flush()
        if i in (1_500_000, 3_500_000):
            wait_until(lambda: came.tell() > 100_000, "output to flow")
            system.kill_role("control-plane")
    process.stdin.close()
    reader.join(PATIENCE)
    status = process.wait(PATIENCE)
    err = process.stderr.read()

    assert hashlib.sha256(came.getvalue()).digest() == hashlib.sha256(data).digest()
    assert b"end\n" in err
    assert status == 7
    nothing_left(system)


def test_a_reader_that_goes_on_while_the_control_plane_is_away_gets_the_rest(system):
    """All credit is used up, and what gives it back comes while there is nobody to tell of it."""
    size = 1_000_000

    def moved():
        text = requests.get(system.endpoints["control_plane"] + "/metrics", timeout=PATIENCE).text
        return [int(line.split()[1]) for line in text.splitlines()
                if line.startswith("nimbus_control_plane_sessions_bytes_total ")][0]

    def stands_still():
        count = moved()
        time.sleep(0.5)
        return count > begun + 256 * 1024 and count == moved()

    begun = moved()
    process = start(system, f"echo ready; head -c {size} /dev/zero; echo over >&2")
    wait_until(stands_still, "the output to wait for its reader")
    system.kill_role("control-plane")
    out, err = process.communicate(timeout=PATIENCE)

    assert (process.returncode, len(out)) == (0, size)
    assert b"over\n" in err
    nothing_left(system)


def test_a_job_that_ends_while_the_control_plane_is_away_is_told_of(system):
    process = start(system, "echo ready; sleep 1; echo after; exit 5")

    wait_until(lambda: system.kill_role("control-plane"), "the control plane to be killed")
    out, _ = process.communicate(timeout=PATIENCE)

    assert process.returncode == 5
    assert out == b"after\n"
    nothing_left(system)


class Losing(http.server.BaseHTTPRequestHandler):
    """A control plane that is played: a job's connection ends in the middle of its output, and its host is gone."""

    protocol_version = "HTTP/1.1"
    code = 0

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(201, b'{"id": 7}')

    def do_GET(self):
        if "/outputs/" in self.path:
            made = io.BytesIO()
            with tarfile.open(fileobj=made, mode="w") as tar:
                tar.addfile(tarfile.TarInfo("made"))
            self.answer(200, made.getvalue())
        elif "resume=1" in self.path:
            self.speak((EXIT, struct.pack("<iIqqqq", self.code, 0, -1, -1, -1, -1) + b"exit\0\0"))
        else:
            self.speak((STARTED, bytes(16)), (STDOUT, b"some"))

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def speak(self, *frames):
        head = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: nimbus-session\r\n\r\n"
        self.wfile.write(head + b"".join(struct.pack("<IB", len(body), kind) + body for kind, body in frames))
        self.connection.shutdown(socket.SHUT_WR)
        while self.connection.recv(65536):
            pass
        self.close_connection = True

    def log_message(self, *words):
        pass


@pytest.mark.parametrize("code, status", [(0, 125), (3, 3)])
def test_output_that_is_lost_is_said_and_is_no_success(tmp_path, code, status):
    handler = type("Handler", (Losing,), {"code": code})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        env = {k: v for k, v in os.environ.items() if not k.startswith("NIMBUS_")}
        env |= {"NIMBUS_URL": f"http://127.0.0.1:{server.server_port}", "NIMBUS_TOKEN": "eyJx.y.z",
                "NIMBUS_DATA_DIR": str(tmp_path)}
        done = subprocess.run([NIMBUS, "run", "-q", "--no-workspace", "--output", "/made:back", "--", "x"], env=env,
                              cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE,
                              check=False)
        server.shutdown()

    assert (done.returncode, done.stdout) == (status, b"some")
    assert b"was not taken up again; 'nimbus logs 7' has the rest" in done.stderr
    assert (b"exited with 0" in done.stderr) == (code == 0)
    assert (tmp_path / "back" / "made").exists()  # what it made is there all the same


# --- shell ---


def test_a_shell_in_a_running_job_leaves_it_as_it_was(system):
    job_id = system.submit("sh", "-c", "echo mine > /tmp/mark; while [ ! -e /tmp/go ]; do sleep 0.1; done; ls /tmp")
    system.wait_state(job_id, "running")

    def shell(script):
        return subprocess.run([NIMBUS, "shell", str(job_id)], env=system.env, input=script, capture_output=True,
                              timeout=PATIENCE, check=False)

    wait_until(lambda: shell(b"cat /tmp/mark").stdout == b"mine\n", "the job's file")
    done = shell(b"echo to-err >&2; exit 6\n")
    assert (done.returncode, done.stdout) == (6, b"")
    assert b"to-err" in done.stderr
    assert shell(b"touch /tmp/go").returncode == 0
    assert system.wait_final(job_id)["state"] == "succeeded"
    late = system.cli("shell", str(job_id), check=False)
    assert late.returncode == 125
    assert b"not running" in late.stderr or b"succeeded" in late.stderr
