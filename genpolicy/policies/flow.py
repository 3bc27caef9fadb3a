"""Flow policy: conditional flow matching (arXiv 2210.02747) over action chunks.

Rectified-flow paths (arXiv 2209.03003) in this project's time: x_t = (1 − t)·ε + t·a, so t = 0 is
noise, t = 1 the action, and the velocity to learn is dx_t/dt = a − ε. (FPO counts time the other
way and predicts ε − a.) Imitation minimises ‖v_θ(x_t, t, o) − (a − ε)‖² over t ~ U[0, 1]; acting
integrates v_θ from ε. The initial noise is the only draw.

With ``max_delay`` the policy also learns to go on from actions that are given (arXiv 2512.05964):
per example the first d ~ U{0 … max_delay} actions stay clean, their own flow time being 1, and the
loss is that of the others. One MLP has one time for the whole chunk, so it is told by two more
inputs: the given actions (0 elsewhere) and which rows are given. See ``handover``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding

from genpolicy.interfaces import Batch, Noise
from genpolicy.policies.base import ChunkPolicy
from genpolicy.policies.handover import FREE, Free, Guided, Prefixed
from genpolicy.policies.nets.mlp import DenoisingMLP
from genpolicy.spec import GenpolicyError, PolicySpec

SOLVERS = ("euler", "heun")


@dataclass(frozen=True)
class FlowConfig:
    """What a flow policy is, apart from its shapes.

    Attributes:
        hidden: Widths of the velocity MLP: an odd number of equal values.
        activation: ``relu``, ``silu`` or ``mish``.
        time_dim: Size of the sinusoidal time embedding.
        time_scale: Its fastest wave turns this many rad from noise to action. 100 tells times
            0.01 apart from each other, as imitation of detailed actions needs. Methods that learn
            the field from few rewards want neighbouring times to share what they learn: 8.
        sample_steps: K, integration steps when acting; any number, whatever was trained.
        solver: ``euler`` (K network calls) or ``heun`` (second order, 2 K calls).
        squash: How chunks are bounded: ``clip`` at the limits (imitation) or ``tanh`` (from
            scratch).
        velocity_scale: The network's output times this is the velocity (FPO: 0.25).
        normal_field: The network learns what is added to ``normal_field``, so that an untrained
            policy acts by N(0, I) and has the flow matching loss of one that was trained to.
        initial_noise: Scale of the initial noise when acting; 0 is FPO++'s zero sampling.
        max_delay: Most actions that imitation gives at the head of a chunk, so that the next chunk
            can be asked for so many control steps before it is needed; 0 is off.
    """

    hidden: tuple[int, ...] = (512, 512, 512)
    activation: str = "relu"
    time_dim: int = 32
    time_scale: float = 100.0
    sample_steps: int = 10
    solver: str = "euler"
    squash: str = "clip"
    velocity_scale: float = 1.0
    normal_field: bool = False
    initial_noise: float = 1.0
    max_delay: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be integrated."""
        time_grid(self.sample_steps)
        if self.solver not in SOLVERS:
            raise GenpolicyError(f"policy.solver={self.solver!r}: choose one of {list(SOLVERS)}")
        for name in ("time_scale", "velocity_scale"):
            if not 0 < getattr(self, name) < math.inf:
                raise GenpolicyError(f"policy.{name}={getattr(self, name)} must be positive")
        if not 0 <= self.initial_noise < math.inf:
            raise GenpolicyError(f"policy.initial_noise={self.initial_noise} must not be negative")
        if self.max_delay < 0:
            raise GenpolicyError(f"policy.max_delay={self.max_delay} must not be negative")


def time_grid(steps: int) -> Tensor:
    """0 = t_0 < … < t_K = 1, ``[K + 1]``: the one grid of sampling and of every likelihood."""
    if steps < 1:
        raise GenpolicyError(f"sample_steps={steps}: a flow needs at least 1 integration step")
    return torch.arange(steps + 1) / steps


def normal_field(t: Tensor) -> Tensor:
    """c(t) of the field c(t)·x that flow matching from N(0, I) to N(0, I) ends in.

    E[a − ε | x_t = x] for independent a and ε is (2t − 1) / ((1 − t)² + t²) · x.
    """
    return (2 * t - 1) / ((1 - t).square() + t.square())


