"""What this robot computer permits, and how to grant what it does not.

Nothing here is fatal: the loop runs without priority and on an ordinary kernel, only less
punctually, and ``bench`` measures how much less. The files named below as fixes are in
``configs/system``.
"""

from __future__ import annotations

import grp
import os
import resource
import stat
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from genpolicy_deploy.realtime import NICENESS, soft_realtime

LIMITS_FILE = "configs/system/genpolicy-limits.conf"
CORES = 2  # one for the loop and the arm, one for inference
FTDI_LATENCY_MS = 1
PUNCTUAL_CLOCKS = ("tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page")
PACKAGES = {  # what each is for
    "onnxruntime": "inference",
    "mujoco": "kinematics of arms",
    "mink": "kinematics of arms",
    "quadprog": "kinematics of arms",
    "pyserial": "feetech servos",
    "dynamixel-sdk": "dynamixel servos",
    "cyclonedds": "ROS 2",
    "ur-rtde": "Universal Robots",
    "mcap": "flight logs",
}


class Check(NamedTuple):
    """One finding; ``fix`` says how to grant what is missing and is empty where nothing is."""

    name: str
    found: str
    fix: str = ""

    @property
    def state(self) -> str:
        """``ok`` or ``missing``."""
        return "missing" if self.fix else "ok"


def doctor(root: Path = Path("/")) -> list[Check]:
    """All findings. ``root`` is where /dev, /proc and /sys are looked for."""
    permitted = list(permissions())
    return permitted + [check for source in SOURCES for check in source(root)]


def report(checks: list[Check]) -> str:
    """The findings as lines of text."""
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{check.state:<8}{check.name:<{width}}  {check.found}")
        if check.fix:
            lines.append(f"{'':<{width + 8}}  -> {check.fix}")
    return "\n".join(lines)


def permissions() -> Iterator[Check]:
    """What ``run`` asks the system for, asked for here and given back at once."""
    with soft_realtime() as granted:
        pass
    join = f"copy {LIMITS_FILE} to /etc/security/limits.d, join its group, log in again"
    for name, key, without in (
        ("real-time priority", "sched_fifo", "any other program delays the loop"),
        ("timer slack", "timer_slack", "the loop wakes 50 us later"),
    ):
        fine = granted[key] == "granted"
        yield Check(name, "granted" if fine else f"{granted[key]}: {without}", "" if fine else join)
    yield _memory(granted["mlockall"] == "granted", join)
    nice = _lowest_nice()
    yield Check(
        "priority of inference",
        f"niceness down to {nice}",
        "" if nice <= NICENESS else join,
    )


def _memory(locked: bool, fix: str) -> Check:
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    unlimited = soft == resource.RLIM_INFINITY or os.geteuid() == 0
    if locked and unlimited:
        return Check("locked memory", "no limit")
    text = f"limit of {soft // 1024} KiB: memory is paged in while the loop runs"
    return Check("locked memory", text, fix)


def _lowest_nice() -> int:
    if os.geteuid() == 0:
        return -20
    soft, _ = resource.getrlimit(resource.RLIMIT_NICE)  # 20 - niceness
    return -20 if soft == resource.RLIM_INFINITY else min(20 - soft, 19)


def cores(root: Path) -> Iterator[Check]:
    """The processors that a run may use, and whether others are kept off them."""
    count = len(os.sched_getaffinity(0))
    isolated = _text(root / "sys/devices/system/cpu/isolated") or "none"
    few = "" if count >= CORES else "allow a core for the loop and one for inference (taskset -c)"
    yield Check("cores", f"{count} permitted, isolated by the kernel: {isolated}", few)


def governors(root: Path) -> Iterator[Check]:
    """Whether a core that has slept is slow at first."""
    cpu = root / "sys/devices/system/cpu"
    found = {_text(path) for path in cpu.glob("cpu[0-9]*/cpufreq/scaling_governor")} - {""}
    if not found:
        yield Check("frequency", "not adjustable here (virtual machine, or fixed)")
        return
    fix = "" if found == {"performance"} else "cpupower frequency-set -g performance (as root)"
    yield Check("frequency", f"governor {', '.join(sorted(found))}", fix)


def kernel(root: Path) -> Iterator[Check]:
    """Whether the kernel itself can be interrupted by the loop."""
    release = os.uname()
    preemptible = _text(root / "sys/kernel/realtime") == "1"
    fix = "install the distribution's real-time kernel (Ubuntu Pro, Debian linux-image-rt)"
    flavour = "PREEMPT_RT" if preemptible else "no PREEMPT_RT: rare delays of milliseconds"
    yield Check("kernel", f"{release.release}, {flavour}", "" if preemptible else fix)
    runtime = _text(root / "proc/sys/kernel/sched_rt_runtime_us")
    if runtime:
        share = "all of it" if runtime == "-1" else f"{int(runtime) / 10_000:g} %"
        yield Check("real-time share", f"{share} of a core at most, so that a loop gone wild ends")


def clock(root: Path) -> Iterator[Check]:
    """Whether reading the time is a call into the kernel."""
    folder = root / "sys/devices/system/clocksource/clocksource0"
    source = _text(folder / "current_clocksource")
    if not source:
        yield Check("clock", "the kernel does not say")
        return
    slow = source not in PUNCTUAL_CLOCKS
    fix = f"boot with clocksource= one of: {_text(folder / 'available_clocksource')}"
    yield Check("clock", f"{source}{', slow to read' if slow else ''}", fix if slow else "")


def serial_ports(root: Path) -> Iterator[Check]:
    """Serial adapters: seen, permitted, and how long they sit on what servos answer."""
    patterns = ("ttyUSB*", "ttyACM*")
    ports = sorted(port for pattern in patterns for port in (root / "dev").glob(pattern))
    if not ports:
        yield Check("serial ports", "no USB adapter is plugged in (/dev/ttyUSB*, /dev/ttyACM*)")
    for port in ports:
        yield _port(port)
        timer = root / "sys/bus/usb-serial/devices" / port.name / "latency_timer"
        if text := _text(timer):
            slow = int(text) > FTDI_LATENCY_MS
            fix = f"echo {FTDI_LATENCY_MS} | sudo tee /{timer.relative_to(root)}"
            yield Check(f"latency of {port.name}", f"{text} ms a reply", fix if slow else "")


def _port(port: Path) -> Check:
    if os.access(port, os.R_OK | os.W_OK):
        return Check(port.name, "may be opened")
    facts = port.stat()
    fix = f"sudo chmod a+rw {port} (until it is unplugged)"
    if facts.st_mode & stat.S_IRGRP and facts.st_mode & stat.S_IWGRP:
        fix = f"sudo usermod -aG {_group(facts.st_gid)} $USER, then log in again"
    return Check(port.name, "may not be opened by this user", fix)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def packages(_root: Path) -> Iterator[Check]:
    """Versions of what inference and drivers need."""
    for name, purpose in PACKAGES.items():
        try:
            yield Check(name, metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Check(name, f"needed for {purpose}", "pip install 'genpolicy[robots]'")


SOURCES: tuple[Callable[[Path], Iterator[Check]], ...] = (
    cores,
    governors,
    kernel,
    clock,
    serial_ports,
    packages,
)


def _text(path: Path) -> str:
    """A file of /proc or /sys; empty where there is none."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
