"""GoRL's stages: what a decoder is taught, what starts anew, and that a stopped run goes on."""

import copy

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from training import run

from genpolicy.finetune.gorl import GoRL, GoRLConfig
from genpolicy.policies import build_policy
from genpolicy.policies.latent import PRIORS, LatentConfig, LatentPolicy
from genpolicy.spec import GenpolicyError, PolicySpec

FLOW = {"name": "flow", "hidden": [64, 64, 64], "sample_steps": 5, "time_scale": 8.0}
DIFFUSION = {
    "name": "diffusion", "hidden": [64, 64, 64], "train_steps": 20, "sample_steps": 10,
    "x0_range": 4.0,
}  # fmt: skip
SMALL = {
    "rollout_steps": 8, "batch_size": 64, "epochs": 2, "critic_hidden": (32, 32, 32),
    "encoder_hidden": (32, 32, 32), "refine_episodes": 32, "refine_batch_size": 128,
}  # fmt: skip


def make(env, decoder=FLOW, seed=0, chunk=1, base=None, **config):
    torch.manual_seed(0)
    spec = PolicySpec(env.spec, obs_steps=1, chunk=chunk, exec_steps=chunk)
    config = GoRLConfig(**SMALL | {"identity": True, "normalize_obs": True} | config)
    return GoRL(base or build_policy(decoder, spec), env, config, seed)


def put_encoder(policy, mean, std):
    """Make the encoder N(mean, std²) everywhere."""
    with torch.no_grad():
        last = policy.net.trunk.out
        last.weight.zero_()
        raw = torch.tensor(std).expm1().log() - policy.net.offset
        last.bias.copy_(torch.tensor([*mean, *[raw] * len(mean)]))


@pytest.mark.parametrize("decoder", [FLOW, DIFFUSION], ids=["flow", "diffusion"])
def test_a_new_decoder_gives_the_actions_of_the_last_stage_to_plain_noise(reach_env, decoder):
    """From N(0, 1), not from the z that the encoder chose: with those it would stay an identity.

    The second action lies beyond its limit: what is learned is what the encoder meant.
    """
    algorithm = make(reach_env, decoder, stages=(1,), refine_steps=600, actor_lr=1e-9)
    put_encoder(algorithm.policy, (0.5, 1.5), 0.15)  # far from the prior
    run(algorithm, 1)
    assert algorithm.stages.number == 1 and not algorithm.policy.config.identity
    x = algorithm.policy.decode(torch.randn(500, 4).clamp(-2, 2), torch.randn(500, 1, 2))
    assert x.mean((0, 1)).tolist() == pytest.approx([0.5, 1.5], abs=0.05)
    assert x.std((0, 1)).tolist() == pytest.approx([0.15, 0.15], abs=0.05)
    assert algorithm.policy.to_actions(x)[..., 1].max() == 1


def test_a_stage_starts_at_the_prior_with_another_encoder_critic_and_decoder(reach_env):
    algorithm = make(reach_env, stages=(2,), refine_steps=5, actor_lr=1e-2)
    first = algorithm.policy.decode(torch.zeros(1, 4), torch.ones(1, 1, 2))
    torch.testing.assert_close(first, torch.ones(1, 1, 2), rtol=0, atol=0)  # a = z
    before = copy.deepcopy(algorithm.state_dict()["model"])
    run(algorithm, 2)
    after = algorithm.state_dict()["model"]
    changed = {name.split(".")[1] for name in before if not torch.equal(before[name], after[name])}
    assert {"net", "decoder"} <= changed
    assert not algorithm.actor_opt.state and not algorithm.critic.optimizer.state
    mean, std = algorithm.policy.distribution(algorithm.rollout.obs.flatten(0, 1))
    torch.testing.assert_close((mean, std), (torch.zeros_like(mean), torch.ones_like(std)))
    assert algorithm.env_steps > 2 * 8 * 16  # the decoder's data count, too


def test_switches_keep_encoder_critic_and_decoder(reach_env):
    algorithm = make(reach_env, stages=(1, 1), refine_steps=1, refine_lr=1e-12)
    run(algorithm, 1)
    kept = make(
        reach_env, base=algorithm.policy, stages=(1,), refine_steps=1, refine_lr=1e-12,
        fresh_encoder=False, fresh_critic=False, fresh_decoder=False, actor_lr=1e-12,
        critic_lr=1e-12,
    )  # fmt: skip
    before = copy.deepcopy(kept.state_dict()["model"])
    run(kept, 1)
    for name, value in kept.state_dict()["model"].items():
        if "net" in name or "critic" in name:
            torch.testing.assert_close(value, before[name])


