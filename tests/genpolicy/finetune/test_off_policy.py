"""EXPO, IDQL and RLPD: their targets, that they learn, and that a stopped run goes on."""

import copy
import itertools
import shutil
import threading
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from conftest import ReachEnv
from training import run

from genpolicy.data.collect import collect_episodes
from genpolicy.data.demonstrations import Demonstrations
from genpolicy.data.windows import ChunkDataset
from genpolicy.finetune import ALGORITHMS, build_algorithm
from genpolicy.interfaces import Algorithm
from genpolicy.policies import build_policy
from genpolicy.pretrain.imitation import Imitation
from genpolicy.spec import GenpolicyError, PolicySpec

SPEC = PolicySpec(ReachEnv.spec, obs_steps=1, chunk=2, exec_steps=2)
SMALL = {
    "updates": 8, "batch_size": 64, "learning_starts": 64, "critic_hidden": (64, 64),
    "critics": 3, "gamma": 0.9, "critic_lr": 1e-3, "stagger": False, "tau": 0.02,
}  # fmt: skip
OWN = {
    "expo": {"samples": 4, "edit_hidden": (32, 32, 32), "edit_scale": 0.3, "alpha": 0.05,
             "edit_lr": 1e-3},
    "idql": {"samples": 4, "value_hidden": (32, 32, 32)},
    "rlpd": {"actor_lr": 1e-3, "alpha": 0.02, "normalize_obs": True},
}  # fmt: skip
METHODS = list(OWN)


@cache
def demonstrations():
    """An expert that misses often: it walks with much noise, and drifts to the right."""
    rng, episodes = np.random.default_rng(0), []

    def expert(obs):
        ahead = obs["goal"][:, 0] - obs["position"][:, 0]
        return np.clip(ahead + rng.normal(0, 0.6, ahead.shape) + [0.4, 0], -1, 1)

    collect_episodes(ReachEnv(), expert, 100, episodes.append, seed=3, success_only=False)
    return Demonstrations.from_episodes(episodes, SPEC.task)


@cache
def pretrained():
    torch.manual_seed(0)
    base = build_policy({"name": "flow", "hidden": [32, 32, 32], "sample_steps": 2}, SPEC)
    imitation = Imitation(base, ChunkDataset(demonstrations(), 1, 2), seed=0)
    for _ in range(500):
        imitation.collect()
        imitation.update()
    return imitation.policy


def make(method, base=None, seed=0, demos=..., **changes):
    if base is None and method == "rlpd":
        torch.manual_seed(0)
        config = {"name": "gaussian", "hidden": [64, 64, 64], "squash": "tanh"}
        base = build_policy(config, SPEC)
    config = ALGORITHMS[method][1](**SMALL | OWN[method] | changes)
    base = base or copy.deepcopy(pretrained())
    demos = demonstrations() if demos is ... else demos
    return build_algorithm(method, base, ReachEnv(), config, seed, demos)


def success(algorithm, iterations):
    return np.nanmean(
        [run(algorithm, 1).get("rollout/success_rate", np.nan) for _ in range(iterations)]
    )


@pytest.mark.parametrize(("method", "share"), [("expo", 0.6), ("idql", 0.2), ("rlpd", 0.6)])
def test_it_learns_to_reach(method, share):
    """Of what its beginning lacks, it gains a share; IDQL only chooses among four samples."""
    algorithm = make(method)
    assert isinstance(algorithm, Algorithm)
    early = success(make(method, learning_starts=10_000), 40)
    run(algorithm, 80)
    late = success(algorithm, 40)
    assert late > early + share * (1 - early), (early, late)


def test_the_target_is_the_reward_and_what_the_same_choice_is_worth_to_another_pair():
    algorithm = make("expo", n_chunks=2, bf16=False)
    run(algorithm, 10)
    twin = copy.deepcopy(algorithm.rng)
    batch = algorithm.batch()
    assert batch["samples"].shape == (64, 4, 4)
    algorithm.rng = copy.deepcopy(twin)
    value = algorithm.value(batch)
    policy = algorithm.policy
    eps = torch.from_numpy(twin.standard_normal((64, 4, 4), dtype=np.float32))
    first, second = (torch.from_numpy(twin.choice(3, 2, replace=False)) for _ in range(2))
    candidates = policy.candidates(batch["next_obs"], batch["samples"], eps)
    q = algorithm.target(batch["next_obs"], candidates)  # [M, B, C]
    best = q[first].amin(0).argmax(1, keepdim=True)
    torch.testing.assert_close(value, q[second].amin(0).gather(1, best)[:, 0])
    assert len(set(best[:, 0].tolist())) > 4  # of samples and of edits


