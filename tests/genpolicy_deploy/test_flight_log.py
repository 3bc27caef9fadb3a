"""The flight log as a file: what other programs read in it, and what is left of a damaged one."""

from __future__ import annotations

import re
import struct

import numpy as np
import pytest
from genpolicy_deploy import recorder as recorder_module
from genpolicy_deploy.flight_log import MAGIC, read_log
from genpolicy_deploy.log_format import frame_layout, message_definition
from genpolicy_deploy.log_writer import LogWriter
from genpolicy_deploy.recorder import Recorder
from genpolicy_deploy.states import State
from hypothesis import given, settings
from hypothesis import strategies as st
from mcap.reader import make_reader
from mcap.writer import Writer
from tiny_controller import lift_task

from genpolicy.spec import GenpolicyError, PolicySpec

SPEC = PolicySpec(lift_task(), 1, 8, 4)
LIMITS = {"low": [-1.0] * 7, "high": [1.0] * 7, "effort": []}
INFO = {"axes": list("abcdefg"), "limits": LIMITS, "joint_limits": {"velocity": [2.0] * 3}}
QUIET_NAN = struct.unpack("<d", struct.pack("<Q", 0x7FF8_0000_0000_0BAD))[0]


def put_tick(recorder, i):
    vectors = np.zeros(7), np.sin(np.arange(7) + i)
    recorder.put_tick(i, i, vectors, (0, 0, 0), 0.0, 0.0, State.RUN)


