"""The house is built as its map in CONTRIBUTING.md says; ``benchmarks/house.py`` counts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
if not (PROJECT / "benchmarks" / "house.py").exists():
    pytest.skip("the benchmarks aren't here", allow_module_level=True)
sys.path.insert(0, str(PROJECT / "benchmarks"))

from house import findings, read_house  # noqa: E402


@pytest.mark.parametrize(
    "what", ["rooms off the map", "arrows upwards", "arrows sideways", "circles", "private accesses"]
)
def test_the_house_has_no(what):
    assert findings(read_house(PROJECT))[what] == []


MAP = """# Contributing

## The house

    low                 numbers
    wing  other         in and
                        out
    high/               faces
"""


@pytest.fixture
def house(tmp_path):
    """Make a house of files, each with its text, and count."""

    def build(files, text=MAP):
        (tmp_path / "CONTRIBUTING.md").write_text(text)
        for name, code in {"__init__.py": "", **files}.items():
            path = tmp_path / "norbert_store" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(code)
        return read_house(tmp_path)

    return build


def test_arrows_are_found_wherever_they_are(house):
    late = "def f():\n    from norbert_store import wing\n    import norbert_store.high.inner\n"
    found = house({"low.py": late, "wing.py": "", "high/__init__.py": "", "high/inner.py": "from . import low"})
    assert found.arrows == {("low", "wing"), ("low", "high.inner"), ("high.inner", "high")}
    assert found.upwards == [("low", "high.inner"), ("low", "wing")]


def test_the_wings_know_nothing_of_each_other_and_the_door_is_above_all(house):
    found = house(
        {
            "low.py": "import norbert_store",
            "wing.py": "from norbert_store.other import x",
            "other.py": "x = 1",
            "high/a.py": "from norbert_store.high.b import y",
            "high/b.py": "y = 1",
            "__init__.pyi": "from .wing import x as x",
        }
    )
    assert (found.upwards, found.sideways) == ([("low", "")], [("wing", "other")])
    assert ("", "wing") in found.arrows


def test_circles_are_found_whole(house):
    found = house(
        {
            "low.py": "from norbert_store.wing import x",
            "wing.py": "from norbert_store.other import x",
            "other.py": "from norbert_store.low import x",
            "high/__init__.py": "from norbert_store.low import x",
        }
    )
    assert found.circles == [["low", "other", "wing"]]


def test_private_accesses_are_found(house):
    found = house(
        {
            "low.py": "class A:\n    def __init__(self):\n        self._x = 1\n_y = 2\n",
            "wing.py": "from norbert_store.low import A, _y\nA()._x\n",
            "other.py": "class B:\n    _x = 1\n\ndef f(other):\n    return other._x, other._foreign, other.__dict__\n",
        }
    )
    assert found.accesses == ["wing.py:1: from norbert_store.low import _y", "wing.py:2: A()._x"]
    assert found.foreign_accesses == ["other.py:5: other._foreign"]


def test_rooms_and_map_must_agree(house):
    found = house({"low.py": "", "wing.py": "", "new.py": "", "high/__init__.py": ""})
    assert found.floors == {"low": 0, "wing": 1, "other": 1, "high": 2}
    assert found.off_the_map == ["new", "other"]
    assert house({}, "# No map\n").floors == {}


def test_what_is_no_package_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="is neither the package norbert_store nor a folder that holds it"):
        read_house(tmp_path)
