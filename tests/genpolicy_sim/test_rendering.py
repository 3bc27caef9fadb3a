"""Pictures of states, where the machine can draw; a clear sentence where it cannot."""

import subprocess

import genpolicy_sim
import numpy as np
import pytest
from genpolicy_sim import rendering

from genpolicy.spec import GenpolicyError


@pytest.fixture
def drawable():
    try:
        return rendering.backend()
    except GenpolicyError as error:
        pytest.skip(str(error))


def test_pictures_show_the_state(drawable):
    env = genpolicy_sim.make("lift")
    env.reset(0)
    start = env.get_state()["qpos"][0]
    lifted = start.copy()
    lifted[11] += 0.1
    pictures = rendering.render(env, np.stack([start, lifted, start]), 96, 64)
    assert pictures.shape == (3, 64, 96, 3) and pictures.dtype == np.uint8
    assert pictures.std() > 20
    np.testing.assert_array_equal(pictures[0], pictures[2])
    # the cube is the one red thing, and up is up: row numbers fall as it rises
    rows = [np.mean(np.argwhere((p[..., 0] > 60) & (p[..., 1] < p[..., 0] / 2))[:, 0])
            for p in pictures[:2]]  # fmt: skip
    assert rows[1] < rows[0] - 3
    one = rendering.render(env.sim.model, start, 32, 24, camera="frontview")
    assert one.shape == (24, 32, 3)


@pytest.mark.parametrize("task", ["reacher_easy", "fish_swim", "finger_turn_easy"])
def test_pictures_show_the_target_of_the_episode(drawable, task):
    env = genpolicy_sim.make(task, 2)
    env.reset(0)
    state, model = env.get_state(), env.sim.model
    before = model.geom_pos.copy(), model.site_pos.copy()
    same = np.repeat(state["qpos"][:1], 3, axis=0)
    memo = state["memo"][[0, 1, 0]]
    pictures = rendering.render(env, same, 96, 64, memo=memo)
    assert (pictures[0] != pictures[1]).any(-1).sum() > 10
    np.testing.assert_array_equal(pictures[0], pictures[2])
    np.testing.assert_array_equal(model.geom_pos, before[0])  # what is simulated is another scene
    np.testing.assert_array_equal(model.site_pos, before[1])


@pytest.mark.parametrize(
    ("task", "joint"), [("can", "Can"), ("square", "SquareNut"), ("transport", "payload")]
)
def test_pictures_show_what_is_carried(drawable, task, joint):
    env = genpolicy_sim.make(task)
    env.reset(0)
    start = env.get_state()["qpos"][0]
    raised = start.copy()
    raised[env.sim.model.joint(f"{joint}_joint0").qposadr[0] + 2] += 0.15
    pictures = rendering.render(env, np.stack([start, raised]), 160, 120)
    changed = np.argwhere((pictures[0] != pictures[1]).any(-1))
    assert len(changed) > 20 and (changed.min(0) > 5).all() and (changed.max(0) < [115, 155]).all()


def test_unknown_camera():
    with pytest.raises(GenpolicyError, match=r"'moon' does not exist: choose one of .*frontview"):
        rendering.render(genpolicy_sim.make("lift"), np.zeros(16), camera="moon")


def test_no_opengl_names_the_package(monkeypatch):
    failed = subprocess.CompletedProcess([], returncode=1)
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: failed)
    rendering.backend.cache_clear()
    try:
        with pytest.raises(GenpolicyError, match="apt-get install libegl1"):
            rendering.backend()
    finally:
        rendering.backend.cache_clear()
