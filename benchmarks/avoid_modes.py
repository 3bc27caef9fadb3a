"""How many of avoid's 24 ways policies keep: a picture, counts and entropy.

    genpolicy collect task=avoid out=avoid.hdf5 episodes=300
    python benchmarks/avoid_modes.py --out benchmarks/avoid_modes --expert \
        imitation=runs/avoid/imitation/A FPO=runs/avoid/fpo/B

Each NAME=CHECKPOINT is rolled out by the evaluator as ``genpolicy eval`` does it: 300 episodes from
seed 1000, the same initial states and noise for all. ``--expert`` puts the scripted expert first.
Writes OUT.json (success with Wilson 95 % intervals, ways taken by successful episodes, entropy of
their distribution over log 24) and OUT.png.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import genpolicy_sim
import numpy as np
from genpolicy_sim import avoid
from numpy.typing import NDArray

import genpolicy
from genpolicy.evaluate.evaluator import evaluate
from genpolicy.report import modes
from genpolicy.runs.environment import describe
from genpolicy.spec import GenpolicyError, Observation, StepResult

EPISODES, SEED0, NUM_ENVS = 300, 1000, 100


class Recorder:
    """The environment, and where its robots went in each episode since the last reset.

    It is made with a history that is as long as a chunk, so that every control step is seen.

    Args:
        num_envs: N.
        obs_steps: To of the policy.
        chunk: longest chunk that it executes.
    """

    def __init__(self, num_envs: int, obs_steps: int, chunk: int) -> None:
        self._env = genpolicy_sim.make("avoid", num_envs, history=max(obs_steps, chunk))
        self._obs_steps, self.num_envs, self.spec = obs_steps, num_envs, self._env.spec
        self.finished: list[NDArray[Any]] = []  # paths of the waves before
        self._paths: list[list[NDArray[Any]]] = []

    def reset(self, seed: int | None = None) -> Observation:
        obs = self._env.reset(seed)
        self.flush()
        self._paths = [[start[-1:]] for start in obs["position"].copy()]
        return self._seen(obs)

    def step(
        self, actions: NDArray[np.floating[Any]], active: NDArray[np.bool_] | None = None
    ) -> StepResult:
        result = self._env.step(actions, active=active)
        for path, steps, seen in zip(
            self._paths, result.steps, result.final_obs["position"], strict=True
        ):
            path.append(seen[len(seen) - steps :].copy())
        return result._replace(obs=self._seen(result.obs), final_obs=self._seen(result.final_obs))

    def flush(self) -> None:
        """The wave is over."""
        self.finished += [np.concatenate(path) for path in self._paths]
        self._paths = []

    def _seen(self, obs: Observation) -> Observation:
        return {name: value[:, -self._obs_steps :] for name, value in obs.items()}

    def get_state(self) -> dict[str, NDArray[Any]]:
        return self._env.get_state()

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> Observation:
        return self._seen(self._env.set_state(state))

    def close(self) -> None:
        self._env.close()


def of_policy(path: str, episodes: int) -> modes.Episodes:
    """Episodes of a checkpoint."""
    policy = genpolicy.load(path)
    env = Recorder(min(NUM_ENVS, episodes), policy.spec.obs_steps, policy.spec.exec_steps)
    success = evaluate(policy, env, episodes=episodes, seed0=SEED0).success
    return _finished(env, success)


def of_expert(episodes: int) -> modes.Episodes:
    """Episodes of the scripted expert, from the same initial states."""
    env = Recorder(episodes, 1, 1)
    expert = genpolicy_sim.expert("avoid", episodes, seed=SEED0)
    obs, active = env.reset(SEED0), np.ones(episodes, np.bool_)
    success = np.zeros(episodes, np.bool_)
    while active.any():
        result = env.step(expert.act(obs), active)
        obs = result.obs
        success |= result.success & active
        active &= ~result.done
    return _finished(env, success)


def _finished(env: Recorder, success: NDArray[np.bool_]) -> modes.Episodes:
    env.flush()
    env.close()
    paths = env.finished[: len(success)]  # the last wave may have had room for more
    return modes.Episodes(paths, avoid.modes(paths), success)


def scene() -> modes.Scene:
    """Avoid, for the picture."""
    low, high = avoid.WORKSPACE
    return modes.Scene(avoid.obstacles(), avoid.FINISH_Y, low, high, avoid.NUM_MODES)


def run(policies: Mapping[str, str], out: Path, episodes: int, expert: bool) -> dict[str, Any]:
    """Roll out, count, draw and write."""
    panels = {"expert": of_expert(episodes)} if expert else {}
    panels |= {name: of_policy(path, episodes) for name, path in policies.items()}
    result = {
        "seed0": SEED0,
        "policies": {name: modes.summary(taken, avoid.NUM_MODES) for name, taken in panels.items()},
        "machine": describe(),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    modes.draw(panels, scene(), out.with_suffix(".png"))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("policies", nargs="*", metavar="NAME=CHECKPOINT")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--episodes", type=int, default=EPISODES)
    parser.add_argument("--expert", action="store_true", help="the scripted expert, too")
    args = parser.parse_args()
    pairs = [entry.partition("=") for entry in args.policies]
    if not all(name and path for name, _, path in pairs) or not (pairs or args.expert):
        parser.error("give NAME=CHECKPOINT for each policy, or --expert")
    try:
        result = run({name: path for name, _, path in pairs}, args.out, args.episodes, args.expert)
    except GenpolicyError as error:
        parser.error(str(error))
    print(json.dumps(result["policies"], indent=1))


if __name__ == "__main__":
    main()
