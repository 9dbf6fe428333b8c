"""`nimbus rootfs`: reproducible images, hostile archives, downloads that break, activation, what is kept."""

import contextlib
import ctypes
import fcntl
import hashlib
import http.server
import io
import itertools
import json
import os
import shutil
import ssl
import stat
import subprocess
import tarfile
import threading

import pytest

from system import NIMBUS, wait_until

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(shutil.which("mksquashfs") is None, reason="squashfs-tools is not installed"),
]


def rootfs(folder, *words, status=0, env=None, umask=-1):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("NIMBUS_")}
    done = subprocess.run([NIMBUS, "rootfs", *words], cwd=folder, env={**clean, "SOURCE_DATE_EPOCH": "1", **(env or {})},
                          text=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False, umask=umask)
    assert done.returncode == status, done
    return done


def rows(folder, *words, status=0, umask=-1):
    return json.loads(rootfs(folder, *words, "--json", status=status, umask=umask).stdout)


def configure(folder, *versions, default=None):
    """JSON is YAML."""
    config = {"output_dir": "out", "versions": list(versions)}
    if default:
        config["default_version"] = default
    (folder / "rootfs.yaml").write_text(json.dumps({"rootfs": config}, indent=1))


def make_tree(folder):
    (folder / "base/bin").mkdir(parents=True)
    (folder / "base/etc").mkdir()
    (folder / "base/bin/sh").write_bytes(b"#!" + b"x" * 300000)
    (folder / "base/bin/sh").chmod(0o4755)
    (folder / "base/sbin").symlink_to("bin")
    (folder / "base/etc/motd").write_text("from the base\n")
    for name in "one", "two":
        (folder / name / "etc").mkdir(parents=True)
        (folder / name / "etc/motd").write_text(f"from {name}\n")
    (folder / "one/sbin").mkdir()
    (folder / "one/sbin/tool").write_text("tool\n")


def listing(folder, name):
    done = subprocess.run(["unsquashfs", "-lln", f"out/{name}.squashfs"], cwd=folder, capture_output=True, text=True,
                          check=True)
    return done.stdout


def content(folder, name, path):
    return subprocess.run(["unsquashfs", "-cat", f"out/{name}.squashfs", path], cwd=folder, capture_output=True,
                          text=True, check=True).stdout


def test_same_inputs_same_bytes(tmp_path):
    """On two runs, and in another directory with other times."""
    digests = []
    for place in "first", "somewhere/else":
        folder = tmp_path / place
        folder.mkdir(parents=True)
        make_tree(folder)
        configure(folder, {"name": "dev", "base_path": "base", "overlay_dir": ["one", "two"]})
        for path in folder.rglob("*"):
            os.utime(path, (len(digests) * 1000, len(digests) * 1000), follow_symlinks=False)
        for _ in range(2):
            built, = rows(folder, "build")
            digests.append((built["sha256"], built["rootfs_id"], built["verity"]["root_hash"]))
            shutil.rmtree(folder / "out") if _ == 0 else None
    assert len(set(digests)) == 1
    image = folder / "out/dev.squashfs"
    assert hashlib.sha256(image.read_bytes()).hexdigest() == digests[0][0]
    shown = listing(folder, "dev")
    assert "-rwsr-xr-x 0/0" in shown and "squashfs-root/bin/tool" in shown, "overlays go through the base's links"
    assert content(folder, "dev", "etc/motd") == "from two\n"


def test_overlays_in_another_order_are_another_image(tmp_path):
    make_tree(tmp_path)
    ids = set()
    for order in itertools.permutations(["one", "two"]):
        configure(tmp_path, {"name": "dev", "base_path": "base", "overlay_dir": list(order)})
        built, = rows(tmp_path, "build")
        ids.add(built["rootfs_id"])
        assert content(tmp_path, "dev", "etc/motd") == f"from {order[-1]}\n"
    assert len(ids) == 2