def record(path, ticks=300):
    rng = np.random.default_rng(0)
    with Recorder(path, SPEC, 7, INFO, joints=3) as recorder:
        for i in range(ticks):
            vectors = rng.normal(size=7), np.zeros(7), rng.normal(size=3), np.full(3, QUIET_NAN)
            counts, run = (1, i // 25, 5), State.RUN
            recorder.put_tick(2_000_000 * i, i, vectors, counts, 80.5, 1e3, run, i % 2 == 1)
            if i % 25 == 0:
                recorder.observe({f.name: rng.normal(size=f.dim) for f in SPEC.task.observations})
                recorder.step["action"] = rng.normal(size=7)
                recorder.put("step")
            if i % 100 == 0:
                recorder.chunk["actions"] = rng.normal(size=(8, 7))
                recorder.put("chunk")
        recorder.event(7, "limit", "velocity elbow")
        recorder.event(8, "fault", "something é happened")
    assert recorder.dropped == 0
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return record(tmp_path_factory.mktemp("log") / "a.mcap")


CODES = {"int64": "q", "float64": "d", "int32": "i", "uint32": "I", "float32": "f"}
CODES |= {"uint8": "B", "bool": "?"}


def decode(definition: str, message: bytes) -> dict:
    """CDR by the rules of the standard, from the message definition alone."""
    assert message[:4] == b"\0\1\0\0"
    body, place, values = message[4:], 0, {}
    definition = definition.replace("builtin_interfaces/Time stamp", "int32 sec\nuint32 nanosec")
    for line in definition.split("=" * 80)[0].splitlines():
        line = line.split("#")[0].strip()
        if not line or "=" in line:
            continue
        kind, name = line.split()
        kind, count = re.fullmatch(r"(\w+)(?:\[(\d+)\])?", kind).groups()
        if kind == "string":
            place += -place % 4
            (size,) = struct.unpack_from("<I", body, place)
            values[name] = body[place + 4 : place + 3 + size].decode()
            assert body[place + 3 + size] == 0
            place += 4 + size
            continue
        code = f"<{count or 1}{CODES[kind]}"
        place += -place % struct.calcsize(CODES[kind])
        found = struct.unpack_from(code, body, place)
        place += struct.calcsize(code)
        values[name] = list(found) if count else found[0]
    assert place == len(body)
    return values


def test_another_programs_reader_finds_the_same_numbers_by_the_definitions_alone(path):
    log = read_log(path)
    seen = {"/tick": [], "/step": [], "/chunk": [], "/event": [], "/limits": []}
    with open(path, "rb") as file:
        for schema, channel, message in make_reader(file, validate_crcs=True).iter_messages():
            assert (schema.encoding, channel.message_encoding) == ("ros2msg", "cdr")
            seen[channel.topic].append((message, decode(schema.data.decode(), message.data)))
            offset = log.header["wall_minus_monotonic_ns"]
            assert message.log_time == message.publish_time + offset
    for kind, table in (("tick", log.ticks), ("step", log.steps), ("chunk", log.chunks)):
        assert len(seen[f"/{kind}"]) == len(table) > 0
        for (message, values), row in zip(seen[f"/{kind}"], table, strict=True):
            assert message.publish_time == row["t_ns"]
            for name in table.dtype.names:
                np.testing.assert_array_equal(np.ravel(row[name]), np.ravel(values[name]))
    levels = {v["name"]: (v["level"], v["msg"]) for _, v in seen["/event"]}
    assert levels["limit"] == (30, "velocity elbow")
    assert levels["fault"] == (40, "something é happened")
    assert all(v["low"] == LIMITS["low"] for _, v in seen["/limits"])
    assert seen["/limits"][0][1]["joint_velocity"] == [2.0] * 3


def test_every_bit_comes_back_even_of_what_is_not_a_number(path):
    log = read_log(path)
    assert log.complete and log.header["axes"] == INFO["axes"]
    tick = log.ticks[7]
    assert (tick["joint_command"].view("<u8") == 0x7FF8_0000_0000_0BAD).all()
    assert (tick["episode"], tick["step"], tick["blocked"], tick["state"]) == (1, 0, 5, State.RUN)
    assert (tick["lateness_us"], tick["age_us"], tick["t_ns"]) == (80.5, 1e3, 14_000_000)
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(log.ticks["measured"][0], rng.normal(size=7))
    np.testing.assert_array_equal(log.ticks["tick"], np.arange(300))
    np.testing.assert_array_equal(log.ticks["intervention"], np.arange(300) % 2)
    assert log.chunks["actions"].shape == (3, 8, 7) and len(log.steps) == 12
    assert log.event_texts("fault") == ["something é happened"]


@pytest.mark.parametrize(("obs_steps", "joints"), [(1, 0), (2, 8), (3, 7)])
def test_records_are_laid_out_as_cdr_aligns_them(obs_steps, joints):
    """No padding: NumPy's packed record is C's aligned one."""
    for dtype in frame_layout(PolicySpec(lift_task(), obs_steps, 5, 3), 7, joints).values():
        if dtype.names == ("t_ns", "kind", "text"):
            continue  # written as strings
        aligned = np.dtype(dtype.descr, align=True)
        for name in dtype.names:
            assert dtype.fields[name][1] == aligned.fields[name][1]


def test_states_have_names_in_the_definition():
    text = message_definition(frame_layout(SPEC, 7)["tick"], INFO["axes"])
    assert "uint8 HOLD=4\n" in text and "float64[7] measured  # a, b, c, d, e, f, g" in text


class OwnWriter(Recorder):
    """A recorder whose log is written by the test, so that time does not matter."""

    def _start_writer(self, info):
        self.info, self._alive = info, -1


class Chunked:
    """A log of several MCAP chunks."""

    def __init__(self, path, sizes):
        self.raw, self.ticks = path.read_bytes(), read_log(path).ticks
        self.sizes = sizes  # (bytes, ticks) in the file after each chunk and its index

    def whole(self, size):
        """Ticks that the first ``size`` bytes hold at least."""
        return max(ticks for end, ticks in self.sizes if end <= size)


@pytest.fixture(scope="module")
def chunked(tmp_path_factory):
    path, sizes = tmp_path_factory.mktemp("log") / "long.mcap", []
    recorder = OwnWriter(path, SPEC, 7, INFO)
    with open(path, "wb") as file:
        writer = LogWriter(file, recorder._memory, recorder._slot, recorder.info)
        sizes.append((file.tell(), 0))
        for i in range(400):
            put_tick(recorder, i)
            if i % 80 == 79:
                writer.drain(recorder._written)
                writer.sync()
                sizes.append((file.tell(), i + 1))
        recorder.event(400, "end")
        writer.drain(recorder._written)
        writer.finish()
    assert read_log(path).complete
    return Chunked(path, sizes)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_log_is_read_up_to_wherever_it_was_cut(chunked, tmp_path_factory, data):
    size = data.draw(st.integers(0, len(chunked.raw) - 1))
    cut = tmp_path_factory.getbasetemp() / "cut.mcap"
    cut.write_bytes(chunked.raw[:size])
    if size < chunked.sizes[0][0]:
        with pytest.raises(GenpolicyError, match=r"cut\.mcap: not a genpolicy-deploy log"):
            read_log(cut)
        return
    log = read_log(cut)
    assert not log.complete
    assert chunked.whole(size) <= len(log.ticks) <= chunked.whole(size) + 80
    assert log.ticks.tobytes() == chunked.ticks[: len(log.ticks)].tobytes()


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damage_is_never_read_as_data(chunked, tmp_path_factory, data):
    broken = bytearray(chunked.raw)
    place = data.draw(st.integers(chunked.sizes[0][0], len(broken) - 1))
    broken[place] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.getbasetemp() / "broken.mcap"
    path.write_bytes(broken)
    log = read_log(path)
    assert chunked.whole(place) <= len(log.ticks)
    assert log.ticks.tobytes() == chunked.ticks[: len(log.ticks)].tobytes()


@pytest.mark.parametrize("content", [b"", b"nonsense", MAGIC, MAGIC + b"\x01" + bytes(40)])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "x.mcap").write_bytes(content)
    with pytest.raises(GenpolicyError, match=r"x\.mcap: not a genpolicy-deploy log"):
        read_log(tmp_path / "x.mcap")
    with pytest.raises(GenpolicyError, match="cannot be read"):
        read_log(tmp_path / "missing.mcap")


def test_an_mcap_file_of_others_is_refused(tmp_path):
    with open(tmp_path / "x.mcap", "wb") as file:
        writer = Writer(file)
        writer.start()
        channel = writer.register_channel("/a", "json", writer.register_schema("A", "", b""))
        writer.add_message(channel, 1, b"{}", 1)
        writer.finish()
    with pytest.raises(GenpolicyError, match=r"x\.mcap: not a genpolicy-deploy log"):
        read_log(tmp_path / "x.mcap")


def test_a_frame_that_was_dropped_makes_a_log_incomplete(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder_module, "CAPACITY", 8)
    recorder = OwnWriter(tmp_path / "a.mcap", SPEC, 7, {})
    with open(tmp_path / "a.mcap", "wb") as file:
        writer = LogWriter(file, recorder._memory, recorder._slot, recorder.info)
        for i in range(10):
            put_tick(recorder, i)
        writer.drain(recorder._written)
        writer.sync()
        recorder.event(10, "end")
        writer.drain(recorder._written)
        writer.finish()
    log = read_log(tmp_path / "a.mcap")
    assert recorder.dropped == 2 and not log.complete
    np.testing.assert_array_equal(log.ticks["tick"], np.arange(8))
    assert log.event_texts("end") == [""]
