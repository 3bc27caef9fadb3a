import math

import numpy as np
import pytest
import torch

from genpolicy.interfaces import Algorithm
from genpolicy.spec import GenpolicyError
from genpolicy.values.cal_ql import CalQL, CalQLConfig, calibrated_penalty, td_loss
from genpolicy.values.critic import ValueConfig, lower_bound

CONFIG = CalQLConfig(value=ValueConfig(hidden=(16, 16), members=3), batch_size=16)


@pytest.fixture
def algorithm(policy, make_demos):
    return make(policy, make_demos)


def make(policy, make_demos, seed=7):
    torch.manual_seed(seed)
    return CalQL(CONFIG, policy, make_demos([7, 5, 1, 6], [True, False, True, False]), seed=seed)


def penalty(q_random, q_policy, q_data, mc, **densities):
    densities = {"log_random": 0.0, "log_policy": 0.0, "temperature": 1.0} | densities
    return calibrated_penalty(q_random, q_policy, q_data, torch.tensor([mc]), **densities)


def leaf(*values):
    return torch.tensor([[list(values)]], requires_grad=True)


def test_td_loss_closed_form():
    q = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    loss = td_loss(q, torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(loss, torch.tensor((1 + 1 + 9 + 9) / 8))


def test_penalty_closed_form():
    value, rate = penalty(leaf(0.5, -1.0), leaf(2.0), torch.tensor([[0.3]]), -5.0)
    expected = math.log(math.exp(0.5) + math.exp(-1.0) + math.exp(2.0)) - 0.3
    assert value.item() == pytest.approx(expected)
    assert rate == 0


def test_importance_correction_follows_calibration():
    value, rate = penalty(
        leaf(0.5),
        leaf(0.1),
        torch.tensor([[0.0]]),
        2.0,
        log_random=-1.4,
        log_policy=0.6,
        temperature=0.5,
    )
    # max(0.1, 2) - 0.6, not max(0.1 - 0.6, 2).
    expected = 0.5 * math.log(math.exp((0.5 + 1.4) / 0.5) + math.exp((2.0 - 0.6) / 0.5))
    assert value.item() == pytest.approx(expected)
    assert rate == 1


def test_no_gradient_where_the_bound_is_active_and_random_chunks_stay_unbounded():
    q_random, q_policy = leaf(-3.0, 0.0), leaf(0.2, 0.9)
    value, rate = penalty(q_random, q_policy, torch.tensor([[0.0]]), 0.5)
    value.backward()
    assert rate == 0.5
    assert q_policy.grad[0, 0, 0] == 0  # below its Monte-Carlo return: not pushed down further
    assert q_policy.grad[0, 0, 1] > 0
    assert (q_random.grad > 0).all()  # far below it, and pushed down all the same
    weights = torch.softmax(torch.tensor([-3.0, 0.0, 0.5, 0.9]), 0)
    torch.testing.assert_close(q_random.grad[0, 0], weights[:2])


def test_target_is_the_mean_value_of_the_proposal_that_re_ranking_would_execute(algorithm):
    data, critic = algorithm.data, algorithm.policy.critic
    expected = []
    for state, reward, discount in zip(data.next_state, data.reward, data.discount, strict=True):
        q = critic(algorithm.obs[state][None], algorithm.proposals[state][None])[:, 0]  # [M, P]
        best = lower_bound(q, 1.0).argmax()
        expected.append(reward + discount * q[:, best].mean())
    targets = algorithm.targets(torch.arange(len(data)))
    torch.testing.assert_close(targets, torch.stack(expected))
    ended = data.discount == 0
    assert ended.any()
    assert torch.equal(targets[ended], data.reward[ended])


def test_target_networks_follow_slowly_and_get_no_gradient(algorithm):
    before = algorithm.policy.critic.from_chunk.clone()
    algorithm.collect()
    algorithm.update()
    now, online = algorithm.policy.critic.from_chunk, algorithm.critic.from_chunk
    torch.testing.assert_close(now, before + CONFIG.tau * (online.detach() - before))
    assert not torch.equal(now, before)
    assert all(p.grad is None for p in algorithm.policy.parameters())


def test_metrics_are_finite_and_named(algorithm):
    assert isinstance(algorithm, Algorithm)
    algorithm.collect()
    algorithm.update()
    metrics = algorithm.metrics()
    assert {"train/critic_loss", "train/grad_norm", "value/q_mean", "value/bound_rate"} <= set(
        metrics
    )
    assert np.isfinite(list(metrics.values())).all()


def run(algorithm, iterations):
    for _ in range(iterations):
        algorithm.collect()
        algorithm.update()


def test_resuming_equals_never_stopping(policy, make_demos):
    through = make(policy, make_demos)
    run(through, 6)
    stopped = make(policy, make_demos)
    run(stopped, 3)
    state = stopped.state_dict()
    state["model"] = {k: v.clone() for k, v in state["model"].items()}  # as read from a file
    torch.manual_seed(99)
    resumed = CalQL(stopped.config, policy, make_demos([7, 5, 1, 6], [True, False, True, False]), 7)
    resumed.load_state_dict(state)
    run(resumed, 3)
    for name, tensor in through.state_dict()["model"].items():
        assert torch.equal(tensor, resumed.state_dict()["model"][name]), name


def test_learns_which_of_two_proposals_is_rewarded(policy, make_demos):
    """Behaviour moves at random; reward is given for dx > 0. The score must prefer it."""
    rng = np.random.default_rng(0)
    demos = make_demos([3] * 60, [True] * 60)
    demos.actions[:] = np.repeat(rng.choice([-1.0, 1.0], 60), 3)[:, None]
    demos.rewards[:] = 0
    demos.rewards[2::3] = demos.actions[2::3, 0] > 0
    torch.manual_seed(0)
    config = CalQLConfig(value=CONFIG.value, lr=3e-3, tau=0.05, alpha=0.5)
    algorithm = CalQL(config, policy, demos)
    run(algorithm, 150)
    obs = {k: torch.randn(20, 2, d) for k, d in (("x", 1), ("v", 2))}
    good, bad = torch.ones(20, 1, 4, 2), -torch.ones(20, 1, 4, 2)
    scores = algorithm.policy.score(obs, torch.cat([good, bad], dim=1))
    assert (scores[:, 0] > scores[:, 1]).float().mean() > 0.9


@pytest.mark.parametrize("change", [{"gamma": 0.0}, {"tau": 2.0}, {"policy_actions": 0}])
def test_impossible_configurations_are_refused(change):
    with pytest.raises(GenpolicyError, match=next(iter(change))):
        CalQLConfig(**change)
