"""Which tests a run has: nothing falls between two of them."""

import pathlib
import re
import types

import pytest

import selection

pytestmark = pytest.mark.once
HERE = pathlib.Path(__file__).parent
MAKEFILE = HERE.parents[1] / "Makefile"
TESTS = [(path.stem, function) for path in sorted(HERE.glob("test_*.py"))
         for function in re.findall(r"^def (test_\w+)", path.read_text(), re.M)]


def item(file, function, once):
    return types.SimpleNamespace(module=types.SimpleNamespace(__name__=file),
                                 function=types.SimpleNamespace(__name__=function),
                                 get_closest_marker=lambda mark: once and mark == "once")


def runs(file, function, once, sanitized):
    """The databases on which it runs."""
    return [database for database in ("sqlite", "postgresql")
            if selection.wanted(item(file, function, once), database, sanitized)]


def named(file, function):
    return file in selection.NOT_SANITIZED or f"{file}::{function}" in selection.NOT_SANITIZED


def test_a_plain_run_has_everything():
    for file, function in TESTS:
        assert runs(file, function, True, False) == ["sqlite"]
        wanted = ["sqlite"] if file in selection.WITHOUT_DATABASE else ["sqlite", "postgresql"]
        assert runs(file, function, False, False) == wanted


def test_under_sanitizers_each_has_one_database_and_both_have_work():
    found = []
    for file, function in TESTS:
        for once in (True, False):
            on = runs(file, function, once, True)
            assert len(on) == (0 if named(file, function) else 1), (file, function)
            assert on in ([], ["sqlite"]) or not once
            found += on
    assert {"sqlite", "postgresql"} == set(found)


def test_each_name_in_the_table_is_a_tests():
    assert selection.unknown_names(HERE) == []
    for name in selection.NOT_SANITIZED:
        file, _, function = name.partition("::")
        assert not function or (file, function) in TESTS, name


def has_full_size(path):
    imported = re.search(r"^from chaos import (\([^)]*\)|.*)", path.read_text(), re.M)
    return imported and re.search(r"\b(FULL|size)\b", imported[1])


def test_chaos_runs_all_that_has_a_full_size():
    listed = re.search(r"^CHAOS \?= \$\(addprefix tests/blackbox/,([^)]*)\)$", MAKEFILE.read_text(), re.M)[1]
    files = [word.partition("::")[0] for word in listed.split()]
    run = {path.name for file in files for path in HERE.glob(file)}
    assert run == {path.name for path in HERE.glob("test_*.py") if has_full_size(path)}


def test_runs_that_share_have_each_file_once(tmp_path):
    one, two = selection.Share(tmp_path), selection.Share(tmp_path)
    for run, other, file in ((one, two, "a"), (two, one, "b")):
        assert run.mine(file) and not other.mine(file) and run.mine(file)
