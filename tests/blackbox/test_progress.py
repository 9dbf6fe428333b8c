"""Progress on a terminal: a bar while something comes or goes, and nothing of it left afterwards."""

import hashlib
import http.server
import os
import pathlib
import sys
import threading

import pytest

import terminal as terminals
from system import NIMBUS, System

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "chaos"))
from proxy import Proxy  # noqa: E402

pytestmark = [pytest.mark.once, terminals.wanted]
SIZE = 400_000
SENT = 16 << 20  # more than sockets hold


class Halfway(http.server.BaseHTTPRequestHandler):
    """Half of a file, and the rest when the test says so."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(SIZE))
        self.end_headers()
        sent = SIZE // 2
        self.wfile.write(bytes(sent))
        while not self.server.go_on.wait(0.05):  # next to nothing, so that there is something to draw
            self.wfile.write(b"\0")
            sent += 1
        self.wfile.write(bytes(SIZE - sent))


@pytest.fixture
def web():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Halfway)
    server.go_on = threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.go_on.set()
    server.shutdown()
    server.server_close()


def test_a_download_shows_how_far_it_is(tmp_path, web):
    (tmp_path / "rootfs.yaml").write_text(
        "rootfs:\n  output_dir: out\n  default_version: far\n  versions:\n    - name: far\n"
        f"      base_url: http://127.0.0.1:{web.server_port}/base.tar\n"
        f"      sha256: {hashlib.sha256(bytes(SIZE)).hexdigest()}\n")
    with terminals.Terminal(os.environ, 100, 24) as terminal:
        terminal.type(f"cd {tmp_path}; {NIMBUS} rootfs build; echo ended-with $?")
        page = terminal.wait_shown("50 %")
        assert "far [############            ]  50 % 195.3 KiB, " in page
        web.go_on.set()
        terminal.wait(lambda lines: any(line.startswith("ended-with ") for line in lines), "the end")
        assert not any("[####" in line for line in terminal.lines())


def test_a_folder_that_is_sent_shows_how_far_it_is(tmp_path):
    (tmp_path / "big").write_bytes(os.urandom(SENT))
    with System() as system, terminals.Terminal(system.env, 100, 24) as terminal:
        port = int(system.endpoints["control_plane"].rsplit(":", 1)[1])
        slow = Proxy(("127.0.0.1", port), share=1, faults=("bandwidth",), rate=4 << 20)
        try:
            terminal.type(f"cd {tmp_path}; {NIMBUS} run --url {slow.url} -- wc -c big; echo ended-with $?")
            page = terminal.wait_shown("sending files [")
            assert "s left" in page and " %" in page and "MiB/s" in page or "KiB/s" in page
            terminal.wait_line("ended-with 0")
        finally:
            slow.close()
        lines = terminal.lines()
        assert f"{SENT} big" in lines, "the command's own line is whole"
        assert not any("sending files" in line for line in lines)