def test_every_kind_of_base(tmp_path):
    make_tree(tmp_path)
    subprocess.run("tar -C base --owner=1000 --group=5 -cf base.tar . && gzip -k base.tar && zstd -q base.tar && "
                   "mke2fs -q -t ext4 -d base base.ext4 8M && mksquashfs base base.sq -quiet -no-progress -all-root",
                   shell=True, cwd=tmp_path, check=True, capture_output=True)
    kinds = {"base.tar": "tar", "base.tar.gz": "tar", "base.tar.zst": "tar", "base.ext4": "ext4", "base.sq": "squashfs"}
    configure(tmp_path, *({"name": f"v{n}", "base_path": path} for n, path in enumerate(kinds)))
    built = rows(tmp_path, "build")
    assert [b["base"]["type"] for b in built] == list(kinds.values())
    # What packed the tar does not count: the same files, the same image.
    assert len({b["sha256"] for b in built[:3]}) == 1
    shown = listing(tmp_path, "v0")
    assert "-rwsr-xr-x 1000/5" in shown, "owners of a tar are kept, whoever builds"
    assert shown.splitlines()[0].startswith("drwxr-xr-x 1000/5"), "of its root too"
    # An image of an image is the same image: nothing is lost on the way, root or not.
    configure(tmp_path, {"name": "again", "base_path": "out/v0.squashfs"})
    again, = rows(tmp_path, "build")
    assert again["sha256"] == built[0]["sha256"]
    for n in range(5):
        assert "-rwsr-xr-x " in listing(tmp_path, f"v{n}"), "modes are kept, setuid too"
        assert content(tmp_path, f"v{n}", "etc/motd") == "from the base\n"


def tar_of(path, **entry):
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo("etc/fine")
        tar.addfile(info)
        info = tarfile.TarInfo(entry.pop("name"))
        for key, value in entry.items():
            setattr(info, key, value)
        tar.addfile(info, io.BytesIO(b""))


@pytest.mark.parametrize("entry, said", [
    ({"name": "../../evil"}, "'../../evil' has '..'"),
    ({"name": "/tmp/evil"}, "'/tmp/evil' is absolute"),
    ({"name": "dev/sda", "type": tarfile.BLKTYPE}, "'dev/sda' is a device"),
    ({"name": "pipe", "type": tarfile.FIFOTYPE}, "'pipe' is a device, FIFO or socket"),
    ({"name": "x", "type": tarfile.LNKTYPE, "linkname": "../../etc/passwd"}, "has '..'"),
])
def test_hostile_archives_are_refused_by_name(tmp_path, entry, said):
    make_tree(tmp_path)
    tar_of(tmp_path / "evil.tar", **entry)
    configure(tmp_path, {"name": "a", "base_path": "evil.tar"})
    assert said in rootfs(tmp_path, "build", status=2).stderr
    configure(tmp_path, {"name": "a", "base_path": "base", "overlay_dir": "evil.tar"})
    done = rootfs(tmp_path, "build", status=2)
    assert said in done.stderr and "overlay_dir" in done.stderr
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [".build.lock"], "nothing is left of it"


def test_what_is_wrong_is_said(tmp_path):
    make_tree(tmp_path)
    (tmp_path / "rootfs.yaml").write_text("rootfs:\n  output_dir: out\n  versions:\n    - name: a\n      base_pth: x\n")
    done = rootfs(tmp_path, "build", status=2)
    assert "rootfs.yaml:5: no key 'base_pth' here: did you mean 'base_path'?" in done.stderr
    assert "No such file" in rootfs(tmp_path, "build", "--config", "none.yaml", status=1).stderr
    configure(tmp_path, {"name": "a", "base_path": "base", "sha256": "0" * 64})
    assert "the configuration says 000" in rootfs(tmp_path, "build", status=2).stderr
    configure(tmp_path, {"name": "a", "base_path": "nowhere"})
    assert "nowhere" in rootfs(tmp_path, "build", status=1).stderr
    configure(tmp_path, {"name": "a", "base_path": "rootfs.yaml"})
    assert "base_path" in rootfs(tmp_path, "build", status=2).stderr
    configure(tmp_path, {"name": "a", "base_path": "base"})
    assert "no version 'b'; there are: a" in rootfs(tmp_path, "build", "--version", "b", status=3).stderr
    assert "--rollback" in rootfs(tmp_path, "activate", status=2).stderr
    assert "no rootfs 'a'" in rootfs(tmp_path, "activate", "a", status=3).stderr


CAPABILITY = bytes.fromhex("0100000200200000" + "00" * 12)  # cap_net_raw+ep, as capabilities(7) has it


