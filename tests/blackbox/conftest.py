"""Fixtures that several files of scenarios share."""

import pytest

from pipeline import Issuer, Pipeline


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
