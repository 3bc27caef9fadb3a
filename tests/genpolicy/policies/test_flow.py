"""Flow matching against closed forms: optimal velocities, and fields solved by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from genpolicy.policies.flow import SOLVERS, FlowConfig, FlowPolicy, time_grid
from genpolicy.spec import ActionSpec, Feature, GenpolicyError, PolicySpec, TaskSpec

TASK = TaskSpec(
    task="toy",
    robot="none",
    observations=(Feature("position", (2,)),),
    action=ActionSpec(("x", "y"), ("m", "m"), (-9.0, -9.0), (9.0, 9.0)),
    control_mode="delta",
    control_hz=10.0,
    max_episode_steps=20,
)
SPEC = PolicySpec(TASK, obs_steps=1, chunk=2, exec_steps=2)
OBS = torch.zeros(3, 2)
TINY = {"hidden": (16, 16, 16), "time_dim": 8}


class Field(nn.Module):
    """A velocity set by hand, ``field(x [B, M, A], t [..., 1])``, in the network's place."""

    def __init__(self, field):
        super().__init__()
        self.field = field

    def time_features(self, t):
        return t[..., None] / FlowConfig.time_scale

    def obs_features(self, obs):
        return obs

    def forward(self, x, time_features, obs_features):
        return self.field(x, time_features)


def flow(field=None, **config):
    torch.manual_seed(0)
    policy = FlowPolicy(SPEC, FlowConfig(**(TINY | config)))
    if field is not None:
        policy.net = Field(field)  # type: ignore[assignment]
    return policy


def optimal(mean, std):
    """E[a − ε | x_t] where a ~ N(mean, std²)."""

    def field(x, t):
        spread = (1 - t) ** 2 + (t * std) ** 2
        return mean + (t * std**2 - (1 - t)) / spread * (x - t * mean)

    return field


# ---- the loss --------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [0.0, 0.3])
def test_loss_of_the_optimal_velocity_is_the_conditional_variance(bias):
    """Var(a − ε | x_t) = s² / ((1 − t)² + t² s²); an error of the velocity adds its square."""
    mean, std, count = 0.4, 0.6, 100_000
    best = optimal(mean, std)
    policy = flow(lambda x, t: best(x, t) + bias)
    generator = torch.Generator().manual_seed(0)
    actions = mean + std * torch.randn(count, 4, generator=generator)
    t = torch.tensor([0.0, 0.3, 0.7, 1.0])
    eps = torch.randn(count, 4, 4, generator=generator)
    losses = policy.pair_losses(torch.zeros(count, 2), actions, eps, t.expand(count, 4))
    expected = std**2 / ((1 - t) ** 2 + (t * std) ** 2) + bias**2
    torch.testing.assert_close(losses.mean((0, 2)), expected, rtol=0.01, atol=0.0)


def test_an_untrained_normal_field_is_the_optimal_one_of_normal_actions():
    policy = flow(lambda x, t: torch.zeros_like(x), normal_field=True)
    x, t = torch.randn(3, 5, 4), torch.rand(3, 5)
    torch.testing.assert_close(policy.velocity(x, t, OBS), optimal(0.0, 1.0)(x, t[..., None]))
    # It compresses until t = 1/2 and undoes that afterwards: actions are the noise they came from.
    torch.testing.assert_close(policy.integrate(OBS, x, 200), x, rtol=0.03, atol=0.0)


def test_imitation_loss_is_the_mean_of_pair_losses_over_uniform_times():
    """∫₀¹ s² / ((1 − t)² + t² s²) dt = s π / 2."""
    std, count = 0.5, 50_000
    policy = flow(optimal(0.0, std))
    actions = std * torch.randn(count, 2, 2, generator=torch.Generator().manual_seed(0))
    policy.normalizer.action_scale.fill_(1.0)
    batch = {"obs": {"position": torch.zeros(count, 1, 2)}, "actions": actions}
    loss, metrics = policy.loss(batch)
    assert loss.item() == pytest.approx(std * math.pi / 2, rel=0.01)
    assert set(metrics) == {"train/loss"}


def test_pair_losses_are_those_of_each_pair_alone():
    policy = flow()
    rng = torch.Generator().manual_seed(0)
    obs, actions = torch.randn(3, 2, generator=rng), torch.randn(3, 4, generator=rng)
    eps, t = torch.randn(3, 5, 4, generator=rng), torch.rand(3, 5, generator=rng)
    together = policy.pair_losses(obs, actions, eps, t)
    assert together.shape == (3, 5, 4)
    for b in range(3):
        for p in range(5):
            x = (1 - t[b, p]) * eps[b, p] + t[b, p] * actions[b]
            velocity = policy.velocity(x[None, None], t[b, p][None], obs[b][None])[0, 0]
            expected = (velocity - (actions[b] - eps[b, p])) ** 2
            torch.testing.assert_close(together[b, p], expected)


def test_velocity_takes_shared_and_separate_times_and_is_scaled():
    policy, scaled = flow(), flow(velocity_scale=0.25)
    x, obs, t = torch.randn(3, 5, 4), torch.randn(3, 2), torch.rand(5)
    velocity = policy.velocity(x, t, obs)
    torch.testing.assert_close(policy.velocity(x, t.expand(3, 5), obs), velocity)
    torch.testing.assert_close(scaled.velocity(x, t, obs), 0.25 * velocity)
    assert not torch.allclose(policy.velocity(x, t + 0.01, obs), velocity, atol=1e-6)


