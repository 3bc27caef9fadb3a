"""Success and smoothness on Lift when the policy is slow, by how chunks follow each other.

    genpolicy collect task=lift out=demos.hdf5 episodes=300 expert.noise=0.1
    genpolicy pretrain task=lift policy=flow_rtc data.path=demos.hdf5 chunk=8 exec_steps=4 \
        policy.max_delay=4 policy.hidden=[256,256,256] iterations=6000
    python benchmarks/handover.py CHECKPOINT --out benchmarks/handover --episodes 100
    python benchmarks/handover.py CHECKPOINT --out benchmarks/handover_calm --episodes 100 \
        --initial-noise 0 --delays 2

Time is virtual: all episodes are simulated side by side in lockstep, and a chunk arrives 0, 1, 2 or
4 control steps of 50 ms after it was asked for. Each episode has the robot's own ``ChunkPlayer``,
which plans and merges as in ``genpolicy-deploy run``; an episode lasts at most 100 control steps
(5 s), waiting included. While a robot waits it pursues its last goal. All use one policy, the same
initial states and the same noise. The policy imitates the demonstrations' noise, too, which shakes
every action; ``--initial-noise 0`` executes without it.

Jerk is the third difference of a position at control rate, over dt³: of the hand, and of the goals
that it is sent (what an arm sees that tracks faster than this one). The hand-overs' RMS is over all
windows of four samples that see an action of the old chunk and the first of the new one, the pause
between them included; ``inside`` is over the other windows: mostly an episode's start, because
chunks are short.

A chunk that is there at once is executed from the next control step on, when asked for by ``async``
and ``ensemble``: to them a delay of 0 is one of 1, which is not simulated twice.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from common import save
from genpolicy_deploy.contract import Contract, Golden, symbolic_shapes
from genpolicy_deploy.inference import reply_dtype, request_dtype, split_obs
from genpolicy_deploy.player import ChunkPlayer
from genpolicy_sim.batch_env import BatchEnv
from genpolicy_sim.lift import LiftSim
from genpolicy_sim.robosuite_task import SUBSTEPS
from numpy.typing import NDArray

import genpolicy
from genpolicy.evaluate.statistics import wilson
from genpolicy.export.onnx import real_time_chunking
from genpolicy.policies.flow import FlowPolicy
from genpolicy.runs.environment import describe

matplotlib.use("Agg")

# name: hand-over of the player, real-time chunking of the graph
MODES = {
    "sync": ("sync", "none"),
    "async plain": ("async", "none"),
    "async guided": ("async", "guided"),
    "async prefix": ("async", "prefix"),
    "ensemble": ("ensemble", "none"),
}
DELAYS = (0, 1, 2, 4)  # control steps
NUM_ENVS = 100
STEP_NS = 50_000_000
DT = STEP_NS / 1e9
PATIENCE_NS = 10**12


class Pending:
    """One episode's policy process in virtual time: what ``Inference`` is to the player."""

    def __init__(self, contract: Contract) -> None:
        self.last_request = np.zeros(1, request_dtype(contract.spec))[0]
        self.reply = np.zeros(1, reply_dtype(contract.spec))[0]
        self.obs = split_obs(self.last_request["obs"], contract.spec)
        self.busy = self.computed = False
        self.ready_ns = self.now_ns = 0

    def request(self, stacked: dict[str, Any], seed: int, counter: int, t_obs_ns: int) -> bool:
        request = self.last_request
        request["seed"], request["counter"], request["t_obs_ns"] = seed, counter, t_obs_ns
        for name, view in self.obs.items():
            view[:] = stacked[name][0]
        self.busy, self.computed = True, False
        return True

    def poll(self) -> Any | None:
        if not (self.busy and self.computed and self.now_ns >= self.ready_ns):
            return None
        self.busy = False
        return self.reply

    def give_up(self) -> None:
        self.busy = False