class FlowPolicy(ChunkPolicy):
    """Transports noise to chunks ``[Tp, Da]`` along a learned velocity field."""

    name = "flow"
    net: DenoisingMLP
    config: FlowConfig

    def __init__(self, spec: PolicySpec, config: FlowConfig | None = None) -> None:
        config = config or FlowConfig()
        super().__init__(spec, config, config.squash)
        if config.max_delay >= spec.chunk:
            raise GenpolicyError(
                f"policy.max_delay={config.max_delay} must be below chunk={spec.chunk}: what is "
                "given of a chunk leaves something to plan"
            )
        prefix_dim = self.chunk_dim + spec.chunk if config.max_delay else 0
        self.net = DenoisingMLP(
            self.chunk_dim,
            self.obs_dim,
            config.hidden,
            config.time_dim,
            config.activation,
            prefix_dim,
        )

    # ---- the velocity field ----------------------------------------------------------------

    def velocity(self, x: Tensor, t: Tensor, obs: Tensor) -> Tensor:
        """v_θ of M points per observation.

        Args:
            x: ``[B, M, A]``.
            t: Flow times ``[M]``, or ``[B, M]`` where they differ between observations.
            obs: Normalised observations ``[B, C]``; their part is computed once for all M.

        Returns:
            ``[B, M, A]``.
        """
        features = self._time_features(t), self._obs_features(obs)
        return self._velocity(x, t[..., None], *features)

    def _velocity(self, x: Tensor, t: Tensor, time_features: Tensor, obs: Tensor) -> Tensor:
        learned = self.config.velocity_scale * self.net(x, time_features, obs)
        return learned + normal_field(t) * x if self.config.normal_field else learned

    def _time_features(self, t: Tensor) -> Tensor:
        return self.net.time_features(self.config.time_scale * t)

    def _obs_features(self, obs: Tensor) -> Tensor:
        return self.net.obs_features(obs)[:, None]  # [B, 1, H]

    def _prefix_features(self, actions: Tensor, rows: Tensor) -> Tensor:
        """Of ``actions [B, M, A]``, in the rows ``[B, M, Tp]`` that are given: ``[B, M, H]``."""
        given = torch.where(self._scalars(rows), actions, 0.0)
        return self.net.prefix_features(torch.cat([given, rows.float()], dim=-1))

    def _scalars(self, rows: Tensor) -> Tensor:
        """What is said of rows ``[..., Tp]``, of their scalars ``[..., A]``."""
        return rows.repeat_interleave(self.spec.task.action.dim, dim=-1)

    # ---- imitation -------------------------------------------------------------------------

    def pair_losses(self, obs: Tensor, actions: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """(v_θ(x_t, t, o) − (a − ε))² per scalar, of P pairs (ε, t) per chunk.

        Args:
            obs: Normalised observations ``[B, C]``.
            actions: Chunks ``[B, A]``, as ``from_actions`` gives them.
            eps: ``[B, P, A]``.
            t: ``[B, P]``.

        Returns:
            ``[B, P, A]``.
        """
        a, time = actions[:, None], t[..., None]
        x = (1 - time) * eps + time * a
        # FPO's times are a solver's, a few values again and again: embedding each of them once
        # makes its update 1.7 times faster; times that are all distinct cost a tenth more.
        distinct, row = torch.unique(t, return_inverse=True)
        time_features = embedding(row, self._time_features(distinct))  # [B, P, H]
        velocity = self._velocity(x, time, time_features, self._obs_features(obs))
        return (velocity - (a - eps)).square()

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Flow-matching error of ``{"obs": {name: [B, To, D]}, "actions": [B, Tp, Da]}``."""
        actions = self.from_actions(batch["actions"])  # [B, A]
        t = torch.from_numpy(self.rng.random((len(actions), 1), dtype=np.float32)).to(self.device)
        eps = self._draw((len(actions), 1, self.chunk_dim))
        obs = self.normalizer.obs(batch["obs"])
        if self.config.max_delay:
            loss = self._prefix_loss(obs, actions[:, None], eps, t[..., None])
        else:
            loss = self.pair_losses(obs, actions, eps, t).mean()
        return loss, {"train/loss": loss.detach()}

    def _prefix_loss(self, obs: Tensor, a: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Mean error over the rows that are not given; ``[B, 1, ...]`` but for ``obs [B, C]``."""
        delay = torch.from_numpy(self.rng.integers(0, self.config.max_delay + 1, (len(a), 1, 1)))
        rows = torch.arange(self.spec.chunk, device=a.device) < delay.to(a.device)  # [B, 1, Tp]
        free = ~self._scalars(rows)
        x = torch.where(free, (1 - t) * eps + t * a, a)
        known = self._obs_features(obs) + self._prefix_features(a, rows)
        velocity = self._velocity(x, t, self._time_features(t[..., 0]), known)
        return ((velocity - (a - eps)).square() * free).sum() / free.sum()

    # ---- acting ----------------------------------------------------------------------------

    def integrate(
        self,
        obs: Tensor,
        x0: Tensor,
        steps: int | None = None,
        *,
        known: Tensor | None = None,
        handover: Free = FREE,
    ) -> Tensor:
        """Solve dx/dt = v_θ(x, t, o) from t = 0 to 1 on ``time_grid``.

        Args:
            obs: Normalised observations ``[B, C]``.
            x0: ``[B, N, A]``.
            steps: K; None is ``config.sample_steps``.
            known: Features ``[B, 1, H]`` of a prefix, which the network is told beside ``obs``.
            handover: How the chunk goes on from another one.

        Returns:
            x at t = 1, ``[B, N, A]``.
        """
        grid = time_grid(self.config.sample_steps if steps is None else steps).to(obs.device)
        # Once per call, for all steps and samples: [B, 1, H] and [K + 1, H].
        features, time = self._obs_features(obs), self._time_features(grid)
        if known is not None:
            features = features + known
        x, count = x0, len(grid) - 1

        def velocity(x: Tensor, k: int) -> Tensor:
            v = self._velocity(x, grid[k], time[k], features)
            return handover.steer(v, x, k / count, 1 / count)

        for k, dt in enumerate(grid.diff()):
            x = handover.place(x)
            v = velocity(x, k)
            if self.config.solver == "heun":
                v = (v + velocity(handover.place(x + dt * v), k + 1)) / 2
            x = x + dt * v
        return handover.place(x)

    def generate(self, obs: Tensor, noise: Noise, deterministic: bool) -> Tensor:
        """Integrate from the noise; executed, it is scaled by ``initial_noise``."""
        return self.integrate(obs, self._start(noise, deterministic))

    def _start(self, noise: Noise, deterministic: bool = True) -> Tensor:
        scale = self.config.initial_noise if deterministic else 1.0
        return scale * noise["noise"].flatten(2)

    def go_on(
        self,
        obs: Mapping[str, Tensor],
        previous: Tensor,
        weights: Tensor,
        *,
        method: str,
        noise: Noise | None = None,
        num_samples: int = 1,
    ) -> Tensor:
        """As ``sample`` (what is executed), but going on from a chunk that is being executed.

        Args:
            obs: ``{name: [B, To, D]}``.
            previous: ``[B, Tp, Da]`` what is left of it, next action first, in task units.
            weights: ``[B, Tp]`` how much each row binds, 0 to 1; with all 0 this is ``sample``.
            method: ``prefix`` or ``guided``, see ``handover``.
            noise: As ``sample``.
            num_samples: N.

        Returns:
            ``[B, N, Tp, Da]``; row 0 is for the control step of the observation.

        Raises:
            GenpolicyError: ``prefix`` of a policy that was not trained for it.
        """
        flat = self.normalizer.obs(obs)
        noise = noise or self.draw_noise(len(flat), num_samples)
        x = self.from_actions(previous)[:, None]  # [B, 1, A]
        bound = self._scalars(weights)[:, None]
        if method == "guided":
            known, handover = None, Guided(x, bound)
        elif self.config.max_delay:
            known, handover = self._prefix_features(x, weights[:, None] >= 1), Prefixed(x, bound)
        else:
            raise GenpolicyError(
                "this policy was not trained to go on from given actions: train it with "
                "policy=flow_rtc (max_delay above 0), or use rtc=guided"
            )
        return self.to_actions(
            self.integrate(flat, self._start(noise), known=known, handover=handover)
        )
