"""Fixtures that several files of scenarios share."""

import pathlib

import pytest

import database
import leaks
import selection
from pipeline import Issuer, Pipeline
from system import NIMBUS, System

SHARE = pytest.StashKey()


def pytest_addoption(parser):
    parser.addoption("--database", choices=["sqlite", "postgresql"], default="sqlite",
                     help="what the control planes of the tests keep their state in")
    parser.addoption("--sanitized", action="store_true", help="what is worth it under sanitizers (selection.py)")
    parser.addoption("--share", metavar="FOLDER", help="only the files that no other run with this folder has begun")


# Before any test file takes subprocess.run for itself.
WATCHED = leaks.Leaks()
leaks.watch(WATCHED, NIMBUS)
System.watcher = WATCHED
Pipeline.watcher = WATCHED


def pytest_configure(config):
    config.addinivalue_line("markers", "once: does not depend on the database, so it runs with SQLite only")
    database.choose(config.getoption("--database"))
    if config.getoption("--share"):
        config.stash[SHARE] = selection.Share(config.getoption("--share"))


def pytest_collection_modifyitems(config, items):
    stale = selection.unknown_names(pathlib.Path(__file__).parent)
    if stale:
        raise pytest.UsageError(f"tests/blackbox/selection.py names files that are not there: {', '.join(stale)}")
    kept, out = [], []
    for item in items:
        (kept if selection.wanted(item, database.kind(), config.getoption("--sanitized")) else out).append(item)
    config.hook.pytest_deselected(items=out)
    items[:] = kept
    selection.longest_first(items)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item):
    """True: somebody else's, so nothing is done with it."""
    share = item.config.stash.get(SHARE, None)
    return None if share is None or share.mine(selection.name(item)) else True


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    found = WATCHED.find()
    for line in found:
        print(f"\nLEAK: {line}")
    if found and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_unconfigure():
    database.close()
    WATCHED.close()


@pytest.fixture(scope="session")
def issuer(tmp_path_factory):
    made = Issuer(tmp_path_factory.mktemp("issuer"))
    yield made
    made.close()


@pytest.fixture
def make_pipeline(tmp_path, issuer):
    """Makes pipelines with variables of one's own; what still runs at the end is stopped, and must end well: that is
    when sanitizers speak."""
    made = []

    def make(env=None, folder=tmp_path / "data"):
        made.append(Pipeline(folder, issuer, env))
        return made[-1]

    yield make
    try:
        for pipeline in made:
            assert pipeline.stop() in (None, 0), pipeline.text()
            assert "Sanitizer" not in pipeline.text(), pipeline.text()
    finally:
        for pipeline in made:
            pipeline.kill()


@pytest.fixture
def pipeline(make_pipeline):
    return make_pipeline().start()
