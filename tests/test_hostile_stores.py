"""Whatever a hostile store says: typed errors or right values, soon and in little memory; nothing else is touched."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("memory, links and FIFOs are those of POSIX", allow_module_level=True)

from tests.hostile import STORES

PROJECT = Path(__file__).parents[1]
PROGRAM = [sys.executable, "-m", "tests.hostile_calls"]
_AT_A_TIME = 40
_SOME = 4  # of these, unless all are asked for by --all-states


def findings(names: Sequence[str], base: Path) -> Iterator[list[str]]:
    """Call everything on stores, in a process of its own, and another one if that dies: (store, call, problem)."""
    left = list(names)
    while left:
        done: list[str] = []
        with (
            tempfile.TemporaryFile("w+") as errors,
            subprocess.Popen(
                [*PROGRAM, str(base)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=PROJECT,
                env={**os.environ, "PYTHONPATH": str(PROJECT), "COLUMNS": "100"},
            ) as process,
        ):
            process.stdin.write("\n".join(left) + "\n")
            process.stdin.close()
            for line in process.stdout:
                found = json.loads(line)
                if len(found) == 1:
                    done.append(found[0])
                else:
                    yield found
            code = process.wait()
            errors.seek(0)
            error = errors.read()
        if code == 0:
            return
        yield [done[-1] if done else "", "", f"the process ended with {code}: {error[-3000:]}"]
        left = left[max(1, len(done)) :]


def test_every_kind_of_store_is_in_the_table():
    assert len(STORES) > 1000
    for kind in ("number", "text", "sources", "JPEG", "statistics", "zip", "pending", "transform", "index"):
        assert any(name.startswith(kind) for name in STORES), kind


def test_a_few_hostile_stores(tmp_path):
    assert list(findings(random.sample(list(STORES), 8), tmp_path / "base")) == []


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, len(STORES), _AT_A_TIME))
def test_hostile_stores(tmp_path, request, first):
    names = list(STORES)[first : first + _AT_A_TIME]
    if not request.config.getoption("--all-states"):
        names = random.sample(names, min(_SOME, len(names)))
    assert list(findings(names, tmp_path / "base")) == []
