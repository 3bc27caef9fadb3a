"""Batched tasks beside ``robosuite.step``: what the parity tests of all of them use."""

import numpy as np
from genpolicy_sim.robosuite_task import MODEL_SEED, OBSERVED_AS

BEFORE_CONTACT = 1e-6  # rad, m or of a quaternion


class Pair:
    """One batched environment and robosuite's, in the same state, given the same actions.

    Args:
        kind: the task.
        seed: of robosuite's initial states.
    """

    def __init__(self, kind, seed=MODEL_SEED):
        self.env, self.sim, self.spec = kind.robosuite_env(seed=seed), kind(1), kind.task_spec()
        self._keys = [OBSERVED_AS.get(f.name, f.name) for f in self.spec.observations]
        self._touched = watch_contact(self.env)

    def reset(self):
        """Start an episode where robosuite's sampler puts it; the observations."""
        self._told = self.env.reset()
        # As for a new episode, but to robosuite's state.
        self.sim.start(np.arange(1), self.sim.draw(np.random.default_rng(0), 1))
        self.sim.start_at(np.arange(1), np.array(self.env.sim.data.qpos)[None])
        return self.observations()

    def step(self, action):
        """Both execute ``action [Da]``; the observations."""
        self._touched[0] = False
        self._told, self.reward, _, _ = self.env.step(action)
        self.sim.control_step(action[None])
        return self.observations()

    def observations(self):
        """Ours and robosuite's, in the order of our spec."""
        ours = np.zeros((1, self.spec.obs_dim))
        self.sim.observe(ours)
        return ours[0], np.concatenate([np.atleast_1d(self._told[key]) for key in self._keys])

    def robot_touches_something(self):
        """Whether a robot has touched what is no robot, in any substep of the last step."""
        return self._touched[0]


def watch_contact(env):
    """A list whose one entry turns true in a substep in which a robot touches something."""
    touched, model, pre_action = [False], env.sim.model._model, env._pre_action
    names = [model.geom(g).name for g in range(model.ngeom)]
    robot = np.array([name.startswith(("robot", "gripper")) for name in names])

    def watching(action, policy_step=False):
        touched[0] |= bool(np.logical_xor(*robot[env.sim.data._data.contact.geom.T]).any())
        pre_action(action, policy_step)

    env._pre_action = watching
    return touched


def assert_parity(ours, theirs, limit=BEFORE_CONTACT):
    """Equal to ``limit``."""
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=limit)


def random_walk(rng, dim, steps):
    """Smooth random actions ``[steps, dim]``: the arm gets somewhere."""
    drift = np.repeat(rng.uniform(-0.6, 0.6, (steps // 10 + 1, dim)), 10, axis=0)[:steps]
    return np.clip(drift + rng.uniform(-0.4, 0.4, (steps, dim)), -1.0, 1.0)
