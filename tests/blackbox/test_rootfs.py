"""`nimbus rootfs`: reproducible images, hostile archives, downloads that break, activation, what is kept."""

import contextlib
import fcntl
import hashlib
import http.server
import io
import itertools
import json
import os
import shutil
import subprocess
import tarfile
import threading

import pytest

from system import NIMBUS, wait_until

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(shutil.which("mksquashfs") is None, reason="squashfs-tools is not installed"),
]


def rootfs(folder, *words, status=0):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("NIMBUS_")}
    done = subprocess.run([NIMBUS, "rootfs", *words], cwd=folder, env={**clean, "SOURCE_DATE_EPOCH": "1"}, text=True,
                          stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False)
    assert done.returncode == status, done
    return done


def rows(folder, *words, status=0):
    return json.loads(rootfs(folder, *words, "--json", status=status).stdout)


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
    assert "-rwsr-xr-x 1000/5" in listing(tmp_path, "v0"), "owners of a tar are kept, whoever builds"
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


class Files(http.server.BaseHTTPRequestHandler):
    """Serves one file with ranges; each answer ends after `cut` bytes."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        web = self.server
        web.ranges.append(self.headers.get("Range"))
        if self.path != "/base.tar":
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
    server.etag, server.cut, server.ranges = '"one"', 0, []
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


def test_downloads_that_cannot_be(tmp_path, web):
    configure(tmp_path, {"name": "a", "base_url": web.url, "size": 5})
    assert "'size' says 5" in rootfs(tmp_path, "build", status=2).stderr
    configure(tmp_path, {"name": "a", "base_url": web.url + "x"})
    assert "404" in rootfs(tmp_path, "build", status=3).stderr
    configure(tmp_path, {"name": "a", "base_url": "http://127.0.0.1:1/base.tar", "sha256": web.digest})
    done = rootfs(tmp_path, "build", status=7)
    assert "base_url" in done.stderr and "nothing listens at http://127.0.0.1:1" in done.stderr
    assert not list((tmp_path / "out").glob("*.squashfs"))


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
