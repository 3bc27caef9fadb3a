"""What EXPO, RLPD and IDQL share: replay of both kinds of data, critics, and the order of things.

An iteration collects T chunk steps of E environments and then takes ``updates`` gradient steps of
an ensemble of Q(o, chunk), each on a batch drawn from what was collected and from demonstrations
(half and half in RLPD, arXiv 2302.02948). A method says how it acts, what the next state is worth,
and what else it learns.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from genpolicy.data.demonstrations import Demonstrations
from genpolicy.finetune.mapped_replay import MappedReplay
from genpolicy.finetune.off_policy_config import OffPolicyConfig
from genpolicy.finetune.replay import Replay
from genpolicy.finetune.rollout import Rollout
from genpolicy.finetune.transitions import Rows, n_chunk_return, of_demonstrations, of_rollout
from genpolicy.interfaces import Metrics
from genpolicy.runs import distributed, seeding
from genpolicy.runs.checkpoint import pack, unpack
from genpolicy.spec import GenpolicyError, VecEnv
from genpolicy.values.critic import CriticEnsemble, follow

Gathered = tuple[Rows, Metrics, int]  # transitions, metrics of their episodes, env steps so far
# |Q| beyond so many times the largest return that the rewards allow has diverged.
Q_ALARM = 5.0


class OffPolicy(ABC):
    """An off-policy method at work on ``policy``.

    Args:
        policy: What acts and is saved; its normaliser stays as it is.
        env: Where it acts.
        target: Q functions, freshly initialised or of a checkpoint; the targets.
        config: Hyperparameters.
        seed: Decides every draw.
        demos: Episodes with rewards; None for no offline data.
    """

    policies: ClassVar[tuple[str, ...]]  # names of the policies that the method can train

    def __init__(
        self,
        policy: Any,
        env: VecEnv,
        target: CriticEnsemble,
        config: OffPolicyConfig,
        seed: int,
        demos: Demonstrations | None,
    ) -> None:
        if distributed.world_size() > 1:
            raise GenpolicyError("off-policy methods run in one process: start without torchrun")
        c = self.config = config
        if (count := c.rollout_steps * env.num_envs) > c.capacity:
            raise GenpolicyError(
                f"algo.capacity={c.capacity} does not hold one iteration: {count} transitions of "
                f"{env.num_envs} environments"
            )
        self.policy, self.device = policy, policy.device
        self.rng = np.random.default_rng([seed, 0])
        # What acts; draws of its own, so that learner and actor can run apart.
        self.actor = copy.deepcopy(policy) if c.apart else policy
        self.actor.rng = np.random.default_rng([seed, 1])
        self._thread = ThreadPoolExecutor(1, "actor") if c.apart else None
        self._ahead: Future[Gathered] | None = None  # what the actor is about to hand over
        self.rollout = Rollout(env, policy.normalizer, c.rollout_steps, policy.obs_dim)
        self.rollout.reset(seeding.env_seed(seed, "train"), bool(c.stagger))
        self._chunks = torch.zeros(
            c.rollout_steps, env.num_envs, policy.chunk_dim, device=self.device
        )
        self.target = target.requires_grad_(False)
        self.critic = copy.deepcopy(target).requires_grad_(True)
        self.critic_opt = adam(self.critic.parameters(), c.critic_lr)
        self.replay = self._make_replay(env.num_envs)
        self._load(demos)
        self._metrics: Metrics = {}
        self._gathered: Metrics = {}
        self.env_steps = 0  # control steps executed for what is in the replay

    def _make_replay(self, num_envs: int) -> Replay:
        c, policy = self.config, self.policy
        if c.replay_dir is None:
            return Replay(c.capacity, self.device, num_envs)
        about = {
            "task": policy.spec.task.task,
            "observation": policy.obs_dim,
            "chunk": policy.chunk_dim,
            "gamma": c.gamma,
        }
        return MappedReplay(Path(c.replay_dir), about, c.capacity, num_envs)

    def _load(self, demos: Demonstrations | None) -> None:
        """Take the demonstrations in; what each method adds to a row it adds here, too."""
        self.offline: Rows = {}
        self.largest_reward = 0.0
        if demos is None:
            return
        if not demos.rewards.any():
            raise GenpolicyError(
                f"data.path={', '.join(demos.sources)}: all rewards are 0, and off-policy learning "
                "needs those of the task: record them, or train without data (algo.offline_ratio=0)"
            )
        rows, follows = of_demonstrations(
            demos, self.policy.spec, self.policy.normalizer, self.config.gamma
        )
        self.offline = {name: value.to(self.device) for name, value in self.extend(rows).items()}
        self._offline_follows = follows.to(self.device)
        self.largest_reward = float(rows["reward"].abs().max())

    # ---- what a method is --------------------------------------------------------------------

    @abstractmethod
    def act(self, obs: Tensor) -> Tensor:
        """What ``self.actor`` does at normalised observations ``[E, C]``: ``[E, A]``, normalised.

        Apart, it runs in another thread: nothing may be used that the learner changes.
        """

    @abstractmethod
    def value(self, batch: Rows) -> Tensor:
        """What the states after ``batch`` are worth: ``[B]``, no gradient."""

    @abstractmethod
    def learn(self, batch: Rows) -> dict[str, Tensor]:
        """One gradient step of all but the critics."""

    def extend(self, rows: Rows) -> Rows:
        """Rows with whatever else the method wants to find in a batch."""
        return rows

    def some_critics(self) -> Tensor | None:
        """``pair`` random critics; None for all."""
        c = self.config
        if c.pair == c.critics:
            return None
        return torch.from_numpy(self.rng.choice(c.critics, c.pair, replace=False)).to(self.device)

    def least(self, obs: Tensor, chunk: Tensor) -> Tensor:
        """Min over ``some_critics`` of Q̄ at chunks ``[B, A]``: ``[B]``."""
        return self.target(obs, chunk[:, None], self.some_critics())[..., 0].amin(0)

    def normal(self, *shape: int) -> Tensor:
        """Standard-normal draws."""
        noise = self.rng.standard_normal(shape, dtype=np.float32)
        return torch.from_numpy(noise).to(self.device)

    # ---- collect -----------------------------------------------------------------------------

    def collect(self) -> None:
        """Act for ``rollout_steps`` chunks and remember them; apart, those acted meanwhile."""
        if self._thread is None:
            gathered = self._gather()
        else:
            gathered = self._ahead.result() if self._ahead else self._gather()
            self.actor.load_state_dict(self.policy.state_dict())
            self._ahead = self._thread.submit(self._gather)
        rows, self._gathered, self.env_steps = gathered
        self.largest_reward = max(self.largest_reward, float(rows["reward"].abs().max()))
        with torch.no_grad():
            self.replay.add(**self.extend(rows))

    @torch.no_grad()
    def _gather(self) -> Gathered:
        self.rollout.collect(self._act)
        rows = of_rollout(self.rollout, self._chunks, self.config.gamma)
        rows = {name: value.clone() for name, value in rows.items()}  # the next ones overwrite
        return rows, self.rollout.metrics(), self.rollout.env_steps

    def _act(self, t: int, obs: Tensor) -> NDArray[np.float32]:
        self._chunks[t] = chunks = self.act(obs)
        policy = self.actor
        actions = policy.normalizer.unaction(
            chunks.unflatten(1, (policy.spec.exec_steps, -1))
        ).clamp(policy.action_low, policy.action_high)
        return actions.cpu().numpy()

    # ---- update ------------------------------------------------------------------------------

    def update(self) -> None:
        """``updates`` gradient steps."""
        c, history = self.config, []
        if len(self.replay) < c.learning_starts:
            return
        learned: dict[str, Tensor] = {}
        for number in range(1, c.updates + 1):
            batch = self.batch()
            history.append(self._critic_step(batch))
            if number % c.actor_every == 0:
                learned = self.learn(batch)
        loss, q, y = torch.stack(history).mean(0).tolist()
        self._metrics = {
            "train/critic_loss": loss,
            "policy/q_mean": q,
            "policy/target_mean": y,
            **{name: float(value) for name, value in learned.items()},
        }
        self._alarm(q)

    def batch(self) -> Rows:
        """Rows of both kinds, with n-chunk returns in ``reward`` and ``discount``."""
        c = self.config
        offline = round(c.offline_ratio * c.batch_size) if self.offline else 0
        parts = []
        if offline:
            count = len(self.offline["reward"])
            index = torch.from_numpy(self.rng.integers(count, size=offline)).to(self.device)
            parts.append(self._rows(self.offline, index, self._offline_follows.__getitem__))
        if offline < c.batch_size:
            index = self.replay.draw(self.rng, c.batch_size - offline)
            parts.append(self._rows(self.replay.rows, index, self.replay.follows))
        return {
            name: torch.cat([part[name].to(self.device) for part in parts]) for name in parts[0]
        }

    def _rows(self, rows: Rows, index: Tensor, follows: Any) -> Rows:
        reward, discount, last = n_chunk_return(rows, index, follows, self.config.n_chunks)
        first = ("obs", "chunk")
        batch = {name: rows[name][index if name in first else last] for name in rows}
        return batch | {"reward": reward, "discount": discount}

    def _critic_step(self, batch: Rows) -> Tensor:
        """Descend the squared TD error; loss, mean Q and mean target."""
        with torch.no_grad():
            value = self.value(batch)
            if self.config.value_range is not None:
                value = value.clamp(*self.config.value_range)
            y = batch["reward"] + batch["discount"] * value
        q = self.critic(batch["obs"], batch["chunk"][:, None])[..., 0]  # [M, B]
        loss = (q - y).square().mean(1).sum()
        descend(self.critic_opt, loss)
        follow(self.target, self.critic, self.config.tau)
        return torch.stack([loss.detach(), q.detach().mean(), y.mean()])

    def _alarm(self, q: float) -> None:
        spec, gamma = self.policy.spec, self.config.gamma
        chunks = spec.task.max_episode_steps / spec.exec_steps
        limit = self.largest_reward * min(1 / max(1 - gamma**spec.exec_steps, 1e-9), chunks)
        if not abs(q) <= Q_ALARM * max(limit, 1.0):
            raise GenpolicyError(
                f"the critics diverge: their mean is {q:.3g}, and no return of this task exceeds "
                f"{limit:.3g}: the last checkpoint is good; lower algo.critic_lr or algo.gamma, or "
                "set algo.value_range"
            )

    def metrics(self) -> Metrics:
        """Of the last rollout and update."""
        return {**self._gathered, **self._metrics}

    # ---- checkpoint --------------------------------------------------------------------------

    def modules(self) -> dict[str, nn.Module]:
        """Networks in a checkpoint."""
        return {"policy": self.policy, "critic": self.critic, "target": self.target}

    def parts(self) -> dict[str, Any]:
        """What else has a state."""
        return {"critic_opt": self.critic_opt, "replay": self.replay, "rollout": self.rollout}

    def state_dict(self) -> dict[str, Any]:
        """Weights under ``model``; everything else that continues bit for bit beside."""
        ahead = self._ahead.result() if self._ahead else ({}, {}, 0)
        return {
            "model": pack(self.modules()),
            "rng": self.rng.bit_generator.state,
            "actor_rng": self.actor.rng.bit_generator.state,
            "largest_reward": self.largest_reward,
            "env_steps": self.env_steps,
            "ahead": list(ahead),
            **{name: part.state_dict() for name, part in self.parts().items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue bit for bit."""
        unpack(state["model"], self.modules())
        for name, part in self.parts().items():
            part.load_state_dict(state[name])
        self.rng.bit_generator.state = state["rng"]
        self.actor.rng.bit_generator.state = state["actor_rng"]
        self.largest_reward, self.env_steps = state["largest_reward"], int(state["env_steps"])
        rows, metrics, env_steps = state["ahead"]
        if rows:
            self._ahead = Future()
            self._ahead.set_result((rows, metrics, int(env_steps)))


def adam(parameters: Any, lr: float) -> torch.optim.Adam:
    """Adam for one part of a method."""
    return torch.optim.Adam(parameters, lr, fused=True)


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step down the gradient of ``loss``."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
