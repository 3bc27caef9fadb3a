"""ReinFlow's likelihood is that of the chain it sampled, on one time grid."""

import math

import pytest
import torch
from torch.distributions import Normal

from genpolicy.finetune.reinflow import NoiseNet, ReinFlow, ReinFlowConfig
from genpolicy.policies import build_policy
from genpolicy.policies.flow import time_grid
from genpolicy.spec import PolicySpec


def make(env, steps=3, **config):
    torch.manual_seed(0)
    policy = build_policy(
        {"name": "flow", "hidden": [32, 32, 32], "sample_steps": 7, "solver": "heun"},
        PolicySpec(env.spec, obs_steps=1, chunk=2, exec_steps=2),
    )
    defaults = {"rollout_steps": 4, "batch_size": 16, "sample_steps": steps}
    return ReinFlow(policy, env, ReinFlowConfig(**defaults | config), 0)


def explored(algorithm):
    algorithm.collect()
    obs = algorithm.rollout.obs.flatten(0, 1)
    return obs, {name: value.flatten(0, 1) for name, value in algorithm.record.items()}


@torch.no_grad()
def test_likelihood_is_the_product_of_the_transitions(reach_env):
    algorithm = make(reach_env)
    obs, record = explored(algorithm)
    chain, times = record["chain"], time_grid(3)
    total = torch.zeros(len(obs))
    for k in range(3):
        x, t = chain[:, k], times[k : k + 1]
        step = times[k + 1] - times[k]
        mean = x + step * algorithm.policy.velocity(x[:, None], t, obs)[:, 0]
        std = algorithm.noise_net(t, obs)[:, 0]
        total += Normal(mean, std).log_prob(chain[:, k + 1]).sum(1)
    got = algorithm.log_likelihood(obs, record)[:, 0]
    torch.testing.assert_close(got, total / (3 * 4), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_sampled_transitions_have_the_likelihoods_statistics(reach_env):
    """Standardised residuals of the chain are standard normal: sampler and likelihood agree."""
    algorithm = make(reach_env, rollout_steps=64)
    obs, record = explored(algorithm)
    x, x_next = record["chain"][:, :-1], record["chain"][:, 1:]
    std = algorithm.noise_net(algorithm.times[:-1], obs)
    z = (x_next - algorithm._means(x, algorithm.times, obs)) / std
    assert z.mean().abs() < 0.05 and z.std().item() == pytest.approx(1.0, abs=0.03)


@torch.no_grad()
def test_without_noise_the_chain_is_the_executed_policy(reach_env):
    algorithm = make(reach_env, noise_std=(1e-7, 1e-6))
    obs, record = explored(algorithm)
    start, end = record["chain"][:, :1], record["chain"][:, -1]
    executed = algorithm.policy.integrate(obs, start)[:, 0]
    torch.testing.assert_close(executed, end, atol=1e-4, rtol=0)
    assert algorithm.policy.config.sample_steps == 3
    assert algorithm.policy.config.solver == "euler"


def test_noise_stays_between_its_bounds_and_learns(reach_env):
    net = NoiseNet(4, 6, 16, (0.05, 0.2))
    std = net(time_grid(5)[:-1], 100 * torch.randn(50, 4))
    assert std.shape == (50, 5, 6)
    assert std.min() >= 0.05 - 1e-6 and std.max() <= 0.2 + 1e-6
    middle = math.sqrt(0.05 * 0.2)
    assert (std.min() < middle) and (std.max() > middle)
    algorithm = make(reach_env, critic_warmup=0)
    before = algorithm.noise_net.net[0].weight.clone()
    algorithm.collect(), algorithm.update()
    assert not torch.equal(before, algorithm.noise_net.net[0].weight)


def test_entropy_bonus_raises_the_noise(reach_env):
    algorithm = make(reach_env, critic_warmup=0, entropy_coef=10.0, actor_lr=1e-2, epochs=4)
    obs = torch.randn(20, 4)
    before = algorithm.noise_net(algorithm.times[:-1], obs).mean()
    algorithm.collect(), algorithm.update()
    assert algorithm.noise_net(algorithm.times[:-1], obs).mean() > before
