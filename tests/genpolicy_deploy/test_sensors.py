"""Numbers by UDP: the newest good packet, and how old it is."""

from __future__ import annotations

import socket
import time

import numpy as np
import pytest
from genpolicy_deploy.robots.sensors import UdpSensor

from genpolicy.spec import GenpolicyError


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def sensor():
    sensor = UdpSensor("cube", free_port(), 3)
    sensor.open()
    yield sensor
    sensor.close()


@pytest.fixture
def send(sensor):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(("127.0.0.1", sensor.port))
        yield lambda values: sender.send(np.array(values, "<f8").tobytes())


def test_the_newest_packet_wins_and_all_are_taken(sensor, send):
    for i in range(200):
        send([i, i, i])
    faults: list[str] = []
    value = sensor.value
    sensor.poll(faults)
    assert faults == [] and 1 <= sensor.seq <= 200
    np.testing.assert_array_equal(value, [sensor.seq - 1] * 3)  # in place; the kernel may drop some
    seq = sensor.seq
    sensor.poll(faults)
    assert sensor.seq == seq


def test_a_packet_that_waited_is_known_to_be_old(sensor, send):
    for _ in range(20):  # the kernel begins to stamp packets a little after it is asked to
        before = time.monotonic_ns()
        send([1, 2, 3])
        time.sleep(0.3)
        sensor.poll([])
        age = time.monotonic_ns() - sensor.t_ns
        if age >= 0.29e9:
            break
    assert age >= 0.29e9 and sensor.t_ns >= before - 5e6


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([1.0, 2.0], "16 bytes instead of 24"),
        ([1.0, 2.0, 3.0, 4.0], "25 bytes instead of 24"),
        ([], "0 bytes"),
        ([1.0, np.nan, 3.0], "not finite"),
        ([np.inf, 2.0, 3.0], "not finite"),
    ],
)
def test_a_wrong_packet_is_a_fault_and_changes_nothing(sensor, send, values, words):
    send([7, 8, 9])
    sensor.poll([])
    t_ns = sensor.t_ns
    send(values)
    faults: list[str] = []
    sensor.poll(faults)
    assert len(faults) == 1 and words in faults[0] and "'cube'" in faults[0]
    np.testing.assert_array_equal(sensor.value, [7, 8, 9])
    assert (sensor.seq, sensor.t_ns) == (1, t_ns)
    send([4, 5, 6])
    sensor.poll(faults)
    np.testing.assert_array_equal(sensor.value, [4, 5, 6])


def test_what_came_before_is_forgotten(sensor, send):
    send([1, 2, 3])
    sensor.drain()
    assert sensor.seq == 0
    sensor.poll([])
    assert sensor.seq == 0


def test_a_taken_port_is_an_error_that_names_it(sensor):
    other = UdpSensor("drawer", sensor.port, 2)
    with pytest.raises(GenpolicyError, match=f"'drawer'.*{sensor.port}"):
        other.open()
    sensor.close()
    other.open()
    other.close()


def test_nothing_comes_from_the_network(sensor):
    addresses = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None)}
    outside = [a for a in addresses if ":" not in a and not a.startswith("127.")]
    if not outside:
        pytest.skip("this machine has no other address")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(np.ones(3, "<f8").tobytes(), (outside[0], sensor.port))
    time.sleep(0.1)
    sensor.poll([])
    assert sensor.seq == 0