def attributes(folder, name):
    """Of every file and folder of a built image, as the kernel would give them in a VM."""
    place = folder / f"unpacked-{name}"
    subprocess.run(["unsquashfs", "-quiet", "-no-progress", "-xattrs", "-dest", place, f"out/{name}.squashfs"],
                   cwd=folder, check=True, capture_output=True)
    found = {}
    for path in [place, *place.rglob("*")]:
        for attribute in os.listxattr(path, follow_symlinks=False):
            found[str(path.relative_to(place)), attribute] = os.getxattr(path, attribute, follow_symlinks=False)
    return found


def has_landlock():
    return ctypes.CDLL(None).syscall(444, None, 0, 1) >= 2


def confines_with_capabilities():
    return has_landlock() and subprocess.run(["unshare", "--mount", "--net", "--ipc", "--uts", "true"],
                                             capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files capabilities")
def test_extended_attributes_are_kept(tmp_path):
    make_tree(tmp_path)
    ping = tmp_path / "base/bin/ping"
    ping.write_bytes(b"ping")
    try:
        os.setxattr(ping, "security.capability", CAPABILITY)
        os.setxattr(ping, "user.z", b"\0last\n")
        os.setxattr(ping, "user.a", b"first")
        os.setxattr(ping, "trusted.note", b"this machine's")
        os.setxattr(tmp_path / "base/etc", "user.origin", b"base")
        os.setxattr(tmp_path / "one/etc/motd", "user.origin", b"one")
    except OSError as error:
        pytest.skip(f"no attributes here: {error}")
    os.link(ping, tmp_path / "base/bin/ping6")
    subprocess.run("tar --xattrs --xattrs-include='*' -C base -cf base.tar . && tar -C base --format=pax -cf no.tar . &&"
                   "mke2fs -q -t ext4 -d base base.ext4 8M && mksquashfs base base.sq -quiet -no-progress",
                   shell=True, cwd=tmp_path, check=True, capture_output=True)
    kinds = ["base", "base.tar", "base.ext4", "base.sq"]
    configure(tmp_path, {"name": "v3", "base_path": "base.sq"})
    # Root's rights are for nobody who is not confined: without this one there are no namespaces.
    done = subprocess.run(["setpriv", "--bounding-set=-sys_admin", NIMBUS, "rootfs", "build"], cwd=tmp_path, text=True,
                          capture_output=True, check=False)
    assert done.returncode == 4 and "from a tar or ext4 image" in done.stderr and "namespaces" in done.stderr
    if not confines_with_capabilities():
        kinds.remove("base.sq")
    configure(tmp_path, *({"name": f"v{n}", "base_path": kind, "overlay_dir": "one"} for n, kind in enumerate(kinds)),
              {"name": "no", "base_path": "no.tar"})
    done = rootfs(tmp_path, "build", "--json")
    kept = {(f"bin/{name}", key): value for name in ("ping", "ping6") for key, value in {
        "security.capability": CAPABILITY, "user.a": b"first", "user.z": b"\0last\n"}.items()}
    for n in range(len(kinds)):
        # The overlay names the folder etc too, so its attributes count.
        assert attributes(tmp_path, f"v{n}") == {**kept, ("etc/motd", "user.origin"): b"one"}, kinds[n]
        assert f"v{n}: extended attribute 'trusted.note' of 'bin/ping" in done.stderr
    assert attributes(tmp_path, "no") == {}
    # The same once more is the same; without root too, where a base needs none.
    first = [b["sha256"] for b in json.loads(done.stdout)]
    shutil.rmtree(tmp_path / "out")
    assert [b["sha256"] for b in rows(tmp_path, "build")] == first
    for path in [tmp_path, *tmp_path.parents][:3]:
        path.chmod(0o755)
    (tmp_path / "user").mkdir()
    os.chown(tmp_path / "user", 65534, 65534)
    base = [f"--config={tmp_path}/rootfs.yaml", f"--output-dir={tmp_path}/user/out"]
    as_user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", NIMBUS, "rootfs", "build", *base]
    for version, digest in ("v1", first[1]), ("v2", first[2]):
        subprocess.run([*as_user, "--version", version], cwd="/", check=True, capture_output=True)
        assert os.readlink(tmp_path / f"user/out/{version}.squashfs").startswith(digest)
    configure(tmp_path, {"name": "v3", "base_path": "base.sq"})
    done = subprocess.run([*as_user, "--version=v3"], cwd="/", check=False, capture_output=True, text=True)
    assert done.returncode == 4 and "which only root can read" in done.stderr


def test_damaged_attributes_are_refused_by_name(tmp_path):
    make_tree(tmp_path)
    for value, said in (b"\1\0\0\2", "damaged"), (b"\1\0\0\3" + b"\0" * 16 + b"\x39\5\0\0", "uid 1337"):
        with tarfile.open(tmp_path / "evil.tar", "w", format=tarfile.PAX_FORMAT, encoding="latin1") as tar:
            info = tarfile.TarInfo("bin/ping")
            info.pax_headers = {"SCHILY.xattr.security.capability": value.decode("latin1")}
            tar.addfile(info)
        configure(tmp_path, {"name": "a", "base_path": "evil.tar"})
        done = rootfs(tmp_path, "build", status=2)
        assert "'bin/ping'" in done.stderr and said in done.stderr


STAND_IN = """#!/usr/bin/python3 -IS
import os, socket, sys

def forks():
    for _ in range(8):
        if os.fork() == 0:
            os._exit(0)

def attempt(what):
    try:
        what()
        return "done"
    except OSError as error:
        return "stopped"

if "-lln" not in sys.argv:
    attempts = {"socket": lambda: socket.socket(), "read": lambda: open("/etc/passwd").read(),
                "write": lambda: open("OUTSIDE/made", "w"), "fork": forks,
                "input": lambda: os.pwrite(3, b"x", 0)}
    with open("report", "w") as report:
        report.write(" ".join(f"{name}={attempt(what)}" for name, what in attempts.items()))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to put another program in the place of unsquashfs")
def test_what_reads_a_foreign_image_is_confined(tmp_path):
    """A program in place of unsquashfs, as if an image had taken it over."""
    make_tree(tmp_path)
    subprocess.run("mksquashfs base base.sq -quiet -no-progress -no-xattrs", shell=True, cwd=tmp_path, check=True)
    (tmp_path / "base.sq").chmod(0o600)  # a copy is made of it
    configure(tmp_path, {"name": "a", "base_path": "base.sq"})
    for path in [tmp_path, *tmp_path.parents][:3]:
        path.chmod(0o755)
    outside = tmp_path / "outside"
    outside.mkdir()
    outside.chmod(0o777)
    stand_in = tmp_path / "stand-in"
    stand_in.write_text(STAND_IN.replace("OUTSIDE", str(outside)))
    stand_in.chmod(0o755)
    if subprocess.run(["unshare", "--mount", "mount", "--bind", stand_in, shutil.which("unsquashfs")],
                      capture_output=True, check=False).returncode != 0:
        pytest.skip("no mounts of our own here")
    # By itself it can do all of it, so that the test can fail.
    subprocess.run(["sh", "-c", 'exec "$0" 3<>input', stand_in], cwd=tmp_path, check=True)
    assert (tmp_path / "report").read_text() == "socket=done read=done write=done fork=done input=done"
    (outside / "made").unlink()
    script = 'mount --bind "$1" "$2" && exec "$3" rootfs build'
    subprocess.run(["unshare", "--mount", "sh", "-c", script, "sh", stand_in, shutil.which("unsquashfs"), NIMBUS],
                   cwd=tmp_path, check=True, capture_output=True)
    # To read what anybody may read takes Landlock to stop.
    read = "stopped" if has_landlock() else "done"
    wanted = f"socket=stopped read={read} write=stopped fork=stopped input=stopped"
    assert content(tmp_path, "a", "report") == wanted
    assert list(outside.iterdir()) == []
    assert "report" in listing(tmp_path, "a") and "899999" not in listing(tmp_path, "a"), "it is nobody's in the image"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make devices and files of others")
def test_images_that_are_not_for_everybody_to_read(tmp_path):
    """What unpacks is no root, and yet reads a private image, and passes over devices as root would."""
    make_tree(tmp_path)
    (tmp_path / "base/dev").mkdir()
    os.mknod(tmp_path / "base/dev/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mkfifo(tmp_path / "base/dev/fifo")
    os.chown(tmp_path / "base/etc/motd", 1000, 5)
    (tmp_path / "base/etc/motd").chmod(0)
    subprocess.run("mksquashfs base base.sq -quiet -no-progress -no-xattrs && mke2fs -q -t ext4 -d base base.ext4 8M",
                   shell=True, cwd=tmp_path, check=True, capture_output=True)
    digests = {}
    for mode, umask in (0o600, 0o022), (0o644, 0o022), (0o600, 0o077), (0o644, 0o077):
        for base in "base.sq", "base.ext4":
            (tmp_path / base).chmod(mode)
            configure(tmp_path, {"name": "a", "base_path": base})
            built, = rows(tmp_path, "build", umask=umask)
            digests.setdefault(base, set()).add(built["sha256"])
            shown = listing(tmp_path, "a")
            assert "---------- 1000/5" in shown and "/dev/" not in shown
            assert "-rwsr-xr-x 0/0" in shown
            assert content(tmp_path, "a", "etc/motd") == "from the base\n"
    assert [len(found) for found in digests.values()] == [1, 1]
    assert not list((tmp_path / "out").glob(".work-*"))


class Files(http.server.BaseHTTPRequestHandler):
    """Serves one file with ranges; each answer ends after `cut` bytes."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        web = self.server
        if self.path in web.redirects:
            web.hops.append(self.path)
            self.send_response(302)
            self.send_header("Location", web.redirects[self.path])
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"moved")
            return
        web.ranges.append(self.headers.get("Range"))
        if self.path.split("?")[0] != "/base.tar":
            self.send_error(404)
            return
        start = 0
        if self.headers.get("Range") and self.headers.get("If-Range") == web.etag:
            start = int(self.headers["Range"].split("=")[1].rstrip("-"))
        self.send_response(206 if start else 200)
        self.send_header("ETag", web.etag)
        self.send_header("Content-Length", str(len(web.body) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(web.body) - 1}/{len(web.body)}")
        self.end_headers()
        end = start + web.cut if web.cut else len(web.body)
        with contextlib.suppress(OSError):
            self.wfile.write(web.body[start:end])
        self.close_connection = True


@pytest.fixture
def web(tmp_path):
    make_tree(tmp_path)
    subprocess.run(["tar", "-C", "base", "-cf", "base.tar", "."], cwd=tmp_path, check=True)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files)
    server.body = (tmp_path / "base.tar").read_bytes()
    server.etag, server.cut, server.ranges, server.redirects, server.hops = '"one"', 0, [], {}, []
    server.digest = hashlib.sha256(server.body).hexdigest()
    server.url = f"http://127.0.0.1:{server.server_port}/base.tar"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_download_goes_on_where_it_broke_off(tmp_path, web):
    web.cut = len(web.body) // 2 + 1
    configure(tmp_path, {"name": "a", "base_url": web.url, "sha256": web.digest, "size": len(web.body)})
    built, = rows(tmp_path, "build")
    assert built["base"]["sha256"] == web.digest
    assert web.ranges[0] is None and web.ranges[1] == f"bytes={web.cut}-"
    # What is there and right is not loaded again.
    rootfs(tmp_path, "build")
    assert len(web.ranges) == 2


