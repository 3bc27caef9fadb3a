"""Tasks of other packages are found, driven and trained in; broken ones are named."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "my_task"

CHECK = """
import sys
sys.path.insert(0, {tests!r})
from functools import partial
import genpolicy_sim
from vec_env_conformance import (
    check_chunk_equals_single_steps, check_history_is_at_control_rate,
    check_seed_decides_each_start, check_shapes_and_types, check_truncation_and_auto_reset,
    check_exact_resume,
)
assert "reach_1d" in genpolicy_sim.tasks()
make = partial(genpolicy_sim.make, "reach_1d")
check_shapes_and_types(make), check_seed_decides_each_start(make)
check_history_is_at_control_rate(make), check_chunk_equals_single_steps(make)
check_truncation_and_auto_reset(make, "max_episode_steps"), check_exact_resume(make)
"""
TINY = [
    "num_envs=2", "episodes=2", "iterations=2", "eval_every=1", "num_threads=1",
    "wandb.mode=disabled", "policy.hidden=[8,8,8]", "algo.rollout_steps=2", "algo.epochs=1",
    "algo.batch_size=4", "algo.critic_hidden=[8]",
]  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The example, built and installed as its README says, but into a folder of its own."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index",
               "--no-build-isolation", "--target", folder, EXAMPLE]  # fmt: skip
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def python(site, program, *arguments, cwd=None):
    env = {**os.environ, "PYTHONPATH": str(site), "WANDB_MODE": "disabled"}
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True)


def test_it_keeps_the_protocol(site):
    done = python(site, CHECK.format(tests=str(ROOT / "tests" / "genpolicy_sim")))
    assert done.returncode == 0, done.stderr


def test_it_trains_from_the_command_line(site, tmp_path):
    program = "import sys; from genpolicy.cli import main; sys.exit(main(sys.argv[1:]))"
    options = ["task=reach_1d", "+task.options.max_episode_steps=8", "algo=ppo"]
    arguments = ["finetune", *options, "policy=gaussian_small", "run_dir=run", *TINY]
    done = python(site, program, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "return -" in done.stdout + done.stderr
    assert (tmp_path / "run" / "checkpoints" / "best").exists()


def write_package(folder, name, source):
    """A package that pip did not build: its module and what entry points are read from."""
    (folder / f"{name}.py").write_text(source)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[genpolicy.tasks]\n{name} = {name}:make\n")


def test_broken_packages_end_in_one_sentence_that_names_them(tmp_path):
    write_package(tmp_path, "torn", "import a_package_that_is_not_there\n")
    write_package(tmp_path, "hollow", "")
    write_package(tmp_path, "mistaken", "def make(num_envs, *, history, dtype): return [num_envs]")
    program = "import genpolicy_sim\nfrom genpolicy.spec import GenpolicyError\n"
    program += "for name in ('torn', 'hollow', 'mistaken'):\n"
    program += "    try: genpolicy_sim.make(name, 2)\n"
    program += "    except GenpolicyError as error: print(error)\n"
    done = python(tmp_path, program)
    assert done.returncode == 0, done.stderr
    torn, hollow, mistaken = done.stdout.splitlines()
    assert "package torn (torn:make) cannot be loaded (ModuleNotFoundError: No module" in torn
    assert "package hollow (hollow:make) cannot be loaded (AttributeError" in hollow
    assert "package mistaken (mistaken:make) returned a list, which is no" in mistaken
