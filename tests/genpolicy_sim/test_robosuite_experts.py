"""The scripted experts of robosuite's other tasks: success, two ways, noise, repeatability."""

import functools

import genpolicy_sim
import numpy as np
import pytest

# Attempts and how many of them succeed at least: well below the rates in the README.
ATTEMPTS = {"can": (24, 20), "square": (24, 20), "transport": (6, 2)}
# Of what is fetched, in "object".
PLACE = {"can": slice(7, 10), "square": slice(7, 10), "transport": slice(14, 17)}
per_task = pytest.mark.parametrize("task", ATTEMPTS)


@functools.cache
def episodes(task, count, steps=None):
    """One episode per environment from seed 0: success ``[N]``, actions ``[T, N, Da]``."""
    env = genpolicy_sim.make(task, count)
    expert = genpolicy_sim.expert(task, count, seed=0)
    obs, active = env.reset(0), np.ones(count, np.bool_)
    success, actions = np.zeros(count, np.bool_), []
    while active.any() and len(actions) != steps:
        actions.append(expert.act(obs)[:, 0])
        result = env.step(actions[-1][:, None], active)  # pyright: ignore[reportCallIssue]
        obs = result.obs
        success |= result.success
        active &= ~result.done
    return success, np.stack(actions)


def first_actions(task, count=40, **options):
    expert = genpolicy_sim.expert(task, count, seed=0, **options)
    return expert.act(genpolicy_sim.make(task, count).reset(0))[:, 0]


@per_task
def test_succeeds_within_the_time_limit(task):
    attempts, least = ATTEMPTS[task]
    success, actions = episodes(task, attempts)
    assert success.sum() >= least
    assert (np.abs(actions) <= 1.0).all()


@per_task
def test_an_episode_does_not_depend_on_how_many_run_beside_it(task):
    many, few = episodes(task, 5, steps=40)[1], episodes(task, 3, steps=40)[1]
    np.testing.assert_array_equal(many[:, :3], few)


@per_task
def test_the_next_wave_does_not_depend_on_how_many_ran_before(task):
    """Six episodes in waves of six, of three, of two: the same random numbers."""
    draws = []
    for count in (6, 3, 2):
        expert, obs = genpolicy_sim.expert(task, count), genpolicy_sim.make(task, count).reset(0)
        same = {name: np.repeat(value[:1], count, axis=0) for name, value in obs.items()}
        waves = []
        for _ in range(6 // count):
            expert.reset()
            waves.append(expert.act(same)[:, 0])
        draws.append(np.concatenate(waves))
    np.testing.assert_array_equal(draws[0], draws[1])
    np.testing.assert_array_equal(draws[0], draws[2])
    assert len(np.unique(draws[0], axis=0)) == 6


@per_task
def test_bimodal_has_two_good_actions_in_one_state(task):
    count, obs = 40, genpolicy_sim.make(task, 1).reset(0)
    obs["robot0_eef_pos"][:] = obs["object"][..., PLACE[task]] + [0.0, 0.0, 0.2]
    same = {name: np.repeat(value, count, axis=0) for name, value in obs.items()}
    for bimodal in (True, False):
        expert = genpolicy_sim.expert(task, count, noise=0.0, bimodal=bimodal)
        ways, takers = np.unique(expert.act(same)[:, 0], axis=0, return_counts=True)
        assert len(ways) == (2 if bimodal else 1)
        assert takers.min() > 8


@per_task
def test_noise_moves_translation_and_rotation_but_no_finger(task):
    clean, noisy = first_actions(task, noise=0.0), first_actions(task, noise=0.2)
    change = (noisy - clean).reshape(40, -1, 7)
    inside = np.abs(noisy.reshape(change.shape)) < 1.0
    assert (change[..., 6] == 0.0).all()
    for part, size in ((slice(0, 3), 0.2), (slice(3, 6), 0.1)):
        assert 0.3 * size < change[..., part][inside[..., part]].std() < 1.5 * size


def test_resets_only_the_masked():
    expert, obs = genpolicy_sim.expert("can", 4), genpolicy_sim.make("can", 4).reset(0)
    expert.act(obs)
    before, mask = expert._noise.copy(), np.array([True, False, True, False])
    expert.reset(mask)
    expert.act(obs)
    assert (expert._noise[~mask] == before[~mask]).all()
    assert (expert._noise[mask, :, :, :6] != before[mask, :, :, :6]).all()
