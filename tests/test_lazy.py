"""Attributes that are computed once, without a lock that a forked process could inherit."""

from __future__ import annotations

import ast
import os
import pickle
import signal
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import norbert_store
from norbert_store._lazy import lazy

PACKAGE = Path(norbert_store.__file__).parent


class Counted:
    def __init__(self):
        self.calls = 0

    @lazy
    def answer(self):
        """What it comes to."""
        self.calls += 1
        return 42


def test_a_value_is_computed_once():
    counted = Counted()
    assert [counted.answer, counted.answer, counted.calls] == [42, 42, 1]
    assert Counted.answer.__doc__ == "What it comes to."


def test_a_value_goes_along_with_its_object():
    counted = Counted()
    _ = counted.answer
    again = pickle.loads(pickle.dumps(counted))
    assert (again.answer, again.calls) == (42, 1)


def test_nothing_in_the_package_has_a_lock_for_each_class():
    """`functools.cached_property` has one before Python 3.12."""
    found = [
        path.name
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and "cached_property" in {alias.name for alias in node.names}
    ]
    assert found == []


def wait_for(child, seconds):
    """Whether a child ends in time; it is killed if not."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if os.waitpid(child, os.WNOHANG)[0]:
            return True
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def read_all(path):
    for track in norbert_store.open(path):
        track.magnitude[:, :, :3].load()


def read_until(stopped, path):
    while not stopped.is_set():
        read_all(path)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_forked_children_read_while_other_threads_of_the_parent_do(tmp_path):
    path = tmp_path / "x.zarr"
    with norbert_store.create(path, targets=["a"], rate=8000, channels=1, effort=0) as writer:
        for i in range(20):
            writer.add(f"{i}", {"a": np.zeros(800)})
    read_all(path)  # so that all modules are there before the first fork
    stopped = threading.Event()
    threads = [threading.Thread(target=partial(read_until, stopped, path), daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(40):
            time.sleep(0.01)
            child = os.fork()
            if child == 0:
                read_all(path)
                os._exit(0)
            assert wait_for(child, 20)
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
