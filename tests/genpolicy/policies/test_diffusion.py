"""The diffusion policy against diffusers' schedulers and against its own likelihood."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from genpolicy.data.normalizer import Normalizer
from genpolicy.policies import build_policy
from genpolicy.policies.sampler import SamplerTable
from genpolicy.spec import ActionSpec, Feature, GenpolicyError, PolicySpec, TaskSpec

TASK = TaskSpec(
    task="toy",
    robot="none",
    observations=(Feature("position", (2,)), Feature("goal", (3,))),
    action=ActionSpec(("x", "y"), ("m", "m"), (-1.0, -1.0), (1.0, 1.0)),
    control_mode="delta",
    control_hz=10.0,
    max_episode_steps=20,
)


def make_policy(**config):
    torch.manual_seed(0)
    defaults = {"name": "diffusion", "hidden": [32, 32, 32], "train_steps": 20, "sample_steps": 5}
    return build_policy(defaults | config, PolicySpec(TASK, obs_steps=2, chunk=4, exec_steps=2))


def make_obs(batch=3):
    generator = torch.Generator().manual_seed(1)
    return {f.name: torch.randn(batch, 2, f.dim, generator=generator) for f in TASK.observations}


def denoise_with_diffusers(policy, obs, noise, scheduler, **step_args):
    """The loop of a diffusers user, with our network as the model."""
    flat = policy.normalizer.obs(obs)
    x = noise["noise"][:, 0].flatten(1)
    for t in scheduler.timesteps:
        eps = policy.net(x, policy.net.time_features(t), policy.net.obs_features(flat))
        x = scheduler.step(eps, t, x, **step_args).prev_sample
    return x


@torch.no_grad()
def test_ddim_equals_diffusers():
    policy, obs = make_policy(eta=0.0), make_obs()
    scheduler = DDIMScheduler(
        20, beta_schedule="squaredcos_cap_v2", timestep_spacing="leading", clip_sample=True
    )
    scheduler.set_timesteps(5)
    noise = policy.draw_noise(3)
    expected = denoise_with_diffusers(policy, obs, noise, scheduler, use_clipped_model_output=True)
    actual = policy.sample(obs, noise=noise)[:, 0].flatten(1)
    torch.testing.assert_close(actual, expected.clamp(-1, 1), atol=1e-5, rtol=0)


def test_ddpm_transitions_equal_diffusers_posterior():
    table = SamplerTable(20, 20, eta=1.0)
    scheduler = DDPMScheduler(20, beta_schedule="squaredcos_cap_v2", clip_sample=True)
    generator = torch.Generator().manual_seed(0)
    x, eps = torch.randn(2, 20, 6, generator=generator)
    for row, t in enumerate(reversed(range(20))):
        zero_noise = scheduler._get_variance(t).sqrt() if t else torch.tensor(0.0)
        torch.testing.assert_close(table.std[row], zero_noise, atol=1e-5, rtol=1e-4)
        seeded = torch.Generator().manual_seed(t)
        step = scheduler.step(eps[row : row + 1], t, x[row : row + 1], generator=seeded)
        drawn = torch.randn((1, 6), generator=torch.Generator().manual_seed(t)) if t else 0.0
        mean = table.mean(row, x[row : row + 1], eps[row : row + 1])
        expected = step.prev_sample - table.std[row] * drawn
        torch.testing.assert_close(mean, expected, atol=2e-5, rtol=1e-4)


def test_table_rows_index_like_single_rows():
    table = SamplerTable(20, 5, eta=0.5)
    x, eps = torch.randn(2, 7, 3, 4)
    together = table.mean(torch.tensor([2, 3, 4]), x, eps)
    for column, row in enumerate([2, 3, 4]):
        torch.testing.assert_close(
            together[:, column], table.mean(row, x[:, column], eps[:, column])
        )


@torch.no_grad()
def test_same_noise_same_actions_and_shared_observation_features():
    policy, obs = make_policy(eta=1.0), make_obs()
    noise = policy.draw_noise(3, num_samples=4)
    assert {k: tuple(v.shape) for k, v in noise.items()} == policy.noise_spec(3, 4)
    together = policy.sample(obs, noise=noise, num_samples=4)
    assert together.shape == (3, 4, 4, 2)
    third = {"noise": noise["noise"][:, 2:3], "step_noise": noise["step_noise"][:, :, 2:3]}
    alone = policy.sample(obs, noise=third)
    torch.testing.assert_close(together[:, 2:3], alone, atol=1e-6, rtol=0)


@pytest.mark.parametrize("tuned", [1, 3, 5])
def test_chain_log_prob_is_the_density_of_what_was_drawn(tuned):
    policy = make_policy().fine_tunable(tuned, explore_std=0.2)
    obs = policy.normalizer.obs(make_obs())
    noise = policy.draw_noise(3, 1, deterministic=False)
    chain = policy.sample_chain(obs, noise)
    z = noise["step_noise"][-tuned:, :, 0].clamp(-3, 3).transpose(0, 1)  # [B, K', Tp, Da]
    std = policy.explore_table.std[-tuned:].view(1, -1, 1, 1)
    expected = torch.distributions.Normal(0.0, std).log_prob(z * std)
    actual = policy.chain_log_prob(obs, chain.states)
    torch.testing.assert_close(actual, expected, atol=2e-4, rtol=1e-4)


@torch.no_grad()
def test_fine_tunable_copy_is_the_base_until_it_is_trained():
    base, obs = make_policy(), make_obs()
    noise = base.draw_noise(3)
    expected = base.sample(obs, noise=noise)
    for tuned in (2, 5):
        policy = base.fine_tunable(tuned)
        torch.testing.assert_close(policy.sample(obs, noise=noise), expected)
        for parameter in policy.net.parameters():
            parameter.add_(0.1)
        assert not torch.allclose(policy.sample(obs, noise=noise), expected)
        torch.testing.assert_close(base.sample(obs, noise=noise), expected)


@torch.no_grad()
def test_frozen_half_executes_the_early_steps():
    """With only the last step tuned, the state that it starts from is the base's."""
    base = make_policy()
    policy = base.fine_tunable(1)
    for parameter in policy.net.parameters():
        parameter.add_(0.1)
    flat = base.normalizer.obs(make_obs())
    noise = base.draw_noise(3, 1, deterministic=False)
    reference = base.fine_tunable(5).sample_chain(flat, noise).states
    torch.testing.assert_close(policy.sample_chain(flat, noise).states[:, 0], reference[:, -2])


