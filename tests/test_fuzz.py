"""Broken bytes come to nothing but a clear error or a right-shaped result: the short form of ``benchmarks/fuzz.py``."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from norbert_store._jpeg.rows import RowDecoder
from norbert_store._picture import read_picture
from norbert_store.errors import JpegError

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
if not BENCHMARKS.exists():
    pytest.skip("the benchmarks aren't here, which tell what is fuzzed", allow_module_level=True)
sys.path.insert(0, str(BENCHMARKS))

from fuzz_targets import GOOD, READERS, TARGETS, mutate, wrong  # noqa: E402
from hostile_jpegs import SHAPE, Expected, hostile_jpegs  # noqa: E402

FINDINGS = sorted((Path(__file__).parent / "data/fuzz").glob("*.bin"))
HOSTILE = list(hostile_jpegs())
# to open a store takes longer: of the many that are merely cut off, some are enough
SOME = [jpeg for i, jpeg in enumerate(HOSTILE) if not jpeg.name.startswith("the first ") or i % 50 == 0]
RUNS = {
    "header": 2000,
    "rows": 1500,
    "decode": 1500,
    "codecs": 150,
    "configurations": 300,
    "index": 3000,
    "document": 250,
    "picture": 1500,
    "store": 40,
    "whole": 0,
}


@pytest.mark.parametrize("path", FINDINGS, ids=lambda path: path.stem)
def test_what_was_found_once_stays_right(path):
    TARGETS[path.stem.split("-")[0]].run(path.read_bytes())


@pytest.mark.parametrize(
    "path", [path for path in FINDINGS if path.stem.startswith("picture")], ids=lambda path: path.stem
)
def test_pictures_that_were_believed_once_are_refused(path):
    with pytest.raises(ValueError, match=r"pixels|checksum"):
        read_picture(path.read_bytes())


def test_every_finding_is_told_of():
    text = (Path(__file__).parent / "data/fuzz/README.md").read_text()
    for path in FINDINGS:
        target = path.stem.split("-")[0]
        assert f"`{path.stem}`" in text or f"`-{path.stem.removeprefix(f'{target}-')}`" in text


@pytest.mark.parametrize("name", READERS)
def test_hostile_jpegs_are_refused_or_right_in_every_way_to_read_them(name):
    jpegs = {"zarr codecs": SOME, "store": SOME, "store, by zarr": SOME[::3]}.get(name, HOSTILE)
    assert [fault for jpeg in jpegs if (fault := wrong(jpeg, READERS[name]))] == []


def test_rows_of_hostile_jpegs_are_refused_or_right():
    decoder, right = RowDecoder(*SHAPE), 0
    for jpeg in SOME:
        for row in range(0, SHAPE[0], 8):
            try:
                levels = decoder.decode(jpeg.data, row, row + 8).levels
            except JpegError:
                continue
            if jpeg.expected is Expected.RIGHT:
                assert np.array_equal(levels, GOOD[row : row + 8]), jpeg.name
                right += 1
    assert right >= 30


def test_hostile_jpegs_take_little_memory(tmp_path):
    """In a process of their own, in which memory can be told; and the command says so."""
    command = [sys.executable, str(BENCHMARKS / "fuzz.py"), "--hostile", "--only", "Coder"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("Coder"))
    _, runs, found, _, megabytes = line.split()
    assert int(runs.replace(",", "")) == len(HOSTILE)
    assert found == "0"
    assert 0 < int(megabytes) < 100
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", TARGETS)
def test_changed_inputs_are_refused_or_right(name):
    target, rng = TARGETS[name], random.Random(0)
    seeds = target.seeds()
    for data in seeds:
        target.run(data)
    for _ in range(RUNS[name]):
        target.run(mutate(rng.choice(seeds), seeds, target.is_json, rng))
