"""Feetech's packets: coding, and finding sound ones among damaged, late and foreign bytes."""

from __future__ import annotations

import os
import pty
import socket
import time
import tty

import pytest
from genpolicy_deploy.robots.feetech_bus import (
    BROADCAST,
    SYNC_WRITE,
    FeetechBus,
    Status,
    decode,
    encode,
    error_text,
    signed,
)
from hypothesis import given
from hypothesis import strategies as st

from genpolicy.spec import GenpolicyError

PATIENT_S = 5.0  # for answers that do come


def reply(servo: int, data: bytes = b"", error: int = 0) -> bytes:
    return encode(servo, error, data)


def test_packets_are_those_of_the_manuals():
    assert encode(1, 0x01).hex(" ") == "ff ff 01 02 01 fb"  # ping
    assert encode(1, 0x02, bytes((0x2B, 1))).hex(" ") == "ff ff 01 04 02 2b 01 cc"  # read
    goals = "1e 04 00 10 00 50 01 01 20 02 60 03 02 30 00 70 01 03 20 02 80 03"
    packet = encode(BROADCAST, SYNC_WRITE, bytes.fromhex(goals))
    assert packet.hex(" ") == f"ff ff fe 18 83 {goals} 12"


@pytest.mark.parametrize(
    ("word", "bit", "value"),
    [(0x03E8, 15, 1000), (0x83E8, 15, -1000), (0x0BE8, 10, 1000 - 2**11), (0x07E8, 10, -1000)],
)
def test_signs(word, bit, value):
    if value < -1000:  # bits above the sign are not part of the number
        value = 1000
    assert signed(word, bit) == value


def test_errors_in_words():
    assert error_text(0x20) == "overload"
    assert error_text(0x05) == "input voltage out of range, overheated"
    assert error_text(0x80) == "error 0x80"


data = st.binary(min_size=6, max_size=6)


@given(st.lists(st.tuples(st.integers(0, 0xFC), data), max_size=5), st.data())
def test_sound_packets_survive_any_cut_of_the_stream(packets, draw):
    stream = b"".join(reply(servo, content) for servo, content in packets)
    buffer, found = bytearray(), []
    while stream:
        size = draw.draw(st.integers(1, len(stream)))
        buffer += stream[:size]
        stream = stream[size:]
        while (status := decode(buffer, 6)) is not None:
            found.append((status.servo, status.data))
    assert found == packets


@given(st.binary(max_size=40), st.integers(0, 0xFC), data)
def test_a_packet_after_garbage_is_found_unless_it_was_swallowed(garbage, servo, content):
    """What looks like the beginning of a packet may claim the next one's bytes, not more."""
    buffer = bytearray(garbage + reply(servo, content) * 3)
    found = []
    while (status := decode(buffer, 6)) is not None:
        found.append((status.servo, status.data))
    assert (servo, content) in found


