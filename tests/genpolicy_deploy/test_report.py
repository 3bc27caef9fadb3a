"""The page about a flight log: one file, well formed, and nothing of the run lost in drawing it."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from genpolicy_deploy import recorder as recorder_module
from genpolicy_deploy.cli import main
from genpolicy_deploy.flight_log import read_log
from genpolicy_deploy.recorder import Recorder
from genpolicy_deploy.report import render
from genpolicy_deploy.states import State
from genpolicy_deploy.svg import HEIGHT, WIDTH, Line, curves, histogram
from hypothesis import given
from hypothesis import strategies as st
from tiny_controller import lift_task

from genpolicy.spec import PolicySpec

SPEC = PolicySpec(lift_task(), 1, 8, 4)
AXES = ["x", "y", "z", "rx", "ry", "rz", "gripper"]
INFO = {
    "spec": SPEC.to_dict(),
    "axes": AXES,
    "joints": ["shoulder", "elbow"],
    "robot": "a<b>&c",
    "rate_hz": 100.0,
    "limits": {"low": [-0.5] * 7, "high": [0.5] * 7, "velocity": [2.0] * 7},
    "joint_limits": {"low": [-2.0] * 2, "high": [2.0] * 2, "velocity": [3.0] * 2},
}
START = 5_000_000_000


def record(path, ticks):
    """Two episodes at 100 Hz, a hold in the first and a person in the second."""
    rng = np.random.default_rng(0)
    with Recorder(path, SPEC, 7, INFO, joints=2) as recorder:
        for i in range(ticks):
            now, state = START + 10_000_000 * i, State.HOLD if 40 <= i < 60 else State.RUN
            episode, person = 2 * i // ticks, i > 0.75 * ticks
            if i % 5 == 0:
                step = recorder.step
                step["t_ns"], step["episode"], step["acted"] = now, episode, True
                step["success"], step["intervention"] = i >= ticks - 5, person
                step["action"] = rng.uniform(-1, 1, 7)
                recorder.put("step")
            if i % 20 == 0:
                recorder.chunk["t_ns"], recorder.chunk["t_obs_ns"] = now, now - 3_000_000
                recorder.chunk["compute_us"] = 1000.0 + i
                recorder.put("chunk")
            pose, joints = 0.4 * np.sin(np.arange(7) + i / 50), np.sin(np.arange(2) + i / 50)
            counts, age = (episode, i // 5, i // 10), rng.uniform(100, 900)
            recorder.put_tick(now, i, (pose, pose, joints, joints), counts, age, age, state, person)
        recorder.event(START + 400_000_000, "hold", "no <usable> measurement for 51 ms")
        recorder.event(START + 500_000_000, "limit", "velocity elbow")
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return record(tmp_path_factory.mktemp("log") / "run.mcap", 400)


@pytest.fixture(scope="module")
def page(path):
    return render(read_log(path), path.name)


def figures(page):
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.S)]


def test_the_page_is_one_file_of_well_formed_parts(page):
    assert not re.search(r"https?:|src=|href=|<script|@import|url\(", page)
    assert "a<b>" not in page and "a&lt;b&gt;&amp;c" in page
    assert "no &lt;usable&gt; measurement for 51 ms" in page and "velocity elbow" in page
    # timeline; position and velocity of 7 axes and 2 joints; 4 latencies; 2 of hand-overs
    assert len(figures(page)) == 1 + 2 * 9 + 4 + 2


def test_everything_is_drawn_inside_its_figure(page):
    for figure in figures(page):
        wide, high = float(figure.get("width")), float(figure.get("height"))
        for rect in figure.iter("rect"):
            left, top = float(rect.get("x")), float(rect.get("y"))
            assert 0 <= left <= left + float(rect.get("width")) <= wide + 1.5
            assert 0 <= top <= top + float(rect.get("height")) <= high
        for path in figure.iter("path"):
            for x, y in re.findall(r"([\d.]+) (-?[\d.]+)", path.get("d")):
                assert 0 <= float(x) <= wide and 0 <= float(y) <= high


def test_the_summary_says_what_happened(page, path):
    log = read_log(path)
    assert "4.0 s, 400 ticks" in page and "HOLD 0.2 s" in page
    assert "2, of which 1 reached success" in page
    assert "19 of 80 control steps" in page and "39 commands" in page
    assert "complete" in page and "NOT complete" not in page
    told = re.search(r"Lateness of ticks, µs: p50 ([\d.]+), p99 ([\d.]+), max ([\d.]+)", page)
    expected = np.percentile(log.ticks["lateness_us"], [50, 99, 100])
    np.testing.assert_allclose(np.array(told.groups(), float), expected, rtol=0.01)


def test_the_timeline_shows_states_episodes_events_and_people_when_they_were(page):
    timeline = figures(page)[0]
    tips = [rect.find("title").text for rect in timeline.iter("rect")]
    assert tips[:3] == ["RUN from 0.00 s", "HOLD from 0.40 s", "RUN from 0.60 s"]
    assert "0.400 s: no <usable> measurement for 51 ms" in tips and "a person's actions" in tips
    hold, mark = (
        next(r for r in timeline.iter("rect") if r.find("title").text.startswith(start))
        for start in ("HOLD", "0.400 s")
    )
    assert float(hold.get("x")) == pytest.approx(float(mark.get("x")), abs=0.2)


def heights(figure, css):
    points = next(p for p in figure.iter("path") if p.get("class") == css).get("d")
    return [float(y) for _, y in re.findall(r"([\d.]+) (-?[\d.]+)", points)]


@given(st.integers(0, 99_999), st.sampled_from([-1.0, 1.0]))
def test_one_peak_among_many_samples_is_drawn(place, sign):
    values = np.zeros(100_000)
    values[place] = sign
    text = curves("peak", [Line(np.linspace(0.0, 1.0, 100_000), values, "command")], (0.0, 1.0))
    drawn = heights(ElementTree.fromstring(text), "command")
    middle = np.median(drawn)
    assert (max(drawn) - middle if sign < 0 else middle - min(drawn)) > 0.8 * (HEIGHT - 40)
    assert len(text) < 30 * WIDTH


def test_limits_are_drawn_where_they_are_near_and_leave_the_curve_readable():
    line = Line(np.linspace(0, 1, 50), np.linspace(-1, 1, 50), "command")
    figure = ElementTree.fromstring(curves("a", [line], (0, 1), [1.5, 1000.0]))
    assert [p.get("class") for p in figure.iter("path")] == ["limit", "command"]
    drawn = heights(figure, "command")
    assert max(drawn) - min(drawn) > 0.6 * (HEIGHT - 40)


def test_a_histogram_counts_every_sample():
    values = np.random.default_rng(0).lognormal(5, 1, 5000)
    bars = [r for r in ElementTree.fromstring(histogram("a", values)).iter("rect")][1:]
    tallest = max(np.histogram(np.log10(values), np.arange(0, 6, 0.05))[0])
    total = sum(float(r.get("height")) for r in bars) / (HEIGHT - 40) * tallest
    assert total == pytest.approx(5000, rel=0.01)
    assert "<svg" in histogram("none", np.zeros(0))


def test_an_hour_makes_no_longer_page_than_a_minute(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder_module, "CAPACITY", 40_000)
    page = render(read_log(record(tmp_path / "long.mcap", 30_000)), "long.mcap")
    assert len(page) < 400_000


def test_the_command_writes_beside_the_log_and_overwrites_nothing(path, tmp_path, capsys):
    copy = tmp_path / "run.mcap"
    copy.write_bytes(path.read_bytes())
    assert main(["report", str(copy)]) == 0
    assert (tmp_path / "run.html").read_text().startswith("<!doctype html>")
    assert main(["report", str(copy)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["report", str(copy), "--out", str(tmp_path / "b.html")]) == 0
    with Recorder(tmp_path / "empty.mcap", SPEC, 7, INFO):
        pass
    assert main(["report", str(tmp_path / "empty.mcap")]) == 2
    assert "empty.mcap: holds no tick" in capsys.readouterr().err
