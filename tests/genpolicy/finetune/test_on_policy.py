"""What every on-policy method must do: first ratio 1, exact resume, guards, and it learns."""

import numpy as np
import pytest
import torch
from training import run

from genpolicy.finetune import ALGORITHMS, build_algorithm
from genpolicy.interfaces import Algorithm
from genpolicy.policies import build_policy
from genpolicy.spec import GenpolicyError, PolicySpec

SMALL = {"rollout_steps": 8, "batch_size": 32, "epochs": 2, "critic_warmup": 0}
SMALL |= {"critic_hidden": (32, 32, 32)}
SPO = {"objective": "spo"}
FPO_PLUS = {"per_pair": True, "objective": "aspo", "loss": "velocity", "times": "uniform"}
FPO_PLUS |= {"explore_std": 0.02, "log_ratio_limit": 10.0}
VARIANTS = {
    "dppo": ("diffusion", "dppo", {}),
    "dppo spo": ("diffusion", "dppo", SPO),
    "fpo": ("flow", "fpo", {"clip": 0.1}),
    "fpo velocity": ("flow", "fpo", {"loss": "velocity", "times": "uniform"}),
    "fpo++": ("flow", "fpo", FPO_PLUS),
    "reinflow": ("flow", "reinflow", {"clip": 0.05, "noise_std": (0.1, 0.3)}),
    "reinflow spo": ("flow", "reinflow", SPO),
    "gorl": ("flow", "gorl", {"stages": (1,), "refine_episodes": 16, "refine_steps": 2}),
    "ppo": ("gaussian", "ppo", {"entropy_coef": 0.01}),
    "ppo spo": ("gaussian", "ppo", SPO),
}


def make_policy(env, name, **config):
    torch.manual_seed(0)
    config = {"name": name, "hidden": [64, 64, 64]} | config
    if name == "diffusion":
        config |= {"train_steps": 20, "sample_steps": 5}
    return build_policy(config, PolicySpec(env.spec, obs_steps=1, chunk=2, exec_steps=2))


def make(env, variant, seed=0, **changes):
    kind, algo, config = VARIANTS[variant]
    config = ALGORITHMS[algo][1](**SMALL | config | changes)
    return build_algorithm(algo, make_policy(env, kind), env, config, seed)


every_variant = pytest.mark.parametrize("variant", VARIANTS)
every_method = pytest.mark.parametrize("variant", ["dppo", "fpo", "fpo++", "reinflow", "ppo"])


@every_variant
def test_first_ratio_is_one_and_metrics_are_finite(reach_env, variant):
    algorithm = make(reach_env, variant, normalize_obs=True)
    assert isinstance(algorithm, Algorithm)
    for _ in range(3):
        metrics = run(algorithm, 1)
        assert metrics["policy/ratio_first"] == pytest.approx(1.0, abs=1e-6)
        assert all(np.isfinite(list(metrics.values())))


@every_method
def test_statistics_that_move_during_the_update_would_be_seen(reach_env, variant):
    """The defect that ``adapt`` avoids: other statistics when learning than when acting."""
    algorithm = make(reach_env, variant)
    algorithm.collect()
    obs = algorithm.rollout.obs.flatten(0, 1)
    record = {k: v.flatten(0, 1) for k, v in algorithm.record.items()}
    old = algorithm._old_log_likelihood(obs, record)
    moved = algorithm.log_likelihood(obs * 1.1, record)
    assert (moved - old).abs().max() > 1e-4


@every_method
def test_ratio_departs_from_one_after_a_step(reach_env, variant):
    algorithm = make(reach_env, variant, epochs=4, actor_lr=1e-3)
    assert abs(run(algorithm, 1)["policy/ratio_mean"] - 1) > 1e-6


@every_method
def test_kl_guard_stops_the_epochs(reach_env, variant):
    algorithm = make(reach_env, variant, epochs=6, actor_lr=1e-2, target_kl=1e-7)
    assert run(algorithm, 1)["policy/epochs"] < 6


@every_method
def test_critic_warmup_leaves_the_policy_alone(reach_env, variant):
    algorithm = make(reach_env, variant, critic_warmup=1)
    before = [p.clone() for p in algorithm.actor_parameters]
    run(algorithm, 1)
    assert all(map(torch.equal, before, algorithm.actor_parameters))
    run(algorithm, 1)
    assert not all(map(torch.equal, before, algorithm.actor_parameters))


def test_staggered_episodes_end_one_after_the_other(reach_env):
    """With nothing but the time limit (8 steps, chunks of 2) all would end together."""
    for stagger, ends in ((False, [0, 0, 0, 16] * 2), (True, [4] * 8)):
        rollout = make(reach_env, "ppo", stagger=stagger).rollout
        reach_env.goal[:] = 99.0
        reach_env._restart = lambda mask: reach_env.elapsed.__setitem__(mask, 0)
        rollout.collect(lambda t, obs: np.zeros((16, 2, 2)))
        assert rollout.truncated.sum(1).tolist() == ends
        # 14 of the 16 began in mid-episode: no returns of theirs
        assert rollout.metrics()["rollout/episodes"] == (18 if stagger else 32)
        assert rollout.metrics()["rollout/episode_len"] == 8