class Trial:
    """Episodes ``seed0 …`` under one hand-over and one delay."""

    def __init__(self, policy: FlowPolicy, sim: LiftSim, mode: str, delay: int) -> None:
        handover, rtc = MODES[mode]
        self.policy, self.sim, self.delay = policy, sim, delay
        self.contract = make_contract(policy, rtc)
        self.env = BatchEnv(sim, policy.spec.task)
        self.processes = [Pending(self.contract) for _ in range(sim.num_envs)]
        self.players = [
            ChunkPlayer(self.contract, p, PATIENCE_NS, print, handover)  # type: ignore[arg-type]
            for p in self.processes
        ]

    def run(self, seed0: int) -> tuple[NDArray[Any], ...]:
        """Steps to success ``[N]`` (0: failed), hand-overs ``[T, N]``, hand, goals ``[T, N, 3]``.

        Hand-overs: 1 where the first action of a chunk other than an episode's first is executed,
        -1 where none is, for want of one.
        """
        task, n = self.policy.spec.task, self.sim.num_envs
        self.env.reset(seed0)
        for i, player in enumerate(self.players):
            player.start(seed0 + i)
        observed, executed = np.zeros(n, bool), np.zeros(n, np.int64)
        solved, obs = np.zeros(n, np.int64), np.zeros((n, task.obs_dim))
        hand, goals, switches = [self.sim.report.eef_pos.copy()], [self.sim.goal.pos.copy()], []
        for t in range(task.max_episode_steps):
            active = np.flatnonzero(solved == 0)
            if not len(active):
                break
            self.sim.observe(obs)
            accepted = np.zeros(n, bool)
            for i in active:
                accepted[i] |= self._poll(i, t)
                if not observed[i]:
                    self.players[i].observe(by_name(obs[i], task))
                    observed[i] = True
                if self.players[i].due:
                    self.players[i].ask(t * STEP_NS, t * STEP_NS)
            self._compute(t)
            for i in active:  # a robot that waits takes it in the same control step
                if self.players[i].empty:
                    accepted[i] |= self._poll(i, t)
            acting = np.array([i for i in active if not self.players[i].empty], np.intp)
            switch = np.where(accepted & (executed > 0), 1, 0)
            switch[[i for i in active if self.players[i].empty]] = -1
            self._act(acting)
            observed[acting] = False
            executed[acting] += 1
            self.sim.substep(SUBSTEPS, active)
            solved[active[self.sim.success()[active]]] = t + 1
            hand.append(self.sim.report.eef_pos.copy())
            goals.append(self.sim.goal.pos.copy())
            switches.append(switch)
        return solved, np.array(switches), np.array(hand), np.array(goals)

    def _poll(self, i: int, t: int) -> bool:
        self.processes[i].now_ns = t * STEP_NS
        return self.players[i].poll(t * STEP_NS) is not None

    def _act(self, acting: NDArray[np.intp]) -> None:
        if not len(acting):
            return
        actions = np.zeros((self.sim.num_envs, self.policy.spec.task.action.dim))
        for i in acting:
            actions[i] = self.players[i].next_action()
        self.sim.set_goal(self.sim.goal_of(actions), acting)

    @torch.inference_mode()
    def _compute(self, t: int) -> None:
        """Answer all new requests in one batch."""
        asked = [p for p in self.processes if p.busy and not p.computed]
        if not asked:
            return
        requests = [p.last_request for p in asked]
        obs = {k: torch.from_numpy(np.stack([p.obs[k] for p in asked])) for k in asked[0].obs}
        shape = self.policy.noise_spec(1)["noise"]
        draws = [np.random.default_rng([r["seed"], r["counter"], 0]) for r in requests]
        noise = np.concatenate([rng.standard_normal(shape, dtype=np.float32) for rng in draws])
        drawn = {"noise": torch.from_numpy(noise)}
        if self.contract.rtc is None:
            chunks = self.policy.sample(obs, noise=drawn)
        else:
            previous, weights = (
                torch.from_numpy(np.stack([r[f"prev_{what}"] for r in requests]))
                for what in ("actions", "weights")
            )
            method = self.contract.rtc.method
            chunks = self.policy.go_on(obs, previous, weights, method=method, noise=drawn)
        for p, chunk in zip(asked, chunks[:, 0].numpy(), strict=True):
            p.reply["actions"], p.reply["t_obs_ns"] = chunk, p.last_request["t_obs_ns"]
            p.computed, p.ready_ns = True, (t + self.delay) * STEP_NS


def make_contract(policy: FlowPolicy, rtc: str) -> Contract:
    """What the player must know of a controller."""
    return Contract(
        policy.spec, symbolic_shapes(policy.noise_spec), 1, 0.0, False, {}, "", {}, 0.0,
        Golden({}, {}), rtc=real_time_chunking(policy, rtc),
    )  # fmt: skip


def by_name(row: NDArray[np.float64], task: Any) -> dict[str, NDArray[np.float64]]:
    """One observation ``[D]`` by feature."""
    stops = np.cumsum([f.dim for f in task.observations])[:-1]
    return dict(zip([f.name for f in task.observations], np.split(row, stops), strict=True))