def test_the_warm_up_acts_and_backs_up_with_the_base_alone():
    algorithm = make("expo", warmup=1000)
    edit = copy.deepcopy(algorithm.policy.net.state_dict())
    run(algorithm, 10)
    batch = algorithm.batch()
    value = algorithm.value(batch)
    q = algorithm.target(batch["next_obs"], batch["samples"][:, :1])[..., 0]
    pairs = torch.stack([q[[i, j]].amin(0) for i, j in ((0, 1), (0, 2), (1, 2))])
    assert any(torch.allclose(value, pair) for pair in pairs)
    for name, weight in algorithm.policy.net.state_dict().items():
        assert torch.equal(weight, edit[name])


def test_samples_of_the_next_state_are_drawn_again_in_every_step_when_asked_for():
    algorithm = make("expo", stored_samples=False)
    run(algorithm, 10)
    batch = algorithm.batch()
    assert "samples" not in batch
    assert not torch.equal(algorithm.value(batch), algorithm.value(batch))


def test_no_gradient_of_q_reaches_the_base():
    algorithm = make("expo", base_lr=0.0)
    before = copy.deepcopy(algorithm.policy.base.state_dict())
    run(algorithm, 20)
    for name, value in algorithm.policy.base.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_the_base_goes_on_imitating_what_was_executed():
    algorithm = make("expo", demos=None, base_ema=0.9, base_lr=3e-3)
    obs = torch.zeros(200, 4)
    chunk = torch.tensor([0.7, -0.7, 0.2, 0.1]).expand(200, -1)
    for _ in range(300):
        algorithm.learn({"obs": obs, "chunk": chunk})
    made = algorithm.propose(obs[:20]).mean((0, 1))
    torch.testing.assert_close(made, chunk[0], atol=0.1, rtol=0)


def test_the_base_imitates_successes_only_when_asked_to():
    algorithm = make("expo", imitate="success", offline_ratio=0.0, base_ema=0.0)
    run(algorithm, 30)
    rows, count = algorithm.replay.rows, len(algorithm.replay)
    columns = (rows[name][:count].unflatten(0, (-1, 16)) for name in ("good", "ended", "reward"))
    good, ended, reward = columns
    assert 0 < good.sum() < count
    for env in range(16):
        ends = [*ended[:, env].nonzero()[:, 0].tolist(), len(ended)]
        for first, last in itertools.pairwise([-1, *ends]):
            achieved = last < len(ended) and bool(reward[last, env] > 0)
            assert (good[first + 1 : last + 1, env] == achieved).all()
    before = algorithm.imitator.state_dict()["net.from_obs.weight"].clone()
    batch = algorithm.batch()
    algorithm.learn(batch | {"good": torch.zeros(64, dtype=torch.bool)})
    assert torch.equal(algorithm.imitator.state_dict()["net.from_obs.weight"], before)
    algorithm.learn(batch)
    assert not torch.equal(algorithm.imitator.state_dict()["net.from_obs.weight"], before)


def test_the_expectile_lies_above_the_mean():
    values = {}
    for expectile in (0.5, 0.9):
        algorithm = make("idql", expectile=expectile)
        run(algorithm, 60)
        batch = algorithm.batch()
        with torch.no_grad():
            values[expectile] = algorithm.value(batch).mean()
    assert values[0.9] > values[0.5] + 0.02


def test_critics_see_as_much_of_the_demonstrations_as_asked_for():
    for ratio, own in ((0.0, 64), (0.25, 48), (1.0, 0)):
        algorithm = make("rlpd", offline_ratio=ratio)
        run(algorithm, 5)
        algorithm.replay.rows["reward"][:] = 100.0
        algorithm.replay.rows["ended"][:] = True
        assert (algorithm.batch()["reward"] == 100).sum() == own


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("stop", [2, 9])
def test_a_stopped_run_goes_on_bit_for_bit(method, stop, apart):
    goes_on_bit_for_bit(method, stop, {"apart": apart} | {"expo": {"warmup": 5}}.get(method, {}))