def test_two_halves_of_two_files_are_no_file(tmp_path, web):
    """The file changes between the halves: it is loaded anew, from its beginning."""
    configure(tmp_path, {"name": "a", "base_url": web.url, "sha256": web.digest})
    good, web.body = web.body, b"z" * len(web.body)
    web.etag = '"other"'
    assert "the configuration says" in rootfs(tmp_path, "build", status=2).stderr
    folder = tmp_path / "out/.downloads"
    part, = (p for p in folder.iterdir() if p.suffix != ".validator")
    part.write_bytes(b"z" * 1000)
    part.with_suffix(".validator").write_text('"other"')
    web.body, web.etag = good, '"one"'
    built, = rows(tmp_path, "build")
    assert built["base"]["sha256"] == web.digest
    assert web.ranges[-1] == "bytes=1000-"


def test_redirects_are_followed(tmp_path, web):
    """As release hosts and mirrors do it: to another path, to another host, with a key in the query; each try from the
    first address on, and the second half of a file is still that file's."""
    port = web.server_port
    web.redirects = {"/latest": "/v1", "/v1": f"http://localhost:{port}/base.tar?signature=secret"}
    web.cut = len(web.body) // 2 + 1
    configure(tmp_path, {"name": "a", "base_url": f"http://127.0.0.1:{port}/latest", "sha256": web.digest})
    built, = rows(tmp_path, "build")
    assert built["base"] == {"type": "tar", "sha256": web.digest, "size": len(web.body),
                             "source": f"http://127.0.0.1:{port}/latest"}
    assert web.ranges == [None, f"bytes={web.cut}-"] and web.hops == ["/latest", "/v1"] * 2
    shutil.rmtree(tmp_path / "out/.downloads")
    web.redirects["/v1"] = f"http://localhost:{port}/gone?signature=secret"
    done = rootfs(tmp_path, "build", status=3)
    assert f"http://localhost:{port} answered 404, to where http://127.0.0.1:{port}/latest redirects" in done.stderr
    assert "secret" not in done.stderr and len(web.ranges) == 3


