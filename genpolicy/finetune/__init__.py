"""Reinforcement learning of generative policies, and which method trains which policy."""

from __future__ import annotations

from typing import Any

from genpolicy.data.demonstrations import Demonstrations
from genpolicy.finetune.dppo import DPPO, DPPOConfig
from genpolicy.finetune.expo import EXPO, EXPOConfig
from genpolicy.finetune.fpo import FPO, FPOConfig
from genpolicy.finetune.gorl import GoRL, GoRLConfig
from genpolicy.finetune.gorl_sac import GoRLSAC, GoRLSACConfig
from genpolicy.finetune.idql import IDQL, IDQLConfig
from genpolicy.finetune.off_policy import OffPolicy
from genpolicy.finetune.on_policy import OnPolicy
from genpolicy.finetune.ppo import PPO, PPOConfig
from genpolicy.finetune.reinflow import ReinFlow, ReinFlowConfig
from genpolicy.finetune.rlpd import RLPD, RLPDConfig
from genpolicy.finetune.rollout import RolloutConfig
from genpolicy.interfaces import Algorithm
from genpolicy.spec import GenpolicyError, VecEnv

ALGORITHMS: dict[
    str, tuple[type[OnPolicy] | type[OffPolicy] | type[GoRLSAC], type[RolloutConfig]]
] = {
    "dppo": (DPPO, DPPOConfig),
    "expo": (EXPO, EXPOConfig),
    "fpo": (FPO, FPOConfig),
    "gorl": (GoRL, GoRLConfig),
    "gorl_sac": (GoRLSAC, GoRLSACConfig),
    "idql": (IDQL, IDQLConfig),
    "ppo": (PPO, PPOConfig),
    "reinflow": (ReinFlow, ReinFlowConfig),
    "rlpd": (RLPD, RLPDConfig),
}


def build_algorithm(
    name: str,
    policy: Any,
    env: VecEnv,
    config: RolloutConfig,
    seed: int,
    demos: Demonstrations | None = None,
) -> Algorithm:
    """The method ``name`` at work on ``policy``, and on ``demos`` where it learns from data.

    Raises:
        GenpolicyError: it cannot train that kind of policy, or learns from no data; the message
            lists what can.
    """
    algorithm, _ = ALGORITHMS[name]
    if policy.name not in algorithm.policies:
        fitting = [n for n, (other, _) in ALGORITHMS.items() if policy.name in other.policies]
        raise GenpolicyError(
            f"algo={name} trains a {' or '.join(algorithm.policies)} policy, and this is a "
            f"{policy.name} policy: choose one of {', '.join(f'algo={n}' for n in fitting)}"
        )
    if issubclass(algorithm, OffPolicy):
        return algorithm(policy, env, config, seed, demos)  # type: ignore[call-arg]
    if demos is not None:
        fitting = [n for n, (other, _) in ALGORITHMS.items() if issubclass(other, OffPolicy)]
        raise GenpolicyError(
            f"algo={name} learns from its own experience only: leave data.path out, or choose one "
            f"of {', '.join(f'algo={n}' for n in fitting)}"
        )
    return algorithm(policy, env, config, seed)  # type: ignore[call-arg]
