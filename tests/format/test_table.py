from __future__ import annotations

import json
import math

import numpy as np
import pytest

from norbert_store._format.table import (
    BASE_COLUMNS,
    Column,
    check_labels,
    check_name,
    check_text,
    label_column,
    metadata_text,
)
from norbert_store.errors import TrackError


@pytest.mark.parametrize(
    "name",
    ["a", "Ann - Long", "Žofie", "日本語", "🎵", "a/b", "../..", "a\\b", "a\nb", " x ", "<b>&amp;", "0", "n" * 100_000],
)
def test_any_text_is_a_name(name):
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", " ", "\n\t"])
def test_empty_name_is_refused(name):
    with pytest.raises(TrackError, match="must not be empty"):
        check_name(name)


@pytest.mark.parametrize("name", [None, 5, b"name", ["name"]])
def test_name_that_is_no_text_is_refused(name):
    with pytest.raises(TrackError, match="must be a str"):
        check_name(name)


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb"])
def test_half_a_surrogate_pair_is_refused(text):
    with pytest.raises(TrackError, match="the split .* can't be written as UTF-8"):
        check_text("the split", text)


def test_metadata_is_json_in_plain_text():
    metadata = {"ü": [1, 2.5, None, True], "deep": {"x": {}}}
    text = metadata_text(metadata)
    assert json.loads(text) == metadata
    assert "ü" in text


@pytest.mark.parametrize("metadata", [None, {}])
def test_no_metadata_is_an_empty_object(metadata):
    assert metadata_text(metadata) == "{}"


@pytest.mark.parametrize(
    "metadata",
    [{"x": math.nan}, {"x": [math.inf]}, {"x": object()}, {"x": {1, 2}}, {"x": b"bytes"}, {(1, 2): 3}, {"x": "\ud800"}],
)
def test_metadata_that_json_cannot_hold_is_refused(metadata):
    with pytest.raises(TrackError, match="metadata"):
        metadata_text(metadata)


@pytest.mark.parametrize("metadata", ["text", 5, ["a"], [("a", 1)]])
def test_metadata_must_be_a_mapping(metadata):
    with pytest.raises(TrackError, match="metadata must be a mapping"):
        metadata_text(metadata)


@pytest.mark.parametrize(
    ("value", "data_type", "optional"),
    [
        ("Rock", "string", True),
        (True, "bool", False),
        (5, "int64", False),
        (0.5, "float64", True),
        (2**63 - 1, "int64", False),
    ],
)
def test_column_takes_the_type_of_its_first_value(value, data_type, optional):
    column = label_column("label", value)
    assert (column.name, column.data_type, column.optional) == ("label", data_type, optional)


@pytest.mark.parametrize("value", [None, 1j, [1], {"a": 1}, b"x", 2**63, -(2**63) - 1])
def test_label_of_another_type_is_refused(value):
    with pytest.raises(TrackError, match="the label 'x'"):
        label_column("x", value)


@pytest.mark.parametrize("name", ["genre", "sub-genre", "a.b", "two words", "2nd", "CamelCase", "x_1", "c"])
def test_plain_label_names(name):
    assert label_column(name, 1).name == name


@pytest.mark.parametrize("name", ["", " x", "x ", "x.", ".x", "-x", "_x", "a/b", "a\\b", "ü", "x\n", "a:b", 5, None])
def test_label_names_that_are_no_plain_ones_are_refused(name):
    with pytest.raises(TrackError, match="must be made of"):
        label_column(name, 1)


@pytest.mark.parametrize("name", [*(column.name for column in BASE_COLUMNS), "target", "zarr.json"])
def test_taken_label_names_are_refused(name):
    with pytest.raises(TrackError, match="taken"):
        label_column(name, 1)


def test_labels_of_the_first_track_are_all_new():
    new = check_labels({"genre": "Rock", "year": 1969}, (), rows=0)
    assert list(new) == ["genre", "year"]


def test_optional_labels_may_come_later_and_be_left_out():
    genre = label_column("genre", "Rock")
    assert list(check_labels({"tempo": 120.0}, [genre], rows=3)) == ["tempo"]


@pytest.mark.parametrize("value", [5, True])
def test_whole_numbers_and_truth_values_cannot_come_later(value):
    with pytest.raises(TrackError, match="the label 'x' is new.* in the 3 tracks before"):
        check_labels({"x": value}, (), rows=3)


@pytest.mark.parametrize("value", [5, True])
def test_whole_numbers_and_truth_values_cannot_be_left_out(value):
    with pytest.raises(TrackError, match="the label 'x' is missing"):
        check_labels({}, [label_column("x", value)], rows=1)


@pytest.mark.parametrize(("first", "second"), [("a", 1), (1, 1.5), (1.5, True), (True, 1), (1, True), (1, "1")])
def test_labels_keep_their_type(first, second):
    column = label_column("x", first)
    with pytest.raises(TrackError, match=f"the label 'x' was {column.data_type} before, now found {second!r}"):
        check_labels({"x": second}, [column], rows=1)


def test_label_text_must_be_utf8():
    with pytest.raises(TrackError, match="the label 'x' .*UTF-8"):
        check_labels({"x": "\ud800"}, (), rows=0)


@pytest.mark.parametrize("labels", ["text", ["genre"], 5])
def test_labels_must_be_a_mapping(labels):
    with pytest.raises(TrackError, match="labels must be a mapping"):
        check_labels(labels, (), rows=0)


def test_no_labels():
    assert check_labels(None, (), rows=0) == {}
    assert check_labels({}, [Column("genre", "string", "", optional=True)], rows=1) == {}


@pytest.mark.parametrize(
    ("value", "data_type"),
    [(np.int16(3), "int64"), (np.bool_(True), "bool"), (np.float32(0.5), "float64"), (np.str_("Rock"), "string")],
)
def test_numpy_labels_are_taken_as_plain_ones(value, data_type):
    assert label_column("label", value).data_type == data_type


def test_a_whole_number_fits_a_column_of_fractions_and_none_is_not_known():
    tempo, genre = label_column("tempo", 120.5), label_column("genre", "Rock")
    assert check_labels({"tempo": 121, "genre": None}, [tempo, genre], rows=1) == {}
    assert check_labels({"mood": None}, [tempo, genre], rows=1) == {}
    with pytest.raises(TrackError, match="'year' is missing"):
        check_labels({"year": None}, [label_column("year", 1969)], rows=1)