def jerks(
    solved: NDArray[np.int64], switches: NDArray[np.int64], positions: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Squared jerk, (m/s³)², in windows that see a hand-over and in those that see none."""
    squared = ((np.diff(positions, 3, axis=0) / DT**3) ** 2).sum(-1)  # [T - 2, N], rows s … s + 3
    near, inside = np.zeros(squared.shape, bool), np.zeros(squared.shape, bool)
    for i, end in enumerate(solved):
        inside[: (int(end) or len(switches)) - 2, i] = True
        for k in np.flatnonzero(switches[:, i] == 1):
            start = k
            while switches[start - 1, i] == -1:
                start -= 1
            near[max(start - 2, 0) : k + 1, i] = True
    return squared[near & inside], squared[inside & ~near]


def measure(policy: FlowPolicy, mode: str, delay: int, episodes: int, seed0: int) -> dict[str, Any]:
    """One cell of the table."""
    results = []
    for first in range(0, episodes, NUM_ENVS):
        sim = LiftSim(min(NUM_ENVS, episodes - first), 1)
        results.append(Trial(policy, sim, mode, delay).run(seed0 + first))
        sim.close()
    wins = [int(s) for solved, *_ in results for s in solved if s]
    low, high = wilson(len(wins), episodes)
    return {
        "delay_ms": round(1e3 * delay * DT),
        "success": round(len(wins) / episodes, 4),
        "success_lo": round(low, 4),
        "success_hi": round(high, 4),
        "seconds_to_success": round(float(np.mean(wins)) * DT, 3) if wins else None,
        "hand_jerk": rms([jerks(r[0], r[1], r[2]) for r in results]),
        "goal_jerk": rms([jerks(r[0], r[1], r[3]) for r in results]),
    }


def rms(squares: list[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> dict[str, float | None]:
    """Root mean squares over all waves of episodes, m/s³."""
    values = {
        name: np.concatenate(parts)
        for name, parts in zip(("handover", "inside"), zip(*squares, strict=True), strict=True)
    }
    return {k: round(float(np.sqrt(v.mean())), 2) if len(v) else None for k, v in values.items()}


def draw(table: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Success and jerk over delay."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for name, rows in table.items():
        x = [row["delay_ms"] for row in rows]
        (line,) = axes[0].plot(x, [100 * row["success"] for row in rows], "o-", label=name)
        low, high = ([100 * row[f"success_{end}"] for row in rows] for end in ("lo", "hi"))
        axes[0].fill_between(x, low, high, alpha=0.12, color=line.get_color())
        axes[1].plot(x, [row["goal_jerk"]["handover"] for row in rows], "o-", label=name)
    axes[0].set_ylabel("success, %")
    axes[1].set_ylabel("jerk of goals at hand-overs, RMS m/s³")
    for ax in axes:
        ax.set_xlabel("inference delay, ms")
        ax.set_ylim(bottom=0)
        ax.grid(alpha=0.3)
    axes[1].legend(frameon=False)
    figure.savefig(path, dpi=140)
    pyplot.close(figure)


def main() -> None:
    """Measure, print, and write JSON and PNG."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("--out", type=Path, help="write OUT.json and OUT.png")
    parser.add_argument("--episodes", type=int, default=300)
    parser.add_argument("--seed0", type=int, default=1000)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--delays", nargs="+", type=int, default=list(DELAYS))
    parser.add_argument("--initial-noise", type=float, help="instead of the policy's own")
    args = parser.parse_args()
    torch.set_num_threads(1)
    policy = genpolicy.load(args.checkpoint)
    if args.initial_noise is not None:
        policy = policy.fine_tunable(initial_noise=args.initial_noise).eval()
    table: dict[str, list[dict[str, Any]]] = {name: [] for name in args.modes}
    for delay in args.delays:
        for name, rows in table.items():
            if delay == 1 and rows and rows[-1]["delay_ms"] == 0 and name != "sync":
                rows.append(rows[-1] | {"delay_ms": round(1e3 * DT)})
                continue
            rows.append(measure(policy, name, delay, args.episodes, args.seed0))
            print(name, rows[-1], flush=True)
    spec = policy.spec
    result = {
        "episodes": args.episodes, "seed0": args.seed0, "chunk": spec.chunk,
        "exec_steps": spec.exec_steps, "policy": policy.config_dict(), "modes": table,
        "machine": describe(),
    }  # fmt: skip
    save(result, args.out and args.out.with_suffix(".json"))
    if args.out:
        draw(table, args.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
