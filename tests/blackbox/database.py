"""Which database the control planes of the tests have: SQLite in their own folders, or one of PostgreSQL each, fresh, in
a cluster that the whole run shares. `pytest --database postgresql` chooses (conftest.py); NIMBUS_TEST_POSTGRESQL_FOLDER
names a cluster that is there already (tests/peers/postgresql.py), else one is started."""

import itertools
import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "peers"))
from postgresql import Missing, Postgresql  # noqa: E402

_chosen = {"kind": "sqlite", "server": None}
_numbers = itertools.count(1)


def choose(kind):
    _chosen["kind"] = kind


def kind():
    return _chosen["kind"]


def server():
    """The cluster of this run. Whoever stops it starts it again."""
    if _chosen["server"] is None:
        folder = os.environ.get("NIMBUS_TEST_POSTGRESQL_FOLDER")
        try:
            _chosen["server"] = Postgresql(folder)
        except Missing as reason:
            pytest.skip(str(reason))
        os.environ["NIMBUS_TEST_POSTGRESQL_FOLDER"] = str(_chosen["server"].folder)
    return _chosen["server"]


def close():
    """Of a cluster that somebody else started, nothing."""
    if _chosen["server"] is not None and _chosen["server"].reaper is not None:
        _chosen["server"].remove()


def fresh_postgresql():
    """The address of a new, empty database."""
    return server().database(f"test_{os.getpid()}_{next(_numbers)}")


def fresh():
    """The variables of a control plane with a database of its own."""
    return {"NIMBUS_DATABASE_URL": fresh_postgresql()} if kind() == "postgresql" else {}


def drop(env):
    """What fresh() gave is used no more."""
    if "NIMBUS_DATABASE_URL" in env and kind() == "postgresql":
        name = env["NIMBUS_DATABASE_URL"].split("?")[0].rsplit("/", 1)[1]
        server().psql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
