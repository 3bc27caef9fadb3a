"""Gaussian PPO: its likelihood is the Gaussian's, of what was executed."""

import pytest
import torch
from torch.distributions import Normal

from genpolicy.finetune.ppo import PPO, PPOConfig
from genpolicy.policies import build_policy
from genpolicy.spec import PolicySpec


def make(env, policy=None, chunk=3, exec_steps=2, **config):
    torch.manual_seed(0)
    policy = build_policy(
        {"name": "gaussian", "hidden": [32, 32, 32]} | (policy or {}),
        PolicySpec(env.spec, obs_steps=1, chunk=chunk, exec_steps=exec_steps),
    )
    return PPO(policy, env, PPOConfig(**{"rollout_steps": 32, "batch_size": 32} | config), 0)


@pytest.mark.parametrize("squash", ["clip", "tanh"])
@torch.no_grad()
def test_log_likelihood_sums_the_executed_scalars(reach_env, squash):
    algorithm = make(reach_env, {"squash": squash})
    algorithm.collect()
    obs = algorithm.rollout.obs.flatten(0, 1)
    x = algorithm.record["x"].flatten(0, 1)
    mean, std = algorithm.policy.distribution(obs)
    expected = Normal(mean, std).log_prob(x)[:, :4].sum(1)  # two of three rows of two
    got = algorithm.log_likelihood(obs, {"x": x})[:, 0]
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    z = (x - mean) / std
    assert z.mean().abs() < 0.06 and z.std().item() == pytest.approx(1.0, abs=0.05)


def test_entropy_bonus_widens_the_policy(reach_env):
    obs = torch.randn(20, 4)
    for std in ("state", "independent"):
        algorithm = make(reach_env, {"std": std}, entropy_coef=10.0, actor_lr=1e-2, target_kl=1e9)
        before = algorithm.policy.distribution(obs)[1].mean()
        algorithm.collect(), algorithm.update()
        assert algorithm.policy.distribution(obs)[1].mean() > before