def test_recordings_reach_twice_the_limits_whatever_the_units_of_the_policy_are(reach_env):
    spec = PolicySpec(reach_env.spec, obs_steps=1, chunk=1, exec_steps=1)
    base = build_policy(FLOW, spec)
    base.normalizer.action_scale.fill_(0.25)  # of demonstrations that use a quarter of the range
    algorithm = make(reach_env, base=base)
    put_encoder(algorithm.policy, (6.0, -12.0), 1e-3)
    actions = algorithm.stages._intend(reach_env.reset(0))
    expected = torch.tensor([1.5, -2.0]).expand(reach_env.num_envs, 1, 2)
    torch.testing.assert_close(torch.from_numpy(actions), expected, atol=0.01, rtol=0)


def test_every_control_step_of_the_recordings_counts(reach_env, monkeypatch):
    algorithm = make(reach_env, stages=(1,), refine_steps=1)
    executed, step = [], reach_env.step

    def counted(actions):
        executed.append(result := step(actions))
        return result

    monkeypatch.setattr(reach_env, "step", counted)
    run(algorithm, 1)
    assert algorithm.env_steps == sum(result.steps.sum() for result in executed)


def test_training_goes_on_from_a_latent_policy_as_it_was_asked_to(reach_env):
    base = make(reach_env).policy
    again = make(reach_env, base=base, execute_std=0.5)
    assert again.policy.config.execute_std == 0.5
    with pytest.raises(GenpolicyError, match=r"set algo.encoder_hidden=\[32,32,32\]"):
        make(reach_env, base=base, encoder_hidden=(64, 64, 64))


def test_only_the_best_episodes_are_kept(reach_env):
    algorithm = make(reach_env, refine_episodes=64, refine_keep=0.25)
    run(algorithm, 1)
    everything = make(type(reach_env)(), refine_episodes=64)
    run(everything, 1)
    best, all_ = (a.stages._record()[0].demos for a in (algorithm, everything))
    assert all_.num_episodes == 64 and best.num_episodes == 16
    assert best.rewards.sum() / best.num_episodes > all_.rewards.sum() / all_.num_episodes


@pytest.mark.parametrize("stop", [1, 2, 3, 4])
def test_a_run_stopped_in_any_stage_goes_on_bit_for_bit(reach_env, stop):
    options = {"stages": (2, 1), "refine_steps": 3}
    straight = make(type(reach_env)(), **options)
    run(straight, stop)
    saved = copy.deepcopy(straight.state_dict())
    config = straight.policy.config_dict()
    run(straight, 5 - stop)
    torch.manual_seed(99)
    base = build_policy(config, straight.policy.spec)
    resumed = make(type(reach_env)(), base=base, seed=0, **options)
    resumed.load_state_dict(saved)
    run(resumed, 5 - stop)
    theirs = resumed.state_dict()["model"]
    for name, value in straight.state_dict()["model"].items():
        assert torch.equal(value, theirs[name]), name
    assert straight.env_steps == resumed.env_steps
    assert straight.stages.number == resumed.stages.number == 2


