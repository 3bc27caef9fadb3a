"""The kinds of faults: what is done to which arm, and what has to follow."""

from __future__ import annotations

import contextlib
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from faults.rig import DRIVERS, Run

ARMS = tuple(d for d in DRIVERS if d != "mujoco")  # with a process, and a wire, of their own
DOG_S, SILENCE_S, CHUNK_S = 0.1, 0.1, 0.2  # the loop's and the arm's patience; a chunk's length


@dataclass(frozen=True)
class Kind:
    """One kind.

    Attributes:
        name: of it.
        layer: wire, hardware, sensor, policy, loop, people or recorder.
        act: does it, for as long as it lasts.
        drivers: that can have it.
        ends: whether the run must end (True), must go on (False), or may do either (None).
        rule_s: braking must begin so long after it, at the latest; None: nothing has to brake.
        event: what the log must say, as a regular expression over "kind text".
        loses: whether goals may get lost on the wire.
        cut: the log may end with it: it must be readable up to there.
        repair: the peer must be replaced afterwards.
    """

    name: str
    layer: str
    act: Callable[[Run], object]
    drivers: tuple[str, ...] = DRIVERS
    ends: bool | None = False
    rule_s: float | None = None
    event: str | None = None
    loses: bool = False
    cut: bool = False
    repair: bool = False


def kinds() -> list[Kind]:
    """All of them."""
    return [*_wire(), *_hardware(), *_sensor(), *_policy(), *_loop(), *_people(), *_recorder()]


def _orders(**by_driver: str) -> tuple[Callable[[Run], object], tuple[str, ...]]:
    """An action that orders the peer, and the drivers whose peers know how."""

    def act(run: Run) -> None:
        run.rig.order(by_driver[run.rig.driver])

    return act, tuple(by_driver)


def _wire() -> list[Kind]:
    fault = "^robot "

    def kind(name: str, event: str | None = fault, loses: bool = True, **orders: str) -> Kind:
        act, drivers = _orders(**orders)
        return Kind(name, "wire", act, drivers, ends=None, event=event, loses=loses)

    def silent(seconds: float) -> Callable[[Run], None]:
        def act(run: Run) -> None:
            if run.rig.peer is None:
                run.pause("simulation", seconds)
            else:
                run.rig.order(f"silent {seconds}")

        return act

    return [
        kind("answers lost", dynamixel="drop 2", feetech="drop 2", ros2="drop 100", ur="drop 100",
             lerobot="drop 2"),
        kind("bad checksum", dynamixel="crc 2", feetech="crc 2"),
        kind("cut short", dynamixel="partial 2", feetech="partial 2", ros2="partial 20",
             lerobot="partial 2"),
        kind("in two parts", event=None, ur="partial 3"),
        kind("garbage", event=None, dynamixel="noise 40", feetech="noise 40"),
        kind("garbage in the stream", event=None, ur="noise 1"),
        kind("wrong content", ros2="short 20", lerobot="word 2"),
        kind("not a number", ros2="nan 20", ur="nan 8", lerobot="nan 2"),
        kind("delayed", ur="delay 0.2 0.5"),
        kind("sent twice", event=None, ur="duplicate 5"),
        Kind("silent 50 ms", "wire", silent(0.05), ends=None, loses=True),
        Kind("silent 300 ms", "wire", silent(0.3), ends=None, event="^(robot|hold)", loses=True),
        Kind("silent 1.6 s", "wire", silent(1.6), ends=True, rule_s=SILENCE_S,
             event="^state STOP", loses=True),
        Kind("unplugged", "wire", *_orders(**dict.fromkeys(
             ("dynamixel", "feetech", "ur", "lerobot"), "unplug")),
             ends=True, rule_s=SILENCE_S, event="^state STOP", loses=True, repair=True),
        Kind("second publisher", "wire", *_orders(ros2="second"), ends=True, rule_s=SILENCE_S,
             event="^state STOP", loses=True, repair=True),
        Kind("second commander", "wire", *_orders(ros2="rival"), ends=True, rule_s=SILENCE_S,
             event="^state STOP", loses=True, repair=True),
    ]  # fmt: skip