def test_redirects_that_lead_nowhere(tmp_path, web):
    port = web.server_port
    configure(tmp_path, {"name": "a", "base_url": f"http://127.0.0.1:{port}/0", "sha256": web.digest})
    for to, said in [({"/0": "/0"}, "more than 8 redirects"),
                     ({"/0": f"http://u:p@127.0.0.1:{port}/base.tar"}, "with a user's name"),
                     ({"/0": "file:///etc/passwd"}, "answered 302 without a place to go to"),
                     ({"/0": "http+unix://%2Frun%2Fx/base.tar"}, "answered 302 without a place to go to"),
                     ({"/0": ""}, "answered 302 without a place to go to")]:
        web.redirects, web.hops = to, []
        assert said in rootfs(tmp_path, "build", status=2).stderr
        assert len(web.hops) <= 9 and web.ranges == []
    # Eight are fine.
    web.redirects = {f"/{n}": f"/{n + 1}" for n in range(7)} | {"/7": "/base.tar"}
    rootfs(tmp_path, "build")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_https_does_not_become_http(tmp_path, web):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "5", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=DNS:localhost", "-keyout", tmp_path / "tls.key", "-out",
                    tmp_path / "tls.crt"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    safe = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files)
    safe.socket = context.wrap_socket(safe.socket, server_side=True)
    safe.body, safe.etag, safe.cut, safe.ranges, safe.hops = web.body, web.etag, 0, [], []
    safe.redirects = {"/down": web.url, "/across": f"https://localhost:{safe.server_port}/base.tar"}
    web.redirects = {"/up": f"https://localhost:{safe.server_port}/across"}
    threading.Thread(target=safe.serve_forever, daemon=True).start()
    env = {"NIMBUS_CA_BUNDLE": str(tmp_path / "tls.crt")}
    try:
        configure(tmp_path, {"name": "a", "base_url": f"https://localhost:{safe.server_port}/down"})
        done = rootfs(tmp_path, "build", status=2, env=env)
        assert "which is not https: that is not followed" in done.stderr and web.ranges == []
        configure(tmp_path, {"name": "a", "base_url": web.url.replace("/base.tar", "/up"), "sha256": web.digest})
        rootfs(tmp_path, "build", env=env)
        assert web.hops == ["/up"] and safe.hops == ["/down", "/across"] and safe.ranges == [None]
    finally:
        safe.shutdown()
        safe.server_close()


