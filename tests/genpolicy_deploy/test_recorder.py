"""The flight log: what was put in comes out, whatever happens to the process or the file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from genpolicy_deploy import recorder as recorder_module
from genpolicy_deploy.flight_log import read_log
from genpolicy_deploy.histogram import Histogram
from genpolicy_deploy.realtime import Ticker, soft_realtime
from genpolicy_deploy.recorder import Recorder
from hypothesis import given
from hypothesis import strategies as st
from tiny_controller import lift_task

from genpolicy.spec import GenpolicyError, PolicySpec

SPEC = PolicySpec(lift_task(), 1, 8, 4)


def put_tick(recorder, i):
    recorder.put_tick(0, i, (np.zeros(7), np.arange(7.0) + i), (0, 0, 0), 0.0, 0.0, 3)


def record(path, ticks=50):
    with Recorder(path, SPEC, 7, {"note": "hello"}) as recorder:
        for i in range(ticks):
            put_tick(recorder, i)
            if i % 10 == 0:
                recorder.chunk["actions"] = i
                recorder.put("chunk")
        recorder.event(7, "fault", "something é happened")
        assert recorder.dropped == 0
    return path


def test_everything_put_in_comes_out(tmp_path):
    log = read_log(record(tmp_path / "a.mcap"))
    assert log.complete and log.header["note"] == "hello"
    np.testing.assert_array_equal(log.ticks["tick"], np.arange(50))
    np.testing.assert_array_equal(log.ticks["command"][7], np.arange(7) + 7)
    assert log.chunks["actions"].shape == (5, 8, 7)
    assert (log.chunks["actions"][3] == 30).all()
    assert log.event_texts("fault") == ["something é happened"]


def test_nothing_is_overwritten(tmp_path):
    record(tmp_path / "a.mcap")
    before = (tmp_path / "a.mcap").read_bytes()
    with pytest.raises(GenpolicyError, match="exists already"):
        record(tmp_path / "a.mcap")
    assert (tmp_path / "a.mcap").read_bytes() == before
    with pytest.raises(GenpolicyError, match="cannot be written"):
        record(tmp_path / "no" / "folder.mcap")


def count(path) -> int:
    """Ticks on disk so far; the writer may not have begun."""
    try:
        return len(read_log(path).ticks)
    except GenpolicyError:
        return 0


def test_sigkill_of_the_control_process_loses_nothing_that_was_recorded(tmp_path):
    path = tmp_path / "killed.mcap"
    code = f"""
import os, signal
from pathlib import Path
from genpolicy_deploy.recorder import Recorder
from genpolicy.spec import PolicySpec
from tiny_controller import lift_task
from test_recorder import put_tick
recorder = Recorder(Path({str(path)!r}), PolicySpec(lift_task(), 1, 8, 4), 7, {{}})
for i in range(1500):
    put_tick(recorder, i)
os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert result.returncode == -signal.SIGKILL, result.stderr
    deadline = time.monotonic() + 30.0
    while count(path) < 1500 and time.monotonic() < deadline:
        time.sleep(0.05)
    np.testing.assert_array_equal(read_log(path).ticks["tick"], np.arange(1500))


def test_a_full_ring_drops_and_counts_but_never_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder_module, "CAPACITY", 64)
    recorder = Recorder(tmp_path / "a.mcap", SPEC, 7, {})
    recorder._writer.send_signal(signal.SIGSTOP)
    for _ in range(200):
        put_tick(recorder, 0)
    assert recorder.dropped >= 200 - 64
    recorder._writer.kill()
    recorder.close()


def test_sigkill_of_the_writer_leaves_what_was_on_disk_and_counts_the_rest(tmp_path):
    path = tmp_path / "a.mcap"
    recorder = Recorder(path, SPEC, 7, {})
    for i in range(100):
        put_tick(recorder, i)
    deadline = time.monotonic() + 30.0
    while recorder._counters[1] < 100 and time.monotonic() < deadline:
        time.sleep(0.05)
    recorder._writer.kill()
    for _ in range(7):
        recorder.put("tick")  # the loop goes on
    recorder.close()
    log = read_log(path)
    np.testing.assert_array_equal(log.ticks["tick"], np.arange(100))
    assert not log.complete and recorder.dropped == 8  # and the event "end"


def test_a_writer_that_cannot_start_is_noticed_before_anything_moves(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder_module.sys, "executable", "/bin/false")
    with pytest.raises(GenpolicyError, match=r"a\.mcap: the process that writes it did not start"):
        Recorder(tmp_path / "a.mcap", SPEC, 7, {})


@given(st.lists(st.floats(0.2, 9e6), min_size=1, max_size=300))
def test_percentiles_are_right_to_the_width_of_a_bucket(samples):
    histogram = Histogram()
    for sample in samples:
        histogram.add(sample)
    for percent in (50.0, 99.0, 99.9):
        true = np.percentile(samples, percent, method="inverted_cdf")
        assert true * (1 - 1e-9) <= histogram.percentile(percent) <= true * 1.05
    assert histogram.summary()["max"] == round(max(samples), 2)
    assert Histogram().summary() == {"p50": 0.0, "p99": 0.0, "p999": 0.0, "max": 0.0}


def test_missed_slots_are_skipped_and_counted_not_made_up_for():
    ticker = Ticker(100.0)
    ticker.wait()
    before = ticker.index
    time.sleep(0.105)
    started = time.monotonic()
    ticker.wait()
    skipped = ticker.index - before
    assert skipped >= 10
    assert ticker.missed >= skipped - 1 and ticker.ticks == 2
    for _ in range(3):
        ticker.wait()
    assert time.monotonic() - started >= 0.02  # no burst: three more slots take their time
    assert ticker.lateness.total == 5


def test_soft_realtime_says_what_was_granted_and_undoes_it():
    import gc

    before = os.sched_getscheduler(0)
    with soft_realtime() as granted:
        assert set(granted) == {"sched_fifo", "mlockall", "timer_slack", "gc"}
        assert not gc.isenabled()
    assert gc.isenabled() and os.sched_getscheduler(0) == before
