"""The command line in this process, and recorded episodes of a task that no simulator has."""

import os

import numpy as np
import pytest
from toy_demonstrations import make_episode, make_task

from genpolicy.cli import main
from genpolicy.data.robomimic_writer import RobomimicWriter

FAST = ["num_threads=1", "wandb.mode=disabled"]
SMALL = ["policy.hidden=[16,16,16]", "policy.train_steps=4", "policy.sample_steps=2"]


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory):
    task = make_task({"position": 3, "velocity": 2})
    path = tmp_path_factory.mktemp("toy") / "toy.hdf5"
    rng = np.random.default_rng(0)
    with RobomimicWriter(path, {"env_name": "Toy", "type": 2, "env_kwargs": {}}, task) as writer:
        for length in (12, 20, 9):
            writer.add(make_episode(task, length, rng))
    return path


@pytest.fixture
def toy_pretrain(toy_data):
    """Arguments of the smallest pretraining that there is."""
    batch = ["algo.batch_size=16", "algo.warmup_steps=2", "algo.decay_steps=20"]
    return ["pretrain", "task=null", f"data.path={toy_data}", *batch, *FAST, *SMALL]


@pytest.fixture
def cli(tmp_path, monkeypatch, capsys):
    """Run ``genpolicy`` in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = main([str(a) for a in arguments])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def files():
    """All files below the current folder."""
    return lambda: sorted(os.path.join(d, f)[2:] for d, _, fs in os.walk(".") for f in fs)