def test_downloads_that_cannot_be(tmp_path, web):
    configure(tmp_path, {"name": "a", "base_url": web.url, "size": 5})
    assert "'size' says 5" in rootfs(tmp_path, "build", status=2).stderr
    configure(tmp_path, {"name": "a", "base_url": web.url + "x"})
    assert "404" in rootfs(tmp_path, "build", status=3).stderr
    configure(tmp_path, {"name": "a", "base_url": "http://127.0.0.1:1/base.tar", "sha256": web.digest})
    done = rootfs(tmp_path, "build", status=7)
    assert "base_url" in done.stderr and "nothing listens at http://127.0.0.1:1" in done.stderr
    assert not list((tmp_path / "out").glob("*.squashfs"))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to build in a folder of somebody else")
def test_root_builds_beside_a_folder_of_somebody_else(tmp_path, web):
    """As the machine's assets are its service user's: what that one puts there leads root nowhere."""
    victim = tmp_path / "victim"
    victim.mkdir()
    out = tmp_path / "out"
    out.mkdir()
    (out / ".downloads").symlink_to(victim)
    for path in out, victim:
        os.chown(path, 65534, 65534)
    configure(tmp_path, {"name": "a", "base_url": web.url, "sha256": web.digest}, default="a")
    before = set(tmp_path.iterdir())
    rootfs(tmp_path, "build")
    assert list(victim.iterdir()) == []
    assert rows(tmp_path, "verify")[0]["ok"]
    place, = set(tmp_path.iterdir()) - before
    info = place.stat()
    assert place.name.startswith(".rootfs-") and (info.st_uid, stat.S_IMODE(info.st_mode)) == (0, 0o700)
    assert [p.name for p in place.iterdir()] == [".downloads"], "kept for the next build"
    asked = len(web.ranges)
    rootfs(tmp_path, "build")
    assert len(web.ranges) == asked
    rootfs(tmp_path, "gc")
    assert not place.exists() and list(victim.iterdir()) == []
    # Who may write there cannot take the place first, where others may make folders.
    place.mkdir()
    os.chown(place, 65534, 65534)
    assert f"{place}, where root is to build" in rootfs(tmp_path, "build", status=2).stderr
    place.rmdir()
    # Another name of a file of root's is not written into.
    (tmp_path / "precious").write_text("precious")
    (out / ".build.lock").unlink()
    os.link(tmp_path / "precious", out / ".build.lock")
    assert "no file of one name" in rootfs(tmp_path, "build", status=2).stderr
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a disk")
def test_a_folder_on_another_disk(tmp_path):
    """Made beside it on this one, it is copied."""
    make_tree(tmp_path)
    configure(tmp_path, {"name": "a", "base_path": "base"})
    (tmp_path / "out").mkdir()
    script = 'mount -t tmpfs -o uid=65534,mode=755 tmpfs out && "$1" rootfs build && "$1" rootfs verify && ls -A out'
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script, "sh", NIMBUS], cwd=tmp_path, text=True,
                          capture_output=True, check=False)
    if done.stderr.startswith("mount:"):
        pytest.skip("no mounts of our own here")
    assert done.returncode == 0, done
    names = done.stdout.split()
    assert "a.squashfs" in names and not [n for n in names if n.startswith(".work-")]
    assert not list(tmp_path.glob(".rootfs-*"))


