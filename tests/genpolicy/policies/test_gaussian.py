"""The Gaussian policy against torch.distributions."""

import math

import pytest
import torch
from test_flow import SPEC

from genpolicy.policies.gaussian import GaussianConfig, GaussianPolicy
from genpolicy.spec import GenpolicyError


def gaussian(**config):
    torch.manual_seed(0)
    return GaussianPolicy(SPEC, GaussianConfig(**({"hidden": (16, 16, 16)} | config)))


@pytest.mark.parametrize("std", ["state", "independent"])
def test_log_prob_is_the_normal_density(std):
    policy = gaussian(std=std, init_std=0.3)
    obs, x = torch.randn(5, 2), torch.randn(5, 4)
    normal = torch.distributions.Normal(*policy.distribution(obs))
    torch.testing.assert_close(policy.log_prob(obs, x), normal.log_prob(x))


@pytest.mark.parametrize("std", ["state", "independent"])
def test_imitation_minimises_the_negative_log_likelihood(std):
    policy = gaussian(std=std)
    batch = {"obs": {"position": torch.randn(6, 1, 2)}, "actions": torch.randn(6, 2, 2)}
    loss, metrics = policy.loss(batch)
    obs, x = policy.normalizer.obs(batch["obs"]), policy.from_actions(batch["actions"])
    torch.testing.assert_close(loss, -policy.log_prob(obs, x).mean())
    mean = policy.distribution(obs)[0]
    torch.testing.assert_close(metrics["train/mse"], (x - mean).square().mean())
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in policy.net.parameters())


def test_the_std_starts_where_it_should_and_never_falls_below_its_floor():
    for std in ("state", "independent"):
        policy = gaussian(std=std, init_std=0.7, min_std=0.1)
        for parameter in policy.net.trunk.out.parameters():
            torch.nn.init.zeros_(parameter)
        obs = torch.randn(5, 2)
        torch.testing.assert_close(policy.distribution(obs)[1], torch.full((5, 4), 0.7))
        raw = policy.net.raw_std if std == "independent" else policy.net.trunk.out.bias
        torch.nn.init.constant_(raw, -200.0)
        torch.testing.assert_close(policy.distribution(obs)[1], torch.full((5, 4), 0.1))


def test_only_the_state_dependent_std_depends_on_the_state():
    obs = torch.randn(5, 2)
    for std, same in (("state", False), ("independent", True)):
        sigma = gaussian(std=std).distribution(obs)[1]
        assert torch.equal(sigma, sigma[:1].expand_as(sigma)) == same


@torch.no_grad()
def test_executes_the_mean_and_explores_with_the_std():
    policy, half = gaussian(squash="tanh"), gaussian(squash="tanh", execute_std=0.5)
    obs = {"position": torch.randn(3, 1, 2)}
    noise = policy.draw_noise(3, 4)
    mean, std = (part[:, None] for part in policy.distribution(policy.normalizer.obs(obs)))
    z = noise["noise"].flatten(2)
    for acting, deterministic, x in (
        (policy, True, mean.expand(-1, 4, -1)),
        (policy, False, mean + std * z),
        (half, True, mean + 0.5 * std * z),
    ):
        drawn = acting.sample(obs, noise=noise, num_samples=4, deterministic=deterministic)
        torch.testing.assert_close(drawn, policy.to_actions(x))


def test_densities_are_float32_under_autocast():
    policy = gaussian()
    with torch.autocast("cpu", torch.bfloat16):
        log_prob = policy.log_prob(torch.randn(5, 2), torch.randn(5, 4))
    assert log_prob.dtype == torch.float32


@pytest.mark.parametrize(
    "bad",
    [
        {"std": "full"},
        {"min_std": 0.0},
        {"min_std": 0.5, "init_std": 0.5},
        {"init_std": math.inf},
        {"execute_std": -0.1},
        {"squash": "none"},
    ],
    ids=str,
)
def test_impossible_configurations_are_refused(bad):
    with pytest.raises(GenpolicyError, match=next(iter(bad))):
        gaussian(**bad)
