"""Expand and contract: what an older program does stays valid on the newest schema, on both databases. And that older
program itself beside this one (previous.py)."""

import json
import os
import pathlib
import re
import shutil
import sqlite3
import subprocess

import psycopg2
import pytest
import requests

import database
import previous
from chaos import PythonAgent
from planes import answers
from ports import free_port
from system import NIMBUS, PATIENCE, ROOT, open_folder, wait_until

MIGRATIONS = ROOT / "src" / "store" / "migrations"
VARIABLES = {"control": "NIMBUS_DATABASE_URL", "agent": "NIMBUS_AGENT_STATE_DATABASE_URL"}


def db(words, data, **variables):
    env = {k: v for k, v in os.environ.items() if not k.startswith("NIMBUS_")}
    return subprocess.run([NIMBUS, "db", *words, "--data", data], env={**env, **variables}, capture_output=True,
                          stdin=subprocess.DEVNULL, timeout=PATIENCE, check=False, text=True)


class Sqlite:
    """A database that `nimbus db migrate` has brought to the newest schema, and one that has only the first files."""

    def __init__(self, name, folder):
        self.path = folder / name / f"{name}.db"
        self.path.parent.mkdir()
        self.path.touch(mode=0o600)
        self.variables = {}
        self.connection = None

    def run(self, text):
        self.connection = self.connection or sqlite3.connect(self.path)
        return self.connection.execute(text).fetchall()

    def prepare(self, text):
        numbers = {n: None for n in re.findall(r"\$(\d+)", text)}
        self.connection = self.connection or sqlite3.connect(self.path)
        self.connection.execute("EXPLAIN " + text, numbers)

    def columns(self):
        """{(table, column): (type, whether a row must name it)}"""
        found = {}
        for (table,) in self.run("SELECT name FROM sqlite_master WHERE type = 'table'"):
            for _, name, kind, strict, default, key in self.run(f"PRAGMA table_info({table})"):
                found[table, name] = (kind, bool((strict or key) and default is None))
        return found

    def unique(self):
        return {row[0] for row in self.run("SELECT tbl_name || ': ' || sql FROM sqlite_master WHERE sql LIKE "
                                           "'CREATE UNIQUE%'")}

    def script(self, text):
        self.connection = self.connection or sqlite3.connect(self.path)
        self.connection.executescript(text)

    def close(self):
        self.connection.close()


class Postgres:
    def __init__(self, name, _folder):
        dsn = database.fresh_postgresql()
        self.variables = {VARIABLES[name]: dsn}
        self.connection = psycopg2.connect(dsn)
        self.connection.autocommit = True
        self.prepared = 0

    def run(self, text):
        with self.connection.cursor() as cursor:
            cursor.execute(text)
            return cursor.fetchall()

    def prepare(self, text):
        self.prepared += 1
        with self.connection.cursor() as cursor:
            cursor.execute(f"PREPARE s{self.prepared} AS {text}")

    def columns(self):
        return {(table, name): (kind, strict == "NO" and default is None) for table, name, kind, strict, default in
                self.run("SELECT table_name, column_name, data_type, is_nullable, column_default"
                         " FROM information_schema.columns WHERE table_schema = 'public'")}

    def unique(self):
        return {row[0] for row in self.run("SELECT tablename || ': ' || indexdef FROM pg_indexes WHERE schemaname ="
                                           " 'public' AND indexdef LIKE 'CREATE UNIQUE%' AND indexname NOT LIKE"
                                           " '%_pkey'")}

    def script(self, text):
        with self.connection.cursor() as cursor:
            cursor.execute(text)

    def close(self):
        self.connection.close()


def make(name, folder):
    return (Sqlite if database.kind() == "sqlite" else Postgres)(name, folder)


@pytest.mark.parametrize("name", ["control", "agent"])
def test_status_tells_what_migrate_does(name, tmp_path):
    made = make(name, tmp_path)
    before = db(["status", name, "--json"], tmp_path, **made.variables)
    assert before.returncode == 1, before.stderr
    assert "pending" in before.stderr and "hint: run 'nimbus db migrate'" in before.stderr
    found = json.loads(before.stdout)[0]
    newest = len(list((MIGRATIONS / name).glob("*.sql")))
    assert (found["status"], found["version"], found["newest"]) == ("pending", 0, newest)
    assert "schema_migrations" not in {table for table, _ in made.columns()}, "looking changes nothing"
    for _ in range(2):
        done = db(["migrate", name], tmp_path, **made.variables)
        assert done.returncode == 0, done.stderr
    after = db(["status", name, "--json"], tmp_path, **made.variables)
    found = json.loads(after.stdout)[0]
    assert (after.returncode, found["status"], found["version"]) == (0, "current", newest)
    assert all(step["applied_at"] and step["program"] and step["host"] for step in found["steps"])
    # A newer program has been here, and has only added; then one that has not.
    made.script("INSERT INTO schema_migrations (set_name, version, name, applied_at)"
                f" VALUES ('{name}', {newest + 1}, 'later', 1)")
    assert json.loads(db(["status", name, "--json"], tmp_path, **made.variables).stdout)[0]["status"] == "newer"
    made.script("INSERT INTO schema_steps (set_name, version, oldest)"
                f" VALUES ('{name}', {newest + 1}, {newest + 1})")
    refused = db(["status", name], tmp_path, **made.variables)
    assert refused.returncode == 1 and "too old" in refused.stderr
    assert db(["migrate", name], tmp_path, **made.variables).returncode == 1
    made.close()


