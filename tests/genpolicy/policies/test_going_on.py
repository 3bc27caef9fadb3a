"""Flows that go on from another chunk: closed forms, what training sees, and what is learned."""

import numpy as np
import pytest
import torch
from test_flow import SPEC, TINY, Field, flow

from genpolicy.policies.flow import FlowConfig, FlowPolicy
from genpolicy.policies.handover import guidance_gain
from genpolicy.spec import GenpolicyError, PolicySpec

CHUNK = PolicySpec(SPEC.task, obs_steps=1, chunk=4, exec_steps=2)
OBS = {"position": torch.zeros(1, 1, 2)}


def make(max_delay=2, **config):
    torch.manual_seed(0)
    policy = FlowPolicy(CHUNK, FlowConfig(**TINY | config, max_delay=max_delay))
    policy.normalizer.action_scale.fill_(1.0)
    return policy.eval()


class Told(Field):
    """A field set by hand that remembers what it is told of the prefix."""

    def prefix_features(self, prefix):
        self.prefix = prefix
        return torch.zeros(*prefix.shape[:-1], 1)


# ---- guidance --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("t", "dt", "gain"),
    [(0.0, 0.1, 5.0), (1.0, 0.1, 5.0), (0.5, 0.1, 2.0), (0.01, 0.1, 5.0), (0.0, 0.5, 2.0)],
)
def test_the_gain_of_guidance(t, dt, gain):
    assert guidance_gain(t, dt) == pytest.approx(gain)


def test_the_gain_is_the_formula_of_the_paper():
    for t in np.linspace(0.3, 0.7, 9):
        r2 = (1 - t) ** 2 / (t**2 + (1 - t) ** 2)
        assert guidance_gain(t, 0.1) == pytest.approx(min(5.0, (1 - t) / t / r2))


@torch.no_grad()
@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_guided_integration_is_the_recursion_by_hand(solver):
    """dx/dt = c + λ w (p − x − (1 − t) c), each scalar for itself."""
    speed, steps, previous = 0.7, 10, 0.4
    policy = flow(lambda x, t: torch.full_like(x, speed), solver=solver, sample_steps=steps)
    policy.normalizer.action_scale.fill_(1.0)
    noise = torch.linspace(-1, 1, 4).reshape(1, 1, 2, 2)
    weights = torch.tensor([[1.0, 0.3]])
    got = policy.go_on(
        OBS, torch.full((1, 2, 2), previous), weights, method="guided", noise={"noise": noise}
    )

    def velocity(x, w, t):
        return speed + guidance_gain(t, 1 / steps) * w * (previous - (x + (1 - t) * speed))

    for row, w in enumerate((1.0, 0.3)):
        for column in range(2):
            x = noise[0, 0, row, column].item()
            for k in range(steps):
                v = velocity(x, w, k / steps)
                if solver == "heun":
                    v = (v + velocity(x + v / steps, w, (k + 1) / steps)) / 2
                x += v / steps
            assert got[0, 0, row, column].item() == pytest.approx(x, abs=1e-5)


# ---- prefixes --------------------------------------------------------------------------------


@torch.no_grad()
def test_given_actions_stay_and_others_are_guided_or_free():
    policy = make()
    policy.net = Told(lambda x, t: torch.full_like(x, 0.5))
    noise = torch.randn(1, 3, 4, 2, generator=torch.Generator().manual_seed(0))
    previous = torch.arange(8.0).reshape(1, 4, 2) / 8
    weights = torch.tensor([[1.0, 1.0, 0.6, 0.0]])
    chunk = {"noise": {"noise": noise}, "num_samples": 3}
    guided = policy.go_on(OBS, previous, weights, method="guided", **chunk)
    got = policy.go_on(OBS, previous, weights, method="prefix", **chunk)
    torch.testing.assert_close(got[:, :, :2], previous[:, None, :2].expand(1, 3, 2, 2))
    torch.testing.assert_close(got[:, :, 2:], guided[:, :, 2:])  # the field couples no rows
    torch.testing.assert_close(got[:, :, 3], noise[:, :, 3] + 0.5)
    told = policy.net.prefix[0, 0]
    torch.testing.assert_close(told[:8].reshape(4, 2)[:2], previous[0, :2])
    assert told[4:8].abs().max() == 0 and told[8:].tolist() == [1, 1, 0, 0]