def test_a_killed_build_leaves_nothing_that_counts(tmp_path, web):
    """Killed while it downloads, again and again further on: the next one goes on, and is whole."""
    web.cut = 20000
    configure(tmp_path, {"name": "a", "base_url": web.url, "sha256": web.digest}, default="a")
    for _ in range(3):
        before = len(web.ranges)
        build = subprocess.Popen([NIMBUS, "rootfs", "build"], cwd=tmp_path, stderr=subprocess.DEVNULL)
        wait_until(lambda before=before: len(web.ranges) > before, "a request")
        build.kill()
        build.wait()
        assert not list((tmp_path / "out").glob("*.squashfs"))
    web.cut = 0
    built, = rows(tmp_path, "build")
    assert built["base"]["sha256"] == web.digest and rows(tmp_path, "verify")[0]["ok"]
    remains = {r["name"] for r in rows(tmp_path, "gc") if r["name"]}
    assert ".downloads" in remains and any(name.startswith(".work-") for name in remains)
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.name.startswith(".")) == [".build.lock"]


def test_activation_rollback_and_what_is_kept(tmp_path):
    make_tree(tmp_path)
    versions = [{"name": "one", "base_path": "base", "overlay_dir": "one"},
                {"name": "two", "base_path": "base", "overlay_dir": "two"},
                {"name": "plain", "base_path": "base", "description": "as it is"}]
    configure(tmp_path, *versions, default="one")
    rootfs(tmp_path, "build")

    def state():
        return {r["name"]: "active" if r["active"] else "previous" if r["previous"] else ""
                for r in rows(tmp_path, "list")}

    assert state() == {"one": "active", "two": "", "plain": ""}
    rootfs(tmp_path, "activate", "two")
    assert state() == {"one": "previous", "two": "active", "plain": ""}
    rootfs(tmp_path, "activate", "--rollback")
    assert state() == {"one": "active", "two": "previous", "plain": ""}
    # A version that the configuration no longer has goes; not the active one, nor the one before, nor an open one.
    configure(tmp_path, {"name": "other", "base_path": "base"})
    digest = os.readlink(tmp_path / "out/plain.squashfs")
    with open(tmp_path / "out" / digest, "rb") as image:
        fcntl.flock(image, fcntl.LOCK_SH)
        kept = {r["kept"] for r in rows(tmp_path, "gc") if r["kept"]}
        assert kept == {"it is active", "it was active before", "a VM runs from it"}
        assert (tmp_path / "out" / digest).exists()
    would = rows(tmp_path, "gc", "--dry-run")
    assert [r["sha256"] for r in would if not r["kept"]] == [digest] and (tmp_path / "out" / digest).exists()
    rootfs(tmp_path, "gc")
    assert not (tmp_path / "out" / digest).exists() and not (tmp_path / "out" / f"{digest}.json").exists()
    assert state() == {"one": "active", "two": "previous"}


