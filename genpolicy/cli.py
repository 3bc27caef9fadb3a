"""The ``genpolicy`` command: picks the verb, composes its configuration, reports errors.

Nothing heavy is imported before it is known what to do, so ``--help`` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from genpolicy.spec import GenpolicyError

CONFIGURED = {
    "collect": "episodes of a scripted expert or of a policy -> robomimic HDF5",
    "pretrain": "imitation of demonstrations -> run folder",
    "finetune": "reinforcement learning from a checkpoint -> run folder",
    "value": "a value function that re-ranks a policy's samples (V-GPS) -> run folder",
    "eval": "success with interval, videos -> eval.json",
    "export": "policy and value function -> one ONNX controller",
    "demo": "the main job end to end on Panda Lift -> report.html",
}
PLAIN = {
    "convert": "flight logs of a robot -> robomimic HDF5",
    "info": "what a checkpoint, run folder, HDF5 or ONNX file is; algo=NAME lists its keys",
    "doctor": "what this machine can do, with the fix for what it cannot",
}
USAGE = """genpolicy: robot policies from demonstrations to a real-time robot loop

usage: genpolicy VERB [key=value ...]

{verbs}

genpolicy VERB --help      what it does, examples, its keys
genpolicy VERB --cfg job   print the configuration instead of running
genpolicy VERB -m k=a,b    one run per combination (Hydra sweep)
genpolicy VERB --debug     full traceback on errors"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (2: bad input, 130: Ctrl-C)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    try:
        return dispatch(arguments)
    except GenpolicyError as error:
        if debug:
            raise
        print(f"genpolicy: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        print("genpolicy: interrupted", file=sys.stderr)
        return getattr(error, "exit_code", 130)


def dispatch(arguments: list[str]) -> int:
    """Run the verb that ``arguments`` begin with.

    Raises:
        GenpolicyError: no such verb, or its input is bad.
    """
    verb = arguments[0] if arguments else "--help"
    rest = arguments[1:]
    if verb in ("-h", "--help", "help"):
        verbs = {**CONFIGURED, **PLAIN}.items()
        print(USAGE.format(verbs="\n".join(f"  {name:<9} {does}" for name, does in verbs)))
        return 0
    if verb not in CONFIGURED and verb not in PLAIN:
        raise GenpolicyError(
            f"'{verb}' is not a verb: choose one of {', '.join([*CONFIGURED, *PLAIN])}"
        )
    if "-h" in rest or "--help" in rest:
        print(import_module("genpolicy.commands.docs").help_text(verb))
        return 0
    if verb in PLAIN:
        return int(import_module(f"genpolicy.commands.{verb}").run(rest) or 0)
    return int(import_module("genpolicy.commands.launch").launch(verb, rest) or 0)


if __name__ == "__main__":
    sys.exit(main())
