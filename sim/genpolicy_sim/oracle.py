"""robosuite's own environment stepped in worker processes: the oracle of the batched tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genpolicy_sim.batch_env import Outcome
from genpolicy_sim.workers import Workers

Array = NDArray[np.float64]
STATE = ("qpos", "qvel", "qacc_warmstart", "rest", "gripper", "cache")  # of one environment


class RobosuiteSim:
    """A ``BatchSim`` of N robosuite environments with arms under OSC_POSE.

    Args:
        make_env: builds one environment (called in the workers, so it must be importable there).
        observed: robosuite's names of the observations, in the order of the spec.
        obs_dim: how long they are together.
        num_envs: N.
        num_workers: processes; default all available cores.
        draw: see ``BatchSim``.
        draw_dim: see ``BatchSim``.
        initial_qpos: draws to joint positions ``[n, nq]``.
    """

    def __init__(
        self,
        make_env: Callable[[], Any],
        observed: list[str],
        obs_dim: int,
        num_envs: int,
        num_workers: int | None = None,
        *,
        draw: Callable[[np.random.Generator, int], Array],
        draw_dim: int,
        initial_qpos: Callable[[Array], Array],
    ) -> None:
        self.num_envs, self.draw, self.draw_dim = num_envs, draw, draw_dim
        self._initial_qpos = initial_qpos
        self._seen = np.zeros((num_envs, obs_dim))
        self._success = np.zeros(num_envs, np.bool_)
        self._workers = Workers(
            partial(_Arms, make_env, observed), num_envs, num_workers, name="robosuite"
        )

    def start(self, ids: NDArray[np.intp], draws: Array) -> None:
        """Start episodes at rest in the states that ``draws [n, draw_dim]`` encode."""
        self._call("start", dict(zip(ids.tolist(), self._initial_qpos(draws), strict=True)))

    def control_step(self, action: Array, ids: NDArray[np.intp] | None = None) -> None:
        """``env.step`` with one action ``[N, Da]``."""
        chosen = range(self.num_envs) if ids is None else ids.tolist()
        self._call("step", {i: action[i] for i in chosen})

    def observe(self, out: Array) -> None:
        """Write the observations ``[N, obs_dim]``."""
        out[:] = self._seen

    def outcome(self) -> Outcome:
        """Sparse reward: 1 while robosuite's own success test holds."""
        return Outcome(self._success.astype(np.float64), self._success, self._success)

    def get_state(self) -> dict[str, NDArray[Any]]:
        """What decides the future, first axis N."""
        rows = self._call("get_state", dict.fromkeys(range(self.num_envs)))
        state = {name: np.stack([rows[i][name] for i in range(self.num_envs)]) for name in STATE}
        return state | {"seen": self._seen.copy(), "achieved": self._success.copy()}

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue from ``get_state`` output."""
        rows = {i: {name: state[name][i] for name in STATE} for i in range(self.num_envs)}
        self._call("set_state", rows)
        self._seen[:], self._success[:] = state["seen"], state["achieved"]

    def close(self) -> None:
        """End the worker processes."""
        self._workers.close()

    def _call(self, method: str, arguments: Mapping[int, Any]) -> dict[int, Any]:
        """Run a method of ``_Arm`` for the environments that are keys of ``arguments``."""
        parts = [
            {i: arguments[i] for i in block.tolist() if i in arguments}
            for block in self._workers.blocks
        ]
        answers = self._workers.call("run", [(method, part) if part else None for part in parts])
        results = {i: result for answer in answers if answer for i, result in answer.items()}
        if method in ("start", "step"):
            for i, (seen, success) in results.items():
                self._seen[i], self._success[i] = seen, success
        return results


class _Arms:
    """The environments of one worker process, by number."""

    def __init__(self, make_env: Callable[[], Any], observed: list[str], envs: list[int]) -> None:
        self._arms = {i: _Arm(make_env(), observed) for i in envs}

    def run(self, method: str, arguments: dict[int, Any]) -> dict[int, Any]:
        """A method of some of them, each with its argument."""
        return {i: getattr(self._arms[i], method)(value) for i, value in arguments.items()}


class _Arm:
    """One robosuite environment."""

    def __init__(self, env: Any, observed: list[str]) -> None:
        self._env, self._observed = env, observed

    @property
    def _arms(self) -> list[Any]:
        """The arms' controllers: ``reset`` makes new ones."""
        return [robot.part_controllers["right"] for robot in self._env.robots]

    def start(self, qpos: Array) -> tuple[Array, bool]:
        """``env.reset``, but to the given joint positions."""
        self._restore(qpos, 0.0, 0.0, np.concatenate([qpos[arm.qpos_index] for arm in self._arms]))
        self._env._obs_cache.clear()  # what was seen where ``reset`` had put things
        return self._result(self._observe())

    def step(self, action: Array) -> tuple[Array, bool]:
        return self._result(self._env.step(action)[0])

    def get_state(self, _: None) -> dict[str, Array]:
        data = self._env.sim.data
        rest = np.concatenate([arm.initial_joint for arm in self._arms])
        grippers = [robot.gripper["right"] for robot in self._env.robots]
        gripper = np.concatenate([np.resize(g.current_action, 2) for g in grippers])
        # Some observables are computed from what others were at the last observation.
        cache = np.concatenate([np.ravel(value) for value in self._env._obs_cache.values()])
        values = (data.qpos, data.qvel, data.qacc_warmstart, rest, gripper, cache)
        return {name: np.array(value) for name, value in zip(STATE, values, strict=True)}

    def set_state(self, state: dict[str, Array]) -> None:
        self._restore(state["qpos"], state["qvel"], state["qacc_warmstart"], state["rest"])
        for robot, action in zip(self._env.robots, state["gripper"].reshape(-1, 2), strict=True):
            robot.gripper["right"].current_action = action
        self._observe()
        self._env.sim.data.qacc_warmstart[:] = state["qacc_warmstart"]
        at = 0
        for name, value in self._env._obs_cache.items():
            part = state["cache"][at : at + np.size(value)]
            self._env._obs_cache[name], at = part.reshape(np.shape(value)), at + np.size(value)

    def _restore(self, qpos: Array, qvel: Array | float, warm: Array | float, rest: Array) -> None:
        self._env.reset()
        data = self._env.sim.data
        data.qpos[:], data.qvel[:], data.qacc_warmstart[:] = qpos, qvel, warm
        for arm, posture in zip(self._arms, np.split(rest, len(self._arms)), strict=True):
            arm.update_initial_joints(posture)  # with mj_forward

    def _observe(self) -> Mapping[str, Array]:
        """Observe, and set the observables' clocks to what they are after a reset or step."""
        for observable in self._env._observables.values():
            observable.reset()
        return self._env._get_observations(force_update=True)

    def _result(self, obs: Mapping[str, Array]) -> tuple[Array, bool]:
        seen = np.concatenate([obs[name] for name in self._observed])
        return seen, bool(self._env._check_success())
