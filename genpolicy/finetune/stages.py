"""The decoder's half of GoRL (arXiv 2512.02581): what ends a stage, whatever optimised the encoder.

The encoder acts once more; a fresh decoder imitates its *actions* from noise of its own,
ε ~ N(0, I), independent of the z that led to them. (Paired with those z, it would learn to be the
decoder that it replaces.) Then the encoder starts again at the prior, so that the next stage begins
as N(0, I) → g, which is what the last one ended with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from genpolicy.data.collect import collect_episodes
from genpolicy.data.demonstrations import Demonstrations, Episode
from genpolicy.data.windows import ChunkDataset
from genpolicy.finetune.rollout import at_least_one, positive
from genpolicy.policies import build_policy
from genpolicy.policies.base import ChunkPolicy
from genpolicy.policies.diffusion import DiffusionPolicy
from genpolicy.policies.flow import FlowPolicy
from genpolicy.policies.latent import LatentConfig, LatentPolicy
from genpolicy.pretrain.imitation import Imitation, ImitationConfig
from genpolicy.runs import distributed, seeding
from genpolicy.spec import GenpolicyError, Observation, StepResult, VecEnv

DECODERS = (FlowPolicy.name, DiffusionPolicy.name, LatentPolicy.name)
STATES, MAX_STAGES = 100_000, 9  # initial states of a stage, at most: as many as seeds are apart
# What the encoder means is recorded up to this many times the actuators' range: the decoder learns
# how far beyond a limit an action is, and is not asked to follow a Gaussian's outliers.
MEANT = 2.0


@dataclass(frozen=True)
class StagesConfig:
    """Hyperparameters of the encoder and of the stages.

    Attributes:
        stages: Iterations of each stage that ends with a new decoder. After the last of them the
            encoder goes on learning to the end of the run.
        encoder_hidden: Widths of the encoder: an odd number of equal values.
        encoder_activation: ``relu``, ``silu`` or ``mish``.
        refine_episodes: What a new decoder is taught with.
        refine_keep: Share of them, those of highest return, that is used.
        refine_steps: Gradient steps.
        refine_batch_size: Windows per gradient step.
        refine_lr: Learning rate; it falls to a tenth.
        fresh_encoder: Start the encoder anew in every stage.
        fresh_decoder: Teach a decoder from random weights instead of going on with the last one.
        identity: The first decoder is the identity; null: only from scratch.
        execute_std: Scale of the encoder's std when executed; 0 is its mean, and then all samples
            of a state are one.
    """

    stages: tuple[int, ...] = ()
    encoder_hidden: tuple[int, ...] = (64, 64, 64)
    encoder_activation: str = "silu"
    refine_episodes: int = 128
    refine_keep: float = 1.0
    refine_steps: int = 4000
    refine_batch_size: int = 1024
    refine_lr: float = 3e-3
    fresh_encoder: bool = True
    fresh_decoder: bool = True
    identity: bool | None = None
    execute_std: float = 0.0

    def check_stages(self) -> None:
        """Refuse what cannot learn."""
        if any(stage < 1 for stage in self.stages):
            raise GenpolicyError(f"algo.stages={list(self.stages)}: a stage needs an iteration")
        if len(self.stages) > MAX_STAGES:
            raise GenpolicyError(f"algo.stages: at most {MAX_STAGES}, and these are more")
        if not 0 < self.refine_keep <= 1:
            raise GenpolicyError(f"algo.refine_keep={self.refine_keep} must lie in (0, 1]")
        at_least_one(self, "refine_episodes", "refine_steps", "refine_batch_size")
        positive(self, "refine_lr")


def latent(base: ChunkPolicy, config: StagesConfig, seed: int) -> LatentPolicy:
    """An untrained encoder in front of ``base``, or ``base`` where it has one.

    Raises:
        GenpolicyError: The encoder that ``base`` has is of another shape.
    """
    if isinstance(base, LatentPolicy):
        for key in ("hidden", "activation"):
            has, wanted = getattr(base.config, key), getattr(config, f"encoder_{key}")
            if has != wanted:
                raise GenpolicyError(
                    f"algo.encoder_{key}={_shown(wanted)}, and the encoder that training starts "
                    f"from has {_shown(has)}: set algo.encoder_{key}={_shown(has)}"
                )
        base.config = replace(base.config, execute_std=config.execute_std)
        return base
    encoder = LatentConfig(
        hidden=config.encoder_hidden,
        activation=config.encoder_activation,
        identity=bool(config.identity),
        execute_std=config.execute_std,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LatentPolicy.around(base, encoder)


def _shown(value: Any) -> str:
    return str(list(value)).replace(" ", "") if isinstance(value, tuple) else str(value)


class _Bounded:
    """``env`` for actions that it has to cut at the limits itself; counts its control steps."""

    def __init__(self, env: VecEnv) -> None:
        self.env, self.spec, self.num_envs = env, env.spec, env.num_envs
        self.reset, self.get_state, self.set_state = env.reset, env.get_state, env.set_state
        self.close = env.close
        self.env_steps = 0

    def step(self, actions: NDArray[Any]) -> StepResult:
        """One chunk in each environment."""
        action = self.spec.action
        result = self.env.step(np.clip(actions, action.low, action.high))
        self.env_steps += int(result.steps.sum())
        return result


class Stages:
    """Counts the iterations of each stage and ends it.

    Args:
        policy: whose decoder is replaced.
        env: where the data for it are recorded.
        config: hyperparameters.
        seed: of the run.
    """

    def __init__(self, policy: LatentPolicy, env: VecEnv, config: StagesConfig, seed: int) -> None:
        if distributed.world_size() > 1:  # every rank would record, and teach a decoder of its own
            raise GenpolicyError("GoRL runs in one process: start it without torchrun")
        self.policy, self.env, self.config, self.seed = policy, env, config, seed
        self.number, self.iterations = 0, 0  # of this stage, and done in it

    @property
    def seeds(self) -> tuple[int, int, int]:
        """Of this stage: initial weights, episodes to learn from, episodes to record."""
        shift = self.number * STATES
        train, record = (seeding.env_seed(self.seed, p) + shift for p in ("train", "collect"))
        return self.seed + 1000 * self.number, train, record

    def over(self) -> bool:
        """Count one more iteration; whether it was the last of a stage."""
        self.iterations += 1
        stages = self.config.stages
        return self.number < len(stages) and self.iterations >= stages[self.number]

    def refine(self) -> tuple[float, int]:
        """Replace the decoder and begin the next stage.

        Returns:
            The new decoder's loss, and the control steps that its data took.
        """
        dataset, env_steps = self._record()
        self.number, self.iterations = self.number + 1, 0
        c, policy, (seed, _, _) = self.config, self.policy, self.seeds
        seeding.seed_torch(seed)
        decoder = build_policy(policy.config.decoder, policy.spec).to(policy.device)
        if not (c.fresh_decoder or policy.config.identity):
            decoder.load_state_dict(policy.decoder.state_dict())
        recipe = ImitationConfig(
            c.refine_batch_size, c.refine_lr, c.refine_lr / 10, decay_steps=c.refine_steps
        )
        imitation = Imitation(decoder, dataset, recipe, seed=seed, normalizer=policy.normalizer)
        for _ in range(c.refine_steps):
            imitation.collect()
            imitation.update()
        policy.adopt(imitation.policy)
        if c.fresh_encoder:
            policy.net.load_state_dict(LatentPolicy(policy.spec, policy.config).net.state_dict())
        return imitation.metrics()["train/loss"], env_steps

    def _record(self) -> tuple[ChunkDataset, int]:
        """Windows of whole episodes of the policy as it explores, and their control steps."""
        episodes: list[Episode] = []
        env = _Bounded(self.env)
        collect_episodes(
            env, self._intend, self.config.refine_episodes, episodes.append,
            seed=self.seeds[2], success_only=False,
        )  # fmt: skip
        episodes.sort(key=lambda episode: -episode.rewards.sum())
        kept = episodes[: math.ceil(self.config.refine_keep * len(episodes))]
        spec = self.policy.spec
        demos = Demonstrations.from_episodes(kept, spec.task)
        dataset = ChunkDataset(demos, spec.obs_steps, spec.chunk, self.policy.device)
        return dataset, env.env_steps

    @torch.inference_mode()
    def _intend(self, obs: Observation) -> NDArray[np.float32]:
        """Explore; actions before they are cut, whose distribution is the smoother one."""
        policy = self.policy
        tensors = {k: torch.from_numpy(v).to(policy.device) for k, v in obs.items()}
        noise = policy.draw_noise(self.env.num_envs, deterministic=False)
        x = policy.generate(policy.normalizer.obs(tensors), noise, False)[:, 0]
        low, high = policy.action_low, policy.action_high
        beyond = (MEANT - 1) / 2 * (high - low)
        actions = policy.unbounded_actions(x).clamp(low - beyond, high + beyond)
        return actions[:, : policy.spec.exec_steps].cpu().numpy()

    def state_dict(self) -> dict[str, Any]:
        """Where it stands."""
        return {"number": self.number, "iterations": self.iterations}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue there."""
        self.number, self.iterations = state["number"], state["iterations"]
