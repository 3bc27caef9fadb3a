"""genpolicy: generative robot policies from demonstrations to a real-time robot loop."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genpolicy.runs.load import load as load

__version__ = "0.1.0"
_LAZY = {"load": "genpolicy.runs.load"}


def __getattr__(name: str) -> Any:
    """Import torch only when something that needs it is asked for."""
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'genpolicy' has no attribute '{name}'")
