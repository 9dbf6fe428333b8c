"""The program of before, built from the repository's history: NIMBUS_TEST_PREVIOUS=COMMIT, since it takes a build
(`make test-previous`)."""

import os
import pathlib
import shutil
import subprocess

import pytest

from system import ROOT

wanted = pytest.mark.skipif("NIMBUS_TEST_PREVIOUS" not in os.environ,
                            reason="NIMBUS_TEST_PREVIOUS names no commit to build")


def build(folder):
    """Its binary, with what its VMs are made of beside it; kept between runs where NIMBUS_TEST_PREVIOUS_BUILD names a
    folder."""
    commit = os.environ["NIMBUS_TEST_PREVIOUS"]
    if subprocess.run(["git", "cat-file", "-e", commit], cwd=ROOT, capture_output=True, check=False).returncode != 0:
        pytest.skip(f"the history here does not reach back to {commit}")
    kept = os.environ.get("NIMBUS_TEST_PREVIOUS_BUILD")
    source = pathlib.Path(kept or folder) / "previous"
    if not (source / "build" / "share" / "manifest").exists():
        shutil.rmtree(source, ignore_errors=True)
        source.mkdir(parents=True)
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True,
                                 check=True)
        subprocess.run(["tar", "x"], cwd=source, input=archive.stdout, check=True)
        for command in (["meson", "setup", "build", "-Dtests=disabled"], ["ninja", "-C", "build"],
                        ["scripts/assets.sh", "build"]):
            subprocess.run(command, cwd=source, check=True, capture_output=True)
    return source / "build" / "nimbus"
