"""numba's compiler, with a cache on disk that never outlives the code it was made from.

numba notices changes of the one file a cached function is defined in. A task's loop is compiled
together with functions of many files (``compiled_loop``, ``episodes``, ``native``, its rewards), so
after ``git pull`` numba would go on simulating with the old ones. Hence every version of the code
has a cache folder of its own, named by a hash of all source files of this package and of the
versions of numba, MuJoCo and NumPy. ``NUMBA_CACHE_DIR``, where the user has set it, is left alone.

Modules here take ``njit`` from this one, so that the folder is chosen before anything is compiled.
"""

# pyright: reportAttributeAccessIssue=false, reportPrivateImportUsage=false

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import numba
from numba import njit

__all__ = ["cache_folder", "njit"]

DAYS_KEPT = 30  # an unused folder of other code


def cache_folder(sources: Path, base: Path) -> Path:
    """The folder in ``base`` for the code in ``sources``."""
    digest = hashlib.sha256()
    for name in ("numba", "mujoco", "numpy"):
        digest.update(f"{name} {version(name)}\n".encode())
    for path in sorted(sources.rglob("*.py")):
        text = path.read_bytes()
        digest.update(f"{path.relative_to(sources)} {len(text)}\n".encode())
        digest.update(text)
    return base / f"compiled-{digest.hexdigest()[:16]}"


def user_cache() -> Path:
    """A folder that lasts and that only this user writes, for numba's caches are pickles."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    for base in (Path(home, "genpolicy"), Path(tempfile.gettempdir(), f"genpolicy-{os.getuid()}")):
        try:
            base.mkdir(mode=0o700, parents=True, exist_ok=True)
            if base.stat().st_uid == os.getuid() and os.access(base, os.W_OK):
                return base
        except OSError:
            continue
    return Path(tempfile.mkdtemp(prefix="genpolicy-"))


def remove_unused(base: Path, now: float) -> None:
    """Delete folders in ``base`` that nobody has used for ``DAYS_KEPT``."""
    for folder in base.glob("compiled-*"):
        with suppress(FileNotFoundError):  # another process may be faster
            if now - folder.stat().st_mtime > DAYS_KEPT * 86400:
                shutil.rmtree(folder)


def choose_cache() -> None:
    """Point numba to the folder of this code, and note its use for ``remove_unused``."""
    if numba.config.CACHE_DIR:
        return
    base = user_cache()
    folder = cache_folder(Path(__file__).parent, base)
    folder.mkdir(exist_ok=True)
    os.utime(folder)
    remove_unused(base, time.time())
    numba.config.CACHE_DIR = str(folder)


choose_cache()
