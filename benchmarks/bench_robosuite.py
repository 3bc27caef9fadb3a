"""How fast robosuite's tasks are, batched, against the physics alone and against robosuite.

    python benchmarks/bench_robosuite.py --json benchmarks/robosuite.json

Three measurements of each task, interleaved:

- ``batched``: ``env.step`` of the whole environment (chunks of 4 actions), with the scripted
  expert's actions where there is one, else with arms that wander about;
- ``bare``: ``mujoco.batch`` running the same substeps from the same states with the recorded
  torques, no controller, observation or episode: the limit of anything that calls ``mj_step``;
- ``robosuite``: ``robosuite.step`` in worker processes, the same actions.

``wall`` is on as many threads or processes as there are cores, which is what a user gets and means
something only on a quiet machine; ``cpu`` is processor time on ONE thread, for busy machines, too.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import genpolicy_sim
import numpy as np
from common import save
from genpolicy_sim.batch_env import BatchEnv
from genpolicy_sim.experts import EXPERTS
from genpolicy_sim.robosuite_task import SUBSTEPS
from mujoco.batch import Batch

TASKS = ("lift", "can", "square", "transport")
STEPS, CHUNK = 48, 4
DRIFT = 12  # control steps for which wandering arms keep a direction
Clock = Callable[[], float]


def actions_of(env: BatchEnv) -> np.ndarray:
    """Actions ``[STEPS, N, Da]``."""
    if env.spec.task not in EXPERTS:
        rng, shape = np.random.default_rng(0), (env.num_envs, env.spec.action.dim)
        drift = np.repeat(rng.uniform(-0.6, 0.6, (STEPS // DRIFT, *shape)), DRIFT, axis=0)
        return np.clip(drift + rng.uniform(-0.4, 0.4, (STEPS, *shape)), -1.0, 1.0)
    expert = genpolicy_sim.expert(env.spec.task, env.num_envs, seed=0)
    obs, actions = env.reset(0), []
    for _ in range(STEPS):
        actions.append(expert.act(obs))
        obs = env.step(actions[-1]).obs
    return np.concatenate(actions, axis=1).transpose(1, 0, 2)


def record_controls(env: BatchEnv, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Actuator controls ``[STEPS, N, SUBSTEPS, nu]`` and final states of ``actions``."""
    env.reset(0)
    sim = type(env.sim)(env.num_envs, num_threads=1)
    sim.set_state(env.sim.get_state())
    controls = np.empty((STEPS, env.num_envs, SUBSTEPS, sim.model.nu))
    for t in range(STEPS):
        sim.set_goal(sim.goal_of(actions[t]))
        for i in range(env.num_envs):
            for k in range(SUBSTEPS):
                sim.substep(1, np.array([i]))
                controls[t, i, k] = sim._data[0].ctrl
    return controls, sim.report.qpos.copy()


def time_batched(env: BatchEnv, actions: np.ndarray, clock: Clock) -> float:
    """Control steps per second."""
    env.reset(0)
    chunks = actions.transpose(1, 0, 2).reshape(env.num_envs, -1, CHUNK, actions.shape[2])
    begin = clock()
    for c in range(chunks.shape[1]):
        env.step(chunks[:, c])
    return env.num_envs * STEPS / (clock() - begin)


def time_bare(batch: Batch, env: BatchEnv, controls: np.ndarray, clock: Clock) -> float:
    """Control steps per second, of physics only."""
    env.reset(0)
    for name in ("qpos", "qvel", "qacc_warmstart"):
        batch.bind(name)[:] = getattr(env.sim.report, name)
    begin = clock()
    for control in controls:
        batch.rollout(SUBSTEPS, control, record=())
    return env.num_envs * STEPS / (clock() - begin)


def time_robosuite(env: BatchEnv, actions: np.ndarray) -> float:
    """Control steps per second of ``robosuite.step``, by the wall clock."""
    env.reset(0)
    begin = time.perf_counter()
    for action in actions[:, : env.num_envs]:
        env.sim.control_step(action)
    return env.num_envs * STEPS / (time.perf_counter() - begin)


def measure(name: str, num_envs: int, repetitions: int) -> dict:
    """All rates of one task."""
    cores = len(os.sched_getaffinity(0))
    options = {"terminate_on_success": False, "max_episode_steps": 10**9}
    oracle = genpolicy_sim.make(name, cores, backend="robosuite", **options)
    result: dict = {}
    for kind, clock, threads in (("wall", time.perf_counter, cores), ("cpu", time.process_time, 1)):
        env = genpolicy_sim.make(name, num_envs, num_threads=threads, **options)
        actions = actions_of(env)
        controls, final = record_controls(env, actions)
        batch = Batch(env.sim.model, num_envs, nthread=threads)
        time_batched(env, actions, clock), time_robosuite(oracle, actions)  # compile
        time_bare(batch, env, controls, clock)
        deviation = float(np.abs(batch.bind("qpos") - final).max())
        assert deviation < 1e-6, f"bare and batched ran different episodes: {deviation}"
        rates = []
        for _ in range(repetitions):
            ours, bare = time_batched(env, actions, clock), time_bare(batch, env, controls, clock)
            rates.append((ours, bare, time_robosuite(oracle, actions) if kind == "wall" else 0.0))
        result[kind] = shares(np.array(rates))
        env.close()
    oracle.close()
    del result["cpu"]["robosuite"], result["cpu"]["times_robosuite"]  # other processes' time
    return result


def shares(rates: np.ndarray) -> dict:
    """Medians over repetitions of ``rates [repetitions, 3]``; ratios within each."""
    ours, bare, robosuite = rates.T
    return {
        "batched": float(np.median(ours)),
        "bare": float(np.median(bare)),
        "robosuite": float(np.median(robosuite)),
        "share_of_bare": float(np.median(ours / bare)),
        "times_robosuite": float(np.median(ours / np.maximum(robosuite, 1e-9))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-envs", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--tasks", nargs="*", default=TASKS)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    result = {
        "num_envs": args.num_envs,
        "threads": len(os.sched_getaffinity(0)),
        "repetitions": args.repetitions,
        "control_steps_per_s": {
            name: measure(name, args.num_envs, args.repetitions) for name in args.tasks
        },
        "versions": {name: version(name) for name in ("mujoco", "robosuite", "numpy", "numba")},
    }
    save(result, args.json)


if __name__ == "__main__":
    main()