def test_a_database_that_does_not_answer_has_its_own_exit_code(tmp_path):
    dsn = f"postgresql://nimbus:sesame-open@127.0.0.1:{free_port()}/nimbus"
    done = db(["status", "control"], tmp_path, NIMBUS_DATABASE_URL=dsn)
    assert done.returncode == 7
    assert "sesame-open" not in done.stderr + done.stdout


@pytest.mark.parametrize("fixture", sorted((ROOT / "tests" / "schema").glob("*.sql")), ids=lambda path: path.stem)
def test_older_statements_are_valid_on_the_newest_schema(fixture, tmp_path):
    name, version = fixture.stem.split("-")
    made = make(name, tmp_path)
    assert db(["migrate", name], tmp_path, **made.variables).returncode == 0
    statements = [line.rstrip(";") for line in fixture.read_text().splitlines() if not line.startswith("--")]
    assert len(statements) >= 4
    for text in statements:
        try:
            made.prepare(text)
        except (sqlite3.Error, psycopg2.Error) as error:
            raise AssertionError(f"{fixture.stem}: {error}: {text}") from None
    newest, unique = made.columns(), made.unique()
    made.close()
    # What was there is there, and asks for no more than it did; what is new in an old table can be left out.
    (tmp_path / "old").mkdir()
    old = make(name, tmp_path / "old")
    for path in sorted((MIGRATIONS / name).glob("*.sql"))[:int(version)]:
        old.script(path.read_text())
    columns, old_unique = old.columns(), old.unique()
    old.close()
    tables = {table for table, _ in columns}
    for (table, column), (kind, must) in columns.items():
        assert newest.get((table, column)) in ((kind, must), (kind, False)), f"{table}.{column}"
    for (table, column), (_, must) in newest.items():
        assert table not in tables or (table, column) in columns or not must, f"{table}.{column} has no default"
    for index in unique - old_unique:
        assert index.split(":")[0] not in tables, f"an older program may not know of: {index}"


# --- the older program itself ---


class Alone:
    """A control plane by itself; what PythonAgent wants of a system."""

    SECRETS = {"NIMBUS_JWT_SECRET": "an admin secret of the tests 0123456789abcdef",
               "NIMBUS_AGENT_TOKEN_SECRET": "an agent secret of the tests 0123456789abcdef"}

    def __init__(self, binary, folder, **variables):
        self.folder = pathlib.Path(folder)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.endpoints = {"control_plane": self.url, "logging_pipeline": self.url}
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("NIMBUS_")}
        self.env |= {**self.SECRETS, "NIMBUS_DATA_DIR": str(folder), "NIMBUS_CONTROL_PLANE_PORT": str(self.port),
                     **variables}
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen([binary, "control-plane"], env=self.env, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log)
        wait_until(lambda: answers(self.url) or self.process.poll() is not None, "the control plane to be ready")
        assert self.process.poll() is None, (self.folder / "log").read_text()

    def cli(self, *words):
        at = words.index("--") if "--" in words else len(words)
        flags = ["--url", self.url, "--token", self.SECRETS["NIMBUS_JWT_SECRET"]]
        done = subprocess.run([NIMBUS, *words[:at], *flags, *words[at:]], env=self.env, capture_output=True,
                              stdin=subprocess.DEVNULL, timeout=60, check=False)
        assert done.returncode == 0, done.stderr.decode() + (self.folder / "log").read_text()[-3000:]
        return done

    def end(self):
        self.process.terminate()
        return self.process.wait(PATIENCE)


@previous.wanted
def test_the_previous_program_goes_on_beside_this_one(tmp_path):
    older = previous.build(tmp_path)
    with open_folder() as first, open_folder() as second:
        shared = database.fresh()
        planes = [Alone(older, first, **shared)]
        for name in ("keys", "secrets"):
            if (pathlib.Path(first) / name).exists():
                shutil.copytree(pathlib.Path(first) / name, pathlib.Path(second) / name)
        try:
            # Migrates what the older one has open.
            shared = shared or {"NIMBUS_DATABASE_URL": f"sqlite:///{first}/control/control.db"}
            planes.append(Alone(NIMBUS, second, **shared))
            agents = [PythonAgent(planes[1], f"agent-{n}", base=plane.url) for n, plane in enumerate(planes)]
            ids = []
            for n in range(12):
                done = planes[n % 2].cli("jobs", "submit", "--label", "by-hand", "--json", "--", "true")
                ids.append(json.loads(done.stdout)["id"])
            for n, job_id in enumerate(ids):
                agent = agents[n // 2 % 2]
                lease = agent.lease()
                assert lease["job"]["job_id"] == job_id
                agent.base = planes[n % 2].url
                assert agent.renew(lease).status_code == 200
                agent.base = planes[(n + 1) % 2].url
                assert agent.status(lease, "succeeded", exit_code=0, last_seq=0).status_code == 202
            for plane in planes:
                jobs = json.loads(plane.cli("jobs", "recent", "--json").stdout)
                assert [job["state"] for job in jobs if job["id"] in ids] == ["succeeded"] * len(ids)
                assert requests.get(plane.url + "/readyz", timeout=60).status_code == 200
        finally:
            assert [plane.end() for plane in planes] == [0] * len(planes)
