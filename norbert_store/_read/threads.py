"""Work on as many threads as this process may use processors.

Decoders let go of Python's lock while they work. A process that is one of many, such as a worker of a data loader,
leaves the other processors to its siblings.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from threading import Lock
from typing import TypeVar

_Item = TypeVar("_Item")

_pools: dict[int, ThreadPoolExecutor] = {}


def thread_count() -> int:
    """Threads that work on one read."""
    if multiprocessing.current_process().daemon:
        return 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def for_each(function: Callable[[_Item], None], items: Iterable[_Item]) -> None:
    """Call a function with every item, on this thread and others; raise the first error, when all have stopped."""
    queue = _Queue(items)

    def work() -> None:
        for item in queue:
            try:
                function(item)
            except BaseException:
                queue.close()
                raise

    others = _start(work, min(len(queue), thread_count()) - 1)
    try:
        work()
    finally:
        queue.close()
        # those that never began have nothing left to do; to wait for them could be for ever, if this is one of the pool
        errors = [other.exception() for other in others if not other.cancel()]
    for error in errors:
        if error is not None:
            raise error


class _Queue(Iterable[_Item]):
    """Items for several threads, each of which gets some."""

    def __init__(self, items: Iterable[_Item]) -> None:
        self._items = list(items)[::-1]
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[_Item]:
        while True:
            with self._lock:
                if not self._items:
                    return
                item = self._items.pop()
            yield item

    def close(self) -> None:
        with self._lock:
            self._items.clear()


def _start(work: Callable[[], None], count: int) -> list[Future[None]]:
    """Start some work on other threads, as many as there can be: none, for example, when Python ends."""
    started: list[Future[None]] = []
    with suppress(RuntimeError):
        for _ in range(count):
            started.append(_pool().submit(work))  # noqa: PERF401
    return started


def _pool() -> ThreadPoolExecutor:
    """The threads of this process; those of a parent that forked it don't run here."""
    pool = _pools.get(os.getpid())
    if pool is None:
        pool = _pools[os.getpid()] = ThreadPoolExecutor(max(1, thread_count() - 1), "norbert_store")
    return pool
