"""The command line itself: what it says when something is wrong, and that the whole command table has help."""

import csv
import fcntl
import json
import os
import pty
import re
import socket
import stat
import struct
import subprocess
import termios

import pytest

from system import NIMBUS, ROOT, System, open_folder, wait_until


def nimbus(*words, env=None):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("NIMBUS_")}
    clean.update(env or {})
    return subprocess.run([NIMBUS, *words], env=clean, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)


def test_version():
    done = nimbus("--version")
    assert done.returncode == 0
    assert re.match(rb"nimbus \d+\.\d+\.\d+", done.stdout)


@pytest.mark.parametrize("words", [[], ["help"], ["--help"], ["jobs", "--help"], ["jobs", "submit", "--help"],
                                   ["logs", "-h"], ["doctor", "--help"], ["up", "--help"], ["help", "exit-codes"]])
def test_help_goes_to_stdout_and_succeeds(words):
    done = nimbus(*words)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) > 4
    assert done.stderr == b""


@pytest.mark.parametrize("words, hint", [(["job"], b"jobs"), (["jobs", "sumbit"], b"submit"),
                                         (["jobs", "submit", "--follwo", "--", "x"], b"--follow")])
def test_a_misspelt_word_is_a_usage_error_with_a_suggestion(words, hint):
    done = nimbus(*words)
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: ")
    assert hint in done.stderr


@pytest.mark.parametrize("page", ["cli", "configuration", "errors"])
def test_reference_pages_are_what_the_tables_say(page):
    committed = (ROOT / "docs" / "reference" / f"{page}.md").read_bytes()
    assert nimbus("reference", page).stdout == committed, "run 'make docs'"


def test_no_server_is_exit_7_and_says_what_to_do(tmp_path):
    done = nimbus("jobs", "recent", env={"NIMBUS_DATA_DIR": str(tmp_path)})
    assert done.returncode == 7, done.stderr
    assert b"error: " in done.stderr and b"hint: " in done.stderr


def test_a_file_name_cannot_steer_the_terminal(tmp_path):
    os.mkfifo(tmp_path / "\x1b]0;title\x07")
    done = nimbus("run", "--all", "--workspace", tmp_path, "--", "true", env={"NIMBUS_DATA_DIR": str(tmp_path),
                  "NIMBUS_URL": "http://127.0.0.1:1", "NIMBUS_TOKEN": "x"})
    assert done.returncode == 125
    assert b"left out: ^[]0;title^G (a pipe)" in done.stderr, done.stderr
    assert b"\x1b" not in done.stderr


def test_an_unknown_variable_is_an_error_with_its_name(tmp_path):
    done = nimbus("up", "--data", tmp_path, "--port-base", "0", env={"NIMBUS_LISTNE": "127.0.0.1"})
    assert done.returncode != 0
    assert b"NIMBUS_LISTNE" in done.stderr and b"NIMBUS_LISTEN" in done.stderr