def _hardware() -> list[Kind]:
    def stops(name: str, **orders: str) -> Kind:
        act, drivers = _orders(**orders)
        return Kind(name, "hardware", act, drivers, True, SILENCE_S, "^state STOP", True,
                    repair=True)  # fmt: skip

    def either(name: str, event: str | None = None, **orders: str) -> Kind:
        act, drivers = _orders(**orders)
        return Kind(name, "hardware", act, drivers, None, event=event, loses=True)

    def die(run: Run) -> None:
        peer = run.rig.peer
        peer.kill() if peer else run.signal("simulation", signal.SIGKILL)

    def pause(run: Run) -> None:
        peer = run.rig.peer
        if peer is None:
            run.pause("simulation", 0.3)
            return
        peer.send_signal(signal.SIGSTOP)
        time.sleep(0.3)
        peer.send_signal(signal.SIGCONT)

    return [
        stops("overload", dynamixel="error 2 overload", feetech="error 2 overload",
              ur="protective"),
        stops("overheating", dynamixel="error 4 overheating", feetech="error 4 overheating"),
        stops("voltage", dynamixel="error 1 voltage", feetech="error 1 voltage",
              ur="mode power_off"),
        stops("emergency stop of the arm", ur="estop"),
        stops("safeguard stop", ur="safeguard"),
        stops("program ended", ur="end"),
        stops("current", ur="current 30 0.5"),
        stops("driver hangs", lerobot="hang 0.5"),
        either("one servo mute", "^robot ", dynamixel="mute 3 0.05", feetech="mute 3 0.05"),
        either("readings freeze", **{d: "freeze 0.3" for d in ARMS}),
        either("readings jump", dynamixel="jump 3 100 0.1", ur="jump 0.2 0.1"),
        Kind("power lost", "hardware", die, ends=True, rule_s=SILENCE_S, event="^state STOP",
             loses=True, repair=True),
        Kind("controller stalls 300 ms", "hardware", pause, ends=None, event=".", loses=True),
    ]  # fmt: skip


def _sensor() -> list[Kind]:
    def broken(fault: str, seconds: float) -> Callable[[Run], None]:
        def act(run: Run) -> None:
            run.rig.sensor.fault = fault
            time.sleep(seconds)
            run.rig.sensor.well()

        return act

    said, held = "^robot observation", "^(hold|state HOLD)"
    return [
        Kind("silent 50 ms", "sensor", broken("silent", 0.05)),
        Kind("silent 300 ms", "sensor", broken("silent", 0.3), event=held),
        Kind("one packet nan", "sensor", broken("nan", 0.045), event=said),
        Kind("silent 1.6 s", "sensor", broken("silent", 1.6), ends=True, rule_s=DOG_S,
             event="^state STOP"),
        *(Kind(fault, "sensor", broken(fault, 0.3), event=said)
          for fault in ("nan", "inf", "short", "long")),
        Kind("nan 1.6 s", "sensor", broken("nan", 1.6), ends=True, rule_s=DOG_S,
             event="^state STOP"),
        Kind("flood", "sensor", broken("flood", 0.3), ends=None),
    ]  # fmt: skip


def _policy() -> list[Kind]:
    def wrong(fault: str, seconds: float = 0.4) -> Callable[[Run], None]:
        def act(run: Run) -> None:
            run.rig.sensor.policy = fault
            time.sleep(seconds)
            run.rig.sensor.well()

        return act

    def slow(amount: float) -> Callable[[Run], None]:
        def act(run: Run) -> None:
            run.rig.sensor.slow = amount
            time.sleep(0.3)
            run.rig.sensor.well()

        return act

    late = CHUNK_S + DOG_S + 0.1
    died = "^process_died"
    return [
        Kind("nan", "policy", wrong("nan"), event="^bad_chunk"),
        Kind("inf", "policy", wrong("inf"), event="^bad_chunk"),
        Kind("nan 3 s", "policy", wrong("nan", 3.0), ends=True, rule_s=late, event="^state STOP"),
        Kind("huge", "policy", wrong("huge")),
        Kind("wrong shape", "policy", wrong("shape"), ends=True, rule_s=late, event=died),
        Kind("error", "policy", wrong("error"), ends=True, rule_s=late, event=died),
        Kind("slow", "policy", slow(0.5), ends=None),
        Kind("hangs", "policy", slow(60.0), ends=True, rule_s=late, event="^state STOP"),
        Kind("stalls 50 ms", "policy", lambda run: run.pause("policy", 0.05), ends=None),
        Kind("stalls 300 ms", "policy", lambda run: run.pause("policy", 0.3), ends=None),
        Kind("stalls 3 s", "policy", lambda run: run.pause("policy", 3.0), ends=True, rule_s=late,
             event="^state STOP"),
        Kind("kill -9", "policy", lambda run: run.signal("policy", signal.SIGKILL), ends=True,
             rule_s=0.0, event=died),
    ]  # fmt: skip


