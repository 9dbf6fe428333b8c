#!/usr/bin/env python3
"""Debian's PostgreSQL for tests: a cluster of its own in a temporary folder, on loopback and a free port.

    postgresql.py [--fsync] [--pgbouncer] -- CMD...    runs CMD with NIMBUS_TEST_POSTGRESQL=DSN, then removes the cluster
    postgresql.py --folder DIR start|stop|kill|...    for CMD: its cluster's folder is NIMBUS_TEST_POSTGRESQL_FOLDER

With --pgbouncer CMD also has NIMBUS_TEST_PGBOUNCER; with --through-pgbouncer that is NIMBUS_TEST_POSTGRESQL.

Exits with CMD's status, or with 77 (what Meson takes for "skipped") and the reason where PostgreSQL is not installed.
In Python: `with Postgresql() as server: server.dsn()`, `server.database("x")` for a fresh database.

Everybody needs a password. The data are not synced to the disk unless asked for: tests kill processes, not machines.
"""

import argparse
import contextlib
import glob
import json
import os
import pathlib
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse

from ports import free_port

DEADLINE_S = 60
SKIPPED = 77
CONTROLS = ("start", "stop", "kill", "restart", "pause", "resume", "tls")


class Missing(Exception):
    """PostgreSQL is not installed here; the text says what to install."""


def bin_folder():
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/postgres"), key=lambda path: int(path.split("/")[4]))
    if not found:
        raise Missing("PostgreSQL is not installed: apt-get install postgresql")
    return pathlib.Path(found[-1]).parent


def server_user():
    """Whom the server runs as: it refuses to be root."""
    if os.geteuid() != 0:
        with contextlib.suppress(KeyError):
            return pwd.getpwuid(os.geteuid()).pw_name
        raise Missing(f"initdb wants a user that has a name, and uid {os.geteuid()} has none")
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise Missing("PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody")


def as_user(user, argv):
    if os.geteuid() != 0:
        return [str(a) for a in argv]
    entry = pwd.getpwnam(user)
    return ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups", *map(str, argv)]


