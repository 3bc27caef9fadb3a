"""The compiled engine: a tiny task against plain MuJoCo, threads, chunks, memory."""

import gc
import threading
from typing import NamedTuple

import mujoco
import numpy as np
import pytest
from genpolicy_sim.batch_env import BatchEnv
from genpolicy_sim.compiled_sim import CompiledSim, CompiledTask, Initial, advance, kinematics
from numba import njit
from vec_env_conformance import check_vec_env

from genpolicy.spec import ActionSpec, Feature, TaskSpec

XML = """<mujoco><option timestep="0.01"/><worldbody><body>
<joint name="hinge" axis="0 1 0" damping="0.1"/>
<geom type="capsule" fromto="0 0 0 1 0 0" size="0.05"/><site name="tip" pos="1 0 0"/></body>
</worldbody><actuator><motor joint="hinge" gear="20"/></actuator></mujoco>"""
SUBSTEPS = 3


class Constants(NamedTuple):
    gain: float
    top: float  # m, height of the tip that ends an episode
    weights: np.ndarray  # [2]


@njit(nogil=True, cache=True)
def command(d, c, memo, action):
    d.ctrl[0] = c.gain * action[0] - d.qvel[0]  # a controller: at every substep


@njit(nogil=True, cache=True)
def observe(d, c, memo, out):
    out[0], out[1], out[2] = d.qpos[0], d.qvel[0], d.site_xpos[0, 2]


@njit(nogil=True, cache=True)
def outcome(d, c, memo, action):
    memo[0] = max(memo[0], d.site_xpos[0, 2])
    reward = c.weights[0] * memo[0] - c.weights[1] * action[0] ** 2
    return reward, d.site_xpos[0, 2] > c.top, False


@njit(nogil=True, cache=True)
def run(desk, thread, c):
    advance(desk, thread, c, observe, outcome, command, kinematics)


def initial(draws):
    return Initial(draws[:, :1], draws[:, 1:], np.full((len(draws), 1), -1.0))


def tiny(top=np.inf):
    return CompiledTask(
        model=mujoco.MjModel.from_xml_string(XML),
        substeps=SUBSTEPS,
        run=run,
        constants=Constants(0.7, top, np.array([1.0, 0.1])),
        obs_dim=3,
        action_dim=1,
        draw=lambda rng, count: rng.uniform(-1.0, 1.0, (count, 2)),
        draw_dim=2,
        initial=initial,
        memo_dim=1,
    )


def make(num_envs, *, top=np.inf, num_threads=None, max_episode_steps=100, **options):
    features = (Feature("state", (2,)), Feature("height", (1,)))
    action = ActionSpec(("torque",), ("N m",), (-1.0,), (1.0,))
    spec = TaskSpec("tiny", "arm", features, action, "actuator", 33.3, max_episode_steps)
    return BatchEnv(CompiledSim(tiny(top), num_envs, num_threads), spec, **options)


def actions_for(env, chunk, seed=0):
    return np.random.default_rng(seed).uniform(-1.0, 1.0, (env.num_envs, chunk, 1))


def test_is_a_vec_env():
    check_vec_env(make)


def test_is_plain_mujoco():
    env = make(3, dtype=np.float64)
    env.reset(0)
    task, state, actions = env.sim.task, env.get_state(), actions_for(env, 20)
    result = env.step(actions)
    for i in range(3):
        data = mujoco.MjData(task.model)
        data.qpos[:], data.qvel[:] = state["qpos"][i], state["qvel"][i]
        mujoco.mj_forward(task.model, data)
        best = -1.0
        for t in range(20):
            for _ in range(SUBSTEPS):
                data.ctrl[0] = 0.7 * actions[i, t, 0] - data.qvel[0]
                mujoco.mj_step(task.model, data)
            mujoco.mj_kinematics(task.model, data)
            best = max(best, data.site_xpos[0, 2])
            expected = best - 0.1 * actions[i, t, 0] ** 2
            np.testing.assert_allclose(result.rewards[i, t], expected, rtol=0, atol=1e-15)
        np.testing.assert_array_equal(result.obs["state"][i, 0], [data.qpos[0], data.qvel[0]])
        np.testing.assert_array_equal(result.obs["height"][i, 0], data.site_xpos[0, 2])
    env.close()


@pytest.mark.parametrize("num_threads", [2, 5])
def test_threads_change_nothing(num_threads):
    one, many = make(40, num_threads=1, top=0.1), make(40, num_threads=num_threads, top=0.1)
    one.reset(0), many.reset(0)
    ends = 0
    for seed in range(30):
        actions = actions_for(one, 1 + seed % 3, seed)
        active = np.random.default_rng(seed).random(40) < 0.7
        first, second = one.step(actions, active), many.step(actions, active)
        ends += first.terminated.sum()
        for a, b in zip(first, second, strict=True):
            for x, y in zip(*map(leaves, (a, b)), strict=True):
                np.testing.assert_array_equal(x, y)
    assert ends > 20  # early ends and restarts are compared, too
    one.close(), many.close()


def leaves(value):
    return list(value.values()) if isinstance(value, dict) else [value]


def test_an_early_end_ends_the_chunk_and_forgets_the_memory():
    env = make(16, top=0.3, dtype=np.float64)
    env.reset(1)
    result = env.step(np.ones((16, 60, 1)) * -1.0)
    ended = result.terminated
    assert ended.any()
    assert (result.final_obs["height"][ended, 0, 0] > 0.3).all()
    after = np.arange(60) >= result.steps[:, None]
    assert not result.rewards[after].any()
    np.testing.assert_array_equal(env.get_state()["memo"][ended], -1.0)
    env.close()


def test_memory_layout_of_actions_does_not_matter():
    env = make(4)
    actions = actions_for(env, 6)
    env.reset(2)
    first = env.step(actions).rewards
    env.reset(2)
    fortran = np.asfortranarray(np.tile(actions, (1, 2, 1)))[:, :6]
    np.testing.assert_array_equal(env.step(fortran).rewards, first)
    env.close()


@pytest.mark.parametrize("forget", [BatchEnv.close, lambda env: None])
def test_threads_go_home(forget):
    gc.collect()  # what other tests left
    before = threading.active_count()
    env = make(4, num_threads=3)
    assert threading.active_count() == before + 2
    forget(env)
    del env
    gc.collect()
    assert threading.active_count() == before


def test_closing_twice_is_fine_and_stepping_goes_on_alone():
    env = make(4, num_threads=2)
    env.close(), env.close()
    assert (env.step(actions_for(env, 2)).steps == 2).all()