def test_the_penalty_is_the_closed_form_and_has_its_gradient():
    mean, std = torch.randn(50, requires_grad=True), torch.rand(50).add(0.1).requires_grad_()
    ours = PRIORS["kl"](mean, std)
    expected = kl_divergence(Normal(mean, std), Normal(0.0, 1.0))
    torch.testing.assert_close(ours, expected)
    for a, b in zip(
        torch.autograd.grad(ours.sum(), (mean, std)),
        torch.autograd.grad(expected.sum(), (mean, std)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
    # Only the divergence is smallest at the prior; the released code's form draws σ to 0.
    std = torch.linspace(0.1, 2.0, 20)
    assert std[PRIORS["kl"](torch.zeros(20), std).argmin()] == pytest.approx(1.0)
    assert std[PRIORS["l2"](torch.zeros(20), std).argmin()] == pytest.approx(0.1)


@pytest.mark.parametrize("prior", PRIORS)
def test_a_strong_penalty_holds_the_encoder_at_its_optimum(reach_env, prior):
    algorithm = make(reach_env, prior=prior, prior_coef=10.0, actor_lr=1e-2, target_kl=1e9)
    with torch.no_grad():
        algorithm.policy.net.trunk.out.bias.add_(0.5)
    run(algorithm, 12)
    mean, std = algorithm.policy.distribution(algorithm.rollout.obs.flatten(0, 1))
    assert mean.abs().mean() < 0.2
    if prior == "kl":
        assert std.mean().item() == pytest.approx(1.0, abs=0.15)
    else:
        assert std.mean() < 0.7


def test_a_pretrained_policy_is_the_first_decoder_and_stays_as_it_is(reach_env):
    torch.manual_seed(0)
    base = build_policy(FLOW, PolicySpec(reach_env.spec, obs_steps=1, chunk=4, exec_steps=4))
    base.normalizer.obs_scale.fill_(2.0)
    algorithm = make(reach_env, base=base, identity=False, normalize_obs=False, actor_lr=1e-2)
    obs = reach_env.reset(0)
    tensors = {name: torch.from_numpy(value) for name, value in obs.items()}
    noise = base.draw_noise(16, 1)
    z = noise["noise"].flatten(2)
    with torch.no_grad():
        decoded = algorithm.policy.decode(algorithm.policy.normalizer.obs(tensors), z)
        theirs = base.sample(tensors, noise=noise)
    torch.testing.assert_close(algorithm.policy.to_actions(decoded), theirs)
    before = copy.deepcopy(base.state_dict())
    run(algorithm, 3)
    for name, value in algorithm.policy.decoder.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_a_decoder_keeps_its_own_statistics(reach_env):
    decoder = build_policy(FLOW, PolicySpec(reach_env.spec, obs_steps=2, chunk=2, exec_steps=1))
    policy = LatentPolicy.around(decoder, LatentConfig(hidden=(16, 16, 16)))
    mid, scale = torch.tensor([[1.0, 2.0, 3.0, 4.0], [2.0, 3.0, 4.0, 5.0]])
    policy.normalizer.set_obs(mid.numpy(), scale.numpy())
    raw = {"position": torch.randn(6, 2, 2), "goal": torch.randn(6, 2, 2)}
    z = torch.randn(6, 1, 4)
    theirs = policy.decoder.generate(
        policy.decoder.normalizer.obs(raw), {"noise": z.unflatten(2, (2, 2))}, True
    )
    ours = policy.decode(policy.normalizer.obs(raw), z)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "bad",
    [
        {"prior": "none"},
        {"stages": (3, 0)},
        {"stages": (1,) * 10},
        {"refine_keep": 0.0},
        {"refine_steps": 0},
        {"refine_batch_size": 0},
        {"refine_lr": 0.0},
    ],
    ids=str,
)
def test_impossible_configurations_are_refused(bad):
    with pytest.raises(GenpolicyError, match=next(iter(bad))):
        GoRLConfig(**bad)


def test_several_processes_are_refused(reach_env, monkeypatch):
    monkeypatch.setattr("genpolicy.finetune.stages.distributed.world_size", lambda: 2)
    with pytest.raises(GenpolicyError, match="one process"):
        make(reach_env)


def test_a_stochastic_decoder_is_refused(reach_env):
    noisy = DIFFUSION | {"eta": 1.0}
    with pytest.raises(GenpolicyError, match="initial noise"):
        make(reach_env, noisy)


@pytest.mark.parametrize(
    "decoder", [DIFFUSION | {"tuned_steps": 5}, FLOW | {"initial_noise": 0.0}], ids=str
)
def test_a_decoder_that_cannot_be_taught_from_noise_is_refused(reach_env, decoder):
    with pytest.raises(GenpolicyError, match="taught again"):
        make(reach_env, decoder)


def test_the_seed_alone_decides_the_encoder(reach_env):
    base = build_policy(FLOW, PolicySpec(reach_env.spec, obs_steps=1, chunk=1, exec_steps=1))
    encoders = []
    for state in (1, 2):
        torch.manual_seed(state)
        encoders.append(GoRL(base, reach_env, GoRLConfig(**SMALL), 3).policy.net.state_dict())
    for name, value in encoders[0].items():
        assert torch.equal(value, encoders[1][name])
