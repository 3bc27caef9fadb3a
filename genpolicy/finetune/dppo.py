"""DPPO: diffusion policy policy optimisation (arXiv 2409.00588).

One chunk of actions is the end of a chain of Gaussian denoising steps. DPPO treats the last K' of
them as actions of an inner MDP whose reward and transition come only after the final one, and
applies PPO to each step's likelihood:

    r_i = exp( log p_θ(x_{i+1} | x_i, o) − log p_old(x_{i+1} | x_i, o) ),   i = 0 (noisiest) … K'−1,
    Â_i = γ_denoise^{K'−1−i} · GAE(V(o)),                                    (section 4.2)
    L   = − mean_i min( r_i Â_i, clip(r_i, 1 ± ε_i) Â_i ),                   (eq. 4.3)

with a critic V that sees the environment's state only. Log-probabilities are averaged over the
executed rows of the chunk, and ε_i grows exponentially from ``clip_base`` at the noisiest step to
``clip`` at the last one (appendix).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import mse_loss
from torch.nn.utils import clip_grad_norm_

from genpolicy.finetune.gae import RewardScaler, gae
from genpolicy.finetune.rollout import Rollout
from genpolicy.interfaces import Metrics
from genpolicy.policies.diffusion import DiffusionPolicy
from genpolicy.policies.nets.mlp import ResidualMLP
from genpolicy.runs import distributed, seeding
from genpolicy.runs.environment import fast_bf16
from genpolicy.spec import GenpolicyError, VecEnv

# Per-scalar log-probabilities are cut to this range before averaging, as in the paper's code: one
# freak draw cannot dominate a chunk.
LOG_PROB_RANGE = (-5.0, 2.0)


@dataclass(frozen=True)
class DPPOConfig:
    """Hyperparameters; defaults are tuned for Lift on two cores.

    Attributes:
        rollout_steps: Chunk steps per environment and iteration.
        tuned_steps: K', how many of the last denoising steps are tuned.
        sample_steps: S, denoising steps of the tuned sampler; 0 keeps the base policy's.
        explore_std: Floor under every transition's std, in normalised action units.
        explore_eta: η of the exploring chain.
        gamma: Discount per chunk.
        gae_lambda: λ of GAE.
        gamma_denoise: Discount per denoising step: noisier steps get less credit.
        clip: ε of the last denoising step.
        clip_base: ε of the noisiest one.
        clip_rate: Exponent of the interpolation between them.
        epochs: Passes over a rollout.
        batch_size: Chunks per minibatch (each contributes its K' transitions).
        actor_lr: AdamW learning rate of the denoising network.
        lr_decay_iterations: Iterations over which ``actor_lr`` falls linearly to a tenth; 0 keeps
            it. PPO with a constant rate ends in a noisy orbit around the optimum.
        critic_lr: AdamW learning rate of V.
        critic_hidden: Widths of V.
        critic_warmup: First iterations in which only V learns.
        value_range: Smallest and largest return an episode can have, or None. Values are cut to
            it before they bootstrap: where a policy gets stuck nothing else holds V down, because
            a time limit hands V its own prediction back.
        max_grad_norm: Gradient clipping of the actor.
        target_kl: The update stops after an epoch whose KL estimate exceeds this.
        bc_coef: Weight of −log p_θ on chains sampled from the pretrained policy; 0 is off.
        advantage_std_floor: Advantages are divided by max(std, this): with a sparse reward most
            rollouts of a weak policy hold no signal, and dividing by their tiny std makes noise
            look like one.
        bf16: Run the networks of the update under bfloat16 autocast; null: where the hardware
            has it.
    """

    rollout_steps: int = 16
    tuned_steps: int = 5
    sample_steps: int = 5
    explore_std: float = 0.1
    explore_eta: float = 1.0
    gamma: float = 0.99
    gae_lambda: float = 0.95
    gamma_denoise: float = 0.9
    clip: float = 0.02
    clip_base: float = 0.002
    clip_rate: float = 3.0
    epochs: int = 5
    batch_size: int = 512
    actor_lr: float = 1e-4
    lr_decay_iterations: int = 0
    critic_lr: float = 1e-3
    critic_hidden: tuple[int, ...] = (256, 256, 256)
    critic_warmup: int = 2
    value_range: tuple[float, float] | None = None
    max_grad_norm: float = 1.0
    target_kl: float = 1.0
    bc_coef: float = 0.0
    advantage_std_floor: float = 0.1
    bf16: bool | None = None


def clip_widths(steps: int, clip: float, base: float, rate: float) -> Tensor:
    """ε_i for i = 0 … K'−1: ``base`` at the noisiest step, ``clip`` at the last. ``[K']``."""
    if steps == 1:
        return torch.tensor([clip])
    s = torch.arange(steps) / (steps - 1)
    return base + (clip - base) * torch.expm1(rate * s) / math.expm1(rate)


def ppo_loss(ratio: Tensor, advantage: Tensor, width: Tensor) -> Tensor:
    """Clipped surrogate, to be minimised; all ``[B, K']`` (``width [K']``)."""
    clipped = torch.clamp(ratio, 1 - width, 1 + width)
    return -torch.minimum(ratio * advantage, clipped * advantage).mean()


class DPPO:
    """Fine-tunes the last K' denoising steps of a pretrained diffusion policy."""

    def __init__(self, base: DiffusionPolicy, env: VecEnv, config: DPPOConfig, seed: int) -> None:
        if not isinstance(base, DiffusionPolicy):
            raise GenpolicyError("algo=dppo needs a diffusion policy: init=CHECKPOINT of one")
        self.config = c = config
        self.policy = base.fine_tunable(
            c.tuned_steps,
            sample_steps=c.sample_steps or base.config.sample_steps,
            explore_std=c.explore_std,
            explore_eta=c.explore_eta,
        )
        self.base = base.fine_tunable(c.tuned_steps, **self._sampler()).requires_grad_(False)
        rank, ranks = distributed.rank(), distributed.world_size()
        self.rng = self.policy.rng = self.base.rng = np.random.default_rng([seed, rank])
        self.batch_size = max(1, c.batch_size // ranks)
        obs_dim = base.spec.obs_steps * base.spec.task.obs_dim
        device = base.bars.device
        self.bf16 = fast_bf16(device.type) if c.bf16 is None else c.bf16
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.critic = ResidualMLP(obs_dim, c.critic_hidden, 1).to(device)
        fused = {"weight_decay": 0.0, "fused": True}
        self.actor_opt = torch.optim.AdamW(self.policy.net.parameters(), c.actor_lr, **fused)
        self.critic_opt = torch.optim.AdamW(self.critic.parameters(), c.critic_lr, **fused)
        self.rollout = Rollout(env, self.policy.normalizer, c.rollout_steps, obs_dim)
        self.rollout.reset(seeding.env_seed(seed, "train", rank, env.num_envs))
        chain = (c.rollout_steps, env.num_envs, c.tuned_steps + 1, self.policy.chunk_dim)
        self.chains = torch.zeros(chain, device=device)
        self.scaler = RewardScaler(env.num_envs, c.gamma)
        self.width = clip_widths(c.tuned_steps, c.clip, c.clip_base, c.clip_rate).to(device)
        exponents = torch.arange(c.tuned_steps - 1, -1, -1, device=device)
        self.denoise_discount = c.gamma_denoise**exponents  # [K']
        self.iteration = 0
        self._metrics: Metrics = {}

    def _sampler(self) -> dict[str, Any]:
        c = self.policy.config
        names = ("sample_steps", "explore_std", "explore_eta")
        return {name: getattr(c, name) for name in names}

    @property
    def env_steps(self) -> int:
        """Control steps executed so far, in all environments."""
        return self.rollout.env_steps

    def _autocast(self) -> AbstractContextManager[Any]:
        device = self.chains.device.type
        return torch.autocast(device, dtype=torch.bfloat16, enabled=self.bf16)

    # ---- collect -----------------------------------------------------------------------------

    def collect(self) -> None:
        """Roll out the stochastic chain for ``rollout_steps`` chunks."""
        self.rollout.collect(self._act)

    def _act(self, t: int, obs: Tensor) -> NDArray[np.float32]:
        chain = self.policy.sample_chain(obs)
        self.chains[t] = chain.states
        return chain.actions[:, : self.policy.spec.exec_steps].cpu().numpy()

    # ---- update ------------------------------------------------------------------------------

    def update(self) -> None:
        """K'-step PPO on the rollout: ``epochs`` passes, stopped early by the KL guard."""
        obs, chains = self.rollout.obs.flatten(0, 1), self.chains.flatten(0, 1)
        old, advantage, returns = self._targets(obs, chains)
        self.actor_opt.param_groups[0]["lr"] = self._actor_lr()
        history: list[Tensor] = []
        for _ in range(self.config.epochs):
            rows = [
                self._step(obs[i], chains[i], old[i], advantage[i], returns[i])
                for i in self._minibatches(len(obs))
            ]
            history += rows
            if distributed.mean(torch.stack(rows)[:, 2].mean()) > self.config.target_kl:
                break
        self.iteration += 1
        self._record(torch.stack(history), len(history) / len(rows))

    def _actor_lr(self) -> float:
        c = self.config
        progress = (
            min(1.0, self.iteration / c.lr_decay_iterations) if c.lr_decay_iterations else 0.0
        )
        return c.actor_lr * (1 - 0.9 * progress)

    @torch.no_grad()
    def _targets(self, obs: Tensor, chains: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Old log-probabilities ``[R, K']``, normalised advantages ``[R]``, value targets ``[R]``.

        The log-probabilities are recomputed from the stored chains by the very function that the
        loss calls, in batches of the same size: this is what makes the first ratio exactly 1.
        """
        c, r = self.config, self.rollout
        old = torch.cat(
            [
                self._log_prob(o, s)
                for o, s in zip(
                    obs.split(self.batch_size), chains.split(self.batch_size), strict=True
                )
            ]
        )
        shape = r.reward.shape
        reward = self.scaler(r.reward, r.terminated | r.truncated)
        low, high = (v / self.scaler.std for v in c.value_range or (-math.inf, math.inf))
        value, final_value = (
            self.critic(x).view(shape).clamp(low, high).cpu().numpy() for x in (r.obs, r.final_obs)
        )
        advantage, returns = gae(
            reward, value, final_value, r.terminated, r.truncated, c.gamma, c.gae_lambda
        )
        self._metrics = {
            "policy/explained_variance": float(
                1 - (returns - value).var() / max(returns.var(), 1e-8)
            ),
        }
        moments = torch.tensor([advantage.mean(), np.square(advantage).mean()])
        mean, square = distributed.mean(moments.double()).tolist()
        std = max(square - mean**2, 0.0) ** 0.5
        advantage = (advantage - mean) / max(std, c.advantage_std_floor)
        self._metrics["policy/advantage_std"] = std
        to_rows = lambda x: torch.from_numpy(x).flatten().to(obs.device)  # noqa: E731
        return old, to_rows(advantage), to_rows(returns)

    def _log_prob(self, obs: Tensor, chains: Tensor) -> Tensor:
        """Mean log-probability of the executed rows, per denoising step: ``[B, K']``."""
        with self._autocast():
            log_prob = self.policy.chain_log_prob(obs, chains)
        executed = log_prob[:, :, : self.policy.spec.exec_steps].clamp(*LOG_PROB_RANGE)
        return executed.mean(dim=(2, 3))

    def _minibatches(self, rows: int) -> Iterator[Tensor]:
        order = torch.from_numpy(self.rng.permutation(rows)).to(self.chains.device)
        return iter(order.split(self.batch_size))

    def _step(
        self, obs: Tensor, chains: Tensor, old: Tensor, advantage: Tensor, returns: Tensor
    ) -> Tensor:
        """One gradient step of actor and critic; returns the row of numbers that is logged."""
        c = self.config
        log_ratio = self._log_prob(obs, chains) - old
        ratio = log_ratio.exp()
        inner_advantage = advantage[:, None] * self.denoise_discount
        actor_loss = ppo_loss(ratio, inner_advantage, self.width)
        loss = actor_loss + (c.bc_coef * self._bc_loss(obs) if c.bc_coef else 0.0)
        grad_norm = torch.zeros(())
        if self.iteration >= c.critic_warmup:
            self.actor_opt.zero_grad()
            loss.backward()
            distributed.average_gradients(self.policy.net.parameters())
            grad_norm = clip_grad_norm_(self.policy.net.parameters(), c.max_grad_norm)
            self.actor_opt.step()
        with self._autocast():
            value = self.critic(obs).squeeze(-1).float()
        critic_loss = mse_loss(value, returns)
        self.critic_opt.zero_grad()
        critic_loss.backward()
        distributed.average_gradients(self.critic.parameters())
        self.critic_opt.step()
        with torch.no_grad():
            kl = (ratio - 1 - log_ratio).mean()  # the k3 estimator
            clipped = ((ratio - 1).abs() > self.width).float().mean()
            furthest = ratio.flatten()[(ratio - 1).abs().argmax()]
            return torch.stack(
                [actor_loss, critic_loss, kl, clipped, ratio.mean(), grad_norm, furthest]
            )

    def _bc_loss(self, obs: Tensor) -> Tensor:
        """−log p_θ of chains that the pretrained policy draws at the same observations."""
        chain = self.base.sample_chain(obs)
        return -self._log_prob(obs, chain.states).mean()

    def _record(self, history: Tensor, epochs: float) -> None:
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
        model = {f"policy.{k}": v for k, v in self.policy.state_dict().items()}
        model |= {f"critic.{k}": v for k, v in self.critic.state_dict().items()}
        model |= {f"base.{k}": v for k, v in self.base.state_dict().items()}
        return {
            "model": model,
            "actor_opt": self.actor_opt.state_dict(),
            "critic_opt": self.critic_opt.state_dict(),
            "rng": self.rng.bit_generator.state,
            "scaler": self.scaler.state_dict(),
            "rollout": self.rollout.state_dict(),
            "iteration": self.iteration,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue bit for bit."""
        for prefix in ("policy", "critic", "base"):
            part = {
                k.removeprefix(f"{prefix}."): v
                for k, v in state["model"].items()
                if k.startswith(f"{prefix}.")
            }
            getattr(self, prefix).load_state_dict(part)
        self.actor_opt.load_state_dict(state["actor_opt"])
        self.critic_opt.load_state_dict(state["critic_opt"])
        self.rng.bit_generator.state = state["rng"]
        self.scaler.load_state_dict(state["scaler"])
        self.rollout.load_state_dict(state["rollout"])
        self.iteration = int(state["iteration"])
