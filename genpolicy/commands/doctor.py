"""What this machine can do, and the fix for what it cannot.

Examples:
    genpolicy doctor
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import NamedTuple

from genpolicy.spec import GenpolicyError

ROOM_GIB = 5


class Check(NamedTuple):
    """One finding: ``fix`` is empty where nothing is to be done; ``fatal`` where nothing works."""

    name: str
    found: str
    fix: str = ""
    fatal: bool = False


def run(arguments: Sequence[str]) -> int:
    """Print all checks; 1 if something without which nothing works is missing."""
    if arguments:
        raise GenpolicyError(f"doctor takes no argument, got {arguments[0]}")
    found = [check() for check in CHECKS]
    width = max(len(check.name) for check in found)
    for check in found:
        mark = "FAIL" if check.fatal else "warn" if check.fix else "ok"
        print(f"{mark:<5} {check.name:<{width}}  {check.found}")
        if check.fix:
            print(f"      {'':<{width}}  fix: {check.fix}")
    return int(any(check.fatal for check in found))


def python() -> Check:
    """Version of the interpreter."""
    old = sys.version_info < (3, 11)
    return Check(
        "python", platform.python_version(), "use Python 3.11 or newer" if old else "", old
    )


def versions() -> Check:
    """Installed packages against the tested set."""
    from genpolicy.data_files import data_path

    text = data_path("constraints.txt").read_text(encoding="utf-8")
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE))
    missing, other = [], []
    for name, pin in pins.items():
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
            continue
        if installed.split("+")[0] != pin:
            other.append(f"{name} {installed} (tested: {pin})")
    if missing:
        return Check("packages", f"missing: {', '.join(missing)}", "make install", fatal=True)
    if other:
        return Check("packages", ", ".join(other), "pip install -c constraints.txt '.[train]'")
    return Check("packages", f"{len(pins)} of {len(pins)} as tested")


def cores() -> Check:
    """Threads that torch would use, of the cores that this process may use."""
    import torch

    count = len(os.sched_getaffinity(0))
    threads = torch.get_num_threads()
    fix = "unset OMP_NUM_THREADS, or set num_threads=" if threads < count else ""
    return Check("cores", f"{count}, torch uses {threads}", f"{fix}{count}" if fix else "")


def bf16() -> Check:
    """Whether bfloat16 is computed in hardware, on the CPU or the GPU."""
    import torch

    from genpolicy.runs.environment import fast_bf16

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if fast_bf16(device):
        return Check("bf16", f"{device} has it in hardware: DPPO uses it (algo.bf16=null)")
    return Check("bf16", f"{device} has it not in hardware: DPPO stays with float32")


def simulator() -> Check:
    """Whether the batched simulator is there."""
    try:
        from mujoco import batch  # noqa: F401
    except ImportError as error:
        return Check("mujoco.batch", str(error), "pip install mujoco==3.17.0", fatal=True)
    return Check("mujoco.batch", f"mujoco {metadata.version('mujoco')}")


def rendering() -> Check:
    """Which off-screen OpenGL works."""
    from genpolicy_sim.rendering import backend

    try:
        return Check("rendering", f"{backend()} works")
    except GenpolicyError as error:
        return Check("rendering", "there will be no videos", str(error))


def fifo() -> Check:
    """Whether the control loop may ask for real-time scheduling (tried in a child process)."""
    program = "import os; os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True)
    if done.returncode == 0:
        return Check("real time", "SCHED_FIFO permitted")
    fix = "`genpolicy-deploy doctor` says how to grant it"
    return Check("real time", "SCHED_FIFO not permitted: more jitter at the robot", fix)


def disk() -> Check:
    """Room for runs."""
    free = shutil.disk_usage(".").free / 2**30
    fix = "free some, or set run_dir elsewhere" if free < ROOM_GIB else ""
    return Check("disk", f"{free:.0f} GiB free here", fix)


def monitor() -> Check:
    """Where Weights & Biases would log to."""
    from genpolicy.runs.logger import wandb_mode

    mode = wandb_mode("auto")
    found = {"offline": "no key: runs are logged offline, `wandb sync` sends them later"}
    return Check("wandb", found.get(mode, mode))


CHECKS: tuple[Callable[[], Check], ...] = (
    python,
    versions,
    cores,
    bf16,
    simulator,
    rendering,
    fifo,
    disk,
    monitor,
)
