"""What every policy promises: limits, replay, round trips; and which of them find two modes."""

import io
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genpolicy.data.normalizer import Normalizer
from genpolicy.interfaces import Policy
from genpolicy.policies import POLICIES, build_policy
from genpolicy.policies.base import TANH_RANGE
from genpolicy.spec import ActionSpec, Feature, GenpolicyError, PolicySpec, TaskSpec

TASK = TaskSpec(
    task="toy",
    robot="none",
    observations=(Feature("position", (2,)), Feature("goal", (3,))),
    action=ActionSpec(("x", "y", "z"), ("m",) * 3, (-1.0, 0.0, -5.0), (1.0, 0.5, 7.0)),
    control_mode="delta",
    control_hz=10.0,
    max_episode_steps=20,
)
SPEC = PolicySpec(TASK, obs_steps=2, chunk=4, exec_steps=2)
SMALL = {"hidden": [16, 16, 16]}
KINDS = {
    "ddim": {"name": "diffusion", "train_steps": 8, "sample_steps": 4},
    "ddpm": {"name": "diffusion", "train_steps": 4, "sample_steps": 4, "eta": 1.0},
    "euler": {"name": "flow", "sample_steps": 3},
    "heun_tanh": {"name": "flow", "sample_steps": 2, "solver": "heun", "squash": "tanh"},
    "gaussian": {"name": "gaussian", "execute_std": 1.0},
    "latent": {
        "name": "latent",
        "execute_std": 1.0,
        "decoder": {"name": "flow", "sample_steps": 2} | SMALL,
    },
    "identity": {"name": "latent", "identity": True, "decoder": {"name": "flow"} | SMALL},
    "gaussian_tanh": {"name": "gaussian", "std": "independent", "squash": "tanh"},
}


def make(kind, **changes):
    torch.manual_seed(0)
    return build_policy(SMALL | KINDS[kind] | changes, SPEC)


def make_obs(batch=3, scale=1.0):
    rng = np.random.default_rng(1)
    shapes = {f.name: (batch, 2, f.dim) for f in TASK.observations}
    return {k: torch.from_numpy(rng.normal(0, scale, s)).float() for k, s in shapes.items()}


each_kind = pytest.mark.parametrize("kind", KINDS)


def test_every_registered_policy_is_tested_here():
    elsewhere = {"on_the_fly"}  # executes all that it plans: test_edit.py
    assert {config["name"] for config in KINDS.values()} | elsewhere == set(POLICIES)


@each_kind
@torch.no_grad()
def test_same_noise_same_actions_bit_for_bit_and_each_sample_as_if_alone(kind):
    policy, obs = make(kind), make_obs()
    assert isinstance(policy, Policy)
    noise = policy.draw_noise(3, num_samples=5)
    assert {k: tuple(v.shape) for k, v in noise.items()} == policy.noise_spec(3, 5)
    together = policy.sample(obs, noise=noise, num_samples=5)
    assert together.shape == (3, 5, 4, 3)
    assert torch.equal(policy.sample(obs, noise=noise, num_samples=5), together)
    for n in range(5):
        alone = {k: v.narrow(v.ndim - 3, n, 1) for k, v in noise.items()}
        torch.testing.assert_close(
            policy.sample(obs, noise=alone), together[:, n : n + 1], atol=1e-5, rtol=0
        )


@each_kind
@settings(max_examples=15, deadline=None)
@given(
    batch=st.integers(1, 3),
    samples=st.integers(1, 3),
    loudness=st.sampled_from([0.1, 1.0, 30.0]),
    deterministic=st.booleans(),
)
@torch.no_grad()
def test_no_action_ever_leaves_the_limits(kind, batch, samples, loudness, deterministic):
    policy = make(kind)
    for parameter in policy.net.parameters():
        parameter.mul_(loudness)
    policy.normalizer.action_scale.mul_(1.5)  # as if the data had gone beyond the limits
    actions = policy.sample(
        make_obs(batch, loudness), num_samples=samples, deterministic=deterministic
    )
    assert actions.shape == (batch, samples, 4, 3)
    low, high = torch.tensor(TASK.action.low), torch.tensor(TASK.action.high)
    assert (actions >= low).all() and (actions <= high).all()


@each_kind
def test_state_and_configuration_rebuild_the_policy(kind):
    policy, obs = make(kind), {k: v.numpy() for k, v in make_obs().items()}
    policy.normalizer.obs_mid.fill_(0.3)
    file = io.BytesIO()
    torch.save(policy.state_dict(), file)
    file.seek(0)
    config = policy.config_dict()
    assert json.loads(json.dumps(config)) == config
    again = build_policy(config, policy.spec)
    again.load_state_dict(torch.load(file, weights_only=True))
    assert again.config == policy.config
    actions = policy.act(obs)
    assert actions.shape == (3, 2, 3) and actions.dtype == np.float32
    np.testing.assert_array_equal(again.act(obs), actions)


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"latent", "identity"}))
def test_the_gradient_of_the_loss_reaches_every_weight(kind):
    policy = make(kind)
    policy.loss({"obs": make_obs(), "actions": torch.rand(3, 4, 3)})[0].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in policy.net.parameters())