@given(data, st.integers(0, 11 * 8 - 1))
def test_one_flipped_bit_never_passes(content, bit):
    packet = bytearray(reply(3, content))
    packet[bit // 8] ^= 1 << bit % 8
    status = decode(packet, 6)
    assert status is None


@given(st.binary(max_size=300))
def test_garbage_alone_is_never_kept_for_long(garbage):
    buffer = bytearray(garbage)
    while decode(buffer, 6) is not None:
        pass
    assert len(buffer) < 12


class Wire:
    """A pseudo-terminal with a bus on one end and the test on the other."""

    def __init__(self, reply_s: float = PATIENT_S) -> None:
        self.far, near = pty.openpty()
        tty.setraw(near)
        self.bus = FeetechBus(os.ttyname(near), 1_000_000, reply_s)
        self.bus.open()
        os.close(near)
        self.bus._unsure = False  # nobody has spoken yet
        self._send = os.write

    def answer(self, *packets: bytes) -> None:
        """Have bytes arrive right after the next request."""

        def send(packet: bytes) -> None:
            original(packet)
            assert os.read(self.far, 4096) == packet
            if packets:
                os.write(self.far, b"".join(packets))

        original = type(self.bus)._send.__get__(self.bus)
        self.bus._send = send  # type: ignore[method-assign]

    def close(self) -> None:
        self.bus.close()
        os.close(self.far)


@pytest.fixture
def wire():
    wire = Wire()
    yield wire
    wire.close()


@pytest.fixture
def hasty_wire():
    """For answers that do not come."""
    wire = Wire(reply_s=0.02)
    yield wire
    wire.close()


def test_one_servo_answers(wire):
    wire.answer(reply(3, b"\x01\x02", error=4))
    assert wire.bus.sync_read((3,), 56, 2) == {3: Status(3, 4, b"\x01\x02")}


def test_answers_of_others_and_of_other_sizes_are_skipped(wire):
    wire.answer(reply(4, b"\x09\x09"), reply(3, b"\x07"), reply(3, b"\x01\x02"))
    assert wire.bus.sync_read((3,), 56, 2)[3].data == b"\x01\x02"


def test_many_servos_answer_and_a_damaged_one_is_missing(wire):
    damaged = bytearray(reply(2, b"\x05\x05"))
    damaged[5] ^= 1
    wire.answer(reply(1, b"\x01\x01"), bytes(damaged), reply(3, b"\x03\x03"))
    replies = wire.bus.sync_read((1, 2, 3), 56, 2)
    assert {servo: status.data for servo, status in replies.items()} == {
        1: b"\x01\x01",
        3: b"\x03\x03",
    }


def test_an_answer_out_of_turn_is_one_to_the_question_before(hasty_wire):
    """Nothing of it may make a whole measurement together with new answers."""
    damaged = bytearray(reply(2, b"\x02\x02"))
    damaged[5] ^= 1
    new = reply(1, b"\x01\x01"), bytes(damaged), reply(3, b"\x03\x03")
    hasty_wire.answer(reply(2, b"\x09\x09"), *new)
    assert set(hasty_wire.bus.sync_read((1, 2, 3), 56, 2)) != {1, 2, 3}


def test_silence_takes_bounded_time(hasty_wire):
    hasty_wire.answer()
    begin = time.monotonic()
    assert hasty_wire.bus.sync_read((1, 2), 56, 2) == {}
    assert time.monotonic() - begin < 2.0


def test_after_half_a_packet_the_next_exchange_is_sound(hasty_wire):
    hasty_wire.answer(reply(3, b"\x01\x02")[:5])
    assert hasty_wire.bus.sync_read((3,), 56, 2) == {}
    hasty_wire.answer(reply(3, b"\x03\x04"))
    assert hasty_wire.bus.sync_read((3,), 56, 2)[3].data == b"\x03\x04"


def test_a_late_answer_is_not_taken_for_the_next(hasty_wire):
    hasty_wire.answer()
    assert hasty_wire.bus.sync_read((3,), 56, 2) == {}
    os.write(hasty_wire.far, reply(3, b"\x0a\x0a"))
    hasty_wire.answer(reply(3, b"\x0b\x0b"))
    assert hasty_wire.bus.sync_read((3,), 56, 2)[3].data == b"\x0b\x0b"


def test_an_unplugged_adapter_is_an_error_that_names_the_port(wire):
    port = wire.bus.port
    os.close(wire.far)
    try:
        for exchange in (
            lambda: wire.bus.sync_read((1, 2), 56, 2),
            lambda: wire.bus.sync_write((1,), 42, [b"\0\0"]),
        ):
            with pytest.raises(GenpolicyError, match=f"{port}: the connection is lost"):
                exchange()
    finally:
        wire.far = os.open(os.devnull, os.O_RDONLY)


def test_a_port_that_is_readable_without_a_byte_has_hung_up(wire):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.shutdown(socket.SHUT_WR)
        wire.bus._serial = ours
        with pytest.raises(GenpolicyError, match="connection is lost"):
            wire.bus.sync_read((1, 2), 56, 2)


def test_ports_that_are_not_there_or_taken(wire):
    with pytest.raises(GenpolicyError, match=r"/dev/none: cannot be opened .*doctor"):
        FeetechBus("/dev/none", 1_000_000, 0.01).open()
    with pytest.raises(GenpolicyError, match="cannot be opened"):
        FeetechBus(wire.bus.port, 1_000_000, 0.01).open()
    with pytest.raises(GenpolicyError, match="not connected"):
        FeetechBus("/dev/none", 1_000_000, 0.01).sync_read((1,), 56, 2)
