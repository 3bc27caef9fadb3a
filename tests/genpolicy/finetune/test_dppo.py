"""DPPO's invariants: closed forms of its loss, first ratio 1, exact resume, and that it learns."""

import numpy as np
import pytest
import torch

from genpolicy.finetune.dppo import DPPO, DPPOConfig, clip_widths, ppo_loss
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


def run(algorithm, iterations):
    for _ in range(iterations):
        algorithm.collect()
        algorithm.update()
    return algorithm.metrics()


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


def test_ratio_departs_from_one_after_a_step(reach_env):
    algorithm = make_dppo(reach_env, epochs=4, actor_lr=1e-3)
    assert abs(run(algorithm, 1)["policy/ratio_mean"] - 1) > 1e-6


def test_clip_widths_grow_from_base_to_clip():
    widths = clip_widths(5, clip=0.1, base=0.01, rate=3.0)
    assert widths[0] == pytest.approx(0.01) and widths[-1] == pytest.approx(0.1)
    assert (widths.diff() > 0).all()
    middle = 0.01 + 0.09 * (np.exp(1.5) - 1) / (np.exp(3) - 1)
    assert widths[2] == pytest.approx(middle)
    assert clip_widths(1, 0.1, 0.01, 3.0).tolist() == pytest.approx([0.1])


def test_ppo_loss_closed_form_and_where_its_gradient_stops():
    ratio = torch.tensor([[1.5, 0.5, 1.05]], requires_grad=True)
    advantage = torch.tensor([[1.0, -1.0, 2.0]])
    loss = ppo_loss(ratio, advantage, torch.full((3,), 0.1))
    assert loss.item() == pytest.approx(-(1.1 - 0.9 + 2.1) / 3)
    loss.backward()
    assert ratio.grad.tolist()[0] == pytest.approx([0.0, 0.0, -2.0 / 3])


def test_first_gradient_is_the_policy_gradient(reach_env):
    """At ratio 1 the surrogate's gradient is −E[Â ∇ log p], denoising discount included."""
    algorithm = make_dppo(reach_env, gamma_denoise=0.5, max_grad_norm=1e9)
    algorithm.collect()
    obs, chains = algorithm.rollout.obs.flatten(0, 1), algorithm.chains.flatten(0, 1)
    old, advantage, _ = algorithm._targets(obs, chains)
    log_prob = algorithm._log_prob(obs, chains)
    discount = torch.tensor([0.5**4, 0.5**3, 0.5**2, 0.5, 1.0])
    score = -(log_prob * advantage[:, None] * discount).mean()
    ratio = (log_prob - old).exp()
    surrogate = ppo_loss(ratio, advantage[:, None] * algorithm.denoise_discount, algorithm.width)
    weight = algorithm.policy.net.trunk.out.weight
    expected, actual = (
        torch.autograd.grad(x, weight, retain_graph=True)[0] for x in (score, surrogate)
    )
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-4)


def test_critic_warmup_leaves_the_policy_alone(reach_env):
    algorithm = make_dppo(reach_env, critic_warmup=2)
    before = [p.clone() for p in algorithm.policy.net.parameters()]
    run(algorithm, 2)
    assert all(
        torch.equal(a, b) for a, b in zip(before, algorithm.policy.net.parameters(), strict=True)
    )
    run(algorithm, 1)
    assert any(
        not torch.equal(a, b)
        for a, b in zip(before, algorithm.policy.net.parameters(), strict=True)
    )


def test_frozen_half_and_base_never_move(reach_env):
    algorithm = make_dppo(reach_env, tuned_steps=2, bc_coef=0.1)
    frozen = [p.clone() for p in algorithm.policy.frozen.parameters()]
    run(algorithm, 2)
    assert all(
        torch.equal(a, b) for a, b in zip(frozen, algorithm.policy.frozen.parameters(), strict=True)
    )


def test_kl_guard_stops_the_epochs(reach_env):
    metrics = run(make_dppo(reach_env, epochs=6, actor_lr=1e-2, target_kl=1e-6), 1)
    assert metrics["policy/epochs"] < 6


def test_without_reward_advantages_are_not_blown_up(reach_env):
    """A batch with no success at all holds no signal: the policy must hardly move."""
    algorithm = make_dppo(reach_env, advantage_std_floor=0.1)
    algorithm.collect()
    algorithm.rollout.reward[:] = 0
    algorithm.critic.trunk.out.weight.data.mul_(1e-3)
    algorithm.critic.trunk.out.bias.data.zero_()
    obs, chains = algorithm.rollout.obs.flatten(0, 1), algorithm.chains.flatten(0, 1)
    _, advantage, _ = algorithm._targets(obs, chains)
    assert advantage.abs().max() < 0.5


def test_resume_is_bit_identical(reach_env):
    straight = make_dppo(reach_env)
    run(straight, 2)
    state = {k: v for k, v in straight.state_dict().items()}
    saved = torch.utils._pytree.tree_map(
        lambda x: (
            x.clone()
            if isinstance(x, torch.Tensor)
            else x.copy()
            if isinstance(x, np.ndarray)
            else x
        ),
        state,
    )
    run(straight, 2)
    resumed = make_dppo(type(reach_env)(), seed=123)
    resumed.load_state_dict(saved)
    run(resumed, 2)
    for name, tensor in straight.state_dict()["model"].items():
        assert torch.equal(tensor, resumed.state_dict()["model"][name]), name
    assert straight.env_steps == resumed.env_steps


def test_learns_to_reach(reach_env):
    """From a random network: success on a two-dimensional reach task rises clearly."""
    algorithm = make_dppo(
        reach_env, rollout_steps=32, batch_size=128, epochs=5, actor_lr=1e-3, clip=0.1,
        clip_base=0.05, explore_std=0.3, tuned_steps=5,
    )  # fmt: skip
    first = run(algorithm, 1)["rollout/success_rate"]
    last = np.mean([run(algorithm, 1)["rollout/success_rate"] for _ in range(25)][-3:])
    assert last > first + 0.25