@pytest.mark.parametrize("kind", ["latent", "identity"])
def test_a_latent_policy_does_not_imitate(kind):
    with pytest.raises(GenpolicyError, match="pretrain a flow or diffusion policy"):
        make(kind).loss({"obs": make_obs(), "actions": torch.rand(3, 4, 3)})


@each_kind
@settings(max_examples=20, deadline=None)
@given(share=st.lists(st.floats(0.001, 0.999), min_size=12, max_size=12))
def test_actions_survive_the_way_to_x_and_back(kind, share):
    policy = make(kind)
    low, high = torch.tensor(TASK.action.low), torch.tensor(TASK.action.high)
    actions = low + (high - low) * torch.tensor(share).view(1, 4, 3)
    x = policy.from_actions(actions)
    assert x.shape == (1, 12)
    torch.testing.assert_close(policy.to_actions(x), actions, atol=1e-4, rtol=1e-5)


def test_data_at_the_limits_is_learned_as_nearly_the_limits():
    policy = make("heun_tanh")
    limits = torch.tensor([TASK.action.low, TASK.action.high] * 2)[None]
    x = policy.from_actions(limits)
    assert x.isfinite().all() and x.abs().max() < 4
    reached = policy.normalizer.action(policy.to_actions(x))
    torch.testing.assert_close(reached.abs(), torch.full((1, 4, 3), TANH_RANGE))


@each_kind
def test_a_fine_tunable_copy_does_the_same_and_is_independent(kind):
    base, obs = make(kind), make_obs()
    if base.name == "diffusion":
        return  # its copies have a chain as well: test_diffusion
    copied, noise = base.fine_tunable(), base.draw_noise(3)
    expected = base.sample(obs, noise=noise)
    torch.testing.assert_close(copied.sample(obs, noise=noise), expected)
    with torch.no_grad():
        for parameter in copied.net.parameters():
            parameter.add_(0.1)
    torch.testing.assert_close(base.sample(obs, noise=noise), expected)


def test_a_fresh_normalizer_spans_the_actuators():
    normalizer = Normalizer(TASK)
    ends = normalizer.unaction(torch.tensor([[-1.0] * 3, [1.0] * 3]))
    torch.testing.assert_close(ends, torch.tensor([TASK.action.low, TASK.action.high]))


# ---- what a generative policy is for -----------------------------------------------------------

SIDE = 0.8  # the data go left or right, never straight on
ONE_SPEC = PolicySpec(
    TaskSpec(
        "fork", "none", (Feature("place", (1,)),), ActionSpec(("x",), ("m",), (-1.0,), (1.0,)),
        "delta", 10.0, 10,
    ), 1, 2, 2,
)  # fmt: skip


def imitate_a_fork(config, steps=400):
    torch.manual_seed(0)
    policy = build_policy({"hidden": [64, 64, 64], **config}, ONE_SPEC)
    optimizer = torch.optim.Adam(policy.parameters(), 3e-3)
    rng = np.random.default_rng(0)
    obs = {"place": torch.zeros(128, 1, 1)}
    for _ in range(steps):
        side = torch.from_numpy(rng.choice([-SIDE, SIDE], (128, 1, 1))).float()
        optimizer.zero_grad()
        policy.loss({"obs": obs, "actions": side.expand(-1, 2, -1)})[0].backward()
        optimizer.step()
    return policy


@pytest.mark.parametrize("squash", ["clip", "tanh"])
@torch.no_grad()
def test_a_flow_finds_both_ways(squash):
    with torch.enable_grad():
        policy = imitate_a_fork({"name": "flow", "squash": squash})
    x = policy.sample({"place": torch.zeros(1, 1, 1)}, num_samples=2000)[0, ..., 0]  # [N, Tp]
    left, right = ((x - way).abs().amax(1) < 0.25 for way in (-SIDE, SIDE))
    assert (left | right).float().mean() > 0.9
    assert 0.35 < right.float().mean() < 0.65


@torch.no_grad()
def test_a_gaussian_goes_between_them():
    with torch.enable_grad():
        policy = imitate_a_fork({"name": "gaussian"})
    mean, std = policy.distribution(torch.zeros(1, 1))
    torch.testing.assert_close(mean, torch.zeros(1, 2), atol=0.2, rtol=0)
    torch.testing.assert_close(std, torch.full((1, 2), SIDE), atol=0.15, rtol=0)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("euler", {"hidden": []}),
        ("gaussian", {"hidden": []}),
        ("ddim", {"hidden": [0]}),
        ("euler", {"time_dim": 2}),
        ("euler", {"time_dim": 7}),
    ],
)
def test_impossible_networks_are_refused_by_their_key(kind, changes):
    with pytest.raises(GenpolicyError, match=next(iter(changes))):
        make(kind, **changes)