def _loop() -> list[Kind]:
    def signalled(role: str, number: signal.Signals) -> Callable[[Run], None]:
        return lambda run: run.signal(role, number)

    def paused(role: str, seconds: float) -> Callable[[Run], None]:
        return lambda run: run.pause(role, seconds)

    def twice(run: Run) -> None:
        run.signal("loop", signal.SIGINT)
        time.sleep(0.05)
        with contextlib.suppress(OSError):
            run.signal("loop", signal.SIGINT)

    stop = "^state STOP"
    return [
        *(Kind(f"stalls {1000 * s:.0f} ms", "loop", paused("loop", s), ends=None,
               event="overrun" if s > 0.1 else None, loses=True) for s in (0.05, 0.15, 0.3)),
        Kind("stalls 1.5 s", "loop", paused("loop", 1.5), ARMS, None, SILENCE_S, "overrun|STOP"),
        *(Kind(f"arm process stalls {1000 * s:.0f} ms", "loop", paused("arm", s), ARMS, None,
               event="." if s > 0.1 else None, loses=True) for s in (0.05, 0.3)),
        Kind("arm process stalls 1.5 s", "loop", paused("arm", 1.5), ARMS, True, 1.5, stop),
        Kind("kill -9", "loop", signalled("loop", signal.SIGKILL), ends=True, rule_s=SILENCE_S,
             cut=True),
        Kind("SIGTERM", "loop", signalled("loop", signal.SIGTERM), ends=True, rule_s=0.0,
             event=stop),
        Kind("SIGINT", "loop", signalled("loop", signal.SIGINT), ends=True, rule_s=0.0, event=stop),
        Kind("SIGINT twice", "loop", twice, ends=True, rule_s=0.0, event=stop),
        Kind("SIGHUP", "loop", signalled("loop", signal.SIGHUP), ends=True, rule_s=0.0, event=stop),
        Kind("arm process kill -9", "loop", signalled("arm", signal.SIGKILL), ARMS, True, 0.0,
             "^process_died"),
        Kind("arm process SIGTERM", "loop", signalled("arm", signal.SIGTERM), ARMS, True, 0.0,
             stop),
    ]  # fmt: skip


def _people() -> list[Kind]:
    stop = "^state STOP emergency stop"
    return [
        Kind("emergency stop, file", "people", lambda run: run.estop.touch(), ends=True,
             rule_s=0.0, event=stop),
        Kind("emergency stop, signal", "people", lambda run: run.signal("loop", signal.SIGUSR1),
             ends=True, rule_s=0.0, event=stop),
    ]  # fmt: skip


def _recorder() -> list[Kind]:
    def full(run: Run) -> None:
        """No room for more: writing fails as on a full disk."""
        size = run.log.stat().st_size
        resource.prlimit(run.pid("recorder"), resource.RLIMIT_FSIZE, (size + 100, size + 100))

    def stall(run: Run) -> None:
        run.pause("recorder", 1.0)
        time.sleep(1.0)  # until what it missed is saved

    return [
        Kind("kill -9", "recorder", lambda run: run.signal("recorder", signal.SIGKILL), cut=True),
        Kind("disk full", "recorder", full, cut=True),
        Kind("stalls 1 s", "recorder", stall),
        Kind("SIGTERM", "recorder", lambda run: run.signal("recorder", signal.SIGTERM)),
    ]
