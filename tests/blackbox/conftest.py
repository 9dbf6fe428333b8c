"""Fixtures that several files of scenarios share."""

import pytest

import database
import leaks
from pipeline import Issuer, Pipeline
from system import NIMBUS, System

# What never starts a control plane is the same whatever its database, and what watches SQLite's own file is of no other:
# both run once.
WITHOUT_DATABASE = {"test_cli_logs", "test_config", "test_logs", "test_disk_full", "test_durability"}


def pytest_addoption(parser):
    parser.addoption("--database", choices=["sqlite", "postgresql"], default="sqlite",
                     help="what the control planes of the tests keep their state in")


# Before any test file takes subprocess.run for itself.
WATCHED = leaks.Leaks()
leaks.watch(WATCHED, NIMBUS)
System.watcher = WATCHED
Pipeline.watcher = WATCHED


def pytest_configure(config):
    config.addinivalue_line("markers", "once: does not depend on the database, so it runs with SQLite only")
    database.choose(config.getoption("--database"))


def pytest_collection_modifyitems(config, items):
    if database.kind() == "sqlite":
        return
    once = [item for item in items if item.module.__name__ in WITHOUT_DATABASE or item.get_closest_marker("once")]
    config.hook.pytest_deselected(items=once)
    items[:] = [item for item in items if item not in once]


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
