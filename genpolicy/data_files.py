"""Data files that travel with the code: configs/, assets/ and constraints.txt (stdlib only)."""

from __future__ import annotations

from pathlib import Path

from genpolicy.spec import GenpolicyError

_PACKAGE = Path(__file__).resolve().parent


def data_path(name: str) -> Path:
    """A data folder or file: inside the installed package, else in the checkout.

    Raises:
        GenpolicyError: the installation is not complete.
    """
    for path in (_PACKAGE / "_data" / name, _PACKAGE.parent / name):
        if path.exists():
            return path
    raise GenpolicyError(f"{name} is missing from this installation: install genpolicy again")
