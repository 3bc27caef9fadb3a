"""Reinforcement learning of generative policies, and which method trains which policy."""

from __future__ import annotations

from typing import Any

from genpolicy.finetune.dppo import DPPO, DPPOConfig
from genpolicy.finetune.fpo import FPO, FPOConfig
from genpolicy.finetune.gorl import GoRL, GoRLConfig
from genpolicy.finetune.gorl_sac import GoRLSAC, GoRLSACConfig
from genpolicy.finetune.on_policy import OnPolicy
from genpolicy.finetune.ppo import PPO, PPOConfig
from genpolicy.finetune.reinflow import ReinFlow, ReinFlowConfig
from genpolicy.finetune.rollout import RolloutConfig
from genpolicy.interfaces import Algorithm
from genpolicy.spec import GenpolicyError, VecEnv

ALGORITHMS: dict[str, tuple[type[OnPolicy] | type[GoRLSAC], type[RolloutConfig]]] = {
    "dppo": (DPPO, DPPOConfig),
    "fpo": (FPO, FPOConfig),
    "gorl": (GoRL, GoRLConfig),
    "gorl_sac": (GoRLSAC, GoRLSACConfig),
    "ppo": (PPO, PPOConfig),
    "reinflow": (ReinFlow, ReinFlowConfig),
}


def build_algorithm(
    name: str, policy: Any, env: VecEnv, config: RolloutConfig, seed: int
) -> Algorithm:
    """The method ``name`` at work on ``policy``.

    Raises:
        GenpolicyError: it cannot train that kind of policy; the message lists what can.
    """
    algorithm, _ = ALGORITHMS[name]
    if policy.name not in algorithm.policies:
        fitting = [n for n, (other, _) in ALGORITHMS.items() if policy.name in other.policies]
        raise GenpolicyError(
            f"algo={name} trains a {' or '.join(algorithm.policies)} policy, and this is a "
            f"{policy.name} policy: choose one of {', '.join(f'algo={n}' for n in fitting)}"
        )
    return algorithm(policy, env, config, seed)  # type: ignore[call-arg]
