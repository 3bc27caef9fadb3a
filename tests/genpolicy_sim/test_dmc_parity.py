"""DeepMind Control tasks: whole episodes and resets against dm_control itself."""

import functools
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import genpolicy_sim
import numpy as np
import pytest
from dmc_oracle import TASKS, flat, memo_of, our_task, suite_env
from genpolicy_sim.compiled_sim import Initial
from genpolicy_sim.dmc import cheetah, compiled
from scipy.stats import ks_2samp
from vec_env_conformance import check_vec_env

from genpolicy.spec import GenpolicyError

STEPS, HELD = 1000, 10
every_task = pytest.mark.parametrize("name", sorted(TASKS))
make = functools.partial(genpolicy_sim.make, dtype=np.float64, num_threads=1)


def excitation(nu):
    """Actions ``[STEPS, 2, nu]``: large random ones, held for a while, and noise."""
    rng = np.random.default_rng(0)
    held = np.repeat(rng.uniform(-1, 1, (STEPS // HELD, 2, nu)), HELD, axis=0)
    return np.clip(1.5 * held + rng.normal(0, 0.2, (STEPS, 2, nu)), -1, 1)


def state_of(name, oracles):
    """The state of dm_control's environments, as ours have it."""
    physics = [oracle.physics for oracle in oracles]
    names = ("qpos", "qvel", "act", "qacc_warmstart")
    state = {key: np.array([getattr(p.data, key) for p in physics]) for key in names}
    return state | {"memo": np.array([memo_of(name, p) for p in physics])}


def concatenated(obs):
    return np.concatenate([value[:, -1] for value in obs.values()], axis=1)


@every_task
def test_episodes_are_dm_controls(name):
    env = make(name, 2)
    oracles = [suite_env(name, seed) for seed in (0, 1)]
    first = oracles[0].reset(), oracles[1].reset()
    env.set_state(env.get_state() | state_of(name, oracles))
    assert env.spec.control_hz == pytest.approx(1 / oracles[0].control_timestep())
    assert [f.name for f in env.spec.observations] == list(first[0].observation)
    for feature in env.spec.observations:
        assert feature.shape == (np.shape(first[0].observation[feature.name]) or (1,))
    bounds = oracles[0].action_spec()
    np.testing.assert_array_equal(env.spec.action.low, bounds.minimum)
    np.testing.assert_array_equal(env.spec.action.high, bounds.maximum)
    for t, action in enumerate(excitation(env.spec.action.dim)):
        ours = env.step(action[:, None])
        theirs = [oracle.step(one) for oracle, one in zip(oracles, action, strict=True)]
        expected = np.array([flat(step.observation) for step in theirs])
        assert np.abs(concatenated(ours.final_obs) - expected).max() <= 1e-9, t
        assert np.abs(ours.reward - [step.reward for step in theirs]).max() <= 1e-9, t
        assert not ours.terminated.any() and not ours.success.any()
        assert (ours.truncated == [step.last() for step in theirs]).all()
    assert ours.truncated.all() and theirs[0].discount == 1.0
    env.close()


@every_task
def test_a_start_is_a_start_of_dm_controls(name):
    """The same positions, velocities and target: the same first observation."""
    env = make(name, 1)
    oracle = suite_env(name, 2)
    expected = flat(oracle.reset().observation)
    state = state_of(name, [oracle])
    env.sim.task = replace(env.sim.task, initial=lambda _: Initial(*resting))
    resting = state["qpos"], state["qvel"], state["memo"]
    env.sim.start(np.arange(1), np.zeros((1, 0)))
    out = np.zeros((1, env.spec.obs_dim))
    env.sim.observe(out)
    np.testing.assert_allclose(out[0], expected, rtol=0, atol=1e-12)
    env.close()


def test_the_cheetah_falls_as_dm_controls():
    joints = cheetah.propose(our_task("cheetah_run").model, np.random.default_rng(3), 3)
    qpos, qvel = our_task("cheetah_run").settle(joints)
    oracle = suite_env("cheetah_run")
    for i in range(3):
        oracle.task._random = SimpleNamespace(uniform=lambda low, high, i=i: joints[i, 3:])
        oracle.reset()
        np.testing.assert_array_equal(qpos[i], oracle.physics.data.qpos)
        np.testing.assert_array_equal(qvel[i], oracle.physics.data.qvel)


@every_task
def test_starts_are_distributed_as_dm_controls(name):
    """Kolmogorov-Smirnov, every coordinate, at a level of 1e-4 (some 80 coordinates)."""
    count = 200
    task, oracle = compiled(our_task(name)), suite_env(name, 4)
    ours = task.initial(task.draw(np.random.default_rng(5), count))
    theirs = []
    for _ in range(count):
        with oracle.physics.reset_context():
            oracle.task.initialize_episode(oracle.physics)
        state = state_of(name, [oracle])
        theirs.append(np.hstack([state[key][0] for key in ("qpos", "qvel", "memo")]))
    moving = 0
    for mine, yours in zip(np.hstack(ours).T, np.array(theirs).T, strict=True):
        if np.ptp(yours) == 0.0:
            assert (mine == yours[0]).all()
        else:
            assert ks_2samp(mine, yours).pvalue > 1e-4
            moving += 1
    assert moving


@every_task
def test_protocol(name):
    check_vec_env(functools.partial(make, name, dtype=np.float32))


def test_a_scene_is_dm_controls():
    """The same scenes, with what the suite changes at a reset: sizes of targets, damping."""
    fields = ("body_mass", "body_inertia", "jnt_range", "dof_damping", "geom_size", "actuator_gear")
    for name in TASKS:
        suite = suite_env(name)
        suite.reset()
        mine, yours = our_task(name).model, suite.physics.model.ptr
        for field in fields:
            np.testing.assert_array_equal(getattr(mine, field), getattr(yours, field), name)
        if name.startswith("finger_turn"):
            assert mine.site("target").size[0] == yours.site("target").size[0]
        assert mine.camera(our_task(name).camera).id >= 0  # or KeyError


def test_no_screen_is_looked_for():
    """dm_control's suite, which complains where there is no display, is not imported."""
    program = (
        "import sys, warnings; warnings.simplefilter('error'); import genpolicy_sim;"
        "genpolicy_sim.make('cheetah_run', 1, num_threads=1).reset(0);"
        "sys.exit('dm_control.suite' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_unknown_option():
    with pytest.raises(GenpolicyError, match=r"walker_walk.*speed"):
        make("walker_walk", 1, speed=2.0)