def test_the_images_of_a_data_directory(tmp_path):
    """--data, as at the other commands: found by them all, without a configuration where none is needed."""
    make_tree(tmp_path)
    configure(tmp_path, {"name": "one", "base_path": "base"}, {"name": "two", "base_path": "base", "overlay_dir": "two"},
              default="one")
    data = f"--data={tmp_path}/data"
    assert "run 'nimbus rootfs build' first" in rootfs(tmp_path, "list", data, status=3).stderr
    rootfs(tmp_path, "build", data)
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "data/assets/one.squashfs").exists()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert {r["name"]: r["active"] for r in rows(elsewhere, "list", data)} == {"one": True, "two": False}
    rootfs(elsewhere, "activate", "two", "-d", f"{tmp_path}/data")
    assert [r["ok"] for r in rows(elsewhere, "verify", "-d", f"{tmp_path}/data")] == [True, True]
    assert {r["name"]: r["active"] for r in rows(elsewhere, "list", data)} == {"one": False, "two": True}
    # What is to go is what the configuration no longer has: without one, nothing is.
    assert "--config" in rootfs(elsewhere, "gc", data, status=1).stderr
    assert rows(tmp_path, "gc", data, "--dry-run") == []
    assert "both say where" in rootfs(tmp_path, "list", data, "--output-dir=out", status=2).stderr
    # A machine whose own configuration has them elsewhere.
    (tmp_path / "data/nimbus.env").write_text(f"NIMBUS_ASSETS_DIR={tmp_path}/moved\n")
    (tmp_path / "data/assets").rename(tmp_path / "moved")
    assert len(rows(elsewhere, "list", data)) == 2


def test_a_flipped_byte_is_found(tmp_path):
    make_tree(tmp_path)
    configure(tmp_path, {"name": "a", "base_path": "base"}, {"name": "b", "base_path": "base", "overlay_dir": "one"})
    rootfs(tmp_path, "build")
    assert [r["ok"] for r in rows(tmp_path, "verify")] == [True, True]
    image = (tmp_path / "out/b.squashfs").resolve()
    image.chmod(0o644)
    with open(image, "r+b") as file:
        file.seek(5000)
        byte = file.read(1)
        file.seek(5000)
        file.write(bytes([byte[0] ^ 1]))
    found = {r["name"]: r for r in rows(tmp_path, "verify", status=1)}
    assert found["a"]["ok"] and not found["b"]["ok"] and "changed since it was built" in found["b"]["problem"]
    assert rows(tmp_path, "verify", "a")[0]["ok"]


def test_veritysetup_agrees(tmp_path):
    if shutil.which("veritysetup") is None:
        pytest.skip("cryptsetup-bin is not installed")
    make_tree(tmp_path)
    configure(tmp_path, {"name": "a", "base_path": "base"})
    built, = rows(tmp_path, "build")
    verity = built["verity"]
    subprocess.run(["veritysetup", "verify", "out/a.squashfs", "out/a.squashfs", verity["root_hash"],
                    f"--hash-offset={verity['hash_offset']}"], cwd=tmp_path, check=True)
