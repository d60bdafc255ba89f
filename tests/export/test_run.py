"""A table into a store, by the public function: from files in any place to tracks with labels, and what it tells."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import soundfile
from zarr.storage import MemoryStore

import norbert_store
from norbert_store._check.repair import repair
from norbert_store._check.verify import verify
from norbert_store._export.run import export, export_folder, export_musdb
from norbert_store.errors import SourceError, StoreExistsError, TableError

RATE = 8000
OPTIONS: dict[str, Any] = {"transform": norbert_store.TF(rate=RATE, n_fft=256), "effort": 0}
TABLE = [
    {"name": "a", "full": "mixes/a.wav", "sung": "sung/a.wav", "split": "train", "genre": "Rock", "year": 1969},
    {"name": "b", "full": "mixes/b.wav", "sung": None, "split": "test", "genre": None, "year": 2001},
]
TARGETS = {"mixture": "full", "vocals": "sung"}


@pytest.fixture
def root(tmp_path):
    """Files of a table, in a folder for each target."""
    for i, path in enumerate(("mixes/a.wav", "sung/a.wav", "mixes/b.wav")):
        file = tmp_path / "music" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(file, np.random.default_rng(i).uniform(-0.5, 0.5, (4000, 2)), RATE, subtype="FLOAT")
    return tmp_path / "music"


def test_a_table_from_end_to_end(root, tmp_path):
    summary = export(TABLE, tmp_path / "x.zarr", targets=TARGETS, root=root, title="Table", **OPTIONS)
    assert (summary.location, summary.tracks, summary.written) == (str(tmp_path / "x.zarr"), 2, 2)
    assert summary.skipped == []
    assert verify(tmp_path / "x.zarr")
    db = summary.open()
    assert db.targets == ("mixture", "vocals")
    assert db.attributes["title"] == "Table"
    assert [(track.name, track.split, track.source) for track in db] == [
        ("a", "train", "music/mixes/a.wav"),
        ("b", "test", "music/mixes/b.wav"),
    ]
    assert db.tracks.genre.values.tolist() == ["Rock", ""]
    assert db.tracks.year.values.tolist() == [1969, 2001]
    assert db["b"].present == {"mixture": True, "vocals": False}
    audio, _ = soundfile.read(root / "sung/a.wav", dtype="float32")
    exact = np.abs(OPTIONS["transform"].transform(audio))
    stored = db["a"].magnitude.sel(target="vocals").values.transpose(1, 2, 0)
    assert np.abs(stored - exact[:, : stored.shape[1]]).max() < 0.02
    # the mixture is found again: its phase makes audio, and it mends what is damaged of itself
    assert db["a"].to_audio("vocals").shape == (4000, 2)
    (tmp_path / "x.zarr/magnitude/c/0/0/0/0").unlink()
    assert repair(tmp_path / "x.zarr").mended == ("magnitude/c/0/0/0/0",)


def test_a_table_of_one_target(root, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    rows = [{"name": "a", "mixture": "mixes/a.wav"}]
    summary = export(iter(rows), tmp_path / "x.zarr", **OPTIONS)
    assert summary.open().names == ["a"]
    assert summary.open().targets == ("mixture",)


def test_a_table_that_grew_is_resumed(root, tmp_path):
    export(TABLE[:1], tmp_path / "x.zarr", targets=TARGETS, root=root, **OPTIONS)
    summary = export(TABLE, tmp_path / "x.zarr", targets=TARGETS, root=root, resume=True, **OPTIONS)
    assert (summary.tracks, summary.written) == (2, 1)
    assert summary.open().names == ["a", "b"]


@pytest.mark.parametrize("change", ["no file", "no column", "two of a name", "outside", "empty", "label"])
def test_nothing_is_written_if_the_table_is_wrong(root, tmp_path, change):
    rows = [dict(row) for row in TABLE]
    targets = TARGETS
    if change == "no file":
        rows[1]["full"] = None
    elif change == "no column":
        targets = {"mixture": "fulll"}
    elif change == "two of a name":
        rows[1]["name"] = "a"
    elif change == "outside":
        rows[1]["full"] = "../x.wav"
    elif change == "label":
        rows[1]["year"] = "2001"
    else:
        rows = []
    with pytest.raises(TableError):
        export(rows, tmp_path / "x.zarr", targets=targets, root=root, skip_broken=True, **OPTIONS)
    assert not (tmp_path / "x.zarr").exists()


def test_files_that_are_broken_can_be_skipped(root, tmp_path):
    (root / "mixes/b.wav").write_bytes(b"no audio")
    with pytest.raises(ValueError, match=r"track 'b': .*b\.wav can't be read as audio"):
        export(TABLE, tmp_path / "x.zarr", targets=TARGETS, root=root, **OPTIONS)
    summary = export(TABLE, tmp_path / "y.zarr", targets=TARGETS, root=root, skip_broken=True, **OPTIONS)
    assert (summary.tracks, [name for name, _ in summary.skipped]) == (1, ["b"])


def test_everything_after_the_first_two_arguments_is_named(root, tmp_path):
    with pytest.raises(TypeError, match="positional"):
        export(TABLE, tmp_path / "x.zarr", TARGETS)  # type: ignore[call-arg]
    functions: list[Any] = [export_folder, export_musdb]
    for function in functions:
        with pytest.raises(TypeError, match="positional"):
            function(root, tmp_path / "x.zarr", 2)


# ---- what is told in the end


def test_a_summary_is_readable(root, tmp_path):
    (root / "mixes/b.wav").write_bytes(b"no audio")
    summary = export(TABLE, tmp_path / "x.zarr", targets=TARGETS, root=root, skip_broken=True, **OPTIONS)
    size = sum(path.stat().st_size for path in (tmp_path / "x.zarr").rglob("*") if path.is_file())
    assert repr(summary) == (
        f"<norbert_store.Summary of {str(tmp_path / 'x.zarr')!r}: 1 track, 0.5 s, {size / 1e6:.1f} MB; "
        "1 written, 1 skipped>"
    )


def test_a_summary_opens_its_store_wherever_that_is(root, tmp_path, monkeypatch):
    memory = export(TABLE, MemoryStore(), targets=TARGETS, root=root, **OPTIONS)
    assert memory.open().names == ["a", "b"]
    monkeypatch.chdir(tmp_path)
    folder = export(TABLE, "x.zarr", targets=TARGETS, root=root, **OPTIONS)
    assert folder.location == "x.zarr"
    monkeypatch.chdir("/")
    assert folder.open().names == ["a", "b"]


# ---- folders


def test_a_folder_and_what_is_there_already(root, tmp_path):
    summary = export_folder(root, tmp_path / "x.zarr", **OPTIONS)
    assert summary.open().names == ["mixes/a", "mixes/b", "sung/a"]
    with pytest.raises(StoreExistsError):
        export_folder(root, tmp_path / "x.zarr", **OPTIONS)
    with pytest.raises(SourceError, match="holds no tracks of MUSDB18"):
        export_musdb(root, tmp_path / "y.zarr", **OPTIONS)
