"""SAC on the latent: its targets, that it learns, and that a stopped run goes on."""

import copy

import numpy as np
import pytest
import torch
from training import run

from genpolicy.finetune.gorl_sac import GoRLSAC, GoRLSACConfig
from genpolicy.interfaces import Algorithm
from genpolicy.policies import build_policy
from genpolicy.policies.latent import kl_to_prior
from genpolicy.spec import GenpolicyError, PolicySpec

FLOW = {"name": "flow", "hidden": [32, 32, 32], "sample_steps": 3}
SMALL = {
    "critic_hidden": (32, 32), "encoder_hidden": (32, 32, 32), "batch_size": 64, "updates": 2,
    "learning_starts": 16, "refine_episodes": 16, "refine_steps": 3, "refine_batch_size": 32,
}  # fmt: skip


def make(env, seed=0, base=None, **config):
    torch.manual_seed(0)
    spec = PolicySpec(env.spec, obs_steps=1, chunk=1, exec_steps=1)
    options = {"identity": True, "normalize_obs": True, "stagger": True}
    config = GoRLSACConfig(**SMALL | options | config)
    return GoRLSAC(base or build_policy(FLOW, spec), env, config, seed)


def test_the_replay_holds_what_happened_in_task_units(reach_env):
    algorithm = make(reach_env, learning_starts=10**5)
    assert isinstance(algorithm, Algorithm)
    algorithm.policy.normalizer.obs_scale.fill_(0.01)  # cuts what the encoder sees at 0.05
    run(algorithm, 5)
    drawn = algorithm.replay.sample(np.random.default_rng(0), 300)
    position, goal = drawn["obs"][:, 0].split(2, dim=1)
    moved, still = drawn["next_obs"][:, 0].split(2, dim=1)
    torch.testing.assert_close(still, goal, atol=1e-5, rtol=0)
    inside = (moved - position).abs().amax(1) > 0  # identity: z, cut at 1, is the action
    expected = position + 0.25 * drawn["z"].clamp(-1, 1)
    torch.testing.assert_close(moved[inside], expected[inside], atol=1e-5, rtol=0)
    reached = (moved - goal).norm(dim=1) < 0.3
    assert torch.equal(drawn["reward"] > 0, reached) and torch.equal(~drawn["goes_on"], reached)


def test_critics_learn_the_reward_alone_when_nothing_is_discounted_into_it(reach_env):
    algorithm = make(reach_env, gamma=0.0, critic_lr=3e-3, updates=40, actor_lr=1e-9)
    run(algorithm, 40)
    batch = algorithm.replay.sample(np.random.default_rng(0), 500)
    obs = algorithm.policy.normalizer.rows(batch["obs"])
    with torch.no_grad():
        q = algorithm.critic(obs, batch["z"][:, None])[..., 0].mean(0)
    assert (q - batch["reward"]).abs().mean() < 0.15
    assert q[batch["reward"] > 0].mean() > q[batch["reward"] == 0].mean() + 0.4


def test_it_learns_to_reach(reach_env):
    algorithm = make(reach_env, updates=8, gamma=0.9, critic_lr=1e-3, actor_lr=1e-3)
    run(algorithm, 40)
    early = np.mean([run(algorithm, 1).get("rollout/success_rate", np.nan) for _ in range(8)])
    run(algorithm, 150)
    late = np.nanmean([run(algorithm, 1).get("rollout/success_rate", np.nan) for _ in range(30)])
    assert late > 0.8, (early, late)


@pytest.mark.parametrize("divergence", [0.1, 1.0])
def test_the_temperature_brings_the_divergence_to_its_target(reach_env, divergence):
    options = {"divergence": divergence, "alpha_lr": 3e-3, "actor_lr": 1e-3, "updates": 8}
    algorithm = make(reach_env, gamma=0.9, critic_lr=1e-3, **options)
    run(algorithm, 200)
    obs = algorithm.rollout.obs.flatten(0, 1)
    exact = kl_to_prior(*algorithm.policy.distribution(obs)).sum(1).mean()
    assert exact.item() == pytest.approx(2 * divergence, rel=0.4)  # z has two scalars
    with torch.no_grad():
        sampled = algorithm._sample(obs.repeat(500, 1))[1].mean()
    assert sampled.item() == pytest.approx(exact.item(), rel=0.1)


@pytest.mark.parametrize("stop", [2, 5, 6, 9])
def test_a_run_stopped_in_any_stage_goes_on_bit_for_bit(reach_env, stop):
    straight = make(type(reach_env)(), stages=(4, 2))
    run(straight, stop)
    saved, config = copy.deepcopy(straight.state_dict()), straight.policy.config_dict()
    run(straight, 10 - stop)
    base = build_policy(config, straight.policy.spec)
    resumed = make(type(reach_env)(), base=base, stages=(4, 2))
    resumed.load_state_dict(saved)
    run(resumed, 10 - stop)
    theirs = resumed.state_dict()["model"]
    for name, value in straight.state_dict()["model"].items():
        assert torch.equal(value, theirs[name]), name
    assert straight.env_steps == resumed.env_steps
    assert straight.stages.number == resumed.stages.number == 2


@pytest.mark.parametrize(
    "bad",
    [
        {"tau": 0.0},
        {"alpha": 0.0},
        {"updates": 0},
        {"alpha_lr": -1.0},
        {"actor_lr": 0.0},
        {"critic_lr": float("nan")},
        {"critic_hidden": ()},
        {"capacity": 4999},
    ],
    ids=str,
)
def test_impossible_configurations_are_refused(bad):
    with pytest.raises(GenpolicyError, match=next(iter(bad))):
        GoRLSACConfig(**bad)


def test_a_replay_too_small_for_one_iteration_is_refused(reach_env):
    with pytest.raises(GenpolicyError, match=r"algo.capacity=15 does not hold one iteration: 16"):
        make(reach_env, capacity=15, learning_starts=1)
