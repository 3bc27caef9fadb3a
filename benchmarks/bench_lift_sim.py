"""How fast batched Lift is, against the physics alone and against robosuite.

    python benchmarks/bench_lift_sim.py --json benchmarks/lift_sim.json

Three measurements, interleaved, on as many threads or processes as there are cores:

- ``batched``: ``env.step`` of the whole environment (chunks of 4 actions), over episodes of the
  scripted expert with their approach, grasp and lift;
- ``bare``: ``mujoco.batch`` running the same substeps from the same states with the recorded
  torques, no controller, observation or episode: the limit of anything that calls ``mj_step``;
- ``robosuite``: ``robosuite.step`` in worker processes, the same actions.
"""

from __future__ import annotations

import argparse
import os
import time
from importlib.metadata import version
from pathlib import Path

import genpolicy_sim
import numpy as np
from common import save
from genpolicy_sim.batch_env import BatchEnv
from genpolicy_sim.lift import SUBSTEPS, LiftSim
from genpolicy_sim.osc import DeltaScale, delta_to_goal
from mujoco.batch import Batch

STEPS, CHUNK = 48, 4


def expert_actions(env: BatchEnv) -> np.ndarray:
    """Actions ``[STEPS, N, 7]`` of the expert."""
    expert = genpolicy_sim.expert("lift", env.num_envs, seed=0)
    obs, actions = env.reset(0), []
    for _ in range(STEPS):
        actions.append(expert.act(obs))
        obs = env.step(actions[-1]).obs
    return np.concatenate(actions, axis=1).transpose(1, 0, 2)


def record_controls(env: BatchEnv, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Actuator controls ``[STEPS, N, SUBSTEPS, nu]`` and final states of ``actions``."""
    env.reset(0)
    sim = LiftSim(env.num_envs, num_threads=1)
    sim.set_state(env.sim.get_state())
    controls = np.empty((STEPS, env.num_envs, SUBSTEPS, sim.model.nu))
    for t in range(STEPS):
        pose = sim.report.eef_pos, sim.report.eef_rot
        sim.set_goal(delta_to_goal(actions[t], *pose, sim.goal.gripper, DeltaScale()))
        for i in range(env.num_envs):
            for k in range(SUBSTEPS):
                sim.substep(1, np.array([i]))
                controls[t, i, k] = sim._data[0].ctrl
    return controls, sim.report.qpos.copy()


def time_batched(env: BatchEnv, actions: np.ndarray) -> float:
    """Control steps per second."""
    env.reset(0)
    chunks = actions.transpose(1, 0, 2).reshape(env.num_envs, -1, CHUNK, 7)
    begin = time.perf_counter()
    for c in range(chunks.shape[1]):
        env.step(chunks[:, c])
    return env.num_envs * STEPS / (time.perf_counter() - begin)


def time_bare(batch: Batch, env: BatchEnv, controls: np.ndarray) -> float:
    """Control steps per second, of physics only."""
    env.reset(0)
    for name in ("qpos", "qvel", "qacc_warmstart"):
        batch.bind(name)[:] = getattr(env.sim.report, name)
    begin = time.perf_counter()
    for control in controls:
        batch.rollout(SUBSTEPS, control, record=())
    return env.num_envs * STEPS / (time.perf_counter() - begin)


def time_robosuite(env: BatchEnv, actions: np.ndarray) -> float:
    """Control steps per second of ``robosuite.step``."""
    env.reset(0)
    begin = time.perf_counter()
    for action in actions[:, : env.num_envs]:
        env.sim.control_step(action)
    return env.num_envs * STEPS / (time.perf_counter() - begin)


def measure(num_envs: int, repetitions: int) -> dict:
    cores = len(os.sched_getaffinity(0))
    options = {"terminate_on_success": False, "max_episode_steps": 10**9}
    env = genpolicy_sim.make("lift", num_envs, num_threads=cores, **options)
    oracle = genpolicy_sim.make("lift", cores, backend="robosuite", **options)
    actions = expert_actions(env)
    controls, final = record_controls(env, actions)
    batch = Batch(env.sim.model, num_envs, nthread=cores)
    time_batched(env, actions), time_robosuite(oracle, actions)  # compile
    lifted = float(env.sim.success().mean())
    time_bare(batch, env, controls)
    deviation = float(np.abs(batch.bind("qpos") - final).max())
    assert deviation < 1e-6, f"bare and batched ran different episodes: {deviation}"
    rates = np.array(
        [
            (
                time_batched(env, actions),
                time_bare(batch, env, controls),
                time_robosuite(oracle, actions),
            )
            for _ in range(repetitions)
        ]
    )
    oracle.close()
    env.close()
    median = np.median(rates, axis=0)
    return {
        "num_envs": num_envs,
        "threads": cores,
        "repetitions": repetitions,
        "episodes_lifted": lifted,
        "control_steps_per_s": dict(zip(("batched", "bare", "robosuite"), median, strict=True)),
        "share_of_bare": float(np.median(rates[:, 0] / rates[:, 1])),
        "times_robosuite": float(np.median(rates[:, 0] / rates[:, 2])),
        "versions": {name: version(name) for name in ("mujoco", "robosuite", "numpy", "numba")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-envs", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    save(measure(args.num_envs, args.repetitions), args.json)


if __name__ == "__main__":
    main()
