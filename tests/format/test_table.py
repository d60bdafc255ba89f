from __future__ import annotations

import json
import math
import pickle
from typing import Any

import numpy as np
import pytest

from norbert_store._format.arrays import LONGEST_TEXT
from norbert_store._format.table import (
    BASE_COLUMNS,
    check_name,
    check_text,
    label_column_of,
    label_type,
    metadata_text,
    new_labels,
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


def test_text_has_a_longest_length_in_bytes():
    assert len(check_text("the split", "ä" * (LONGEST_TEXT // 2))) == LONGEST_TEXT // 2
    with pytest.raises(TrackError, match=f"the split takes at most {LONGEST_TEXT} bytes, found {LONGEST_TEXT + 2}"):
        check_text("the split", "ä" * (LONGEST_TEXT // 2 + 1))


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


# ---- labels

NAMES = [
    "genre",
    "sub-genre",
    "two words",
    "2nd",
    "ä/ö",
    "日本",
    "a.b",
    "a\\b",
    "x_",
    "start",
    "frames",
    "target",
    "zarr.json",
]
NAMES += ["track", "source", "metadata", "present", " x", "c/0", "..", "x" * 1000]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Rock", "string"),
        ("", "string"),
        (np.str_("Rock"), "string"),
        (True, "bool"),
        (np.bool_(False), "bool"),
        (5, "int64"),
        (2**63 - 1, "int64"),
        (-(2**63) + 1, "int64"),
        (np.int16(3), "int64"),
        (0.5, "float64"),
        (math.nan, "float64"),
        (np.float32(0.5), "float64"),
        (["Rock", "Pop"], "strings"),
        (("Rock",), "strings"),
        ([], "strings"),
    ],
)
def test_a_label_takes_the_type_of_its_first_value(value, expected):
    assert label_type("label", value) == expected


@pytest.mark.parametrize(
    "value",
    [
        None,
        1j,
        [1],
        ["a", None],
        {"a": 1},
        {"a"},
        b"x",
        2**63,
        -(2**63),
        np.uint64(2**63),
        np.zeros(2),
        "\ud800",
        ["\ud800"],
    ],
)
def test_label_of_another_type_is_refused(value):
    with pytest.raises(TrackError, match="the label 'x'"):
        label_type("x", value)


@pytest.mark.parametrize("name", NAMES)
def test_any_name_will_do(name):
    (column,) = new_labels({name: 1}, ())
    assert (column.name, column.type, column.path) == (name, "int64", "label/0")
    assert label_column_of(column.name, column.type, column.key) == column


@pytest.mark.parametrize(
    ("name", "message"),
    [
        *[(name, "must not be empty or begin with '_'") for name in ("", " ", "\n", "_", "_x", "_start", "__init__")],
        *[(name, f"a track's {name} is no label; give it as {name}=") for name in ("name", "split")],
        *[(name, "must be a str") for name in (5, None, b"x", ("a",))],
        ("\ud800", "can't be written as UTF-8"),
    ],
)
def test_names_that_are_none_are_refused(name, message):
    with pytest.raises(TrackError, match=message):
        new_labels({name: 1}, ())


def test_labels_get_keys_that_no_other_has():
    first = new_labels({"genre": "Rock", "year": 1969}, ())
    assert [(column.name, column.path) for column in first] == [("genre", "label/0"), ("year", "label/1")]
    far = label_column_of("far", "bool", "41")
    second = new_labels({"year": 1970, "tempo": 120.0, "live": True}, (*first, far))
    assert [(column.name, column.path) for column in second] == [("tempo", "label/42"), ("live", "label/43")]


@pytest.mark.parametrize("value", ["a", 5, True, 0.5, ["a"]])
def test_labels_may_come_later_and_be_left_out(value):
    (column,) = new_labels({"x": value}, ())
    assert new_labels({}, [column]) == new_labels(None, [column]) == new_labels({"x": None}, [column]) == ()
    assert [new.name for new in new_labels({"x": value, "y": value}, [column])] == ["y"]


def test_what_isnt_known_makes_no_label():
    assert new_labels({"x": None, "y": 1}, ()) == (label_column_of("y", "int64", "0"),)


@pytest.mark.parametrize(
    ("first", "second"),
    [("a", 1), (1, 1.5), (1.5, True), (True, 1), (1, True), (1, "1"), ("a", ["a"]), (["a"], "a"), (["a"], 1)],
)
def test_labels_keep_their_type(first, second):
    (column,) = new_labels({"x": first}, ())
    with pytest.raises(TrackError, match=f"the label 'x' was {column.type} before, now found"):
        new_labels({"x": second}, [column])


def test_a_whole_number_fits_a_label_of_fractions():
    assert new_labels({"x": 121}, new_labels({"x": 120.5}, ())) == ()


@pytest.mark.parametrize("labels", ["text", ["genre"], 5])
def test_labels_must_be_a_mapping(labels):
    with pytest.raises(TrackError, match="labels must be a mapping"):
        new_labels(labels, ())


@pytest.mark.parametrize("key", ["", "x", "-1", "1/2", "..", "1" * 10, 1, None, "１"])
def test_keys_are_digits(key):
    with pytest.raises(ValueError, match="a key of 1 to 9 digits"):
        label_column_of("x", "string", key)


# ---- what arrays hold, and what people get

KNOWN: dict[str, list[Any]] = {
    "string": ["Rock", "ü\0", "None", " "],
    "strings": [["a", "b, c"], [], ["ü", '"', ""], ["None"]],
    "int64": [0, -1, 2**63 - 1, -(2**63) + 1],
    "float64": [0.0, -1.5, math.inf, 1e300],
    "bool": [True, False, True, False],
}


@pytest.mark.parametrize("type_of", KNOWN)
def test_labels_come_back_with_their_gaps(type_of):
    column = label_column_of("x", type_of, "3")
    values = [None, *KNOWN[type_of], None]
    stored = column.to_array(values)
    assert stored.dtype == (object if column.data_type == "string" else column.data_type)
    assert [column.value(each) for each in stored.tolist()] == values
    assert [type(column.value(each)) for each in stored] == [type(value) for value in values]


@pytest.mark.parametrize("type_of", KNOWN)
def test_columns_of_labels_without_gaps_have_their_type(type_of):
    column = label_column_of("x", type_of, "3")
    found = column.values(column.to_array(KNOWN[type_of]))
    assert found.dtype == {"string": object, "strings": object, "bool": bool}.get(type_of, type_of)
    assert found.tolist() == KNOWN[type_of]


@pytest.mark.parametrize(
    ("type_of", "values", "dtype", "expected"),
    [
        ("string", ["a", None], object, ["a", ""]),
        ("strings", [["a"], None, []], object, [["a"], None, []]),
        ("int64", [1, None, -5], float, [1.0, math.nan, -5.0]),
        ("int64", [2**53 - 1, None], float, [2.0**53 - 1, math.nan]),
        ("int64", [2**53 + 1, None], object, [2**53 + 1, None]),  # which no float is
        ("int64", [None], float, [math.nan]),
        ("float64", [0.5, None], float, [0.5, math.nan]),
        ("bool", [True, None, False], object, [True, None, False]),
    ],
)
def test_columns_of_labels_with_gaps_tell_them(type_of, values, dtype, expected):
    column = label_column_of("x", type_of, "3")
    found = column.values(column.to_array(values))
    assert found.dtype == dtype
    same = [a == b or (a != a and b != b) for a, b in zip(found.tolist(), expected, strict=True)]
    assert all(same)


def test_what_the_store_keeps_has_no_gaps():
    columns = {column.name: column for column in BASE_COLUMNS}
    assert columns["start"].value(0) == 0
    assert columns["split"].value("") == ""
    assert columns["metadata"].to_array([None]).tolist() == ["{}"]
    by_target = ["source_bytes", "source_modified", "present", "scale"]
    assert [name for name, column in columns.items() if column.by_target] == by_target


def test_columns_are_the_same_in_another_process():
    column = label_column_of("x", "float64", "3")  # whose fill value is NaN
    assert pickle.loads(pickle.dumps(column)) == column
