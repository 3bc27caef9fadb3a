"""The on-the-fly policy: what it chooses among, and by whom."""

import numpy as np
import pytest
import torch
from torch.distributions import Normal, TransformedDistribution
from torch.distributions.transforms import AffineTransform, TanhTransform

from genpolicy.policies import build_policy
from genpolicy.policies.edit import OnTheFlyConfig, OnTheFlyPolicy
from genpolicy.spec import ActionSpec, Feature, GenpolicyError, PolicySpec, TaskSpec

TASK = TaskSpec(
    task="point", robot="none", observations=(Feature("position", (3,)),),
    action=ActionSpec(("x", "y"), ("m", "m"), (-1.0, -0.5), (1.0, 2.0)), control_mode="delta",
    control_hz=10.0, max_episode_steps=10,
)  # fmt: skip
SPEC = PolicySpec(TASK, obs_steps=2, chunk=3, exec_steps=3)
FLOW = {"name": "flow", "hidden": [16, 16, 16], "sample_steps": 3}
SMALL = {"edit_hidden": (16, 16, 16), "critic_hidden": (16, 16), "critics": 5}


def make(**config):
    torch.manual_seed(0)
    policy = OnTheFlyPolicy(SPEC, OnTheFlyConfig(FLOW, **SMALL | config))
    for value in (*policy.critic.parameters(), *policy.net.parameters()):
        torch.nn.init.normal_(value, std=0.5)
    return policy


def observe(count):
    generator = torch.Generator().manual_seed(1)
    return {"position": torch.randn(count, 2, 3, generator=generator)}


def test_one_sample_without_edits_is_the_base_policy():
    policy, obs = make(samples=1, edits=False), observe(7)
    noise = policy.draw_noise(7, 4)
    assert set(noise) == {"noise"}
    theirs = policy.base.sample(obs, noise={"noise": noise["noise"][:, :, 0]}, num_samples=4)
    torch.testing.assert_close(policy.sample(obs, noise=noise, num_samples=4), theirs)


def test_an_edit_of_no_size_changes_nothing():
    policy = make(edit_scale=0.0)
    rows = policy.normalizer.obs(observe(5))
    proposals = policy.propose(rows, torch.randn(5, 8, 3, 2))
    candidates = policy.candidates(rows, proposals, torch.randn(5, 8, 6))
    assert torch.equal(candidates, proposals.repeat(1, 2, 1))


def test_edits_are_small_and_stay_within_the_limits():
    policy = make(edit_scale=0.2)
    rows = policy.normalizer.obs(observe(50))
    proposals = policy.propose(rows, 3 * torch.randn(50, 8, 3, 2))
    edited, _ = policy.edit(rows, proposals, torch.randn(50, 8, 6))
    size = (edited - proposals).abs()
    assert 0.1 < size.max() <= 0.2 + 1e-6
    low, high = policy.limits()
    assert (edited >= low).all() and (edited <= high).all() and (proposals == high).any()
    actions = policy.to_actions(edited)  # what is scored is what is executed
    torch.testing.assert_close(policy.normalizer.action(actions).flatten(2), edited)


def test_the_density_of_edits_is_that_of_a_scaled_tanh_gaussian():
    policy = make(edit_scale=0.3)
    torch.nn.init.normal_(policy.net.trunk.out.weight, std=0.05)
    rows, chunks = policy.normalizer.obs(observe(4)), torch.zeros(4, 2, 6)
    eps = torch.randn(4, 2, 6)
    edited, log_prob = policy.edit(rows, chunks, eps)
    mean, std = policy.net(torch.cat([rows[:, None].expand(-1, 2, -1), chunks], -1))
    shape = [TanhTransform(), AffineTransform(0.0, 0.3)]
    expected = TransformedDistribution(Normal(mean, std), shape).log_prob(edited).sum(-1)
    usual = (edited.abs() < 0.2999).all(-1)
    assert usual.sum() > 3
    torch.testing.assert_close(log_prob[usual], expected[usual], rtol=1e-3, atol=1e-2)


def test_of_all_candidates_the_one_is_taken_that_the_smaller_of_a_pair_of_critics_prefers():
    policy, obs = make(samples=3), observe(6)
    noise = policy.draw_noise(6, 2)
    rows = policy.normalizer.obs(obs)
    chosen = policy.generate(rows, noise, True)
    for b in range(6):
        for s in range(2):
            one = rows[b : b + 1]
            proposals = policy.propose(one, noise["noise"][b, s][None])
            edits, _ = policy.edit(one, proposals, noise["edit_noise"][b, s][None].flatten(2))
            both = torch.cat([proposals, edits], 1)
            pair = noise["critic_noise"][b, s].argsort()[-2:]
            q = policy.critic(one, both)[pair, 0].amin(0)
            torch.testing.assert_close(chosen[b, s], both[0, q.argmax()])
            torch.testing.assert_close(policy.choose(one, both, pair)[0], chosen[b, s])


def test_every_pair_of_critics_is_drawn_equally_often():
    policy = make()
    noise = policy.draw_noise(5000)["critic_noise"][:, 0]
    pairs = noise.topk(2).indices.sort().values
    counts = np.unique(pairs.numpy(), axis=0, return_counts=True)[1]
    assert len(counts) == 10 and abs(counts / 5000 - 0.1).max() < 0.02


def test_members_of_the_ensemble_are_what_they_are_alone():
    policy = make()
    rows, chunks = torch.randn(4, 6), torch.randn(4, 3, 6)
    some = torch.tensor([3, 1])
    everybody = policy.critic(rows, chunks)
    torch.testing.assert_close(policy.critic(rows, chunks, some), everybody[some])


@pytest.mark.parametrize(
    "bad",
    [{"samples": 0}, {"pair": 6}, {"edit_scale": -1.0}, {"critic_hidden": ()}, {"critics": 0}],
    ids=str,
)
def test_impossible_configurations_are_refused(bad):
    with pytest.raises(GenpolicyError, match=next(iter(bad))):
        make(**bad)


def test_bases_that_cannot_be_chosen_among_are_refused():
    with pytest.raises(GenpolicyError, match="initial noise"):
        OnTheFlyPolicy(SPEC, OnTheFlyConfig({"name": "gaussian"}))
    longer = PolicySpec(TASK, obs_steps=2, chunk=3, exec_steps=2)
    with pytest.raises(GenpolicyError, match="chunk=3 and executes exec_steps=2"):
        OnTheFlyPolicy(longer, OnTheFlyConfig(FLOW))


def test_it_is_rebuilt_from_its_description():
    policy = make(samples=3)
    again = build_policy(policy.config_dict(), SPEC)
    again.load_state_dict(policy.state_dict())
    noise, obs = policy.draw_noise(3), observe(3)
    assert torch.equal(policy.sample(obs, noise=noise), again.sample(obs, noise=noise))
