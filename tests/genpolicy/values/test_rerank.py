from dataclasses import replace

import numpy as np
import pytest
import torch
from genpolicy_deploy.selection import select as select_at_robot
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from genpolicy.policies import build_policy
from genpolicy.spec import GenpolicyError, PolicySpec
from genpolicy.values.critic import ValueConfig, ValueFunction
from genpolicy.values.rerank import RerankedPolicy, select

SCORES = hnp.arrays(np.float32, st.integers(1, 12), elements=st.floats(width=32))


@pytest.fixture
def value(spec):
    torch.manual_seed(4)
    return ValueFunction(ValueConfig(hidden=(16,), members=3), spec)


def draw(policy, batch, num_samples, seed=0):
    rng = np.random.default_rng(seed)
    return {
        name: torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
        for name, shape in policy.noise_spec(batch, num_samples).items()
    }


def test_one_sample_is_the_base_policy_exactly(policy, value, obs):
    reranked = RerankedPolicy(policy, value, num_samples=1, temperature=0.7)
    assert reranked.noise_spec(5, 2) == policy.noise_spec(5, 2)
    noise = draw(policy, 5, 2)
    assert torch.equal(
        reranked.sample(obs, noise=noise, num_samples=2),
        policy.sample(obs, noise=noise, num_samples=2),
    )


def test_executes_the_best_of_its_samples(policy, value, obs):
    reranked = RerankedPolicy(policy, value, num_samples=6)
    noise = draw(reranked, 5, 2)
    chosen = reranked.sample(obs, noise=noise, num_samples=2)
    assert chosen.shape == (5, 2, 4, 2)
    chunks = policy.sample(obs, noise=noise, num_samples=12)
    best = value.score(obs, chunks).unflatten(1, (2, 6)).argmax(-1)
    for b in range(5):
        for n in range(2):
            assert torch.equal(chosen[b, n], chunks[b, n * 6 + best[b, n]])


@pytest.mark.parametrize("kind", ["flow", "gaussian"])
def test_every_kind_of_policy_can_be_re_ranked(kind, spec, value, obs):
    base = build_policy({"name": kind, "hidden": [16, 16, 16]}, spec)
    reranked = RerankedPolicy(base, value, num_samples=6)
    noise = draw(reranked, 5, 1)
    chosen = reranked.sample(obs, noise=noise, deterministic=False)
    chunks = base.sample(obs, noise=noise, num_samples=6, deterministic=False)
    best = value.score(obs, chunks).argmax(-1)
    assert torch.equal(chosen[:, 0], chunks[torch.arange(5), best])
    assert len(best.unique()) > 1


def test_act_takes_and_gives_numpy(policy, value, obs):
    actions = RerankedPolicy(policy, value, 4, 0.5).act({k: v.numpy() for k, v in obs.items()})
    assert actions.shape == (5, 3, 2)
    assert actions.dtype == np.float32


@settings(max_examples=200, deadline=None)
@given(SCORES)
def test_greedy_choice_is_the_robots(scores):
    assert select(torch.from_numpy(scores), 0.0) == select_at_robot(scores, 0.0)


@settings(max_examples=200, deadline=None)
@given(SCORES, st.floats(0.01, 10), st.integers(0, 9))
def test_scores_that_are_not_finite_never_win(scores, temperature, seed):
    noise = np.random.default_rng(seed).standard_normal(len(scores)).astype(np.float32)
    chosen = select(torch.from_numpy(scores), temperature, torch.from_numpy(noise))
    finite = np.isfinite(scores)
    assert finite[chosen] if finite.any() else chosen == 0


def test_temperature_to_zero_is_argmax():
    scores = torch.randn(200, 10)
    noise = torch.randn(200, 10)
    assert torch.equal(select(scores, 1e-4, noise), scores.argmax(-1))
    assert not torch.equal(select(scores, 10.0, noise), scores.argmax(-1))


def test_temperature_draws_from_the_softmax_of_standardised_scores():
    scores = torch.tensor([3.0, float("nan"), 5.0, 1.0])
    rng = np.random.default_rng(0)
    noise = torch.from_numpy(rng.standard_normal((40_000, 4), dtype=np.float32))
    drawn = select(scores.expand(40_000, 4), 0.8, noise)
    frequency = torch.bincount(drawn, minlength=4) / 40_000
    z = torch.tensor([3.0, 5.0, 1.0])
    z = (z - z.mean()) / z.std(correction=0)
    expected = torch.zeros(4)
    expected[[0, 2, 3]] = torch.softmax(z / 0.8, 0)
    torch.testing.assert_close(frequency, expected, atol=0.01, rtol=0)


def test_value_function_of_another_chunk_is_refused(policy, spec):
    other = PolicySpec(spec.task, spec.obs_steps, spec.chunk, spec.exec_steps - 1)
    with pytest.raises(GenpolicyError, match="exec_steps"):
        RerankedPolicy(policy, ValueFunction(ValueConfig(), other))
    foreign = replace(spec, task=replace(spec.task, control_mode="absolute"))
    with pytest.raises(GenpolicyError, match="control_mode"):
        RerankedPolicy(policy, ValueFunction(ValueConfig(), foreign))
