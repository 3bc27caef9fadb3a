"""Any Gymnasium environment behind the VecEnv protocol."""

from functools import partial

import genpolicy_sim
import gym_tasks
import gymnasium
import numpy as np
import pytest
import vec_env_conformance as conformance
from genpolicy_sim import gym_env, workers

from genpolicy.spec import GenpolicyError, VecEnv


class InThisProcess(workers.Workers):
    """The same blocks without the second that a process takes to start."""

    def _start(self, build, envs):
        self._processes.append((None, workers._attempt(build, envs)))

    def _answers(self, connections):
        for _, failure in connections:
            if failure is not None:
                raise GenpolicyError(f"{self._name} failed: {failure[0]}")

    def call(self, method, arguments):
        servers = [server for _, (server, _) in self._processes]
        pairs = zip(servers, arguments, strict=True)
        answers = [
            (None, None) if given is None else workers._attempt(getattr(server, method), *given)
            for server, given in pairs
        ]
        self._answers(answers)
        return [answer for answer, _ in answers]

    def close(self):
        self._processes = []


@pytest.fixture
def no_processes(monkeypatch):
    monkeypatch.setattr(gym_env, "Workers", InThisProcess)


def make(num_envs, id=gym_tasks.Endless, num_workers=1, max_episode_steps=20, **options):
    return genpolicy_sim.make(
        "gym",
        num_envs,
        id=id,
        num_workers=num_workers,
        max_episode_steps=max_episode_steps,
        **options,
    )


@pytest.mark.parametrize(
    "check",
    [
        conformance.check_shapes_and_types,
        conformance.check_seed_decides_each_start,
        conformance.check_history_is_at_control_rate,
        conformance.check_chunk_equals_single_steps,
        lambda make: conformance.check_truncation_and_auto_reset(make, "max_episode_steps"),
        conformance.check_bad_input,
    ],
)
@pytest.mark.parametrize("num_workers", [1, 2])
def test_conformance(check, num_workers, no_processes):
    """The protocol's checks, but for those that need the simulator's inner state."""
    check(partial(make, num_workers=num_workers))


@pytest.fixture(scope="module")
def pendulum():
    env = genpolicy_sim.make("gym", 3, id="Pendulum-v1", num_workers=2, dtype=np.float64)
    yield env
    env.close()


def test_equals_gymnasium_itself(pendulum):
    """Observations, rewards and the time limit are those of gymnasium.make, bit for bit."""
    assert pendulum.spec.task == "Pendulum-v1" and pendulum.spec.score == "return"
    assert pendulum.spec.max_episode_steps == 200 and pendulum.spec.control_hz == 30
    assert pendulum.spec.action.low == (-2.0,)
    singles = [gymnasium.make("Pendulum-v1") for _ in range(3)]
    seen = np.stack([env.reset(seed=7 + i)[0] for i, env in enumerate(singles)])
    np.testing.assert_array_equal(pendulum.reset(7)["observation"][:, 0], seen)
    actions = np.random.default_rng(0).uniform(-3, 3, (3, 205, 1))
    result = pendulum.step(actions)
    assert result.truncated.all() and not result.terminated.any() and (result.steps == 200).all()
    for i, env in enumerate(singles):
        for t in range(200):
            action = np.clip(actions[i, t], -2, 2).astype(np.float32)
            last, reward, *_ = env.step(action)
            assert result.rewards[i, t] == reward
        np.testing.assert_array_equal(result.final_obs["observation"][i, 0], last)
        np.testing.assert_array_equal(result.obs["observation"][i, 0], env.reset()[0])
    assert result.rewards.dtype == np.float64 and not result.rewards[:, 200:].any()


def test_inactive_environments_rest(pendulum):
    start = pendulum.reset(1)["observation"]
    active = np.array([False, False, True])  # the first worker has nothing to do
    result = pendulum.step(np.ones((3, 2, 1)), active=active)
    np.testing.assert_array_equal(result.steps, [0, 0, 2])
    np.testing.assert_array_equal(result.obs["observation"][:2], start[:2])
    assert (result.obs["observation"][2] != start[2]).any() and not result.reward[:2].any()