def test_a_stopped_run_goes_on_bit_for_bit_with_its_replay_in_files(tmp_path):
    folders = [str(tmp_path / name) for name in ("straight", "resumed")]

    def stopped():
        shutil.copytree(*folders)

    goes_on_bit_for_bit("expo", 9, {"replay_dir": folders[0]}, {"replay_dir": folders[1]}, stopped)


def goes_on_bit_for_bit(method, stop, changes, later=None, stopped=lambda: None):
    straight = make(method, **changes)
    run(straight, stop)
    saved, config = copy.deepcopy(straight.state_dict()), straight.policy.config_dict()
    weights = copy.deepcopy(straight.policy.state_dict())
    stopped()
    run(straight, 12 - stop)
    base = build_policy(config, SPEC)
    base.load_state_dict(weights)
    resumed = make(method, base=base, **changes | (later or {}))
    resumed.load_state_dict(saved)
    run(resumed, 12 - stop)
    theirs = resumed.state_dict()["model"]
    for name, value in straight.state_dict()["model"].items():
        assert torch.equal(value, theirs[name]), name
    assert straight.env_steps == resumed.env_steps


def test_apart_the_actor_steps_while_the_learner_updates(monkeypatch):
    algorithm = make("expo", apart=True)
    updating, stepping, met = threading.Event(), threading.Event(), []
    update, step = algorithm.update, algorithm.rollout.env.step

    def patient_update():
        updating.set()
        met.append(stepping.wait(60))
        update()
        updating.clear()
        stepping.clear()

    def patient_step(actions):  # of the robot: each waits for the other to be at work
        if threading.current_thread() is not threading.main_thread():
            stepping.set()
            met.append(updating.wait(60))
        return step(actions)

    monkeypatch.setattr(algorithm, "update", patient_update)
    monkeypatch.setattr(algorithm.rollout.env, "step", patient_step)
    run(algorithm, 8)
    assert len(met) == 16 and all(met)


def test_apart_what_acts_is_one_iteration_behind():
    algorithm = make("rlpd", apart=True)
    run(algorithm, 10)
    algorithm._ahead.result()
    before = copy.deepcopy(algorithm.policy.state_dict())
    algorithm.collect()
    run_ahead = algorithm.actor.state_dict()
    assert all(torch.equal(run_ahead[name], value) for name, value in before.items())
    algorithm.update()
    after = algorithm.policy.state_dict()
    assert not all(torch.equal(run_ahead[name], value) for name, value in after.items())


def test_critics_that_diverge_stop_the_run():
    algorithm = make("rlpd")
    run(algorithm, 6)
    with torch.no_grad():
        algorithm.critic.layers[-1].bias.fill_(1e4)
        algorithm.target.layers[-1].bias.fill_(1e4)
    with pytest.raises(GenpolicyError, match="the critics diverge: their mean is"):
        run(algorithm, 1)


def test_data_without_rewards_are_refused():
    silent = replace(demonstrations(), rewards=np.zeros(len(demonstrations()), np.float32))
    with pytest.raises(GenpolicyError, match="all rewards are 0"):
        make("expo", demos=silent)


def test_methods_that_learn_from_no_data_refuse_them():
    config = ALGORITHMS["fpo"][1]()
    with pytest.raises(GenpolicyError, match="algo=fpo learns from its own experience only"):
        build_algorithm("fpo", pretrained(), ReachEnv(), config, 0, demonstrations())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "bad",
    [
        {"updates": 0},
        {"tau": 0.0},
        {"gamma": 1.1},
        {"offline_ratio": -0.1},
        {"offline_ratio": 1.5},
        {"critic_lr": -1.0},
        {"capacity": 10},
        {"n_chunks": 0},
        {"critics": 0},
        {"pair": 4},
        {"critic_hidden": ()},
    ],
    ids=str,
)
def test_impossible_configurations_are_refused(method, bad):
    with pytest.raises(GenpolicyError, match=next(iter(bad))):
        make(method, **bad)


def test_a_policy_that_chooses_in_another_way_is_refused():
    base = make("expo").policy
    with pytest.raises(GenpolicyError, match="the same keys"):
        make("expo", base=base, samples=5)
    with pytest.raises(GenpolicyError, match="squash=tanh"):
        pretrained_otherwise = build_policy({"name": "gaussian", "hidden": [8, 8, 8]}, SPEC)
        make("rlpd", base=pretrained_otherwise, normalize_obs=False)