# ---- the integral ----------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 64])
def test_the_grid_goes_from_noise_to_action_in_equal_steps(steps):
    grid = time_grid(steps)
    assert len(grid) == steps + 1 and grid[0] == 0 and grid[-1] == 1
    torch.testing.assert_close(grid.diff(), torch.full((steps,), 1 / steps))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.sampled_from(SOLVERS), st.floats(-5, 5))
def test_a_constant_field_is_exact_for_any_number_of_steps(steps, solver, speed):
    policy = flow(lambda x, t: torch.full_like(x, speed), solver=solver)
    x0 = torch.randn(3, 2, 4)
    torch.testing.assert_close(policy.integrate(OBS, x0, steps), x0 + speed, atol=1e-5, rtol=0)


@pytest.mark.parametrize("steps", [1, 4, 9])
def test_a_linear_field_has_the_solvers_own_growth(steps):
    """dx/dt = λ x: Euler gives (1 + λh)^K, Heun (1 + λh + (λh)²/2)^K."""
    rate, x0 = -1.3, torch.randn(3, 2, 4)
    h = rate / steps
    for solver, growth in (("euler", 1 + h), ("heun", 1 + h + h * h / 2)):
        policy = flow(lambda x, t: rate * x, solver=solver, sample_steps=steps)
        torch.testing.assert_close(policy.integrate(OBS, x0), growth**steps * x0)


@pytest.mark.parametrize("steps", [1, 4, 9])
def test_heun_is_exact_and_euler_one_half_step_behind_for_a_field_linear_in_time(steps):
    """dx/dt = c t, hence x₁ − x₀ = c/2; Euler's sum is c (K − 1) / 2K."""
    x0 = torch.randn(3, 2, 4)
    for solver, reached in (("heun", 0.5), ("euler", (steps - 1) / (2 * steps))):
        policy = flow(lambda x, t: 3 * t.expand_as(x), solver=solver)
        torch.testing.assert_close(policy.integrate(OBS, x0, steps) - x0, 3 * reached + 0 * x0)


def test_the_optimal_flow_carries_noise_to_the_data():
    """Between Gaussians every path is straight in the quantile: x₁ = m + s x₀."""
    policy = flow(optimal(0.4, 0.6), solver="heun")
    x0 = torch.randn(3, 2, 4)
    torch.testing.assert_close(policy.integrate(OBS, x0, 200), 0.4 + 0.6 * x0, atol=1e-4, rtol=0)


# ---- acting ----------------------------------------------------------------------------------


@torch.no_grad()
def test_zero_initial_noise_executes_one_action_and_explores_many():
    policy = flow(initial_noise=0.0)
    obs = {"position": torch.randn(3, 1, 2)}
    noise = policy.draw_noise(3, 4)
    executed = policy.sample(obs, noise=noise, num_samples=4)
    assert torch.equal(executed, executed[:, :1].expand_as(executed))
    zero = policy.integrate(policy.normalizer.obs(obs), torch.zeros(3, 1, 4))
    torch.testing.assert_close(executed[:, :1], policy.to_actions(zero))
    explored = policy.sample(obs, noise=noise, num_samples=4, deterministic=False)
    full = policy.fine_tunable(initial_noise=1.0)
    assert torch.equal(explored, full.sample(obs, noise=noise, num_samples=4))
    assert not torch.allclose(explored, executed)


def test_fine_tunable_is_a_copy_with_other_settings():
    base = flow()
    policy = base.fine_tunable(sample_steps=3, initial_noise=0.0)
    assert (policy.config.sample_steps, policy.config.solver) == (3, "euler")
    x0 = torch.randn(3, 2, 4)
    torch.testing.assert_close(policy.integrate(OBS, x0), base.integrate(OBS, x0, steps=3))
    torch.nn.init.zeros_(policy.net.trunk.out.weight)
    assert base.net.trunk.out.weight.abs().max() > 0


@pytest.mark.parametrize(
    "bad",
    [
        {"sample_steps": 0},
        {"solver": "rk45"},
        {"squash": "sigmoid"},
        {"velocity_scale": 0.0},
        {"velocity_scale": math.nan},
        {"initial_noise": -1.0},
        {"initial_noise": math.inf},
        {"hidden": (16, 16)},
    ],
    ids=str,
)
def test_impossible_configurations_are_refused(bad):
    with pytest.raises(GenpolicyError, match=next(iter(bad))):
        flow(**bad)
    if "sample_steps" in bad:
        with pytest.raises(GenpolicyError, match="at least 1"):
            flow().integrate(OBS, torch.zeros(3, 1, 4), steps=0)


def test_every_draw_comes_from_the_policys_generator():
    policy, obs = flow(), {"position": np.zeros((3, 1, 2))}
    policy.rng = np.random.default_rng(5)
    first = policy.act(obs)
    assert not np.array_equal(policy.act(obs), first)
    policy.rng = np.random.default_rng(5)
    np.testing.assert_array_equal(policy.act(obs), first)
