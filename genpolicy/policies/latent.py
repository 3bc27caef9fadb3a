"""Latent policy: a tractable encoder in front of a generative decoder (GoRL, arXiv 2512.02581).

    z ~ π_θ(z | o) = N(μ_θ(o), σ_θ(o)²),    x = g_φ(o, z)

The decoder g is a flow or diffusion policy without draws of its own: what it calls its noise is z.
Likelihoods are those of z, in closed form, however complicated the distribution of actions is.
z has the shape of a whole chunk, so that a pretrained policy can be steered through the noise that
it was trained with (as in DSRL, arXiv 2506.15799). An untrained decoder stands aside: then x = z.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from genpolicy.interfaces import Batch, Noise
from genpolicy.policies.base import ChunkPolicy
from genpolicy.policies.gaussian import GaussianConfig, GaussianPolicy
from genpolicy.spec import GenpolicyError, PolicySpec


@dataclass(frozen=True)
class LatentConfig(GaussianConfig):
    """The encoder's configuration, and its decoder's.

    Attributes:
        decoder: ``config_dict`` of a flow or diffusion policy that acts deterministically.
        identity: The decoder stands aside, x = z.
    """

    init_std: float = 1.0
    min_std: float = 1e-3
    decoder: dict[str, Any] = field(default_factory=lambda: {"name": "flow"})
    identity: bool = False


class LatentPolicy(GaussianPolicy):
    """An encoder (``net``) and a decoder, both over chunks ``[Tp, Da]``."""

    name = "latent"
    config: LatentConfig

    def __init__(self, spec: PolicySpec, config: LatentConfig | None = None) -> None:
        from genpolicy.policies import build_policy  # the registry holds this class, too

        config = config or LatentConfig()
        decoder = build_policy(config.decoder, spec)
        if set(decoder.noise_spec(1)) != {"noise"} or isinstance(decoder, GaussianPolicy):
            raise GenpolicyError(
                "policy.decoder must be a flow or diffusion policy whose only draw is its initial "
                f"noise (eta=0), and this is {dict(config.decoder)}"
            )
        if config.decoder.get("tuned_steps") or config.decoder.get("initial_noise", 1.0) != 1.0:
            raise GenpolicyError(
                "policy.decoder: a policy whose last steps DPPO has tuned (tuned_steps), or that "
                "scales its noise (initial_noise), cannot be taught again: start GoRL from the "
                "policy before"
            )
        super().__init__(spec, replace(config, squash=decoder.squash))
        self.decoder = decoder
        nn.init.zeros_(self.net.trunk.out.weight)  # untrained, the encoder is the prior
        nn.init.zeros_(self.net.trunk.out.bias)

    @classmethod
    def around(cls, decoder: ChunkPolicy, config: LatentConfig) -> LatentPolicy:
        """A fresh encoder in front of ``decoder``, in the same units."""
        policy = cls(decoder.spec, replace(config, decoder=decoder.config_dict()))
        policy.decoder.load_state_dict(decoder.state_dict())
        policy.normalizer.load_state_dict(decoder.normalizer.state_dict())
        return policy.to(decoder.device)

    def adopt(self, decoder: ChunkPolicy) -> None:
        """Take over a trained decoder whose actions have the units of this policy's."""
        self.decoder.load_state_dict(decoder.state_dict())
        self.config = replace(self.config, identity=False)

    def decode(self, obs: Tensor, x: Tensor) -> Tensor:
        """g(o, z).

        Args:
            obs: Normalised observations ``[B, C]``, as the encoder sees them.
            x: Latents ``[B, N, A]``.

        Returns:
            ``[B, N, A]``.
        """
        if self.config.identity:
            return x
        z = x.unflatten(-1, (self.spec.chunk, self.spec.task.action.dim))
        # The encoder's statistics may move on while the decoder is frozen with its own.
        seen = self.decoder.normalizer.rows(self.normalizer.unrows(obs))
        return self.decoder.generate(seen, {"noise": z}, True)

    def decoded_actions(self, obs: Tensor, z: Tensor) -> Tensor:
        """What latents ``[B, A]`` lead to: chunks ``[B, Tp, Da]`` in task units."""
        return self.to_actions(self.decode(obs, z[:, None])[:, 0])

    def generate(self, obs: Tensor, noise: Noise, deterministic: bool) -> Tensor:
        """Decode μ + scale·σ·noise; executed, the scale is ``execute_std``, exploring it is 1."""
        return self.decode(obs, super().generate(obs, noise, deterministic))

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Refused: what imitates is the decoder.

        Raises:
            GenpolicyError: always.
        """
        raise GenpolicyError(
            "a latent policy does not imitate: pretrain a flow or diffusion policy and start "
            "algo=gorl from it (init=...)"
        )


def kl_to_prior(mean: Tensor, std: Tensor) -> Tensor:
    """KL( N(μ, σ²) ‖ N(0, 1) ) per scalar: (μ² + σ² − 1) / 2 − log σ."""
    return (mean.square() + std.square() - 1) / 2 - std.log()


def l2_to_prior(mean: Tensor, std: Tensor) -> Tensor:
    """What GoRL's released code adds instead, per scalar: μ² + σ², which draws σ to 0."""
    return mean.square() + std.square()


PRIORS = {"kl": kl_to_prior, "l2": l2_to_prior}
