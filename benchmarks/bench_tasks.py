"""How fast the compiled tasks are, against bare physics; Hopper also against other batchers.

    python benchmarks/bench_tasks.py --json benchmarks/tasks.json

For every task: ``env.step`` of the whole environment, one control step (``chunk 1``) or eight
(``chunk 8``) at a time, with its observations, rewards, episodes and resets, against
``mujoco.batch`` that runs the same substeps from the same states with the same controls in one
call and gives nothing but states: ``step`` for one control step, ``rollout`` for eight. The two
take turns, a chunk each, in changing order; the states are copied outside the clock, and after
each chunk that no episode ended in both must be in the same state, or the benchmark fails.

Two shares of bare: ``wall``, on all cores, which is what a user gets, and means something only on
a quiet machine (on a busy one it mostly compares who is scheduled better, and can exceed 1 by
far); and ``cpu``, processor time on ONE thread, which bounds it on a busy machine, too.

For ``Hopper-v5``, 40 environments, random actions: our environment, Gymnasium's ``AsyncVectorEnv``
(as many worker processes as environments, its own design) and EnvPool, where installed, on the same
cores, in turns, too.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import genpolicy_sim
import gymnasium
import numpy as np
from bench_robosuite import TASKS as ROBOSUITE
from common import save
from genpolicy_sim.batch_env import BatchEnv
from mujoco.batch import Batch

WARM_UP = 10  # chunks before the clock runs
# Their actions are not the actuators' controls: bare takes them as such, at the same cost.
WITH_CONTROLLERS = (".avoid", ".push_t")
Clock = Callable[[], float]
COPIED = ("qpos", "qvel", "act", "qacc_warmstart")


def tasks() -> list[str]:
    """All with the compiled engine: not robosuite's, which have their own, nor other people's."""
    return [name for name in genpolicy_sim.tasks() if name not in (*ROBOSUITE, "gym")]


def random_actions(env: BatchEnv, steps: int) -> np.ndarray:
    """``[N, steps, Da]``, uniform within the bounds."""
    low, high = np.array(env.spec.action.low), np.array(env.spec.action.high)
    rng = np.random.default_rng(0)
    return rng.uniform(low, high, (env.num_envs, steps, len(low)))


class Bare:
    """``mujoco.batch`` on the scene of ``env``, in its states."""

    def __init__(self, env: BatchEnv, threads: int) -> None:
        self._state, self._substeps = env.sim.state, env.sim.task.substeps
        self._batch = Batch(env.sim.model, env.num_envs, nthread=threads)
        self._bound = [(self._batch.bind(name), getattr(self._state, name)) for name in COPIED]
        self._ctrl = self._batch.bind("ctrl")
        self._before = [theirs.copy() for _, theirs in self._bound]

    def remember(self) -> None:
        """Note where the environment is."""
        for kept, (_, theirs) in zip(self._before, self._bound, strict=True):
            kept[:] = theirs

    def follow(self) -> None:
        """Go where the environment was noted."""
        for kept, (mine, _) in zip(self._before, self._bound, strict=True):
            mine[:] = kept

    def controls(self, actions: np.ndarray) -> np.ndarray:
        """What ``step`` takes for ``actions [N, Ta, Da]``."""
        single = actions.shape[1] == 1
        return actions[:, 0] if single else np.repeat(actions, self._substeps, axis=1)

    def step(self, controls: np.ndarray) -> None:
        """The chunk's substeps in one call."""
        if controls.ndim == 2:
            self._ctrl[:] = controls
            self._batch.step(nstep=self._substeps)
        else:
            self._batch.rollout(controls.shape[1], controls, record=())

    def deviation(self, rows: np.ndarray) -> float:
        """How far the environments ``rows`` are from here."""
        mine, theirs = self._bound[0]
        return float(np.abs(mine - theirs)[rows].max(initial=0.0))