def run(argv, **more):
    done = subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE_S, check=False, **more)
    if done.returncode != 0:
        raise RuntimeError(f"{argv[0]} gave {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def alive(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def children(pid):
    with contextlib.suppress(OSError):
        return [int(p) for p in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def gone(pids):
    until = time.monotonic() + DEADLINE_S
    while any(alive(pid) for pid in pids):
        if time.monotonic() > until:
            raise RuntimeError(f"processes {pids} do not end")
        time.sleep(0.005)


class Postgresql:
    """A cluster. Its state is in its folder, so that another process can attach to it: Postgresql(folder)."""

    def __init__(self, folder=None, fsync=False, settings=None, parent=None):
        self.bin = bin_folder()
        self.reaper = None
        if folder is not None:
            self.folder = pathlib.Path(folder)
            self.__dict__.update(json.loads((self.folder / "cluster.json").read_text()))
            return
        self.os_user = server_user()
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="nimbus-pg-", dir=parent))
        self.folder.chmod(0o755)
        # When this process ends, however it does, the reaper's standard input does too.
        self.reaper = subprocess.Popen(
            [sys.executable, __file__, "--reap", str(self.folder)], stdin=subprocess.PIPE, start_new_session=True
        )
        self.port = free_port()
        self.user = "nimbus"
        # Characters that a URL must escape, so that nobody forgets to.
        self.password = secrets.token_urlsafe(18) + "@/%:"
        self.super_password = secrets.token_urlsafe(18)
        self.__init_cluster(fsync, settings or {})

    def __init_cluster(self, fsync, settings):
        if os.geteuid() == 0:
            entry = pwd.getpwnam(self.os_user)
            os.chown(self.folder, entry.pw_uid, entry.pw_gid)
        state = {k: getattr(self, k) for k in ("os_user", "port", "user", "password", "super_password")}
        (self.folder / "cluster.json").write_text(json.dumps(state))
        (self.folder / "cluster.json").chmod(0o600)
        pwfile = self.folder / "pwfile"
        pwfile.write_text(self.super_password + "\n")
        run(
            as_user(
                self.os_user,
                [self.bin / "initdb", "-N", "-D", self.data, "-U", "postgres", "-A", "scram-sha-256"]
                + ["--pwfile", pwfile, "-E", "UTF8", "--locale", "C.UTF-8"],
            ),
            cwd="/",
        )
        lines = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.folder,
            "fsync": "on" if fsync else "off",
            "shared_buffers": "64MB",
            "max_connections": 100,
            "log_line_prefix": "%m [%p] ",
            "dynamic_shared_memory_type": "mmap",  # in the folder, so that a kill leaves nothing elsewhere
            **settings,
        }
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{key} = '{value}'\n" for key, value in lines.items())
        self.start()
        quoted = self.password.replace("'", "''")
        self.psql(f"CREATE ROLE {self.user} LOGIN CREATEDB PASSWORD '{quoted}'")
        self.psql(f"CREATE DATABASE {self.user} OWNER {self.user}")

    @property
    def data(self):
        return self.folder / "data"

    @property
    def log(self):
        """The server's own log, as text."""
        return (self.folder / "log").read_text(errors="replace")

    def __pg_ctl(self, *args):
        # Not a pipe: the server would hold it open.
        with (self.folder / "pg_ctl.out").open("w+") as out:
            done = subprocess.run(
                as_user(self.os_user, [self.bin / "pg_ctl", "-D", self.data, "-w", "-t", DEADLINE_S, "-s", *args]),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd="/",
                check=False,
            )
            out.seek(0)
            if done.returncode != 0:
                raise RuntimeError(f"pg_ctl {args[-1]}: {out.read()}\n{self.log[-3000:]}")

    def start(self):
        self.__pg_ctl("-l", self.folder / "log", "start")

    def stop(self, mode="fast"):
        """mode: smart (waits for the clients), fast (ends them), immediate (as a crash, but tidy)."""
        self.__pg_ctl("-m", mode, "stop")

    def restart(self, mode="fast"):
        self.stop(mode)
        self.start()

    def pid(self):
        """The postmaster's, or None when none runs."""
        with contextlib.suppress(OSError, ValueError):
            pid = int((self.data / "postmaster.pid").read_text().split()[0])
            return pid if alive(pid) else None
        return None

    def kill(self):
        """kill -9 of every process of the server; it comes back by start()."""
        pid = self.pid()
        if pid is None:
            return
        os.kill(pid, signal.SIGSTOP)  # so that it starts nothing more
        pids = [pid, *children(pid)]
        for each in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        gone(pids)
        # A zombie that nobody waits for (PID 1 of a small container) would count as a running server.
        for lock in (self.data / "postmaster.pid", *self.folder.glob(".s.PGSQL.*")):
            lock.unlink(missing_ok=True)

    def __all_pids(self):
        pid = self.pid()
        return [pid, *children(pid)] if pid is not None else []

    def __signal_all(self, number):
        # A backend whose client has gone ends by itself, also between the listing and the signal.
        for pid in self.__all_pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def pause(self):
        """SIGSTOP of every process: connections stay open, and nobody answers."""
        self.__signal_all(signal.SIGSTOP)

    def resume(self):
        self.__signal_all(signal.SIGCONT)

    def tls(self):
        """From now on with a certificate of its own, for 127.0.0.1: self.folder / "server.crt"."""
        key, certificate = self.folder / "server.key", self.folder / "server.crt"
        run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"]
            + ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
        )
        key.chmod(0o600)
        if os.geteuid() == 0:
            entry = pwd.getpwnam(self.os_user)
            os.chown(key, entry.pw_uid, entry.pw_gid)
        certificate.chmod(0o644)
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.write(f"ssl = on\nssl_cert_file = '{certificate}'\nssl_key_file = '{key}'\n")
        self.restart()

    def dsn(self, database="nimbus", scheme="postgresql", host=None, password=None, options=""):
        """options: what stands after the '?'. host: "127.0.0.1" or, for the unix socket, str(server.folder)."""
        escaped = urllib.parse.quote(password or self.password, safe="")
        where = urllib.parse.quote(host or "127.0.0.1", safe="")
        tail = f"?{options}" if options else ""
        return f"{scheme}://{self.user}:{escaped}@{where}:{self.port}/{database}{tail}"

    def database(self, name):
        """A fresh, empty database of that name; gives its DSN."""
        self.psql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        self.psql(f'CREATE DATABASE "{name}" OWNER {self.user}')
        return self.dsn(name)

    def psql(self, text, database="postgres"):
        """Runs SQL as the superuser; gives rows as text, columns cut by '|'."""
        env = {**os.environ, "PGPASSWORD": self.super_password}
        argv = [self.bin / "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1"]
        return run([*map(str, argv), "-p", str(self.port), "-U", "postgres", "-d", database, "-c", text], env=env)

    def remove(self):
        """Ends the server at once and removes everything."""
        self.resume()
        if self.pid() is not None:
            with contextlib.suppress(RuntimeError):
                self.stop("immediate")
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.reaper is not None:
            self.reaper.stdin.close()
            self.reaper.wait(DEADLINE_S)
            self.reaper = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.remove()


