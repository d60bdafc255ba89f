"""Work on several threads: every item once, errors at the end, and never a wait for ever."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from norbert_store._read.threads import for_each, thread_count

SEVERAL = pytest.mark.skipif(thread_count() < 2, reason="there is one processor")
FORK = pytest.mark.skipif(sys.platform == "win32", reason="no fork")
FORK_OF_THREADS = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")


def run(program):
    """Run a program on its own, which ends, whatever it does."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize("count", [0, 1, 2, 3, 1000])
def test_every_item_once(count):
    seen = []
    for_each(seen.append, range(count))
    assert sorted(seen) == list(range(count))
    for_each(seen.append, (i for i in range(count)))
    assert len(seen) == 2 * count


@SEVERAL
def test_two_threads_work_at_the_same_time():
    both = threading.Barrier(2, timeout=30)
    for_each(lambda _: both.wait(), range(2))  # type: ignore[arg-type]
    assert not both.broken


@pytest.mark.parametrize("count", [1, 2, 50])
def test_errors_are_raised_and_what_is_left_is_left(count):
    done = []

    def fail(item):
        if item == 0:
            raise KeyError("first")
        done.append(item)

    with pytest.raises(KeyError, match="first"):
        for_each(fail, range(count))
    found = list(done)
    for_each(done.append, [-1])
    assert done == [*found, -1]  # nobody goes on behind one's back


@SEVERAL
def test_errors_of_other_threads_are_raised():
    both = threading.Barrier(2, timeout=30)

    def fail(_):
        both.wait()
        if threading.current_thread() is not threading.main_thread():
            raise ValueError("over there")

    with pytest.raises(ValueError, match="over there"):
        for_each(fail, range(2))


@SEVERAL
def test_nothing_is_begun_after_an_error():
    begun = []

    def fail(item):
        begun.append(item)
        raise ValueError(item)

    with pytest.raises(ValueError):
        for_each(fail, range(1000))
    assert len(begun) <= thread_count()


def test_what_waits_for_work_can_be_work():
    """For ever, if one of the pool's threads waited for what only itself could begin."""
    program = """if True:
        from norbert_store._read.threads import for_each

        seen = []
        for_each(lambda i: for_each(lambda j: for_each(seen.append, [(i, j, k) for k in range(3)]), range(5)), range(7))
        assert len(seen) == len(set(seen)) == 3 * 5 * 7
        print("done")
    """
    assert run(program) == ["done"]


def test_many_threads_may_ask_at_once():
    found = [[] for _ in range(100)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda i: for_each(found[i].append, range(20)), range(100)))
    assert all(sorted(one) == list(range(20)) for one in found)


def test_processors_that_this_process_may_use_are_counted():
    if not hasattr(os, "sched_setaffinity"):
        assert thread_count() == os.cpu_count()
        return
    assert thread_count() == len(os.sched_getaffinity(0))
    one = min(os.sched_getaffinity(0))
    program = f"""if True:
        import os, threading

        os.sched_setaffinity(0, [{one}])
        from norbert_store._read.threads import for_each, thread_count

        threads = set()
        for_each(lambda _: threads.add(threading.get_ident()), range(100))
        print(thread_count(), len(threads), threading.active_count())
    """
    assert run(program) == ["1", "1", "1"]


@pytest.mark.parametrize("method", [pytest.param("fork", marks=[FORK, FORK_OF_THREADS]), "spawn"])
def test_workers_of_others_take_one_thread(method):
    for_each(lambda _: None, range(10))
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply_async(thread_count).get(60) == 1
        pool.apply_async(for_each, (str, range(10))).get(60)


@FORK
def test_forked_processes_have_threads_of_their_own():
    program = """if True:
        import multiprocessing, threading, warnings
        from norbert_store._read.threads import for_each, thread_count

        warnings.simplefilter("ignore", DeprecationWarning)

        def work():
            both = threading.Barrier(min(2, thread_count()), timeout=30)
            for_each(lambda _: both.wait(), range(both.parties))

        work()
        child = multiprocessing.get_context("fork").Process(target=work)
        child.start()
        child.join(30)
        print(child.exitcode)
        work()
    """
    assert run(program) == ["0"]


def test_when_python_ends_work_is_done_without_other_threads():
    program = """if True:
        import atexit
        from norbert_store._read.threads import for_each

        seen = []
        atexit.register(lambda: for_each(lambda i: print(i), range(3)))
        for_each(seen.append, range(3))
    """
    assert run(program) == ["0", "1", "2"]
