"""Compiled code on disk never outlives the sources it was made from."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import genpolicy_sim
import pytest
from genpolicy_sim.jit import cache_folder, remove_unused

SOURCES = Path(genpolicy_sim.__file__).parent
INNER = """from genpolicy_sim.jit import njit
@njit(cache=True)
def inner(): return {value}"""
OUTER = """from genpolicy_sim.inner import inner
from genpolicy_sim.jit import njit
@njit(cache=True)
def outer(): return inner()"""
PROGRAM = """import genpolicy_sim.outer as o, numba
print(o.outer(), sum(o.outer.stats.cache_hits.values()), numba.config.CACHE_DIR)"""


@pytest.fixture
def run_copy(tmp_path):
    """Call a function of a copy of the package that calls one of another file."""
    package = tmp_path / "genpolicy_sim"
    package.mkdir()
    for name in ("__init__.py", "jit.py"):
        shutil.copy(SOURCES / name, package / name)
    (package / "outer.py").write_text(OUTER)

    def run(value, **variables):
        (package / "inner.py").write_text(INNER.format(value=value))
        kept = {key: text for key, text in os.environ.items() if key != "NUMBA_CACHE_DIR"}
        paths = {"PYTHONPATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=kept | paths | variables,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        result, hits, folder = done.stdout.split()
        return int(result), int(hits), folder

    return run


def test_code_that_calls_an_edited_file_is_compiled_anew(run_copy):
    result, hits, first = run_copy(1)
    assert (result, hits) == (1, 0)
    assert run_copy(1) == (1, 1, first)
    result, hits, second = run_copy(2)
    assert (result, hits) == (2, 0)
    assert second != first
    assert run_copy(1) == (1, 1, first)  # back at the old code: its cache is still there


def test_the_users_folder_is_left_alone(run_copy, tmp_path):
    assert run_copy(1, NUMBA_CACHE_DIR=str(tmp_path / "own"))[2] == str(tmp_path / "own")
    assert not (tmp_path / "cache").exists()


def test_a_home_that_cannot_be_used_is_replaced(run_copy, tmp_path):
    (tmp_path / "file").touch()
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    folder = run_copy(1, XDG_CACHE_HOME=str(tmp_path / "file"), TMPDIR=str(temporary))[2]
    assert Path(folder).is_relative_to(temporary)
    assert temporary.joinpath(f"genpolicy-{os.getuid()}").stat().st_mode & 0o777 == 0o700


def test_every_source_file_counts(tmp_path):
    shutil.copytree(SOURCES, tmp_path / "copy", ignore=shutil.ignore_patterns("__pycache__"))
    before = cache_folder(SOURCES, tmp_path)
    assert cache_folder(tmp_path / "copy", tmp_path) == before
    with open(tmp_path / "copy" / "dmc" / "rewards.py", "a") as file:
        file.write("# another\n")
    assert cache_folder(tmp_path / "copy", tmp_path) != before


def test_only_old_folders_of_ours_are_removed(tmp_path):
    for name in ("compiled-old", "compiled-new", "other"):
        (tmp_path / name / "file").mkdir(parents=True)
        os.utime(tmp_path / name, (0, 0) if name != "compiled-new" else None)
    remove_unused(tmp_path, now=(tmp_path / "compiled-new").stat().st_mtime + 86400)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["compiled-new", "other"]
