"""The fault matrix: its judge, which must find what is wrong, and a short version of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from genpolicy_deploy.braking import Axis, AxisLimits
from genpolicy_deploy.robots.base import Limits

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PERIOD_S = 0.01
LIMITS = Limits((-1.0,), (1.0,), (1.0,), (5.0,), (100.0,), (0.1,))
EXACT = np.full(1, 1e-9)
TICK = np.full(1, 2.0 * np.pi / 4096)


@pytest.fixture
def judge(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from faults import judge

    return judge


def motion(limits: Limits, count: int = 300) -> list[tuple[float, list[float]]]:
    """Goals of a joint that goes to and fro as fast as ``limits`` allow."""
    entries = ("low", "high", "velocity", "acceleration", "jerk")
    axis = Axis(AxisLimits(*(getattr(limits, entry)[0] for entry in entries)), PERIOD_S)
    axis.start(0.0)
    goals = []
    for tick in range(count):
        axis.approach(0.9 if tick // 100 % 2 == 0 else -0.9)
        goals.append((tick * PERIOD_S, [axis.p]))
    return goals


def scaled(**factors: float) -> Limits:
    values = {name: tuple(factors.get(name, 1.0) * v for v in vars(LIMITS)[name])
              for name in vars(LIMITS)}  # fmt: skip
    return Limits(**values)


def test_motion_inside_the_limits_is_no_escape(judge):
    assert judge.escapes(motion(LIMITS), LIMITS, PERIOD_S, EXACT) == []


def test_rounded_motion_inside_the_limits_is_no_escape(judge):
    goals = [(t, [round(q / TICK[0]) * TICK[0]]) for t, (q,) in motion(LIMITS)]
    assert judge.escapes(goals, LIMITS, PERIOD_S, TICK) == []


@pytest.mark.parametrize("resolution", [EXACT, TICK])
@pytest.mark.parametrize(
    ("factors", "found"),
    [
        ({"velocity": 1.5}, "velocity"),
        ({"acceleration": 2.0, "jerk": 3.0}, "acceleration"),
    ],
)
def test_motion_beyond_the_limits_is_found(judge, factors, found, resolution):
    goals = motion(scaled(**factors))
    if resolution is TICK:
        goals = [(t, [round(q / TICK[0]) * TICK[0]]) for t, (q,) in goals]
    assert found in " ".join(judge.escapes(goals, LIMITS, PERIOD_S, resolution))


def test_one_goal_outside_and_one_that_is_no_number_are_found(judge):
    goals = motion(LIMITS)
    outside = [*goals[:200], (goals[200][0], [1.001]), *goals[201:]]
    assert "position" in judge.escapes(outside, LIMITS, PERIOD_S, EXACT)
    nothing = [*goals[:200], (goals[200][0], [float("nan")]), *goals[201:]]
    assert judge.escapes(nothing, LIMITS, PERIOD_S, EXACT) == ["a goal is not finite"]


def test_goals_may_be_lost_on_a_damaged_wire_only(judge):
    goals = motion(LIMITS)
    lossy = goals[:40] + goals[43:]
    assert judge.escapes(lossy, LIMITS, PERIOD_S, EXACT)
    assert judge.escapes(lossy, LIMITS, PERIOD_S, EXACT, [(0.3, 0.5)]) == []
    jump = [(t, [q + 0.2 * (t > 0.4)]) for t, (q,) in goals]
    assert judge.escapes(jump, LIMITS, PERIOD_S, EXACT, [(0.3, 0.5)])


def test_an_arm_starts_anew_only_where_its_log_says_that_it_stood_still(judge):
    def told(text: str) -> SimpleNamespace:
        event = {"t_ns": 405_000_000, "text": text.encode()}
        ticks = {"t_ns": np.arange(0, 1_000_000_000, 20_000_000)}
        return SimpleNamespace(ticks=ticks, events=[event])

    goals = motion(LIMITS)
    still = next(i for i, (t, _) in enumerate(goals) if t > 0.38)
    halted = [*goals[:still], *((t, goals[still - 1][1]) for t, _ in goals[still : still + 20])]
    spans = judge.stalls(told("the arm's process did not run for 56 ms"))
    assert spans == [(pytest.approx(0.4 - 0.056 - 0.05), pytest.approx(0.425))]
    assert judge.stalls(told("no goal for 100 ms: braking")) == []
    assert "acceleration" in " ".join(judge.escapes(halted, LIMITS, PERIOD_S, EXACT))
    assert judge.escapes(halted, LIMITS, PERIOD_S, EXACT, stalled=spans) == []
    assert judge.escapes(halted, LIMITS, PERIOD_S, EXACT, stalled=[(0.6, 0.7)])


def test_an_arm_that_is_sent_new_goals_after_a_stop_is_found(judge):
    goals = [(0.01 * i, [min(i, 50) * 0.01]) for i in range(100)]
    assert judge.rested_s(goals, 0.2) == pytest.approx(0.3)
    assert judge.rested_s(goals, 0.6) == 0.0


def test_kinds_cover_what_was_asked_for(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from faults.kinds import kinds
    from faults.rig import DRIVERS

    names = [(kind.layer, kind.name) for kind in kinds()]
    assert len(names) == len(set(names)) >= 40
    for driver in DRIVERS:
        assert sum(driver in kind.drivers for kind in kinds()) >= 30


@pytest.mark.timeout(900)
def test_a_short_fault_matrix_finds_no_escape(tmp_path):
    """On a busy machine reactions may be late, so of them only the limits are asked here."""
    pytest.importorskip("mujoco")
    result = tmp_path / "matrix.json"
    command = [sys.executable, str(BENCHMARKS / "fault_matrix.py"), "--injections", "8"]
    subprocess.run(
        [*command, "--drivers", "lerobot", "--json", str(result), "--jobs", "1"], check=True
    )
    found = json.loads(result.read_text())
    assert found["injections"] == 8 and found["not_begun"] == []
    assert found["escapes"] == 0, found["rows"]
    unreadable = [row for row in found["rows"] if "the log cannot be read" in row["notes"]]
    assert not unreadable
    assert result.with_suffix(".png").stat().st_size > 1000
    assert "| lerobot |" in result.with_suffix(".md").read_text()
