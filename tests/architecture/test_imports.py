"""Who may import whom, checked on the source and on what Python really loads."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = (
    "torch mujoco robosuite numba gymnasium hydra omegaconf wandb h5py onnx safetensors rich "
    "diffusers"
)


def test_import_contracts():
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ("import genpolicy, genpolicy.cli", ""),
        ("import genpolicy_deploy, genpolicy_deploy.cli, genpolicy_deploy.controller", ""),
        ("import genpolicy_sim", ""),
        ("import genpolicy.commands.docs as d; d.help_text('pretrain')", "omegaconf"),
    ],
)
def test_nothing_heavy_is_loaded(statement, allowed):
    program = (
        f"import sys; {statement}; "
        f"print(*sorted(set({HEAVY.split()!r}) & set(sys.modules) - {set(allowed.split())!r}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_load_is_lazy_but_there():
    program = "import genpolicy, sys; assert 'torch' not in sys.modules; genpolicy.load"
    subprocess.run([sys.executable, "-c", program], check=True)
