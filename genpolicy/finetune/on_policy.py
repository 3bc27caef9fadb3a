"""What all on-policy methods share: PPO's loop (arXiv 1707.06347) around a method's likelihood.

One iteration collects T chunk steps in E environments, estimates advantages with GAE, and makes
several passes over them with the surrogate

    L = − mean_{b,m} S( r_bm, c_m Â_b, ε_m ),      r_bm = exp( ℓ_θ,bm − ℓ_old,bm ),

where S is PPO's clip, SPO's parabola or FPO++'s mixture (``surrogate.py``). A method says how it
explores, and what ℓ is: M log-likelihoods, or stand-ins for them, per chunk, with credits c_m and
widths ε_m. DPPO has one per denoising step, FPO one per chunk or per (τ, ε) pair, ReinFlow and
Gaussian PPO one per chunk.

ℓ_old is recomputed after the rollout by the very function that the loss calls, in batches of the
same size: this is what makes the first ratio exactly 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from genpolicy.finetune.critic import Critic
from genpolicy.finetune.rollout import Rollout, RolloutConfig, at_least_one, positive
from genpolicy.finetune.surrogate import SURROGATES
from genpolicy.interfaces import Metrics
from genpolicy.runs import distributed, seeding
from genpolicy.runs.checkpoint import pack, unpack
from genpolicy.runs.environment import fast_bf16
from genpolicy.spec import GenpolicyError, VecEnv

Record = Mapping[str, Tensor]  # what a method stores per chunk, {name: [B, ...]}


@dataclass(frozen=True)
class OnPolicyConfig(RolloutConfig):
    """Hyperparameters that every on-policy method has.

    Attributes:
        gamma: Discount per chunk.
        gae_lambda: λ of GAE.
        objective: The surrogate: ``clip`` (PPO), ``spo`` (SPO's quadratic penalty) or ``aspo``
            (FPO++: clip where the advantage is positive, the penalty where it is not).
        clip: ε, how far a ratio may go from 1.
        epochs: Passes over a rollout.
        batch_size: Chunks per minibatch, of all processes together.
        actor_lr: AdamW learning rate of the policy.
        lr_decay_iterations: Iterations over which ``actor_lr`` falls linearly to a tenth; 0 keeps
            it. PPO with a constant rate ends in a noisy orbit around the optimum.
        critic_lr: AdamW learning rate of V.
        critic_hidden: Widths of V.
        critic_activation: ``relu``, ``silu`` or ``mish``.
        critic_warmup: First iterations in which only V learns.
        value_range: Smallest and largest return an episode can have, or None. Values are cut to
            it before they bootstrap: where a policy gets stuck nothing else holds V down, because
            a time limit hands V its own prediction back.
        max_grad_norm: Gradient clipping of the policy.
        target_kl: The update stops after an epoch whose KL estimate exceeds this.
        advantage_std_floor: Advantages are divided by max(std, this): with a sparse reward most
            rollouts of a weak policy hold no signal, and dividing by their tiny std makes noise
            look like one.
        bf16: Run the networks of the update under bfloat16 autocast; null: where the hardware
            has it and the layers are wide enough to gain.
    """

    gamma: float = 0.99
    gae_lambda: float = 0.95
    objective: str = "clip"
    clip: float = 0.02
    epochs: int = 5
    batch_size: int = 512
    actor_lr: float = 1e-4
    lr_decay_iterations: int = 0
    critic_lr: float = 1e-3
    critic_hidden: tuple[int, ...] = (256, 256, 256)
    critic_activation: str = "mish"
    critic_warmup: int = 2
    value_range: tuple[float, float] | None = None
    max_grad_norm: float = 1.0
    target_kl: float = 1.0
    advantage_std_floor: float = 0.1
    bf16: bool | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot learn."""
        super().__post_init__()
        at_least_one(self, "epochs", "batch_size")
        if self.objective not in SURROGATES:
            raise GenpolicyError(
                f"algo.objective={self.objective!r} is unknown: choose one of {list(SURROGATES)}"
            )
        positive(self, "clip", "actor_lr", "critic_lr")


class OnPolicy(ABC):
    """An on-policy method at work on ``policy``.

    Subclasses set up what they need, then call this constructor.

    Args:
        policy: What learns; evaluated, saved and exported as it is.
        env: Where it acts.
        config: Hyperparameters.
        seed: Decides every draw.
        trained: Modules besides the policy's ``net`` whose weights the surrogate trains.
    """

    policies: ClassVar[tuple[str, ...]]  # names of the policies that the method can train
    kept: tuple[str, ...] = ("policy",)  # modules in a checkpoint, besides the critic

    def __init__(
        self,
        policy: Any,
        env: VecEnv,
        config: OnPolicyConfig,
        seed: int,
        trained: tuple[nn.Module, ...] = (),
    ) -> None:
        self.policy, self.config = policy, config
        c, spec = config, policy.spec
        rank, ranks = distributed.rank(), distributed.world_size()
        self.rng = self.policy.rng = np.random.default_rng([seed, rank])
        self.batch_size = max(1, c.batch_size // ranks)
        self.device = policy.normalizer.obs_mid.device
        widest = max((p.shape[0] for p in policy.net.parameters()), default=0)
        self.bf16 = fast_bf16(self.device.type) and widest >= 256 if c.bf16 is None else c.bf16
        obs_dim = spec.obs_steps * spec.task.obs_dim
        self.critic = Critic(obs_dim, env.num_envs, c, seed, self.device)
        modules = (policy.net, *trained)
        self.actor_parameters = [p for module in modules for p in module.parameters()]
        self.actor_opt = torch.optim.AdamW(
            self.actor_parameters, c.actor_lr, weight_decay=0.0, fused=True
        )
        self.rollout = Rollout(
            env, policy.normalizer, c.rollout_steps, obs_dim, bool(c.normalize_obs)
        )
        self.rollout.reset(seeding.env_seed(seed, "train", rank, env.num_envs), bool(c.stagger))
        self.record: dict[str, Tensor] = {}  # {name: [T, E, ...]}
        self.width = torch.tensor([c.clip], device=self.device)  # [M]
        self.credit = torch.ones(1, device=self.device)  # [M]
        self.surrogate = SURROGATES[c.objective]
        self.iteration = 0
        self._metrics: Metrics = {}

    # ---- what a method is --------------------------------------------------------------------

    @abstractmethod
    def explore(self, obs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Act with exploration.

        Args:
            obs: Normalised observations ``[E, C]``.

        Returns:
            Actions ``[E, Tp, Da]`` in task units, and what ``log_likelihood`` needs, ``[E, ...]``.
        """

    @abstractmethod
    def log_likelihood(self, obs: Tensor, record: Record) -> Tensor:
        """ℓ_θ of what was explored at ``obs [B, C]``: ``[B, M]``, float32."""

    def log_ratio(self, new: Tensor, old: Tensor) -> Tensor:
        """``[B, M]``; here a method may clamp."""
        return new - old

    def penalty(self, obs: Tensor, record: Record) -> Tensor | None:
        """What else the policy minimises, a scalar; None for nothing."""
        return None

    # ---- collect -----------------------------------------------------------------------------

    @property
    def env_steps(self) -> int:
        """Control steps executed so far, in all environments."""
        return self.rollout.env_steps

    def collect(self) -> None:
        """Explore for ``rollout_steps`` chunks."""
        with torch.no_grad():
            self.rollout.collect(self._act)

    def _act(self, t: int, obs: Tensor) -> NDArray[np.float32]:
        actions, record = self.explore(obs)
        for name, value in record.items():
            if name not in self.record:
                shape = (self.config.rollout_steps, *value.shape)
                self.record[name] = torch.zeros(shape, device=self.device)
            self.record[name][t] = value
        return actions[:, : self.policy.spec.exec_steps].cpu().numpy()

    # ---- update ------------------------------------------------------------------------------

    def update(self) -> None:
        """``epochs`` passes over the rollout, stopped early by the KL guard."""
        obs = self.rollout.obs.flatten(0, 1)
        record = {name: value.flatten(0, 1) for name, value in self.record.items()}
        old = self._old_log_likelihood(obs, record)
        advantage, returns, self._metrics = self.critic.targets(self.rollout)
        self.actor_opt.param_groups[0]["lr"] = self._actor_lr()
        history: list[Tensor] = []
        for _ in range(self.config.epochs):
            rows = [
                self._step(obs[i], _rows(record, i), old[i], advantage[i], returns[i])
                for i in self._minibatches(len(obs))
            ]
            history += rows
            if distributed.mean(torch.stack(rows)[:, 2].mean()) > self.config.target_kl:
                break
        self.iteration += 1
        self._record_metrics(torch.stack(history), len(history) / len(rows))
        self.rollout.adapt()

    def _actor_lr(self) -> float:
        c = self.config
        progress = (
            min(1.0, self.iteration / c.lr_decay_iterations) if c.lr_decay_iterations else 0.0
        )
        return c.actor_lr * (1 - 0.9 * progress)

    @torch.no_grad()
    def _old_log_likelihood(self, obs: Tensor, record: Record) -> Tensor:
        """``[R, M]`` of the policy that explored."""
        batches = torch.arange(len(obs), device=self.device).split(self.batch_size)
        return torch.cat([self._likelihood(obs[i], _rows(record, i)) for i in batches])

    def _likelihood(self, obs: Tensor, record: Record) -> Tensor:
        with self._autocast():
            return self.log_likelihood(obs, record)

    def _minibatches(self, rows: int) -> Iterator[Tensor]:
        order = torch.from_numpy(self.rng.permutation(rows)).to(self.device)
        return iter(order.split(self.batch_size))

    def _step(
        self, obs: Tensor, record: Record, old: Tensor, advantage: Tensor, returns: Tensor
    ) -> Tensor:
        """One gradient step of actor and critic; returns the row of numbers that is logged."""
        log_ratio = self.log_ratio(self._likelihood(obs, record), old)
        ratio = log_ratio.exp()
        credited = advantage[:, None] * self.credit
        actor_loss = -self.surrogate(ratio, credited, self.width).mean()
        grad_norm = torch.zeros(())
        if self.iteration >= self.config.critic_warmup:
            with self._autocast():
                penalty = self.penalty(obs, record)
            loss = actor_loss if penalty is None else actor_loss + penalty
            grad_norm = self._descend(loss)
        with self._autocast():
            critic_loss = self.critic.loss(obs, returns)
        self.critic.descend(critic_loss)
        with torch.no_grad():
            kl = (ratio - 1 - log_ratio).mean()  # the k3 estimator
            clipped = ((ratio - 1).abs() > self.width).float().mean()
            furthest = ratio.flatten()[(ratio - 1).abs().argmax()]
            return torch.stack(
                [actor_loss, critic_loss, kl, clipped, ratio.mean(), grad_norm, furthest]
            )

    def _descend(self, loss: Tensor) -> Tensor:
        """One step of the policy; returns the norm of its gradient."""
        self.actor_opt.zero_grad()
        loss.backward()
        distributed.average_gradients(self.actor_parameters)
        norm = clip_grad_norm_(self.actor_parameters, self.config.max_grad_norm)
        self.actor_opt.step()
        return norm

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)

    def _record_metrics(self, history: Tensor, epochs: float) -> None:
        names = ("train/actor_loss", "train/critic_loss", "policy/approx_kl", "policy/clip_frac",
                 "policy/ratio_mean", "train/grad_norm")  # fmt: skip
        self._metrics |= dict(zip(names, history.mean(0).tolist(), strict=False))
        self._metrics |= {
            "train/loss": self._metrics["train/actor_loss"] + self._metrics["train/critic_loss"],
            "policy/ratio_first": float(history[0, -1]),
            "policy/epochs": epochs,
            "train/lr": self.actor_opt.param_groups[0]["lr"],
        }

    def metrics(self) -> Metrics:
        """Of the last rollout and update."""
        return {**self.rollout.metrics(), **self._metrics}

    # ---- checkpoint --------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Weights under ``model``; optimisers, generators, statistics and the simulator beside."""
        return {
            "model": pack(self._modules()),
            "actor_opt": self.actor_opt.state_dict(),
            "critic": self.critic.state_dict(),
            "rng": self.rng.bit_generator.state,
            "rollout": self.rollout.state_dict(),
            "iteration": self.iteration,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue bit for bit."""
        unpack(state["model"], self._modules())
        self.actor_opt.load_state_dict(state["actor_opt"])
        self.critic.load_state_dict(state["critic"])
        self.rng.bit_generator.state = state["rng"]
        self.rollout.load_state_dict(state["rollout"])
        self.iteration = int(state["iteration"])

    def _modules(self) -> dict[str, nn.Module]:
        return {"critic": self.critic.net, **{name: getattr(self, name) for name in self.kept}}


def _rows(record: Record, rows: Tensor) -> dict[str, Tensor]:
    return {name: value[rows] for name, value in record.items()}
