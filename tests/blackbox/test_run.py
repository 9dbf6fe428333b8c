"""Sessions, files and commands of jobs in real microVMs, by a client of their own (sessions.py): what 'nimbus run' and
'nimbus shell' are made of."""

import io
import shutil
import struct
import tarfile

import pytest

from sessions import (CREDIT, EXIT, NOTICE, SIGNAL, STARTED, STDERR, STDIN, STDOUT, WINSIZE, Control, read_exit)
from system import System, open_folder, wait_until
from test_hostile import Certificates, port_of

pytestmark = [pytest.mark.once,
              pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="no qemu-system-x86_64")]


@pytest.fixture(scope="module")
def system():
    with System(env={"NIMBUS_VM_SHUTDOWN_GRACE": "2"}) as running:
        yield running


@pytest.fixture(scope="module")
def control(system):
    return Control(system)


def attach(control, job_id):
    return control.end(f"/api/jobs/{job_id}/session")


def talk(end, credit=True):
    """All that comes: stdout, stderr, the exit, and the kinds of frames in their order."""
    out = {STDOUT: b"", STDERR: b"", NOTICE: b""}
    kinds = []
    while (frame := end.frame()) is not None:
        kind, payload = frame
        kinds.append(kind)
        if kind in out:
            out[kind] += payload
        if kind in (STDOUT, STDERR) and payload and credit:
            end.send(CREDIT, struct.pack("<BI", 1 if kind == STDOUT else 2, len(payload)))
        if kind == EXIT:
            return out[STDOUT], out[STDERR], read_exit(payload), kinds
    raise AssertionError(f"no exit came: {kinds} {out}")


