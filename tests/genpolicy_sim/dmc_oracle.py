"""dm_control itself, for the tests that hold our DeepMind Control tasks against it."""

import importlib
from functools import cache

import mujoco
import numpy as np
import pytest
from genpolicy_sim.dmc import (
    ball_in_cup,
    cartpole,
    cheetah,
    finger,
    fish,
    hopper,
    humanoid,
    point_mass,
    reacher,
    walker,
)

EASY, HARD = (lambda: reacher.reach_task("easy")), (lambda: reacher.reach_task("hard"))
TURN_EASY, TURN_HARD = (lambda: finger.turn_task("easy")), (lambda: finger.turn_task("hard"))
# Our task, where its functions are and how they end, dm_control's name of it, and the coordinates
# that its model keeps of what our simulations remember.
TASKS = {
    "ball_in_cup_catch": (ball_in_cup.catch_task, ball_in_cup, "", "catch", ""),
    "cartpole_balance": (cartpole.balance_task, cartpole, "", "balance", ""),
    "cheetah_run": (cheetah.run_task, cheetah, "", "run", ""),
    "finger_spin": (finger.spin_task, finger, "_spin", "spin", ""),
    "finger_turn_easy": (TURN_EASY, finger, "_turn", "turn_easy", "xz"),
    "finger_turn_hard": (TURN_HARD, finger, "_turn", "turn_hard", "xz"),
    "fish_swim": (fish.swim_task, fish, "", "swim", "xyz"),
    "hopper_stand": (hopper.stand_task, hopper, "", "stand", ""),
    "humanoid_stand": (humanoid.stand_task, humanoid, "", "stand", ""),
    "point_mass_easy": (point_mass.easy_task, point_mass, "", "easy", ""),
    "reacher_easy": (EASY, reacher, "", "easy", "xy"),
    "reacher_hard": (HARD, reacher, "", "hard", "xy"),
    "walker_walk": (walker.walk_task, walker, "", "walk", ""),
}


@cache
def suite():
    """``dm_control.suite``, without a look for a screen."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MUJOCO_GL", "off")
        return importlib.import_module("dm_control.suite")


def our_task(name):
    return TASKS[name][0]()


def our_rules(name):
    """The compiled ``observe`` and ``outcome``."""
    module, ending = TASKS[name][1:3]
    return getattr(module, f"observe{ending}"), getattr(module, f"outcome{ending}")


def suite_env(name, seed=0):
    mujoco.set_mju_user_warning(lambda message: None)  # of the cheetah's XML, else into a file
    try:
        task = TASKS[name][3]
        return suite().load(our_task(name).robot, task, task_kwargs={"random": seed})
    finally:
        mujoco.set_mju_user_warning(None)


def memo_of(name, physics):
    """The target in dm_control's model, as our simulations remember it."""
    axes, model = list(TASKS[name][4]), physics.named.model
    if not axes:
        return np.zeros(0)
    place = model.site_pos if our_task(name).robot == "finger" else model.geom_pos
    return np.array(place["target", axes])


def flat(observation):
    """dm_control's observation as one vector."""
    return np.hstack([np.ravel(value) for value in observation.values()])