@torch.no_grad()
@pytest.mark.parametrize(("method", "max_delay"), [("prefix", 2), ("guided", 0), ("guided", 2)])
@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_with_no_weights_it_is_the_plain_policy_bit_for_bit(method, max_delay, solver):
    policy = make(max_delay, solver=solver)
    noise = policy.draw_noise(1, 5)
    expected = policy.sample(OBS, noise=noise, num_samples=5)
    got = policy.go_on(
        OBS, torch.rand(1, 4, 2), torch.zeros(1, 4), method=method, noise=noise, num_samples=5
    )
    assert torch.equal(got, expected)


def test_the_loss_is_that_of_the_rows_that_are_not_given():
    policy = make(max_delay=3)
    policy.net = Told(lambda x, t: torch.zeros_like(x))
    count = 20_000
    actions = torch.full((count, 4, 2), 2.0)
    actions[:, 0] = 8.0  # far away: whoever counts the first row sees it
    batch = {"obs": {"position": torch.zeros(count, 1, 2)}, "actions": actions}
    loss, _ = policy.loss(batch)
    delays = policy.net.prefix[:, 0, 8:].sum(-1)
    shares = torch.bincount(delays.long(), minlength=4) / count
    torch.testing.assert_close(shares, torch.full((4,), 0.25), atol=0.02, rtol=0)
    free = 4 - delays
    whole = (delays == 0).float()
    first = whole.sum() * (8.0**2 + 1)  # E(a − ε)² = a² + 1
    rest = (free - whole).sum() * (2.0**2 + 1)
    assert loss.item() == pytest.approx(((first + rest) / free.sum()).item(), rel=0.01)


def test_given_rows_are_clean_where_the_network_sees_them():
    policy, seen = make(max_delay=3), []

    def field(x, t):
        seen.append(x)
        return torch.zeros_like(x)

    policy.net = Told(field)
    actions = torch.rand(64, 4, 2)
    policy.loss({"obs": {"position": torch.zeros(64, 1, 2)}, "actions": actions})
    clean = (seen[0][:, 0].reshape(64, 4, 2) == actions).all(-1)
    given = policy.net.prefix[:, 0, 8:].bool()
    assert torch.equal(clean, given) and given.any() and not given.all()


def test_what_goes_on_from_a_side_stays_on_it():
    """Chunks are all +1 or all −1: free, both are drawn; given one action, only its side."""
    policy = make(max_delay=2, hidden=(32, 32, 32)).train()
    rng = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(policy.parameters(), lr=3e-3)
    obs = {"position": torch.zeros(128, 1, 2)}
    for _ in range(400):
        sides = 2.0 * torch.randint(2, (128, 1, 1), generator=rng) - 1
        loss, _ = policy.loss({"obs": obs, "actions": sides.expand(128, 4, 2)})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        free = policy.sample(OBS, num_samples=100)[0].mean((1, 2))
        assert 0.2 < (free > 0).float().mean() < 0.8
        for side in (-1.0, 1.0):
            previous, weights = torch.full((1, 4, 2), side), torch.tensor([[1.0, 0, 0, 0]])
            bound = policy.go_on(OBS, previous, weights, method="prefix", num_samples=100)
            assert (bound[0, :, 1:].mean((1, 2)) * side > 0.5).float().mean() > 0.9


def test_policies_without_prefixes_are_what_they_were():
    torch.manual_seed(0)
    trained = make(max_delay=2).state_dict()
    plain = make(max_delay=0).state_dict()
    assert set(trained) - set(plain) == {"net.from_prefix.weight"}
    for name in ("net.trunk.out.weight", "net.time_mlp.0.weight"):
        assert torch.equal(trained[name], plain[name])


def test_impossible_prefixes_are_refused_in_words():
    with pytest.raises(GenpolicyError, match="max_delay=4 must be below chunk=4"):
        make(max_delay=4)
    with pytest.raises(GenpolicyError, match="max_delay=-1"):
        make(max_delay=-1)
    with pytest.raises(GenpolicyError, match="not trained to go on"):
        make(max_delay=0).go_on(OBS, torch.zeros(1, 4, 2), torch.ones(1, 4), method="prefix")
    guided = make(0).go_on(OBS, torch.zeros(1, 4, 2), torch.ones(1, 4), method="guided")
    assert guided.isfinite().all()
