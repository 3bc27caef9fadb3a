"""Environments that cannot be batched, stepped in worker processes: a block of them in each."""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genpolicy.spec import GenpolicyError


class Workers:
    """Processes that each serve a block of N environments; one message per process and call.

    Args:
        build: called in each process with the numbers of its environments; returns the object
            whose methods ``call`` runs. It must be importable there, as what it builds.
        num_envs: N.
        num_workers: processes; default all available cores.
        name: of the environments, for messages.

    Raises:
        GenpolicyError: an environment cannot be built; the message says why.
    """

    def __init__(
        self,
        build: Callable[[list[int]], Any],
        num_envs: int,
        num_workers: int | None = None,
        *,
        name: str,
    ) -> None:
        self._name = name
        self._processes: list[tuple[Any, Connection]] = []
        cores = len(os.sched_getaffinity(0))
        count = min(cores if num_workers is None else num_workers, num_envs)
        if count < 1:
            raise GenpolicyError(f"num_workers={num_workers} must be at least 1")
        self.blocks: list[NDArray[np.intp]] = np.array_split(np.arange(num_envs), count)
        for block in self.blocks:
            self._start(build, block.tolist())
        try:
            self._answers([connection for _, connection in self._processes])
        except BaseException:
            self.close()
            raise

    def _start(self, build: Callable[[list[int]], Any], envs: list[int]) -> None:
        # Spawn, because a forked copy of a process with threads may hang.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, build, envs), daemon=True)
        try:
            process.start()
        except Exception as error:  # of many kinds, whatever keeps an object from being sent
            self.close()
            raise GenpolicyError(
                f"{self._name}: cannot be sent to a worker process ({error}): build it in a "
                "function at the top of a module"
            ) from error
        finally:
            theirs.close()
        self._processes.append((process, ours))

    def call(self, method: str, arguments: Sequence[tuple[Any, ...] | None]) -> list[Any]:
        """Worker w runs ``method(*arguments[w])``, all at once; ``None`` leaves it in peace.

        Returns:
            What each returned (``None`` where it was not asked).

        Raises:
            GenpolicyError: a method raised or a process died; then all of them are ended.
        """
        if not self._processes:
            raise GenpolicyError(f"{self._name}: closed, make the environment anew")
        asked = [w for w, given in enumerate(arguments) if given is not None]
        results: list[Any] = [None] * len(arguments)
        try:
            for w in asked:
                self._processes[w][1].send((method, arguments[w]))
            answers = self._answers([self._processes[w][1] for w in asked])
        except (GenpolicyError, OSError, KeyboardInterrupt) as error:
            self.close()  # what the others are at is not known any more
            if isinstance(error, OSError):
                raise self._died() from error
            raise
        for w, answer in zip(asked, answers, strict=True):
            results[w] = answer
        return results

    def _answers(self, connections: Sequence[Connection]) -> list[Any]:
        """One answer from each."""
        answers = []
        for connection in connections:
            try:
                answer, failure = connection.recv()
            except (EOFError, OSError) as error:
                raise self._died() from error
            if failure is not None:
                message, trace = failure
                raise GenpolicyError(f"{self._name} failed: {message}") from RuntimeError(trace)
            answers.append(answer)
        return answers

    def _died(self) -> GenpolicyError:
        return GenpolicyError(f"{self._name}: a worker process died: make the environment anew")

    def close(self) -> None:
        """End the processes."""
        for _, connection in self._processes:
            connection.close()
        for process, _ in self._processes:
            process.join(timeout=5.0)
            if process.is_alive():
                process.kill()
        self._processes = []


def _serve(connection: Connection, build: Callable[[list[int]], Any], envs: list[int]) -> None:
    """Main function of a worker process: ends when the other side closes the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    server, failure = _attempt(build, envs)
    try:
        connection.send((None, failure))
        while True:
            method, arguments = connection.recv()
            connection.send(_attempt(getattr(server, method), *arguments))
    except (EOFError, OSError):
        return


def _attempt(function: Callable[..., Any], *arguments: Any) -> tuple[Any, tuple[str, str] | None]:
    """What it returns, and what went wrong: one line for people, and the traceback."""
    try:
        return function(*arguments), None
    except Exception as error:  # other people's code: whatever it is, the parent reports it
        reason = " ".join(str(error).split())
        return None, (f"{type(error).__name__}: {reason}", traceback.format_exc())
