"""What benchmarks have in common: calls that go on where they were interrupted."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
if not BENCHMARKS.exists():
    pytest.skip("the benchmarks aren't here", allow_module_level=True)
sys.path.insert(0, str(BENCHMARKS))

from resumed import resumed  # noqa: E402


def test_resumed(tmp_path):
    log, called = tmp_path / "log.jsonl", []

    def square(key):
        called.append(key["number"])
        return {"square": key["number"] ** 2}

    def numbers(*wanted):
        with ThreadPoolExecutor(1) as executor:
            return [row["square"] for row in resumed(square, [{"number": one} for one in wanted], log, executor)]

    assert numbers(1, 2) == [1, 4]
    with log.open("a") as file:
        file.write('{"number": 3, "squ')  # as a killed process leaves it
    assert numbers(2, 3) == [4, 9]
    assert called == [1, 2, 3]
    assert [json.loads(line)["number"] for line in log.read_text().splitlines()] == [1, 2, 3]


def test_resumed_keeps_what_was_done_before_an_error(tmp_path):
    def invert(key):
        return {"inverse": 1 / key["number"]}

    log, keys = tmp_path / "log.jsonl", [{"number": 2}, {"number": 0}]
    with ThreadPoolExecutor(1) as executor, pytest.raises(ZeroDivisionError):
        list(resumed(invert, keys, log, executor))
    assert [json.loads(line) for line in log.read_text().splitlines()] == [{"number": 2, "inverse": 0.5}]
