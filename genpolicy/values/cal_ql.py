"""Cal-QL (arXiv 2303.05479) for chunk critics, as V-GPS (arXiv 2410.13816) trains its values.

    L(Q) = ½ E[(Q(s,a) − y)²] + α E[ T·logsumexp_{a' ~ μ} (Q̃(s,a') − log ρ(a'|s)) / T − Q(s,a) ]

where y is the h-step target and Q̃ = max(Q, Monte-Carlo return) for the policy's chunks, Q̃ = Q for
random ones. Three things differ from the paper, each for a reason:

- The policy that proposes actions is not a SAC actor trained on the side but the pretrained policy
  itself, its samples drawn once per state: exactly the chunks that will have to be ranked. (V-GPS
  reports that its critic's own actors solve none of its tasks.)
- A generative policy has no density to divide by. Random chunks and the policy's are taken as one
  proposal distribution with equal weights, ρ = const, which is the CQL(ρ) variant of
  arXiv 2006.04779. With the densities of a 28-dimensional chunk the correction would hand all
  the weight to the random ones (tens of nats, against differences of Q below one).
- y values the sample that re-ranking would execute, the one with the best lower bound, by the mean
  of the ensemble. Bootstrapping the lower bound itself compounds: with time limits (no state is
  ever terminal in a failure) Q drifts to −std / (1 − γ^h), several times the largest return.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genpolicy.data.demonstrations import Demonstrations
from genpolicy.data.normalizer import Normalizer
from genpolicy.interfaces import Metrics, Policy
from genpolicy.runs.checkpoint import pack, unpack
from genpolicy.spec import GenpolicyError
from genpolicy.values.critic import ValueConfig, ValueFunction, follow, lower_bound
from genpolicy.values.offline import chunk_transitions, propose


@dataclass(frozen=True)
class CalQLConfig:
    """Hyperparameters; defaults are tuned for tasks with a single reward of 1, on two cores.

    Attributes:
        value: Shape of the value function.
        gamma: Discount per control step.
        alpha: Weight of the conservative term, relative to the scale of returns: the paper's 5
            belongs to returns of a hundred and more (rewards times 10 at γ = 0.99). Here it would
            lift Q by several times the largest return and drown the differences between samples.
        temperature: Temperature of its logsumexp, in units of return.
        random_actions: Uniform chunks per state in the conservative term.
        policy_actions: The policy's samples per state, there and in the target's maximum.
        lr: Adam learning rate.
        tau: Rate at which the target networks follow.
        batch_size: Transitions per gradient step.
    """

    value: ValueConfig = field(default_factory=ValueConfig)
    gamma: float = 0.99
    alpha: float = 0.05
    temperature: float = 0.1
    random_actions: int = 4
    policy_actions: int = 4
    lr: float = 1e-3
    tau: float = 0.02
    batch_size: int = 256

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        if not (0 < self.gamma <= 1 and self.temperature > 0 and 0 < self.tau <= 1):
            raise GenpolicyError("cal_ql: need 0 < gamma <= 1, temperature > 0 and 0 < tau <= 1")
        if min(self.random_actions, self.policy_actions, self.batch_size) < 1 or self.alpha < 0:
            raise GenpolicyError(
                "cal_ql: random_actions, policy_actions and batch_size must be at least 1, "
                "alpha not negative"
            )


def td_loss(q: Tensor, target: Tensor) -> Tensor:
    """½ squared error of all members ``[M, B]`` against one target ``[B]``: scalar."""
    return 0.5 * (q - target).square().mean()


def calibrated_penalty(
    q_random: Tensor,
    q_policy: Tensor,
    q_data: Tensor,
    mc_return: Tensor,
    log_random: float | Tensor,
    log_policy: float | Tensor,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """The conservative term, calibrated before importance correction (Cal-QL, eq. 4.1).

    Args:
        q_random: ``[M, B, R]`` at uniformly drawn chunks: never bounded.
        q_policy: ``[M, B, P]`` at the policy's chunks: no gradient where below ``mc_return``.
        q_data: ``[M, B]`` at the executed chunks.
        mc_return: ``[B]`` Monte-Carlo returns of the data.
        log_random: log density by which the random chunks were proposed.
        log_policy: the same of the policy's chunks.
        temperature: T of the logsumexp.

    Returns:
        The penalty (scalar) and the share of the policy's Q that the bound replaces.
    """
    bound = mc_return[None, :, None]
    below = q_policy < bound
    calibrated = torch.where(below, bound, q_policy)
    corrected = torch.cat([q_random - log_random, calibrated - log_policy], dim=-1)
    soft_max = temperature * torch.logsumexp(corrected / temperature, dim=-1)
    return (soft_max - q_data).mean(), below.float().mean()


class CalQL:
    """One iteration is one gradient step on the critics; ``policy`` is the value function."""

    name = "cal_ql"

    def __init__(
        self,
        config: CalQLConfig,
        proposer: Policy,
        demos: Demonstrations,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config = config
        self.env_steps = 0
        self.rng = np.random.default_rng([seed, 1])
        spec = proposer.spec
        data = chunk_transitions(demos, spec, config.gamma)
        # A stream of their own, so that a resumed run draws the same proposals again.
        proposals = propose(
            proposer,
            data.obs,
            config.policy_actions,
            spec.exec_steps,
            np.random.default_rng([seed, 2]),
        )
        normalizer = Normalizer.fit(
            spec.task, {k: v[:, -1] for k, v in data.obs.items()}, torch.from_numpy(demos.actions)
        )
        self.policy = ValueFunction(config.value, spec, normalizer)
        self.critic = self.policy.make_critic()
        self.policy.critic.load_state_dict(self.critic.state_dict())
        self.policy.requires_grad_(False).to(device)
        self.critic.to(device)
        self.optimizer = torch.optim.Adam(self.critic.parameters(), lr=config.lr)
        self.device = torch.device(device)
        # Everything that never changes is normalised and flattened once.
        with torch.no_grad():
            self.obs = normalizer.obs({k: v.to(device) for k, v in data.obs.items()})  # [S, C]
            self.chunk = self.policy.chunk_rows(data.chunk[:, None].to(device))[:, 0]  # [T, A]
            self.proposals = self.policy.chunk_rows(proposals.to(device))  # [S, P, A]
        self.data = data
        self._metrics: dict[str, Tensor] = {}

    def collect(self) -> None:
        """Draw one minibatch of transitions and its random chunks."""
        batch = self.rng.integers(len(self.data), size=self.config.batch_size)
        shape = (len(batch), self.config.random_actions, self.chunk.shape[1])
        random = self.rng.uniform(-1.0, 1.0, shape).astype(np.float32)
        self._batch = torch.from_numpy(batch)
        self._random = torch.from_numpy(random).to(self.device)

    def update(self) -> None:
        """One step of the critics, then of their targets."""
        loss, self._metrics = self.loss(self._batch, self._random)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        grads = [p.grad for p in self.critic.parameters() if p.grad is not None]
        self._metrics["train/grad_norm"] = torch.nn.utils.get_total_norm(grads)
        self.optimizer.step()
        follow(self.policy.critic, self.critic, self.config.tau)

    def targets(self, index: Tensor) -> Tensor:
        """TD targets ``[B]`` of transitions ``index``: the best proposal in s', by lower bound."""
        state = self.data.next_state[index]
        with torch.no_grad():
            q = self.policy.critic(self.obs[state], self.proposals[state])  # [M, B, P]
            best = lower_bound(q, self.config.value.pessimism).argmax(-1, keepdim=True)  # [B, 1]
            value = q.mean(0).gather(1, best)[:, 0]
        return self.data.reward[index].to(value) + self.data.discount[index].to(value) * value

    def loss(self, index: Tensor, random: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss at the top of this file for transitions ``index [B]``."""
        config = self.config
        state, next_state = self.data.state[index], self.data.next_state[index]
        # One call for all chunks of a state: executed, random, π(s), π(s').
        chunks = torch.cat(
            [self.chunk[index][:, None], random, self.proposals[state], self.proposals[next_state]],
            dim=1,
        )
        q = self.critic(self.obs[state], chunks)  # [M, B, 1 + R + 2P]
        q_data, q_random, q_policy = q.tensor_split([1, 1 + config.random_actions], dim=2)
        q_data = q_data.squeeze(2)
        critic_loss = td_loss(q_data, self.targets(index))
        penalty, bound_rate = calibrated_penalty(
            q_random,
            q_policy,
            q_data,
            self.data.mc_return[index].to(q),
            log_random=0.0,
            log_policy=0.0,
            temperature=config.temperature,
        )
        loss = critic_loss + config.alpha * penalty
        return loss, {
            "train/loss": loss.detach(),
            "train/critic_loss": critic_loss.detach(),
            "value/penalty": penalty.detach(),
            "value/bound_rate": bound_rate,
            "value/q_mean": q_data.detach().mean(),
            "value/q_policy": q_policy.detach().mean(),
            "value/q_std": q_data.detach().std(0, correction=0).mean(),
        }

    def metrics(self) -> Metrics:
        """Scalars of the last update."""
        return {name: value.item() for name, value in self._metrics.items()}

    def state_dict(self) -> dict[str, Any]:
        """Networks, optimiser and the generator's position; data and proposals are redrawn."""
        return {
            "model": pack(self._modules()),
            "optimizer": self.optimizer.state_dict(),
            "rng": copy.deepcopy(self.rng.bit_generator.state),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue exactly where ``state_dict`` was taken."""
        unpack(state["model"], self._modules())
        self.optimizer.load_state_dict(state["optimizer"])
        self.rng.bit_generator.state = copy.deepcopy(state["rng"])

    def _modules(self) -> dict[str, torch.nn.Module]:
        return {"critic": self.critic, "target": self.policy}
