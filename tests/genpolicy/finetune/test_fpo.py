"""FPO's ratio against its formula, written out pair by pair."""

import numpy as np
import pytest
import torch

from genpolicy.finetune.fpo import FPO, FPOConfig
from genpolicy.policies import build_policy
from genpolicy.spec import PolicySpec


def make(env, chunk=2, exec_steps=2, seed=0, **config):
    torch.manual_seed(seed)
    policy = build_policy(
        {"name": "flow", "hidden": [32, 32, 32], "sample_steps": 5},
        PolicySpec(env.spec, obs_steps=1, chunk=chunk, exec_steps=exec_steps),
    )
    defaults = {"rollout_steps": 3, "batch_size": 16, "pairs": 4}
    return FPO(policy, env, FPOConfig(**defaults | config), seed)


def explored(algorithm):
    algorithm.collect()
    obs = algorithm.rollout.obs.flatten(0, 1)
    return obs, {name: value.flatten(0, 1) for name, value in algorithm.record.items()}


def loss_by_hand(policy, obs, x, eps, t, scalars):
    """One (τ, ε) pair of one action: mean over scalars of the squared velocity error."""
    noisy = (1 - t) * eps + t * x
    v = policy.velocity(noisy[None, None], t[None], obs[None])[0, 0]
    return (v - (x - eps)).square()[:scalars].mean()


@pytest.mark.parametrize("per_pair", [False, True])
@pytest.mark.parametrize("loss", ["noise", "velocity"])
@torch.no_grad()
def test_log_likelihood_is_minus_the_losses(reach_env, per_pair, loss):
    algorithm = make(reach_env, per_pair=per_pair, loss=loss)
    obs, record = explored(algorithm)
    got = algorithm.log_likelihood(obs, record)
    for b in (0, 17, 40):
        x, eps, t = (record[name][b] for name in ("x", "eps", "t"))
        losses = [loss_by_hand(algorithm.policy, obs[b], x, eps[j], t[j], 4) for j in range(4)]
        weights = [tau.item() ** 2 if loss == "noise" else 1.0 for tau in t]
        values = [w * value.item() for w, value in zip(weights, losses, strict=True)]
        # FPO++ divides the sum over the 4 scalars by √4: twice their mean
        expected = [-2 * v for v in values] if per_pair else [-np.mean(values)]
        assert got[b].tolist() == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_the_weight_of_the_velocity_error_is_that_of_the_implied_noise(reach_env):
    """ε̂ = x − τ v, so ε − ε̂ = τ (v − (a − ε))."""
    algorithm = make(reach_env)
    obs, record = explored(algorithm)
    x, eps, t = record["x"][:, None], record["eps"], record["t"][..., None]
    noisy = (1 - t) * eps + t * x
    implied = noisy - t * algorithm.policy.velocity(noisy, record["t"], obs)
    expected = -(eps - implied).square().mean(dim=(1, 2))
    torch.testing.assert_close(
        algorithm.log_likelihood(obs, record)[:, 0], expected, rtol=1e-4, atol=1e-6
    )


def test_only_executed_rows_count(reach_env):
    algorithm = make(reach_env, chunk=3, exec_steps=1)
    obs, record = explored(algorithm)
    before = algorithm.log_likelihood(obs, record)
    with torch.no_grad():
        algorithm.policy.net.trunk.out.bias[2:] += 1.0  # rows 1 and 2 of the chunk
    torch.testing.assert_close(algorithm.log_likelihood(obs, record), before)
    with torch.no_grad():
        algorithm.policy.net.trunk.out.bias[:2] += 1.0
    assert not torch.allclose(algorithm.log_likelihood(obs, record), before)


def test_times_are_those_of_the_solver_or_of_the_whole_interval(reach_env):
    _, record = explored(make(reach_env))
    assert set(np.round(record["t"].unique().tolist(), 6)) == {0.0, 0.2, 0.4, 0.6, 0.8}
    _, record = explored(make(reach_env, times="uniform"))
    assert len(record["t"].unique()) > 80
    assert 0.0049 <= record["t"].min() < 0.1 and 0.9 < record["t"].max() <= 0.9951


@pytest.mark.parametrize("times", ["solver", "uniform"])
@pytest.mark.parametrize("pairs", [1, 3, 8])
def test_times_of_a_chunk_are_spread_and_each_is_as_likely(reach_env, times, pairs):
    algorithm = make(reach_env, times=times, pairs=pairs)
    t, count = algorithm._times(20_000), len(algorithm.times)
    part, slack = torch.arange(pairs) / pairs, 1 / count + 0.01
    assert (t > part - slack).all() and (t < part + 1 / pairs + slack).all()
    drawn = torch.stack([(t == value).float().sum() for value in algorithm.times])
    expected = t.numel() / count
    assert (drawn - expected).abs().max() < 6 * expected**0.5


def test_pairs_are_kept_for_all_epochs(reach_env):
    algorithm = make(reach_env, epochs=3)
    algorithm.collect()
    before = {name: value.clone() for name, value in algorithm.record.items()}
    algorithm.update()
    assert all(torch.equal(before[name], algorithm.record[name]) for name in before)


def test_limits_hold(reach_env):
    algorithm = make(reach_env, log_ratio_limit=0.5, loss_limit=0.01)
    new, old = torch.tensor([[3.0, -3.0, 0.2]]), torch.zeros(1, 3)
    assert algorithm.log_ratio(new, old)[0].tolist() == pytest.approx([0.5, -0.5, 0.2])
    obs, record = explored(algorithm)
    assert algorithm.log_likelihood(obs, record).min() >= -0.01


def test_zero_sampling_is_what_is_shipped(reach_env):
    policy = make(reach_env, evaluate_from_zero=True).policy
    obs = {k: torch.from_numpy(v) for k, v in reach_env.reset(0).items()}
    first, second = policy.sample(obs, num_samples=2).unbind(1)
    torch.testing.assert_close(first, second)
    random = make(reach_env).policy.sample(obs, num_samples=2)
    assert not torch.allclose(random[:, 0], random[:, 1])