@every_method
def test_resume_is_bit_identical(reach_env, variant):
    straight = make(reach_env, variant, normalize_obs=True, stagger=True)
    run(straight, 2)
    copied = lambda x: x.clone() if isinstance(x, torch.Tensor) else np.copy(x)  # noqa: E731
    saved = torch.utils._pytree.tree_map_only(
        (torch.Tensor, np.ndarray), copied, straight.state_dict()
    )
    run(straight, 2)
    resumed = make(type(reach_env)(), variant, seed=123, normalize_obs=True, stagger=True)
    resumed.load_state_dict(saved)
    run(resumed, 2)
    theirs = resumed.state_dict()["model"]
    for name, tensor in straight.state_dict()["model"].items():
        assert torch.equal(tensor, theirs[name]), name
    assert straight.env_steps == resumed.env_steps


def test_episodes_that_cannot_go_on_are_forgotten(reach_env):
    algorithm = make(reach_env, "ppo", rollout_steps=3)
    run(algorithm, 1)
    state = algorithm.state_dict()
    assert state["rollout"]["length"].any()
    other = make(type(reach_env)(), "ppo", seed=1)
    other.load_state_dict(state)
    np.testing.assert_array_equal(other.rollout._length, state["rollout"]["length"])
    other.rollout.env.set_state = lambda _: other.rollout.env.reset(99)
    other.load_state_dict(state)
    assert not other.rollout._length.any() and not other.rollout._return.any()


def test_running_statistics_move_between_rollouts_only(reach_env):
    algorithm = make(reach_env, "fpo", normalize_obs=True)
    scale = algorithm.policy.normalizer.obs_scale
    algorithm.collect()
    assert (scale == 1).all()
    algorithm.update()
    seen = algorithm.rollout.seen[:, :, -1].flatten(0, 1)
    torch.testing.assert_close(scale, seen.std(0, correction=0), rtol=1e-5, atol=1e-6)
    run(algorithm, 20)
    # positions and goals start uniform in [-1, 1]; goals stay there: std 1/√3
    torch.testing.assert_close(scale[2:], torch.full((2,), 3**-0.5), rtol=0.1, atol=0)


def test_statistics_of_a_pretrained_policy_stay(reach_env):
    algorithm = make(reach_env, "fpo")
    before = {k: v.clone() for k, v in algorithm.policy.normalizer.state_dict().items()}
    run(algorithm, 2)
    after = algorithm.policy.normalizer.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


@pytest.mark.parametrize(
    ("kind", "algo", "fitting"),
    [
        ("flow", "dppo", "algo=expo, algo=fpo, algo=gorl, algo=gorl_sac, algo=idql, algo=reinflow"),
        ("diffusion", "fpo", "algo=dppo, algo=expo, algo=gorl, algo=gorl_sac, algo=idql"),
        ("diffusion", "reinflow", "algo=dppo, algo=expo, algo=gorl, algo=gorl_sac, algo=idql"),
        ("gaussian", "fpo", "algo=ppo, algo=rlpd"),
        ("flow", "ppo", "algo=expo, algo=fpo, algo=gorl, algo=gorl_sac, algo=idql, algo=reinflow"),
    ],
)
def test_a_policy_of_another_kind_is_refused_with_what_applies(reach_env, kind, algo, fitting):
    policy = make_policy(reach_env, kind)
    with pytest.raises(GenpolicyError, match=rf"this is a {kind} policy: choose one of {fitting}$"):
        build_algorithm(algo, policy, reach_env, ALGORITHMS[algo][1](), 0)


@pytest.mark.parametrize(
    ("algo", "change", "message"),
    [
        ("fpo", {"objective": "trpo"}, "objective='trpo' is unknown: .*'clip', 'spo', 'aspo'"),
        ("fpo", {"rollout_steps": 0}, "rollout_steps=0 must be at least 1"),
        ("fpo", {"epochs": 0}, "epochs=0"),
        ("fpo", {"pairs": 0}, "pairs=0"),
        ("fpo", {"loss": "huber"}, "loss='huber'"),
        ("ppo", {"clip": 0.0}, "clip=0.0 must be positive"),
        ("fpo", {"loss_limit": -1.0}, "loss_limit positive"),
        ("fpo", {"explore_std": -1.0}, "must not be negative"),
        ("dppo", {"tuned_steps": 0}, "tuned_steps=0"),
        ("reinflow", {"noise_std": (0.2, 0.1)}, "two rising positive"),
        ("reinflow", {"noise_std": (0.2,)}, "two rising positive"),
        ("reinflow", {"noise_hidden": 0}, "noise_hidden=0"),
    ],
)
def test_settings_that_cannot_learn_are_refused(algo, change, message):
    with pytest.raises(GenpolicyError, match=message):
        ALGORITHMS[algo][1](**change)


LEARN = {"rollout_steps": 32, "batch_size": 128, "epochs": 5, "actor_lr": 1e-3}
# Without it a time limit hands V its own prediction back, and learning dies after some iterations.
LEARN |= {"value_range": (0.0, 1.0)}


@pytest.mark.parametrize(
    ("variant", "config"),
    [
        ("dppo", {"clip": 0.1, "clip_base": 0.05, "explore_std": 0.3}),
        ("fpo", {"clip": 0.1}),
        ("fpo++", {"clip": 0.2, "objective": "clip"}),
        (
            "reinflow",
            {"clip": 0.05, "noise_std": (0.2, 0.6), "actor_lr": 3e-3, "sample_steps": 2},
        ),
        ("ppo", {"clip": 0.2, "target_kl": 1.0}),
    ],
)
def test_learns_to_reach(reach_env, variant, config):
    """From a random network: success on a two-dimensional reach task rises clearly."""
    algorithm = make(reach_env, variant, **LEARN | config)
    first = run(algorithm, 1)["rollout/success_rate"]
    last = np.mean([run(algorithm, 1)["rollout/success_rate"] for _ in range(25)][-3:])
    assert last > first + 0.25