def test_a_data_directory_that_cannot_be_used_is_named(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    done = nimbus("up", "--data", blocked / "data", "--port-base", "0")
    assert done.returncode != 0
    assert str(blocked).encode() in done.stderr


@pytest.fixture(scope="module")
def system():
    with System() as running:
        yield running


def test_first_start_makes_private_secrets_and_prints_commands(system):
    for path in (system.data / "secrets").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    wait_until(lambda: "--no-workspace -- uname -a" in system.log(), "the commands to try")


def test_a_port_in_use_is_named(system):
    with open_folder() as data, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = nimbus("up", "--data", data, "--port-base", str(port))
        assert done.returncode != 0
        assert str(port).encode() in done.stderr and b"in use" in done.stderr


def test_json_is_json_and_a_pipe_gets_no_colour(system):
    system.submit("true")
    assert json.loads(system.cli("jobs", "recent", "--json").stdout)
    assert b"\x1b" not in system.cli("jobs", "recent").stdout


def test_a_listing_has_one_content_in_every_form(system):
    ids = [system.submit("true"), system.submit("true")]
    recent = ("jobs", "recent", "--limit", "2")
    for job_id in ids:
        system.wait_final(job_id)
    wanted = system.cli(*recent, "-q").stdout.decode().split()
    assert len(wanted) == 2
    assert system.cli(*recent, "-o", "name").stdout.decode().split() == wanted
    assert [list(job) for job in json.loads(system.cli(*recent, "--json=id,state").stdout)] == [["id", "state"]] * 2
    assert [json.loads(line)["id"] for line in system.cli(*recent, "-o", "jsonl").stdout.splitlines()] == list(map(int, wanted))
    rows = list(csv.DictReader(system.cli(*recent, "-o", "csv").stdout.decode().splitlines()))
    assert [row["id"] for row in rows] == wanted and rows[0]["queued_at"].endswith("Z")
    assert b"\x1b[" in system.cli(*recent, "--color", "always").stdout
    for words, said in ((("--json=id,stat"), b"did you mean state?"), (("-o", "yaml"), b"is none of: table json"),
                        (("-q", "--json"), b"-q prints ids only")):
        done = system.cli(*recent, *([words] if isinstance(words, str) else words), check=False)
        assert done.returncode == 2 and said in done.stderr, done.stderr


def on_terminal(words, env, columns):
    """What the command prints on a terminal of that width."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen([NIMBUS, *words], env=env, stdin=slave, stdout=slave, stderr=subprocess.PIPE) as process:
        os.close(slave)
        text = b""
        try:
            while piece := os.read(master, 65536):
                text += piece
        except OSError:  # the other end is closed
            pass
        os.close(master)
    assert process.returncode == 0
    return text.decode().replace("\r\n", "\n")


def test_a_terminal_gets_its_width_colours_and_relative_times(system):
    system.cli("jobs", "submit", "--name", "a name of many words " * 4, "--", "true")
    plain = dict(system.env, TERM="xterm")
    words = ("jobs", "recent", "--limit", "1")
    told = on_terminal(words, plain, 100)
    assert "\x1b[" in told and " ago" in told and "\u2026" in told
    for env in (plain | {"NO_COLOR": "1"}, plain | {"TERM": "dumb"}):
        lines = on_terminal(words, env, 100).splitlines()
        assert not any("\x1b" in line for line in lines) and all(len(line) <= 100 for line in lines), lines
    assert "\x1b" not in on_terminal((*words, "--color", "never"), plain, 100)
    piped = system.cli(*words).stdout.decode()
    assert "a name of many words " * 3 in piped and "\u2026" not in piped and " ago" not in piped


def test_what_a_job_is_called_cannot_steer_a_terminal(system):
    """Nor what it runs, wants or was told: the eight-bit controls are steered by as ESC is."""
    bad = "x\x1b]0;title\x07\u009b31m\nstate      succeeded"
    job_id = json.loads(system.cli("jobs", "submit", "--label", "nobody", "--json", "--", "echo", bad).stdout)["id"]
    for words in (["jobs", "show", str(job_id)], ["jobs", "list"], ["jobs", "recent"], ["jobs", "why", str(job_id)]):
        shown = system.cli(*words).stdout
        assert b"\x1b" not in shown and b"\xc2\x9b" not in shown, words
        assert not re.search(rb"^state +succeeded", shown, re.M), words


def test_not_found_is_exit_3(system):
    assert system.cli("jobs", "show", "999999999", check=False).returncode == 3


def test_a_wrong_token_is_exit_4(system):
    clean = dict(system.env, NIMBUS_TOKEN="not-a-token", NIMBUS_URL=system.endpoints["control_plane"])
    done = subprocess.run([NIMBUS, "jobs", "recent"], env=clean, capture_output=True, timeout=60, check=False)
    assert done.returncode == 4, done.stderr


def test_doctor_says_what_it_found(system):
    done = system.cli("doctor", check=False)
    assert done.returncode in (0, 1)
    assert b"qemu" in done.stdout.lower()
    assert isinstance(json.loads(system.cli("doctor", "--json", check=False).stdout), (dict, list))


def test_no_secret_is_ever_printed(system):
    system.cli("jobs", "recent")
    log = system.log()
    for secret in system.secrets():
        assert secret not in log


def test_up_ends_cleanly_and_removes_its_endpoints(tmp_path):
    system = System()
    with system:
        path = system.endpoints_path
        pid = system.process.pid
        assert system.stop() == 0
        assert not path.exists()
        wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "up to be gone")