class Pgbouncer:
    """pgbouncer before a cluster, in transaction mode: a connection belongs to a client only while it is in one."""

    def __init__(self, server, pool_size=5):
        program = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
        if not os.access(program, os.X_OK):
            raise Missing("pgbouncer is not installed: apt-get install pgbouncer")
        self.server = server
        self.port = free_port()
        users = server.folder / "users.txt"
        users.write_text(f'"{server.user}" "{server.password}"\n')
        config = server.folder / "pgbouncer.ini"
        config.write_text(
            f"[databases]\n* = host=127.0.0.1 port={server.port}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = scram-sha-256\nauth_file = {users}\npool_mode = transaction\n"
            f"default_pool_size = {pool_size}\nmax_client_conn = 200\nlogfile = {server.folder / 'pgbouncer.log'}\n"
            "ignore_startup_parameters = extra_float_digits\n"
        )
        for path in (users, config):
            path.chmod(0o644)
        self.process = subprocess.Popen(
            as_user(server.os_user, [program, "-q", config]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
        )
        until = time.monotonic() + DEADLINE_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError("pgbouncer does not start: " + (server.folder / "pgbouncer.log").read_text())
            time.sleep(0.01)

    def dsn(self, database="nimbus", options="prepare=false"):
        return self.server.dsn(database, options=options).replace(f":{self.server.port}/", f":{self.port}/")

    def stop(self):
        self.process.terminate()
        self.process.wait(DEADLINE_S)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def reap(folder):
    """Waits until whoever made the cluster is gone, then sees to it that the cluster is too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdin.buffer.read()
    if os.path.exists(folder):
        with contextlib.suppress(OSError, ValueError, Missing):
            Postgresql(folder).remove()
        shutil.rmtree(folder, ignore_errors=True)


def run_beside(command, fsync, pgbouncer, through):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Postgresql(fsync=fsync))
        env = {
            **os.environ,
            "NIMBUS_TEST_POSTGRESQL": server.dsn(),
            "NIMBUS_TEST_POSTGRESQL_FOLDER": str(server.folder),
            "NIMBUS_TEST_POSTGRESQL_CTL": os.path.abspath(__file__),
        }
        if pgbouncer or through:
            env["NIMBUS_TEST_PGBOUNCER"] = stack.enter_context(Pgbouncer(server)).dsn()
        if through:
            env["NIMBUS_TEST_POSTGRESQL"] = env["NIMBUS_TEST_PGBOUNCER"]
        process = subprocess.Popen(command, env=env)
        try:
            status = process.wait()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        return status if status >= 0 else 128 - status


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fsync", action="store_true", help="commits reach the disk, as in production")
    parser.add_argument("--pgbouncer", action="store_true", help="also NIMBUS_TEST_PGBOUNCER, in transaction mode")
    parser.add_argument("--through-pgbouncer", action="store_true", help="CMD gets to the server by it alone")
    parser.add_argument("--folder", help="of a cluster that runs: the command is start, stop, kill or restart")
    parser.add_argument("--reap", help=argparse.SUPPRESS)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if args.reap:
        return reap(args.reap)
    if args.folder:
        if len(command) != 1 or command[0] not in CONTROLS:
            parser.error("after --folder: " + ", ".join(CONTROLS))
        return getattr(Postgresql(args.folder), command[0])()
    if not command:
        parser.error("which command? postgresql.py -- CMD...")
    try:
        return run_beside(command, args.fsync, args.pgbouncer, args.through_pgbouncer)
    except Missing as reason:
        print(f"skipped: {reason}", file=sys.stderr)
        return SKIPPED


if __name__ == "__main__":
    sys.exit(main())
