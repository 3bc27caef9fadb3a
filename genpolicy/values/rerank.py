"""V-GPS (arXiv 2410.13816, section 4.2): execute the sample that the value function prefers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from genpolicy.interfaces import Noise, Policy
from genpolicy.spec import GenpolicyError, Observation
from genpolicy.values.critic import ValueFunction


def select(scores: Tensor, temperature: float, choice: Tensor | None = None) -> Tensor:
    """Index of the sample to execute, per row.

    Temperature 0 takes the best score. Otherwise the index is drawn from softmax(z / T) by the
    Gumbel-max trick, where z are the scores standardised within their row: the scale of Q differs
    from state to state, so dividing raw Q (the paper's β) would make one temperature mean many
    things. Scores that are not finite never win; if none is finite, sample 0 is executed.

    Args:
        scores: ``[..., K]``.
        temperature: T >= 0.
        choice: Standard-normal draws ``[..., K]``, needed if T > 0.

    Returns:
        ``[...]`` int64.
    """
    finite = scores.isfinite()
    values = scores.double().where(finite, 0.0)
    if temperature > 0:
        if choice is None:
            raise GenpolicyError("select: a positive temperature needs the choice noise")
        count = finite.sum(-1, keepdim=True).clamp(min=1)
        scale = values.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
        values = values / scale
        mean = values.sum(-1, keepdim=True) / count
        centred = (values - mean).where(finite, 0.0)
        std = (centred.square().sum(-1, keepdim=True) / count).sqrt()
        z = centred / std.clamp(min=torch.finfo(torch.float32).eps)
        # Φ turns the normal draw into a uniform one, −log(−log u) that into a Gumbel one.
        gumbel = -(-torch.special.log_ndtr(choice.double())).log()
        values = z / temperature + gumbel
    return values.where(finite, -torch.inf).argmax(-1)


class RerankedPolicy(nn.Module):
    """A policy that draws K samples of another in one call and keeps one of them.

    It is itself a policy, so the evaluator takes it; with K = 1 it is the base policy exactly.
    """

    def __init__(
        self,
        policy: Policy,
        value: ValueFunction,
        num_samples: int = 10,
        temperature: float = 0.0,
    ) -> None:
        super().__init__()
        if num_samples < 1 or not temperature >= 0:
            raise GenpolicyError(
                f"rerank: need num_samples >= 1 and temperature >= 0, "
                f"got {num_samples} and {temperature}"
            )
        check_compatible(policy, value)
        self.base = policy
        self.value = value
        self.spec = policy.spec
        self.num_samples = num_samples
        self.temperature = temperature
        self.rng = np.random.default_rng(0)

    def noise_spec(self, batch: int, num_samples: int = 1) -> dict[str, tuple[int, ...]]:
        """The base policy's draws for all K samples, and ``choice`` if the choice is random."""
        total = num_samples * self.num_samples
        spec = dict(self.base.noise_spec(batch, total))
        if self.temperature > 0 and self.num_samples > 1:
            spec["choice"] = (batch, total)
        return spec

    def sample(
        self,
        obs: Mapping[str, Tensor],
        *,
        noise: Noise | None = None,
        num_samples: int = 1,
        deterministic: bool = True,
    ) -> Tensor:
        """``{name: [B, To, D]}`` to the preferred chunks ``[B, N, Tp, Da]``."""
        k = self.num_samples
        noise = dict(noise) if noise is not None else self._draw(obs, num_samples)
        choice = noise.pop("choice", None)
        chunks = self.base.sample(
            obs, noise=noise, num_samples=num_samples * k, deterministic=deterministic
        )
        if k == 1:
            return chunks
        scores = self.value.score(obs, chunks).unflatten(1, (num_samples, k))
        choice = choice.unflatten(1, (num_samples, k)) if choice is not None else None
        best = select(scores, self.temperature, choice)  # [B, N]
        first = torch.arange(num_samples, device=best.device) * k
        return chunks.gather(1, (best + first)[:, :, None, None].expand(-1, -1, *chunks.shape[2:]))

    def _draw(self, obs: Mapping[str, Tensor], num_samples: int) -> dict[str, Tensor]:
        some = next(iter(obs.values()))
        shapes = self.noise_spec(len(some), num_samples)
        return {
            name: torch.from_numpy(self.rng.standard_normal(s, dtype=np.float32)).to(some.device)
            for name, s in shapes.items()
        }

    @torch.inference_mode()
    def act(self, obs: Observation) -> NDArray[np.float32]:
        """The preferred chunk's first Ta actions, ``[B, Ta, Da]``."""
        device = next(self.value.parameters()).device
        tensors = {
            feature.name: torch.as_tensor(obs[feature.name], dtype=torch.float32, device=device)
            for feature in self.spec.task.observations
        }
        return self.sample(tensors)[:, 0, : self.spec.exec_steps].cpu().numpy()


def check_compatible(policy: Policy, value: ValueFunction) -> None:
    """Refuse a value function that was trained for other inputs than the policy gives it.

    Raises:
        GenpolicyError: Another task, observation history or executed chunk.
    """
    for what, ours, theirs in (
        ("observations", policy.spec.task.observations, value.spec.task.observations),
        ("actions", policy.spec.task.action, value.spec.task.action),
        ("control_mode", policy.spec.task.control_mode, value.spec.task.control_mode),
        ("obs_steps", policy.spec.obs_steps, value.spec.obs_steps),
        ("exec_steps", policy.spec.exec_steps, value.spec.exec_steps),
    ):
        if ours != theirs:
            raise GenpolicyError(
                f"the value function was trained for other {what} than the policy has "
                f"({theirs} against {ours}): train one for this policy"
            )
