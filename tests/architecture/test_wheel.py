"""The wheel: enough for a robot computer, and for a trainer outside the checkout."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def run(*command, cwd, **env):
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [str(c) for c in command], cwd=cwd, env={**clean, **env}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel that ``make build`` has just made, else one made here."""
    found = sorted((ROOT / "dist").glob("*.whl"))
    if found:
        return found[-1]
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT, cwd=ROOT)
    return next(folder.glob("*.whl"))


def test_configs_and_assets_travel_inside(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for folder in ("configs", "assets"):
        files = [p for p in (ROOT / folder).rglob("*") if p.is_file()]
        inside = {f"genpolicy/_data/{p.relative_to(ROOT)}" for p in files}
        assert inside <= set(names)
    scenes = {str(p.relative_to(ROOT / "sim")) for p in (ROOT / "sim").rglob("assets/*.xml")}
    assert scenes and scenes <= set(names)
    assert {name.split("/")[0] for name in names if "dist-info" not in name} == {
        "genpolicy",
        "genpolicy_sim",
        "genpolicy_deploy",
    }


def test_robot_computer(wheel, tmp_path):
    """NumPy and ONNX Runtime only: the controller in assets/ loads and reproduces itself."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run(*pip, "-c", ROOT / "constraints.txt", wheel, cwd=tmp_path)
    controllers = sorted((ROOT / "assets").rglob("*.onnx"))
    assert controllers, "assets/ holds no controller to inspect"
    shown = run(python.with_name("genpolicy-deploy"), "inspect", controllers[0], cwd=tmp_path)
    assert "lift" in shown.lower()
    program = "import importlib.util as u, sys; sys.exit(u.find_spec('torch') is not None)"
    run(python, "-c", program, cwd=tmp_path)


def test_trainer_outside_the_checkout(wheel, tmp_path):
    """The full environment, but genpolicy itself from the wheel."""
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site]
    run(*pip, wheel, cwd=tmp_path)
    program = "import genpolicy, sys; from genpolicy.cli import main; print(genpolicy.__file__); "
    program += "sys.exit(main(['pretrain', '--cfg', 'job']))"
    shown = run(sys.executable, "-c", program, cwd=tmp_path, PYTHONPATH=str(site))
    assert shown.startswith(str(site))
    assert "name: diffusion" in shown
