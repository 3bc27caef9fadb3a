"""What EXPO and IDQL share: a base that imitates, and critics that choose among its samples."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from genpolicy.data.demonstrations import Demonstrations
from genpolicy.finetune.off_policy import OffPolicy, adam, descend
from genpolicy.finetune.off_policy_config import OffPolicyConfig
from genpolicy.finetune.rollout import at_least_one
from genpolicy.finetune.transitions import Rows
from genpolicy.policies.base import ChunkPolicy
from genpolicy.policies.diffusion import DiffusionPolicy
from genpolicy.policies.edit import OnTheFlyConfig, OnTheFlyPolicy
from genpolicy.policies.flow import FlowPolicy
from genpolicy.pretrain.ema import Ema
from genpolicy.runs.environment import fast_bf16
from genpolicy.spec import GenpolicyError, VecEnv

STATES_PER_CALL = 2048


@dataclass(frozen=True)
class BestOfNConfig(OffPolicyConfig):
    """Hyperparameters of the choice and of the base.

    Attributes:
        samples: N, base samples to choose among.
        base_lr: Adam learning rate of the base; 0 leaves it as it is.
        base_ema: Decay of the base's moving average, which acts.
        imitate: What the base learns from besides the demonstrations: ``all`` that was executed,
            or the episodes that were a ``success`` (arXiv 2605.25477).
        bf16: Sample and imitate under bfloat16 autocast, and compare candidates there in the
            target (values themselves stay float32); null: where the hardware has it.
    """

    samples: int = 8
    base_lr: float = 3e-4
    base_ema: float = 0.999
    imitate: str = "all"
    bf16: bool | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot learn."""
        super().__post_init__()
        at_least_one(self, "samples")
        if self.base_lr < 0:
            raise GenpolicyError(f"algo.base_lr={self.base_lr} must not be negative")
        if self.imitate not in ("all", "success"):
            raise GenpolicyError(f"algo.imitate={self.imitate!r}: choose all or success")

    def choice(self, base: Mapping[str, Any]) -> OnTheFlyConfig:
        """The policy to train around a base with this ``config_dict``."""
        return OnTheFlyConfig(
            dict(base), self.samples, False, critics=self.critics,
            critic_hidden=self.critic_hidden, pair=self.pair,
        )  # fmt: skip


def around(base: ChunkPolicy, config: BestOfNConfig, seed: int) -> OnTheFlyPolicy:
    """An untrained choice around ``base``, or ``base`` itself where it chooses already.

    Raises:
        GenpolicyError: it chooses in another way.
    """
    if isinstance(base, OnTheFlyPolicy):
        wanted = config.choice(base.config.base)
        if wanted != base.config:
            raise GenpolicyError(
                f"the policy that training starts from was made as {base.config}, and algo says "
                f"{wanted}: give the same keys"
            )
        return base
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy = OnTheFlyPolicy(base.spec, config.choice(base.config_dict()))
    policy.base.load_state_dict(base.state_dict())
    return policy.to(base.device)


class BestOfN(OffPolicy):
    """Trains an on-the-fly policy around a flow or diffusion policy."""

    policies = (FlowPolicy.name, DiffusionPolicy.name, OnTheFlyPolicy.name)
    policy: OnTheFlyPolicy
    config: Any

    def __init__(
        self,
        base: ChunkPolicy,
        env: VecEnv,
        config: BestOfNConfig,
        seed: int,
        demos: Demonstrations | None = None,
    ) -> None:
        policy = around(base, config, seed)
        # What imitates is a twin; what acts is its moving average.
        self.imitator = policy.base
        self.ema = Ema(policy.base, config.base_ema)
        policy.base, policy.normalizer = self.ema.module, self.ema.module.normalizer
        self.base_opt = adam(self.imitator.net.parameters(), config.base_lr)
        device = policy.device.type
        self.bf16 = fast_bf16(device) if config.bf16 is None else config.bf16
        super().__init__(policy, env, policy.critic, config, seed, demos)
        self.imitator.rng = self.rng

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def act(self, obs: Tensor) -> Tensor:
        """The policy's choice."""
        return self.actor.generate(obs, self.actor.draw_noise(len(obs)), True)[:, 0]

    def collect(self) -> None:
        """Also mark the episodes that have just succeeded."""
        super().collect()
        good, newest = self.replay.rows["good"], self.replay.newest(self.rollout.success.size)
        good[self.replay.episodes(newest[good[newest]])] = True

    def learn(self, batch: Rows) -> dict[str, Tensor]:
        """One step of imitation."""
        policy = self.imitator
        if self.config.imitate == "success":
            batch = {name: batch[name][batch["good"]] for name in ("obs", "chunk")}
        if not self.config.base_lr or not len(batch["obs"]):
            return {}
        obs = policy.normalizer.split(policy.normalizer.unrows(batch["obs"]))
        chunks = batch["chunk"].unflatten(1, (policy.spec.chunk, -1))
        with self._autocast():
            loss, _ = policy.loss({"obs": obs, "actions": policy.normalizer.unaction(chunks)})
        descend(self.base_opt, loss)
        self.ema.update()
        return {"train/base_loss": loss.detach()}

    def propose(self, obs: Tensor) -> Tensor:
        """The base's samples ``[B, N, A]`` at normalised observations ``[B, C]``."""
        spec = self.policy.spec
        shape = (self.config.samples, spec.chunk, spec.task.action.dim)
        with self._autocast():
            parts = [
                self.policy.propose(rows, self.normal(len(rows), *shape))
                for rows in obs.split(STATES_PER_CALL)
            ]
        return torch.cat(parts).float()

    # ---- checkpoint --------------------------------------------------------------------------

    def modules(self) -> dict[str, nn.Module]:
        """Also the base that imitates."""
        return super().modules() | {"imitator": self.imitator}

    def parts(self) -> dict[str, Any]:
        """Also its optimiser."""
        return super().parts() | {"base_opt": self.base_opt}

    def state_dict(self) -> dict[str, Any]:
        """Also the age of the moving average."""
        return super().state_dict() | {"ema_steps": self.ema.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue bit for bit."""
        super().load_state_dict(state)
        self.ema.steps = state["ema_steps"]