def test_config_round_trip_and_bad_configurations():
    policy = make_policy(tuned_steps=2)
    again = build_policy(policy.config_dict(), policy.spec)
    again.load_state_dict(policy.state_dict())
    for bad, message in (
        ({"sample_steps": 3}, "must divide"),
        ({"eta": 1.5}, "eta"),
        ({"tuned_steps": 6}, "tuned_steps"),
        ({"hidden": [32, 32]}, "hidden"),
        ({"explore_std": 0.0}, "explore_std"),
        ({"no_such_key": 1}, "no_such_key"),
        ({"name": "oracle"}, "choose one of"),
    ):
        with pytest.raises(GenpolicyError, match=message):
            make_policy(**bad)


def test_loss_gradient_reaches_every_weight():
    policy = make_policy()
    batch = {"obs": make_obs(16), "actions": torch.rand(16, 4, 2) * 2 - 1}
    policy.loss(batch)[0].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in policy.net.parameters())


def test_normalizer_maps_data_to_the_unit_box_and_keeps_constants():
    rng = np.random.default_rng(0)
    obs = {
        "position": torch.from_numpy(rng.normal(size=(50, 2))).float(),
        "goal": torch.ones(50, 3),
    }
    actions = torch.stack([torch.linspace(-0.5, 0.25, 50), torch.full((50,), 0.7)], dim=1)
    normalizer = Normalizer.fit(TASK, obs, actions)
    flat = normalizer.obs({k: v[:, None] for k, v in obs.items()})
    assert flat[:, :2].amin() == pytest.approx(-1) and flat[:, :2].amax() == pytest.approx(1)
    assert (flat[:, 2:] == 0).all()
    torch.testing.assert_close(normalizer.unaction(normalizer.action(actions)), actions)
    wild = normalizer.unaction(torch.full((1, 2), 9.0))
    assert wild[0, 1] == pytest.approx(0.7), "a constant action dimension stays at its constant"
    with pytest.raises(GenpolicyError, match="goal"):
        Normalizer.fit(TASK, {"position": obs["position"]}, actions)
