"""A table of tracks: what its columns mean, and what is wrong with it, told with the row before anything is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas  # type: ignore[import-untyped]
import pytest

from norbert_store._sources.table import table_tracks
from norbert_store.errors import SourceError, TableError

ROWS = [
    {"name": "one", "mixture": "1/mixture.wav", "vocals": "1/vocals.wav", "split": "train", "genre": "Rock", "year": 1},
    {"name": "two", "mixture": "2.wav", "vocals": None, "split": None, "genre": None, "year": 2},
]
TARGETS = ("mixture", "vocals")


def changed(row, **values):
    """The rows, of which one is another; a value of ... takes the column out."""
    rows = [dict(each) for each in ROWS]
    rows[row - 1].update(values)
    return [{key: value for key, value in each.items() if value is not ...} for each in rows]


# ---- what columns mean


def test_a_row_is_a_track():
    one, two = table_tracks(iter(ROWS), TARGETS)
    assert (one.name, one.split, one.labels) == ("one", "train", {"genre": "Rock", "year": 1})
    assert (two.name, two.split, two.labels) == ("two", "", {"year": 2})
    assert one.source.files == {"mixture": Path("1/mixture.wav"), "vocals": Path("1/vocals.wav")}
    assert one.source.path == Path("1")
    assert two.source.files == {"mixture": Path("2.wav")}
    assert two.source.path == Path("2.wav")


def test_columns_may_have_any_names():
    rows = [{"id": "a", "file": "a.wav", "fold": "x", "artist": "Ann", "mood": "blue"}]
    (track,) = table_tracks(rows, {"mixture": "file"}, name="id", split="fold")
    assert (track.name, track.split, track.labels) == ("a", "x", {"artist": "Ann", "mood": "blue"})
    (track,) = table_tracks(rows, {"mixture": "file", "other": "file"}, name="file", split=None, labels=["fold"])
    assert (track.name, track.split, track.labels) == ("a.wav", "", {"fold": "x"})
    assert set(track.source.files) == {"mixture", "other"}


@pytest.mark.parametrize("missing", [None, "", float("nan"), np.float64("nan"), ...])
def test_what_is_missing_is_not_known(missing):
    rows = changed(1, vocals=missing, split=missing, genre=None if missing == "" else missing)
    (track, _) = table_tracks(rows, TARGETS)
    assert list(track.source.files) == ["mixture"]
    assert (track.split, track.labels) == ("", {"year": 1})


def test_columns_of_any_name_and_with_gaps_are_labels():
    rows: list[dict[str, Any]] = [
        {"name": "a", "mixture": "a.wav", "start": 1, "zarr.json": "x", "a/b": ["p", "q"], "target": True},
        {"name": "b", "mixture": "b.wav", "start": None, "target": None},
    ]
    first, second = table_tracks(rows, ["mixture"])
    assert first.labels == {"start": 1, "zarr.json": "x", "a/b": ["p", "q"], "target": True}
    assert second.labels == {}


def test_a_dataframe_is_a_table():
    frame = pandas.DataFrame(ROWS).assign(played=pandas.array([3, None], dtype="Int64"))
    one, two = table_tracks(frame, TARGETS)
    assert (one.name, one.split, one.labels) == ("one", "train", {"genre": "Rock", "year": 1, "played": 3})
    assert (two.name, two.split, two.labels) == ("two", "", {"year": 2})
    assert (type(one.labels["year"]), type(one.labels["played"])) == (int, int)
    assert two.source.files == {"mixture": Path("2.wav")}
    with pytest.raises(TableError, match="the table is empty"):
        table_tracks(frame[:0], TARGETS)
    with pytest.raises(TableError, match="the table has two columns 'genre'"):
        table_tracks(frame.rename(columns={"year": "genre"}), TARGETS)


def test_a_table_needs_no_splits():
    rows = [{"name": "a", "mixture": "a.wav"}]
    assert table_tracks(rows, ["mixture"])[0].split == ""
    with pytest.raises(TableError, match="the table has no column 'fold'; it has 'name', 'mixture'"):
        table_tracks(rows, ["mixture"], split="fold")


# ---- the root


def test_paths_start_from_the_root(tmp_path, monkeypatch):
    (tmp_path / "music").mkdir()
    monkeypatch.chdir(tmp_path)
    inside = tmp_path / "music" / "2.wav"
    for root in (tmp_path / "music", "music", "music/../music"):
        for cell in ("2.wav", Path("2.wav"), "1/../2.wav", str(inside), inside.as_uri()):
            _, track = table_tracks(changed(2, mixture=cell), TARGETS, root=root)
            assert track.source.files["mixture"].resolve() == inside


@pytest.mark.parametrize("cell", ["../x.wav", "1/../../x.wav", "/etc/passwd", "../music2/x.wav", "file:///etc/passwd"])
def test_a_path_outside_of_the_root_is_an_error(tmp_path, cell):
    (tmp_path / "music").mkdir()
    with pytest.raises(TableError, match=rf"row 2: 'mixture' is {cell}, which lies outside of .*music$"):
        table_tracks(changed(2, mixture=cell), TARGETS, root=tmp_path / "music")
    table_tracks(changed(2, mixture=cell), TARGETS)  # without a root they may lead anywhere


def test_a_root_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(SourceError, match=r"there is no folder .*nowhere, which paths of the table start from"):
        table_tracks(ROWS, TARGETS, root=tmp_path / "nowhere")


# ---- what is wrong with a table


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "the table is empty; expected a row for each track"),
        (changed(2, mixture=None), "row 2: there is no file in 'mixture', 'vocals'"),
        (changed(2, mixture=7), "row 2: 'mixture' is 7; expected the path of a file"),
        (changed(1, vocals="https://example.org/x.wav"), "row 1: audio at https://.* can't be read from here"),
        (changed(2, name="one"), "rows 1 and 2 are both named 'one'"),
        (changed(2, name=...), "row 2: a track's name must be a str, found None"),
        (changed(2, name=""), "row 2: a track's name must not be empty"),
        (changed(2, name=7), "row 2: a track's name must be a str, found 7"),
        (changed(1, split=3), "row 1: the split must be a str, found 3"),
        (changed(2, year="1999"), "row 2: the label 'year' was int64 before, now found '1999'"),
        (changed(2, genre=[1]), r"row 2: the label 'genre' must be text, a truth value, a number or a list of texts"),
        (changed(1, _start=1), "row 1: a label's name must not be empty or begin with '_', found '_start'"),
        (changed(2, genre=["Rock"]), r"row 2: the label 'genre' was string before, now found \['Rock'\]"),
    ],
)
def test_what_is_wrong_is_told_with_the_row(rows, message):
    with pytest.raises(TableError, match=message):
        table_tracks(rows, TARGETS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"targets": ["mixture", "drums"]}, "the table has no column 'drums'; it has 'name', 'mixture', 'vocals', 's"),
        ({"targets": {"drums": "file"}}, "the table has no column 'file'"),
        ({"name": "title"}, "the table has no column 'title'"),
        ({"labels": ["genre", "mood"]}, "the table has no column 'mood'"),
    ],
)
def test_a_column_that_is_not_there_is_an_error_that_names_those_that_are(arguments, message):
    with pytest.raises(TableError, match=message):
        table_tracks(ROWS, **{"targets": TARGETS, **arguments})


@pytest.mark.parametrize(
    ("table", "arguments", "error", "message"),
    [
        (ROWS, {"targets": "mixture"}, TypeError, "targets must be a sequence of columns, .* found the one name 'mix"),
        (ROWS, {"targets": ()}, ValueError, "targets must name at least one column"),
        (ROWS, {"labels": "genre"}, TypeError, "labels must be a sequence of columns, found the one name 'genre'"),
        ("table.csv", {}, TypeError, "found the path table.csv; read it with pandas.read_csv"),
        ({"name": ["a"]}, {}, TypeError, "table must be rows, .* found dict"),
        (7, {}, TypeError, "table must be rows, .* found int"),
        ([*ROWS, "three"], {}, TypeError, "row 3 must be a mapping .*, found str"),
    ],
)
def test_what_is_no_table(table, arguments, error, message):
    with pytest.raises(error, match=message):
        table_tracks(table, **{"targets": TARGETS, **arguments})
