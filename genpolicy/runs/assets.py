"""Data files that travel with the code: the Hydra configs and the assets."""

from __future__ import annotations

from pathlib import Path

from genpolicy.spec import GenpolicyError

_PACKAGE = Path(__file__).resolve().parents[1]


def data_folder(name: str) -> Path:
    """``configs`` or ``assets``: inside the installed package, else in the checkout.

    Raises:
        GenpolicyError: the installation is not complete.
    """
    for folder in (_PACKAGE / "_data" / name, _PACKAGE.parent / name):
        if folder.is_dir():
            return folder
    raise GenpolicyError(f"{name}/ is missing from this installation: install genpolicy again")
