"""Each fix is needed: without it robosuite fails on this MuJoCo, with it it steps."""

import subprocess
import sys

import pytest

PROGRAM = """
import numpy as np
from genpolicy_sim import lift, robosuite_compat
robosuite_compat.{without} = lambda: None
env = lift.robosuite_env(seed=0)
env.reset()
env.step(np.zeros(7))
print("stepped")
"""


def run(without):
    program = PROGRAM.format(without=without)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)


def test_with_all_fixes_robosuite_steps_without_a_word():
    done = run("nothing")
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == ("stepped\n", "")


@pytest.mark.parametrize(
    ("fix", "symptom"),
    [
        ("patch_joint_addresses", "AssertionError"),
        ("patch_mass_matrix", "AttributeError: 'MjData' object has no attribute 'qM'"),
    ],
)
def test_without_a_fix_robosuite_fails(fix, symptom):
    done = run(fix)
    assert done.returncode != 0
    assert symptom in done.stderr


def test_mujoco_itself_stays_as_it_was():
    program = (
        "import mujoco; before = dict(vars(mujoco)); eq = mujoco.mjtJoint.__eq__\n"
        "from genpolicy_sim import lift; lift.robosuite_env(seed=0)\n"
        "after = vars(mujoco)\n"
        "assert all(after[k] is v for k, v in before.items()) and mujoco.mjtJoint.__eq__ is eq"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
