"""Where chunks lie, and the keys of shards."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from norbert_store._format.layout import parse_shard_key, shard_key


@given(st.integers(0, 2**53 - 1), st.integers(0, 2**53 - 1))
def test_keys_of_shards_are_read_as_they_are_written(target, shard):
    assert parse_shard_key(shard_key(target, shard)) == (target, shard)


@pytest.mark.parametrize(
    "key",
    [
        "magnitude/c/0/7/3/9",
        "magnitude/c/00/0/3/0",
        "magnitude/c/0/0/03/0",
        "magnitude/c/٠/0/٣/0",
        "magnitude/c/0/0/²/0",
        "magnitude/c/0/0/-1/0",
        "magnitude/c/0/0/3/0/0",
        "magnitude/c/0/0/3",
        "magnitude/c/0/0/3/0\n",
        "magnitude/0/0/3/0",
        "x/magnitude/c/0/0/3/0",
        "magnitude/c/0/0/" + "9" * 17 + "/0",
        "magnitude/c/0/0/" + "9" * 5000 + "/0",
    ],
)
def test_no_other_key_is_a_shard_s(key):
    assert parse_shard_key(key) is None


@given(st.text("0123٣/ ", max_size=12))
def test_a_key_that_is_read_is_the_one_that_is_written(rest):
    found = parse_shard_key(f"magnitude/c/{rest}")
    assert found is None or shard_key(*found) == f"magnitude/c/{rest}"
