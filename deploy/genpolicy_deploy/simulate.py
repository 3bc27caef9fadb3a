"""``genpolicy-deploy simulate``: a simulated arm at the end of a real protocol, to try a robot on.

The arm is another process, ``python -m genpolicy_sim.peers.NAME``, as a real one would be.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import IO

from genpolicy.spec import GenpolicyError

PEERS = "genpolicy_sim.peers"
PARTS = ("arm", "orders")  # modules there that are no peers; nor is any with "_"
GOODBYE_S = 5.0


def names() -> list[str]:
    """Arms that can be simulated here."""
    if find_spec("genpolicy_sim") is None or (found := find_spec(PEERS)) is None:
        return []
    modules = [m.name for m in iter_modules(found.submodule_search_locations)]
    return sorted(m for m in modules if m not in PARTS and "_" not in m)


def simulate(name: str, objects: int | None = None, seed: int | None = None) -> None:
    """Serve until Ctrl-C or until the arm dies. Lines on stdin are orders to the arm.

    Args:
        name: one of ``names()``, also the name of the robot.
        objects: UDP port for Lift's observation ``object``.
        seed: episode of Lift where arm and cube start; not all arms have either.

    Raises:
        GenpolicyError: no such arm, or it does not start.
    """
    if name not in names():
        known = ", ".join(names()) or "none: pip install 'genpolicy[train]'"
        raise GenpolicyError(f"arm '{name}' cannot be simulated: there are {known}")
    command = [sys.executable, "-m", f"{PEERS}.{name}"]
    for option, value in (("--objects", objects), ("--seed", seed)):
        command += [] if value is None else [option, str(value)]
    pipe = subprocess.PIPE
    # A session of its own: Ctrl-C is for us, who end the arm by closing its stdin.
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, text=True, start_new_session=True
    ) as arm:
        assert arm.stdin and arm.stdout
        try:
            _introduce(name, arm.stdout.readline())
            threading.Thread(target=_pass_orders, args=(arm.stdin,), daemon=True).start()
            for answer in arm.stdout:
                print(answer, end="", flush=True)
        except KeyboardInterrupt:
            pass
        finally:
            _end(arm)


def _introduce(name: str, line: str) -> None:
    """Print what connects a robot to the arm that announced itself by ``line``."""
    try:
        ready = json.loads(line)["ready"]
    except (ValueError, KeyError, TypeError) as error:
        raise GenpolicyError(f"the simulated arm '{name}' did not start: see above") from error
    print(f"The simulated arm '{name}' is ready. In [driver] of its file in configs/robot, say")
    for key, value in ready.items():
        print(f"  {key} = {json.dumps(value)}")
    print(f"and: genpolicy-deploy run CONTROLLER.onnx --robot {name} --robot-config FILE.toml")
    print(
        "Type orders to it (state, reset SEED, faults: see its module), Ctrl-C to end.", flush=True
    )


def _pass_orders(to: IO[str]) -> None:
    """What people type; without a terminal nobody does, and the arm stays all the same."""
    with contextlib.suppress(OSError, ValueError):
        for line in sys.stdin:
            to.write(line)
            to.flush()


def _end(arm: subprocess.Popen[str]) -> None:
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        assert arm.stdin
        arm.stdin.close()
        arm.wait(GOODBYE_S)
    arm.kill()