def test_a_state_is_where_the_episodes_are_not_what_is_inside_them(pendulum):
    pendulum.reset(5)
    state = pendulum.get_state()
    pendulum.step(np.ones((3, 30, 1)))
    first = pendulum.set_state(state)
    pendulum.reset(99)
    again = pendulum.set_state(state)
    conformance.assert_same(first, again)
    assert (first["observation"] != pendulum.reset(5)["observation"]).any()  # a new episode


def test_dict_observations_terminations_and_success(no_processes):
    env = make(4, gym_tasks.Named, history=2)
    assert [(f.name, f.shape) for f in env.spec.observations] == [("a", (1,)), ("b", (2, 2))]
    assert isinstance(env, VecEnv) and env.spec.control_hz == 20
    start = env.reset(0)["a"][:, 0, 0]
    result = env.step(np.ones((4, 6, 2)))
    np.testing.assert_array_equal(result.steps, 3 + np.round(start))
    assert result.terminated.all() and result.success.all() and not result.truncated.any()
    np.testing.assert_array_equal(result.final_obs["b"][:, 1, 0], result.steps)
    np.testing.assert_array_equal(result.final_obs["b"][:, 0, 3], result.steps - 1)
    assert not result.obs["b"].any()  # both places hold the new episode's first observation
    env.close()


def test_an_end_at_the_time_limit_is_a_termination_where_the_task_says_so(no_processes):
    env = make(2, gym_tasks.Count, max_episode_steps=3)
    ended = np.concatenate([env.reset(seed)["observation"][:, 0, 1] for seed in (0, 2)]).round()
    assert set(ended) == {0, 1}  # episodes of three steps and of four
    for seed, expected in ((0, ended[:2] == 0), (2, ended[2:] == 0)):
        env.reset(seed)
        result = env.step(np.ones((2, 5, 2)))
        np.testing.assert_array_equal(result.terminated, expected)
        np.testing.assert_array_equal(result.truncated, ~expected)
    env.close()


def test_an_id_that_a_module_registers():
    env = make(1, "gym_tasks:Count-v0", max_episode_steps=None, score="success")
    assert env.spec.max_episode_steps == 50 and env.spec.score == "success"
    assert env.spec.task == "Count-v0"
    env.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"id": None}, "name the environment"),
        ({"id": "CartPole-v1"}, "Box of floats, got Discrete"),
        ({"id": gym_tasks.Unbounded}, "finite bounds.*RescaleAction"),
        ({"id": gym_tasks.Words}, "observation word .* is no Box.*FlattenObservation"),
        ({"id": gym_tasks.WrongShape}, r"failed: ValueError: observation has shape \(3,\)"),
        ({"max_episode_steps": None}, "no time limit: give max_episode_steps"),
        ({"id": "Nope-v3"}, "'Nope-v3' failed: NameNotFound"),
        ({"num_workers": 0}, "num_workers=0 must be at least 1"),
        ({"score": "style"}, "score='style' must be"),
        ({"kwargs": {"sides": 3}}, "'Endless' failed: TypeError"),
    ],
)
def test_bad_environments_end_in_one_sentence(options, message, no_processes):
    with pytest.raises(GenpolicyError, match=message) as raised:
        make(1, **options)
    assert "\n" not in str(raised.value)


def test_what_cannot_be_sent_to_a_process_is_refused():
    with pytest.raises(GenpolicyError, match="function at the top of a module"):
        make(1, lambda: gym_tasks.Count())


@pytest.mark.parametrize(
    ("id", "message"),
    [
        (gym_tasks.Raises, "'Raises' failed: ValueError: the motor is missing"),
        (gym_tasks.Dies, "'Dies': a worker process died"),
        (gym_tasks.Nan, "environment 0 gave an observation or a reward that is not finite"),
    ],
)
def test_failures_in_a_worker_end_in_one_sentence(id, message):
    env = make(2, id, num_workers=2)
    with pytest.raises(GenpolicyError, match=message):
        env.step(np.ones((2, 1, 2)))
    if id is not gym_tasks.Nan:
        with pytest.raises(GenpolicyError, match="closed"):
            env.step(np.ones((2, 1, 2)))
    env.close()


@pytest.mark.parametrize(("name", "options"), [("hopper", {}), ("gym", {"id": "Pendulum-v1"})])
def test_episodes_have_at_least_one_step(name, options):
    with pytest.raises(GenpolicyError, match="max_episode_steps=0 must be at least 1"):
        genpolicy_sim.make(name, max_episode_steps=0, **options)
