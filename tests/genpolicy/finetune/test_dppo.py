"""DPPO's invariants: closed forms of its loss, first ratio 1, exact resume, and that it learns."""

import numpy as np
import pytest
import torch
from training import run

from genpolicy.finetune.dppo import DPPO, DPPOConfig, clip_widths
from genpolicy.finetune.surrogate import clip
from genpolicy.interfaces import Algorithm
from genpolicy.policies import build_policy
from genpolicy.spec import PolicySpec


def make_base(env, **config):
    torch.manual_seed(0)
    defaults = {"name": "diffusion", "hidden": [64, 64, 64], "train_steps": 20, "sample_steps": 5}
    return build_policy(defaults | config, PolicySpec(env.spec, obs_steps=1, chunk=2, exec_steps=2))


def make_dppo(env, seed=0, **config):
    defaults = {"rollout_steps": 8, "batch_size": 32, "epochs": 2, "critic_warmup": 0}
    defaults |= {"critic_hidden": (32, 32, 32)}
    return DPPO(make_base(env), env, DPPOConfig(**defaults | config), seed)


@pytest.mark.parametrize(
    "config",
    [
        {"tuned_steps": 1},
        {"tuned_steps": 3},
        {"tuned_steps": 5},
        {"tuned_steps": 5, "bf16": True},
        {"tuned_steps": 2, "bc_coef": 0.1},
        {"tuned_steps": 1, "sample_steps": 1, "explore_std": 1},
    ],
)
def test_first_ratio_is_one_and_metrics_are_finite(reach_env, config):
    algorithm = make_dppo(reach_env, **config)
    assert isinstance(algorithm, Algorithm)
    for _ in range(3):
        metrics = run(algorithm, 1)
        assert metrics["policy/ratio_first"] == pytest.approx(1.0, abs=1e-6)
        assert all(np.isfinite(list(metrics.values())))


def test_clip_widths_grow_from_base_to_clip():
    widths = clip_widths(5, clip=0.1, base=0.01, rate=3.0)
    assert widths[0] == pytest.approx(0.01) and widths[-1] == pytest.approx(0.1)
    assert (widths.diff() > 0).all()
    middle = 0.01 + 0.09 * (np.exp(1.5) - 1) / (np.exp(3) - 1)
    assert widths[2] == pytest.approx(middle)
    assert clip_widths(1, 0.1, 0.01, 3.0).tolist() == pytest.approx([0.1])


def test_first_gradient_is_the_policy_gradient(reach_env):
    """At ratio 1 the surrogate's gradient is −E[Â ∇ log p], denoising discount included."""
    algorithm = make_dppo(reach_env, gamma_denoise=0.5, max_grad_norm=1e9)
    algorithm.collect()
    obs = algorithm.rollout.obs.flatten(0, 1)
    record = {"chain": algorithm.record["chain"].flatten(0, 1)}
    old = algorithm._old_log_likelihood(obs, record)
    advantage = algorithm.critic.targets(algorithm.rollout).advantage
    log_prob = algorithm.log_likelihood(obs, record)
    discount = torch.tensor([0.5**4, 0.5**3, 0.5**2, 0.5, 1.0])
    score = -(log_prob * advantage[:, None] * discount).mean()
    ratio = (log_prob - old).exp()
    surrogate = -clip(ratio, advantage[:, None] * algorithm.credit, algorithm.width).mean()
    weight = algorithm.policy.net.trunk.out.weight
    expected, actual = (
        torch.autograd.grad(x, weight, retain_graph=True)[0] for x in (score, surrogate)
    )
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-4)


def test_frozen_half_and_base_never_move(reach_env):
    algorithm = make_dppo(reach_env, tuned_steps=2, bc_coef=0.1)
    frozen = [p.clone() for p in algorithm.policy.frozen.parameters()]
    run(algorithm, 2)
    assert all(
        torch.equal(a, b) for a, b in zip(frozen, algorithm.policy.frozen.parameters(), strict=True)
    )


def test_without_reward_advantages_are_not_blown_up(reach_env):
    """A batch with no success at all holds no signal: the policy must hardly move."""
    algorithm = make_dppo(reach_env, advantage_std_floor=0.1)
    algorithm.collect()
    algorithm.rollout.reward[:] = 0
    algorithm.critic.net.trunk.out.weight.data.mul_(1e-3)
    algorithm.critic.net.trunk.out.bias.data.zero_()
    advantage = algorithm.critic.targets(algorithm.rollout).advantage
    assert advantage.abs().max() < 0.5
