"""``genpolicy-deploy simulate``: an arm for people, by name."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from genpolicy_deploy import simulate
from genpolicy_deploy.cli import main


def test_every_driver_has_an_arm_to_try_it_on():
    assert {"dynamixel", "feetech", "lerobot", "ros2", "ur"} <= set(simulate.names())
    assert not {"arm", "orders", "serial_port"} & set(simulate.names())


def hear_ctrl_c() -> None:
    """A shell makes what it starts in the background ignore it, these tests included."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_serves_until_interrupted_and_leaves_nothing(tmp_path):
    command = [sys.executable, "-m", "genpolicy_deploy", "simulate", "dynamixel", "--seed", "3"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, preexec_fn=hear_ctrl_c
    )
    assert process.stdin and process.stdout and process.stderr
    try:
        assert "'dynamixel' is ready" in process.stdout.readline()
        key, port = process.stdout.readline().split(" = ")
        assert key.strip() == "port"
        port = Path(json.loads(port))
        assert port.exists()
        while "Ctrl-C" not in process.stdout.readline():
            pass
        process.stdin.write("state\n")
        process.stdin.flush()
        assert "cube_height" in process.stdout.readline()
        process.stdin.close()  # nobody types any more; the arm stays
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.0)
        assert port.exists()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert not port.parent.exists()
        assert process.stderr.read() == ""
    finally:
        process.kill()


def test_an_arm_that_does_not_exist_is_named(capsys):
    assert main(["simulate", "toaster"]) == 2
    assert "'toaster' cannot be simulated: there are dynamixel" in capsys.readouterr().err
