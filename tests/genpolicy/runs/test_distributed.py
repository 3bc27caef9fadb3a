"""Two processes over gloo: means, gradients, and checkpoints that hold every rank's state."""

import subprocess
import sys
from pathlib import Path

import torch

from genpolicy.runs import distributed

HERE = Path(__file__).parent
PROGRAM = """
import sys, numpy as np, torch
from pathlib import Path
sys.path[:0] = {paths}
from conftest import RandomWalk
from genpolicy.runs import checkpoint, distributed
torch.set_num_threads(1)
distributed.start("cpu")
rank = distributed.rank()
assert distributed.world_size() == 2 and distributed.is_main() == (rank == 0)
assert distributed.mean(torch.tensor([1.0 + rank, 4.0])).tolist() == [1.5, 4.0]
assert distributed.mean_scalars({{"a": float(rank), ("b", "c")[rank]: 7.0}}) == \\
    {{"a": 0.5, "b": 7.0, "c": 7.0}}
assert distributed.any_rank(rank == 1) and not distributed.any_rank(False)
assert distributed.gather(10 * rank) == [0, 10]
layer = torch.nn.Linear(2, 2)
layer.weight.grad = torch.full((2, 2), float(rank))
distributed.average_gradients(layer.parameters())
assert (layer.weight.grad == 0.5).all() and layer.bias.grad is None
algorithm = RandomWalk(seed=0)
algorithm.rng = np.random.default_rng(rank)
expected = np.random.default_rng(rank).standard_normal(3)
folder = Path({folder!r})
path = checkpoint.save(folder, 1, algorithm, {{}}, {{"iteration": 1}})
state, counters = checkpoint.load(path).training_state()
other = RandomWalk(seed=0)
other.load_state_dict(state)
assert (other.rng.standard_normal(3) == expected).all() and counters == {{"iteration": 1}}
(folder / f"ok{{rank}}").touch()
distributed.stop()
"""


def test_two_processes(tmp_path):
    program = tmp_path / "program.py"
    paths = [str(HERE), str(HERE.parents[1])]
    program.write_text(PROGRAM.format(folder=str(tmp_path), paths=paths))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*command, "--nproc-per-node", "2", str(program)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "ok0").exists()
    assert (tmp_path / "ok1").exists()


def test_alone_everything_is_a_no_op():
    distributed.start("cpu")
    assert distributed.world_size() == 1
    assert distributed.is_main()
    value = torch.ones(2)
    assert distributed.mean(value) is value
    assert distributed.mean_scalars({"a": 1.0}) == {"a": 1.0}
    assert distributed.any_rank(True)
    assert not distributed.any_rank(False)
    distributed.average_gradients([torch.nn.Parameter(value)])
    distributed.wait_for_all()
    distributed.stop()
