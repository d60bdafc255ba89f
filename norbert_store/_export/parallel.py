"""Calls on any executor of `concurrent.futures`, results in order; what a worker that died was at is done again."""

from __future__ import annotations

import multiprocessing
import os
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor
from concurrent.futures import wait as wait_for
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from itertools import takewhile
from typing import Any, TypeVar

from norbert_store.errors import WorkerError

MOST_DEATHS = 3

# a process for each processor: matrix products on several threads would get into each other's way
_ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}

_Result = TypeVar("_Result")


def process_pool(workers: int) -> ProcessPoolExecutor:
    """Return an executor of processes on this machine.

    They leave an interrupt from the keyboard to their parent, and end when it has gone.
    """
    # spawned: a forked process would inherit locks that threads hold at that moment
    return _Processes(workers, multiprocessing.get_context("spawn"), initializer=_begin_worker)


class _Processes(ProcessPoolExecutor):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._calls: set[Future[Any]] = set()

    def submit(self, *arguments: Any, **options: Any) -> Future[Any]:
        """Start a process if need be: with interrupts blocked, as it inherits, until it can ignore them."""
        with _environment(_ONE_THREAD), _interrupts_blocked():
            try:
                return self._remember(super().submit(*arguments, **options))
            except OSError as error:
                # as where a worker dies while another one is being started: the pipes that it was to get are closed
                raise BrokenProcessPool(f"a worker couldn't be started: {error}") from error

    def _remember(self, call: Future[Any]) -> Future[Any]:
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        return call

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait for calls, but not for processes to end by themselves: one that was killed may hold what they need."""
        if wait:
            wait_for([call for call in list(self._calls) if not (cancel_futures and call.cancel())])
            for process in list((self._processes or {}).values()):
                process.terminate()
        super().shutdown(wait, cancel_futures=cancel_futures)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set what processes inherit that are started meanwhile, unless it is set."""
    new = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def in_order(
    executor: Executor, function: Callable[..., _Result], arguments: Sequence[Any]
) -> Generator[_Result, None, None]:
    """Call a function with each argument on an executor, and yield what it returns, in order.

    When this ends, also by an error or because it is closed, no call is running any more.

    Parameters
    ----------
    executor : concurrent.futures.Executor
        If it breaks, processes of this machine take its place.
    function : callable
    arguments : sequence

    Raises
    ------
    WorkerError
        If workers died several times in a row, without a result between.
    Exception
        The first one that a call raises.
    """
    futures: list[Future[_Result]] = []
    done = deaths = 0
    with ExitStack() as pools:
        try:
            while done < len(arguments):
                try:
                    following = arguments[len(futures) : done + _most_waiting(executor)]
                    futures.extend(_submit(executor, function, argument) for argument in following)
                    result = futures[done].result()
                except BrokenExecutor as error:
                    deaths += 1
                    if deaths == MOST_DEATHS:
                        raise WorkerError(
                            f"workers died {deaths} times in a row, at task {done + 1} of {len(arguments)} or next to "
                            f"it: {error}; is there memory enough for this number of workers?"
                        ) from error
                    executor.shutdown()  # of the others, some may be at work still
                    executor = pools.enter_context(process_pool(_workers(executor)))
                    futures = _whole(futures)
                except Exception as error:
                    if not _is_given_up(error):
                        raise
                    raise WorkerError(
                        f"task {done + 1} of {len(arguments)} was given up: {error or type(error).__name__}; are "
                        "scheduler and workers still there?"
                    ) from error
                else:
                    deaths = 0
                    done += 1
                    yield result
        finally:
            wait_for([future for future in futures if _is_dask(executor) or not future.cancel()])


def _submit(executor: Executor, function: Callable[..., _Result], argument: Any) -> Future[_Result]:
    # Dask remembers what calls return: nothing but the token tells this one from the same one before an interruption
    return executor.submit(_call, function, argument, secrets.token_hex(8))


def _call(function: Callable[..., _Result], argument: Any, _token: str) -> _Result:
    return function(argument)


def _is_dask(executor: Executor) -> bool:
    return hasattr(executor, "_client")


def _most_waiting(executor: Executor) -> int:
    """Calls to hand over ahead; few to Dask, whose futures let themselves be cancelled while their call goes on."""
    return 4 * _workers(executor) if _is_dask(executor) else sys.maxsize


def _is_given_up(error: Exception) -> bool:
    """Whether this is how Dask tells that workers died again and again, or that its scheduler has gone."""
    return isinstance(error, CancelledError) or type(error).__name__ == "KilledWorker"


def _whole(futures: Sequence[Future[_Result]]) -> list[Future[_Result]]:
    """Those at the beginning that have a result."""
    return list(takewhile(lambda future: future.done() and future.exception() is None, futures))


def _workers(executor: Any) -> int:
    """Count calls that run at the same time."""
    if _is_dask(executor):
        try:
            return sum(executor._client.nthreads().values()) or 1
        except (AttributeError, OSError, RuntimeError):  # as a client whose scheduler has gone says; its futures tell
            return 1
    return getattr(executor, "_max_workers", None) or os.cpu_count() or 1


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Wait for the parent's end; a worker would wait for its next task for ever, had the parent been killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
