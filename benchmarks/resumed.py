"""Calls on several processes that go on where they were interrupted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

Key = Mapping[str, Any]
Row = dict[str, Any]


def resumed(function: Callable[[Key], Key], keys: Sequence[Key], log: Path, executor: Executor) -> Iterator[Row]:
    """Call a function for each key that a log of earlier calls doesn't know, and write down what it returns.

    Parameters
    ----------
    function : callable
        Takes a key and returns a mapping of plain values; executors of processes must be able to import it.
    keys : sequence of mapping
        Of plain values; they tell one call from another.
    log : Path
        A line of JSON for each call, key and result in one object; made if it isn't there.
    executor : concurrent.futures.Executor

    Yields
    ------
    dict
        Key and result. Those that the log knows come first.

    Raises
    ------
    Exception
        The first one that a call raises; what was done before it is in the log.
    """
    names = sorted({name for key in keys for name in key})
    known = {_identity(row, names): row for row in _read_log(log)}
    missing = [key for key in keys if _identity(key, names) not in known]
    for key in keys:
        if _identity(key, names) in known:
            yield known[_identity(key, names)]
    with log.open("a") as file:
        for key, result in zip(missing, executor.map(function, missing), strict=True):
            row = {**key, **result}
            file.write(json.dumps(row) + "\n")
            file.flush()
            yield row


def _identity(row: Key, names: Sequence[str]) -> str:
    return json.dumps([row.get(name) for name in names])


def _read_log(log: Path) -> list[Row]:
    """Rows of the log; a last line that was cut off is taken away."""
    text = log.read_text() if log.exists() else ""
    whole, _, rest = text.rpartition("\n")
    if rest:
        log.write_text(whole + "\n" if whole else "")
    return [json.loads(line) for line in whole.splitlines()]