def interleaved(env: BatchEnv, bare: Bare, chunk: int, seconds: float, clock: Clock) -> tuple:
    """Control steps per second of ``clock``: ours, bare."""
    actions = random_actions(env, chunk * 16)
    chunks = [np.ascontiguousarray(part) for part in np.split(actions, 16, axis=1)]
    own_controls = env.sim.task.run.__module__.endswith(WITH_CONTROLLERS)
    env.reset(0)
    ours = theirs = steps = 0.0
    turn = 0
    while ours + theirs < seconds:
        now = chunks[turn % 16]
        controls = bare.controls(now)
        bare.remember()
        bare.follow()
        spent = {}
        for who in ("ours", "bare")[:: 1 if turn % 2 else -1]:
            begin = clock()
            if who == "ours":
                result = env.step(now)
            else:
                bare.step(controls)
            spent[who] = clock() - begin
        if not own_controls:
            assert bare.deviation(~result.done) == 0.0, "bare and ours ran different physics"
        if turn >= WARM_UP:
            ours += spent["ours"]
            theirs += spent["bare"] * result.steps.mean() / chunk  # for the steps ours executed
            steps += result.steps.sum()
        turn += 1
    return steps / ours, steps / theirs


def measure_task(name: str, num_envs: int, repetitions: int, seconds: float) -> dict[str, Any]:
    result: dict[str, Any] = {"chunk_1": {}, "chunk_8": {}}
    cores = len(os.sched_getaffinity(0))
    for kind, clock, threads in (("wall", time.perf_counter, cores), ("cpu", time.process_time, 1)):
        env = genpolicy_sim.make(name, num_envs, num_threads=threads)
        bare = Bare(env, threads)
        for chunk in (1, 8):
            runs = [interleaved(env, bare, chunk, seconds, clock) for _ in range(repetitions)]
            rates = np.array(runs)
            result[f"chunk_{chunk}"][kind] = {
                "control_steps_per_s": float(np.median(rates[:, 0])),
                "bare_control_steps_per_s": float(np.median(rates[:, 1])),
                "share_of_bare": float(np.median(rates[:, 0] / rates[:, 1])),
            }
        env.close()
    return result


def measure_hopper(num_envs: int, repetitions: int, steps: int) -> dict[str, Any]:
    """Control steps per second of Hopper-v5 with random actions, single steps."""
    threads = len(os.sched_getaffinity(0))
    ours = genpolicy_sim.make("hopper", num_envs, num_threads=threads, dtype=np.float64)
    actions = random_actions(ours, steps)
    gym = gymnasium.vector.AsyncVectorEnv([lambda: gymnasium.make("Hopper-v5")] * num_envs)
    ours.reset(0), gym.reset(seed=0)
    runners = {
        "genpolicy": lambda t: ours.step(actions[:, t : t + 1]),
        "gymnasium_async": lambda t: gym.step(actions[:, t]),
    }
    packages = ["gymnasium"]
    missing = ""
    try:
        import envpool
    except ImportError as error:  # not installed, or without what it needs
        missing = str(error)
    else:
        pool = envpool.make_gymnasium("Hopper-v5", num_envs=num_envs, num_threads=threads)
        pool.reset()
        runners["envpool"] = lambda t: pool.step(actions[:, t])
        packages.append("envpool")
    rates: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(repetitions + 1):
        for name, step in runners.items():
            begin = time.perf_counter()
            for t in range(steps):
                step(t)
            rates[name].append(num_envs * steps / (time.perf_counter() - begin))
    ours.close(), gym.close()
    mine = np.array(rates["genpolicy"][1:])  # the first round warms up
    return {
        "num_envs": num_envs,
        "not_measured": {"envpool": missing} if missing else {},
        "control_steps_per_s": {name: float(np.median(r[1:])) for name, r in rates.items()},
        "times": {
            name: float(np.median(mine / np.array(r[1:])))
            for name, r in rates.items()
            if name != "genpolicy"
        },
        "versions": {name: version(name) for name in packages},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-envs", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.4, help="of one measurement")
    parser.add_argument("--tasks", nargs="*", help="only these; default all")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    result: dict[str, Any] = {
        "num_envs": args.num_envs,
        "threads": len(os.sched_getaffinity(0)),
        "repetitions": args.repetitions,
        "tasks": {},
    }
    for name in args.tasks or tasks():
        rates = measure_task(name, args.num_envs, args.repetitions, args.seconds)
        result["tasks"][name] = rates
        shares = [
            f"{kind} {rates[f'chunk_{chunk}'][kind]['share_of_bare']:.2f}"
            for chunk in (1, 8)
            for kind in ("wall", "cpu")
        ]
        print(f"{name:20} share of bare, chunk 1 and 8: {'  '.join(shares)}", flush=True)
    result["hopper_v5"] = measure_hopper(40, args.repetitions, steps=200)
    result["versions"] = {name: version(name) for name in ("mujoco", "numpy", "numba")}
    save(result, args.json)


if __name__ == "__main__":
    main()
