"""What a simulated robot's measurements go through on their way, in virtual time."""

from __future__ import annotations

import numpy as np
from genpolicy_sim.measurements import Imperfections, MeasurementChannel
from genpolicy_sim.robot import state_dtype

PERIOD_NS = 2_000_000


def send(channel, count, seed=7):
    """Send ``count`` measurements, 2 ms apart; what arrived, as (arrival ns, record)."""
    channel.reset(seed)
    arrivals = []
    for tick in range(count + 1000):
        now = tick * PERIOD_NS
        if tick < count:
            message = np.zeros(1, state_dtype(3))
            message["seq"], message["t_ns"] = tick, now
            channel.put(message, now)
        received = (np.frombuffer(data, state_dtype(3))[0] for data in channel.arrived(now))
        arrivals.extend((now, record) for record in received)
    return arrivals


def test_a_perfect_connection_changes_nothing():
    arrivals = send(MeasurementChannel(Imperfections()), 50)
    assert [int(record["seq"]) for _, record in arrivals] == list(range(50))
    assert all(now == record["t_ns"] for now, record in arrivals)
    assert not any(record["obs"].any() or record["position"].any() for _, record in arrivals)


def test_latency_and_jitter_delay_in_order():
    arrivals = send(MeasurementChannel(Imperfections(latency_s=0.03, jitter_s=0.02)), 2000)
    delays = np.array([now - record["t_ns"] for now, record in arrivals])
    assert delays.min() >= 30_000_000 and delays.max() <= 50_000_000 + PERIOD_NS
    assert np.ptp(delays) > 10_000_000
    assert [int(record["seq"]) for _, record in arrivals] == list(range(2000))


def test_loss_is_the_share_that_was_asked_for():
    assert abs(len(send(MeasurementChannel(Imperfections(loss=0.2)), 5000)) / 5000 - 0.8) < 0.02


def test_noise_has_the_deviation_asked_for_and_spares_the_grippers_target():
    arrivals = send(MeasurementChannel(Imperfections(noise=0.05)), 5000)
    observed = np.array([record["obs"] for _, record in arrivals])
    position = np.array([record["position"] for _, record in arrivals])
    np.testing.assert_allclose(observed.std(axis=0), 0.05, rtol=0.05)
    np.testing.assert_allclose(position[:, :6].std(axis=0), 0.05, rtol=0.05)
    assert abs(observed.mean()) < 0.003
    assert not position[:, 6].any()


def test_a_seed_decides_everything_and_a_reset_forgets_what_is_under_way():
    channel = MeasurementChannel(Imperfections(0.01, 0.01, noise=0.1, loss=0.1))
    first, other, again = (send(channel, 300, seed) for seed in (1, 2, 1))
    assert [now for now, _ in first] == [now for now, _ in again]
    assert all((a["obs"] == b["obs"]).all() for (_, a), (_, b) in zip(first, again, strict=True))
    assert [now for now, _ in first] != [now for now, _ in other]
    channel.put(np.zeros(1, state_dtype(3)), 0)
    channel.reset(3)
    assert not list(channel.arrived(10**12))
