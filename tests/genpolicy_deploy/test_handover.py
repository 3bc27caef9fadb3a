"""From chunk to chunk in virtual time: who executes what when a policy takes D control steps."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from exported_controller import build_exported
from fake_robot import FakeRobot
from genpolicy_deploy.contract import Contract, Golden, RealTimeChunking
from genpolicy_deploy.flight_log import read_log
from genpolicy_deploy.handover import DelayEstimate, Ensemble, check_handover, soft_weights
from genpolicy_deploy.inference import reply_dtype, request_dtype
from genpolicy_deploy.loop import ControlLoop
from genpolicy_deploy.loop import Policy as LoopPolicy
from genpolicy_deploy.player import ChunkPlayer
from genpolicy_deploy.replay import replay
from genpolicy_deploy.run import Run, RunOptions
from genpolicy_deploy.session import OK
from genpolicy_deploy.watchdog import Watchdog
from tiny_controller import lift_task

from genpolicy.spec import GenpolicyError, PolicySpec

SPEC = PolicySpec(lift_task(), obs_steps=1, chunk=8, exec_steps=4)
STEP = 50_000_000  # ns
OBS = {f.name: np.zeros(f.dim) for f in SPEC.task.observations}


def contract(rtc=None, **horizons):
    return Contract(
        replace(SPEC, **horizons), {}, 1, 0.0, False, {}, "", {}, 0.0, Golden({}, {}), rtc=rtc
    )


class Policy:
    """An ``Inference`` in the test: action (c, i) of chunk c, row i is the number 100 c + i."""

    def __init__(self, spec=SPEC):
        self.last_request = np.zeros(1, request_dtype(spec))[0]
        self.reply = np.zeros(1, reply_dtype(spec))[0]
        self.busy, self.answered, self.asked = False, False, []

    def request(self, stacked, seed, counter, t_obs_ns):
        self.last_request["counter"], self.last_request["t_obs_ns"] = counter, t_obs_ns
        self.busy, self.answered = True, False
        self.asked.append(self.last_request.copy())
        return True

    def answer(self):
        self.answered = True
        rows = 100 * self.last_request["counter"] + np.arange(len(self.reply["actions"]))
        self.reply["actions"] = rows[:, None]
        self.reply["t_obs_ns"] = self.last_request["t_obs_ns"]

    def poll(self):
        if not (self.busy and self.answered):
            return None
        self.busy = False
        return self.reply

    def give_up(self):
        self.busy = False


def play(mode, delays, steps, rtc=None):
    """What is executed at each of ``steps`` control steps (None: nothing), and the requests.

    Chunk c is there ``delays[c]`` control steps after it was asked for.
    """
    policy = Policy()
    player = ChunkPlayer(contract(rtc), policy, 10**12, lambda *_: None, mode)
    player.start(0)
    executed, due = [], 0
    for t in range(steps):
        if policy.busy and t >= due:
            policy.answer()
        player.poll(t * STEP)
        player.observe(OBS)
        if player.due:
            asked = len(policy.asked)
            player.ask(t * STEP, t * STEP)
            if len(policy.asked) > asked:
                due = t + delays[min(asked, len(delays) - 1)]
                if due == t and player.empty:
                    policy.answer()
                    player.poll(t * STEP)
        executed.append(None if player.empty else int(player.next_action()[0]))
    return executed, policy.asked, player


# ---- which row is executed when --------------------------------------------------------------


def test_sync_executes_the_first_rows_of_each_chunk_and_waits_for_the_next():
    assert play("sync", [0], 9)[0] == [0, 1, 2, 3, 100, 101, 102, 103, 200]
    nothing = [None] * 2
    expected = [*nothing, 0, 1, 2, 3, *nothing, 100, 101, 102, 103, *nothing, 200]
    executed, asked, _ = play("sync", [2], len(expected), RealTimeChunking("guided", 7))
    assert executed == expected
    assert all(not request["prev_weights"].any() for request in asked)  # the plain policy


@pytest.mark.parametrize("delay", [1, 2, 3, 4])
def test_async_goes_on_with_the_row_that_is_due(delay):
    """Row i of the chunk asked for at step t is for step t + i, whoever executes it."""
    executed, asked, _ = play("async", [0, delay], 24)
    planned_from = [0, *range(4, 24, 4)]
    expected, chunk = [], 0
    for t in range(24):
        if chunk + 1 < len(planned_from) and t >= planned_from[chunk + 1] + delay:
            chunk += 1
        expected.append(100 * chunk + t - planned_from[chunk])
    assert executed == expected
    assert len(asked) == 6


def test_async_starves_after_the_last_row_and_resumes_where_the_actions_are():
    executed, _, player = play("async", [0, 7], 14)
    assert executed[:12] == [0, 1, 2, 3, 4, 5, 6, 7, None, None, None, 104]
    assert executed[12:] == [105, 106]
    assert player.delay.steps == 4  # actions, not the 7 control steps of the clock


def test_waiting_is_counted_from_the_control_step_that_has_nothing_to_execute():
    policy = Policy()
    player = ChunkPlayer(contract(), policy, 10**12, print, "async")
    player.observe(OBS)
    player.ask(0, 0)
    policy.answer()
    player.poll(0)
    for t in range(8):
        if player.due:
            player.ask(t * STEP, t * STEP)
        player.next_action()
        assert player.waiting_s(t * STEP) == 0.0
    player.ask(8 * STEP, 8 * STEP)
    assert player.waiting_s(10 * STEP) == pytest.approx(0.1)
    policy.answer()
    player.poll(10 * STEP)
    assert player.waiting_s(11 * STEP) == 0.0


def test_a_late_chunk_executes_the_rest_of_itself_before_the_next_takes_over():
    """Delay 6 against 4 rows to spare: each chunk starves, none is skipped or repeated."""
    executed, _, _ = play("async", [0, 6], 20)
    done = [x for x in executed if x is not None]
    assert done == [*range(8), 104, 105, 106, 107, 204, 205, 206, 207][: len(done)]


# ---- what the policy is told -----------------------------------------------------------------


def test_requests_carry_what_is_left_and_the_delay_to_come():
    rtc = RealTimeChunking("guided", 7)
    _, asked, _ = play("async", [0, 2], 16, rtc)
    first, second, third = asked[:3]
    assert not first["prev_weights"].any() and first["delay"] == 0
    np.testing.assert_array_equal(second["prev_actions"][:, 0], [4, 5, 6, 7, 0, 0, 0, 0])
    np.testing.assert_array_equal(third["prev_actions"][:, 0], [104, 105, 106, 107, 0, 0, 0, 0])
    assert (second["delay"], third["delay"]) == (1, 2)  # 2 was seen in between
    weights = np.zeros(8, np.float32)
    soft_weights(2, 4, weights)
    np.testing.assert_array_equal(third["prev_weights"], weights)


def test_no_more_is_given_than_the_policy_was_trained_for_and_nothing_without_a_graph_for_it():
    _, asked, _ = play("async", [0, 4], 24, RealTimeChunking("prefix", 2))
    assert [int(r["delay"]) for r in asked] == [0, 1, 2, 2, 2, 2]
    assert all((r["prev_weights"] == 1).sum() <= 2 for r in asked)
    _, asked, _ = play("async", [0, 4], 24)
    assert all(not r["prev_weights"].any() for r in asked)


def test_weights_are_those_of_the_paper():
    out = np.zeros(8, np.float32)
    soft_weights(2, 5, out)
    c = np.array([0.75, 0.5, 0.25])
    np.testing.assert_allclose(out[2:5], c * np.expm1(c) / math.expm1(1), rtol=1e-6)
    assert out.tolist()[:2] == [1, 1] and not out[5:].any()
    soft_weights(0, 0, out)
    assert not out.any()
    soft_weights(9, 3, out)
    assert out.tolist() == [1, 1, 1, 0, 0, 0, 0, 0]


def test_a_hiccup_is_forgotten_a_slow_policy_is_not():
    delay = DelayEstimate()
    assert delay.steps == 1
    delay.add(6)
    assert delay.steps == 6
    for _ in range(30):
        delay.add(2)
    assert delay.steps == 2
    for _ in range(30):
        delay.add(0)
    assert delay.steps == 1


# ---- ensembles -------------------------------------------------------------------------------


def test_the_ensemble_is_the_weighted_mean_of_all_plans_for_a_step():
    rng = np.random.default_rng(0)
    ensemble, plans, out = Ensemble(4, 2), [], np.zeros(2, np.float32)
    for t in range(12):
        if t % 2 == 0:
            plans.append((t, rng.normal(size=(4, 2)).astype(np.float32)))
            ensemble.add(plans[-1][1])
        ensemble.take(out)
        rows = [plan[t - start] for start, plan in plans if t - start < 4]
        weights = np.exp(-0.01 * np.arange(len(rows)))
        np.testing.assert_allclose(out, weights @ rows / weights.sum(), atol=1e-6)


def test_ensemble_asks_whenever_no_chunk_is_on_its_way():
    executed, asked, _ = play("ensemble", [0, 1], 10)
    assert len(asked) == 10 and None not in executed
    _, asked, _ = play("ensemble", [0, 3], 10)
    assert len(asked) == 1 + 3


def test_dropping_clears_the_ensemble():
    ensemble, out = Ensemble(4, 1), np.zeros(1, np.float32)
    ensemble.add(np.full((4, 1), 5.0, np.float32))
    ensemble.clear()
    ensemble.add(np.full((4, 1), 1.0, np.float32))
    ensemble.take(out)
    assert out[0] == 1.0


# ---- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "horizons", "message"),
    [
        ("async", {"exec_steps": 8}, "none is left to execute"),
        ("ensemble", {"chunk": 1, "exec_steps": 1}, "do not overlap"),
        ("later", {}, "choose one of sync, async, ensemble"),
    ],
)
def test_modes_without_room_are_refused_in_words(mode, horizons, message):
    with pytest.raises(GenpolicyError, match=message):
        check_handover(mode, contract(**horizons))


# ---- holds -----------------------------------------------------------------------------------


class Director(Policy):
    """Answers by the script: chunk 1 waits for ``cue()``, the others come at once."""

    def __init__(self, cue):
        super().__init__()
        self.cue = cue

    def poll(self):
        if self.busy and (self.last_request["counter"] != 1 or self.cue()):
            self.answer()
            self.reply["actions"] = self.last_request["counter"] / 100  # which chunk, moves little
        return super().poll()


def run_loop(mode, cue, inject, watchdog):
    """Chunks that an episode executed, and its events."""
    policy = Director(cue)
    robot = FakeRobot(lift_task(), inject)
    loop = ControlLoop(SPEC, robot, LoopPolicy(contract(), policy, mode), None, watchdog)
    loop.machine.to(type(loop.machine.state).WARMUP)
    executed, take = [], loop._player.next_action

    def next_action():
        action = take()
        executed.append(round(float(action[0]) * 100))
        return action

    loop._player.next_action = next_action
    robot.policy = policy
    loop.run_episode(0, 16)
    return executed, loop.events


PATIENT = Watchdog(
    measurement_hold=0.1, measurement_stop=60.0, chunk_hold=60.0, chunk_stop=90.0, chunk_age=60.0
)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_chunk_asked_for_before_a_stale_hold_is_never_executed(mode):
    """While chunk 1 is on its way the sensor stops for a while; it comes when all is well again."""
    frozen = {"reads": 0}

    def inject(robot, state, count):
        waiting = robot.policy.busy and robot.policy.last_request["counter"] == 1
        robot.frozen = frozen["reads"] < 100 and (waiting or frozen["reads"] > 0)
        frozen["reads"] += robot.frozen

    executed, faults = run_loop(mode, lambda: frozen["reads"] >= 100, inject, PATIENT)
    assert 1 not in executed and 2 in executed and len(executed) == 16
    assert faults["void_chunk"] == 1 and faults["hold"] >= 1


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_chunk_that_is_merely_late_is_executed_after_the_hold(mode):
    watchdog = replace(PATIENT, measurement_hold=60.0, chunk_hold=0.02)
    asked = {"reads": 0}

    def inject(robot, state, count):
        asked["reads"] += robot.policy.busy and robot.policy.last_request["counter"] == 1

    executed, faults = run_loop(mode, lambda: asked["reads"] >= 120, inject, watchdog)
    assert 1 in executed and len(executed) == 16
    assert "void_chunk" not in faults and faults["hold"] >= 1


# ---- with a real policy process --------------------------------------------------------------


def test_an_asynchronous_run_goes_on_from_its_chunks_and_replays_bit_for_bit(tmp_path):
    path = build_exported(tmp_path / "flow.onnx", "flow")
    options = RunOptions(
        path, episodes=1, realtime=False, handover="async", log=tmp_path / "run.mcap"
    )
    patient = Watchdog(measurement_hold=20.0, measurement_stop=40.0, chunk_hold=20, chunk_stop=40)
    run = Run(options, robot=FakeRobot(lift_task()), watchdog=patient)
    run.execute()
    assert run.exit_code == OK and run.result()["handover"] == "async"
    log = read_log(tmp_path / "run.mcap")
    bound = log.chunks["prev_weights"].max(1) > 0
    assert bound.sum() > len(bound) / 2 and not bound[0]
    assert (log.chunks["delay"][bound] >= 1).all()
    outcome = replay(tmp_path / "run.mcap")
    assert outcome.passed and outcome.identical == outcome.chunks > 10