def tar_of(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            entry.mode = 0o755
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def test_streams_stay_apart_and_the_exit_has_its_times(system, control):
    job_id = control.submit(command="echo out; echo err >&2; exit 7", session={})["id"]
    with attach(control, job_id) as end:
        out, err, how, kinds = talk(end)
    assert (out, err, how["code"], how["reason"]) == (b"out\n", b"err\n", 7, "exit")
    assert kinds[0] == STARTED and kinds[-1] == EXIT
    assert how["queued"] >= 0 and how["vm"] > 0 and how["ran"] > 0 and how["gone"] >= 0
    system.wait_final(job_id)
    logs = system.cli("logs", str(job_id))
    assert b"out" in logs.stdout and b"err" in logs.stderr


def test_what_comes_in_goes_out_as_it_is(control):
    job_id = control.submit(argv=["cat"], session={"stdin": True})["id"]
    data = bytes(range(256)) * 4096  # 1 MiB: more than any credit
    with attach(control, job_id) as end:
        end.socket.setblocking(True)
        sent, out, credit, how = 0, b"", 256 << 10, None
        while how is None:
            while sent < len(data) and credit > 0:
                piece = data[sent:sent + min(32768, credit)]
                end.send(STDIN, piece)
                sent, credit = sent + len(piece), credit - len(piece)
                if sent == len(data):
                    end.send(STDIN)
            kind, payload = end.frame()
            if kind == CREDIT:
                credit += struct.unpack("<BI", payload)[1]
            elif kind == STDOUT and payload:
                out += payload
                end.send(CREDIT, struct.pack("<BI", 1, len(payload)))
            elif kind == EXIT:
                how = read_exit(payload)
    assert how["code"] == 0, how
    assert out == data


def test_a_client_that_takes_nothing_holds_the_job_and_loses_nothing(control):
    job_id = control.submit(command="head -c 3000000 /dev/zero | tr '\\0' x; echo done >&2", session={})["id"]
    with attach(control, job_id) as end:
        got = b""
        while len(got) < 256 << 10:  # the whole credit, and none given back
            kind, payload = end.frame()
            got += payload if kind == STDOUT else b""
            assert kind != EXIT
        assert control.job(job_id)["state"] in ("starting", "running")
        end.send(CREDIT, struct.pack("<BI", 1, 1 << 30))
        out, err, how, _ = talk(end)
    assert len(got) + len(out) == 3000000 and err == b"done\n" and how["code"] == 0


def test_a_client_that_goes_away_leaves_the_job_running(system, control):
    job_id = control.submit(command="cat; echo went on", session={"stdin": True})["id"]
    end = attach(control, job_id)
    assert end.frame()[0] == STARTED
    end.close()
    assert system.wait_final(job_id)["state"] == "succeeded"
    assert "went on" in system.output(job_id)


def test_a_terminal(control):
    job_id = control.submit(command="stty size; read x; stty size; echo got $x; tty",
                            session={"stdin": True, "tty": {"rows": 33, "cols": 99}})["id"]
    with attach(control, job_id) as end:
        seen = b""
        while b"33 99" not in seen:
            kind, payload = end.frame()
            seen += payload if kind == STDOUT else b""
        end.send(WINSIZE, struct.pack("<HH", 44, 111))
        end.send(STDIN, b"word\n")
        out, err, how, _ = talk(end)
    assert b"44 111" in out and b"got word" in out and how["code"] == 0
    assert err == b""


def test_a_signal_reaches_the_job(control):
    job_id = control.submit(command="trap 'echo caught; exit 3' INT; echo ready; while :; do sleep 0.1; done",
                            session={})["id"]
    with attach(control, job_id) as end:
        while end.frame() != (STDOUT, b"ready\n"):
            pass
        end.send(SIGNAL, struct.pack("<I", 2))
        out, _, how, _ = talk(end)
    assert b"caught" in out and how["code"] == 3


def test_a_cancelled_job_says_so(control):
    job_id = control.submit(command="echo ready; sleep 600", session={})["id"]
    with attach(control, job_id) as end:
        while end.frame() != (STDOUT, b"ready\n"):
            pass
        control.call("POST", f"/api/jobs/{job_id}/cancel")
        _, _, how, _ = talk(end)
    assert how["reason"] == "cancelled"


def test_folders_go_in_and_out(system, control):
    job_id = control.submit(command="cat in/a; mkdir out; echo made > out/b; ls", workdir="/workspace",
                            inputs=[{"path": "/workspace"}],
                            outputs=[{"path": "/workspace/out"}, {"path": "/workspace/none"}], session={})["id"]
    with attach(control, job_id) as end:
        answer = control.call("PUT", f"/api/jobs/{job_id}/workspace", data=tar_of({"in/a": b"the file\n"}))
        assert answer.status_code == 200, answer.text
        out, _, how, _ = talk(end)
        assert (how["code"], how["reason"]) == (0, "exit"), how
        assert out.startswith(b"the file\n")
        packed = control.call("GET", f"/api/jobs/{job_id}/outputs/0")
    assert packed.status_code == 200, packed.text
    with tarfile.open(fileobj=io.BytesIO(packed.content)) as tar:
        assert tar.extractfile("out/b").read() == b"made\n"
    system.wait_final(job_id)
    missing = control.call("GET", f"/api/jobs/{job_id}/outputs/1")
    assert missing.status_code == 404 and "log says why" in missing.text
    assert b"/workspace/none did not come" in system.cli("logs", str(job_id)).stderr


BAD_TARS = {"dots": tar_of({"../../etc/x": b"x"}), "noise": b"no tar at all " * 100}


@pytest.mark.parametrize("name", sorted(BAD_TARS))
def test_a_bad_tar_ends_the_job_with_a_reason(control, name):
    data = BAD_TARS[name]
    job_id = control.submit(command="true", inputs=[{"path": "/workspace"}], session={})["id"]
    with attach(control, job_id) as end:
        assert control.call("PUT", f"/api/jobs/{job_id}/workspace", data=data).status_code == 200
        _, _, how, _ = talk(end)
    assert how["code"] == -1 and how["reason"] == "start_failed", (name, how)
    assert "/workspace" in how["text"]


def test_all_of_it_over_tls():
    with open_folder() as folder:
        certificates = Certificates(folder)
        certificates.make("control")
        ca = certificates.files[0]
        with System(env={**certificates.env, "NIMBUS_CA_BUNDLE": ca, "NIMBUS_REQUIRE_HTTPS": "true"}) as system:
            control = Control(system, ca)
            control.url = f"https://127.0.0.1:{port_of(system)}"
            job_id = control.submit(command="cat /w/file; cat; head -c 2000000 /dev/zero | tr '\\0' y",
                                    inputs=[{"path": "/w"}], session={"stdin": True})["id"]
            with attach(control, job_id) as end:
                end.send(STDIN, b"said")
                end.send(STDIN)
                sent = control.call("PUT", f"/api/jobs/{job_id}/workspace", data=tar_of({"file": b"sent "}))
                assert sent.status_code == 200, sent.text
                out, _, how, _ = talk(end)
    assert how["code"] == 0, how
    assert out == b"sent said" + b"y" * 2000000


def test_commands_in_a_running_job(system, control):
    job_id = system.submit("sh", "-c", "echo mine > /tmp/mark; sleep 600")
    system.wait_state(job_id, "running")

    def run(**ask):
        answer = control.call("POST", f"/api/jobs/{job_id}/exec", json=ask)
        assert answer.status_code == 201, answer.text
        with control.end(f"/api/jobs/{job_id}/exec/{answer.json()['session']}") as end:
            if ask.get("stdin"):
                end.send(STDIN, b"to cat\n")
                end.send(STDIN)
            return talk(end)

    wait_until(lambda: run(argv=["cat", "/tmp/mark"])[0] == b"mine\n", "the job's own files to be seen")
    out, err, how, _ = run(argv=["sh", "-c", "cat; echo $X >&2; pwd; exit 9"], stdin=True, env={"X": "variable"},
                           cwd="/tmp")
    assert (out, err, how["code"]) == (b"to cat\n/tmp\n", b"variable\n", 9)
    assert run(argv=["sh", "-c", "stty size"], tty={"rows": 7, "cols": 70})[0].strip() == b"7 70"
    assert run(argv=["no-such-program"])[2]["code"] == 127
    control.call("POST", f"/api/jobs/{job_id}/cancel")
    system.wait_final(job_id)
