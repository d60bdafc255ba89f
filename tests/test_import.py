"""Importing the package costs next to nothing, and all of its public names are there."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.resources import files

import pytest

import norbert_store

HEAVY = ("numpy", "zarr", "xarray", "scipy", "soundfile", "matplotlib", "imagecodecs", "PIL", "rich", "av")


def run(code, **environment):
    """What some code prints, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, **environment}
    )
    assert done.stderr == ""
    return done.stdout.split()


def loaded_after(code):
    """Those of the `HEAVY` modules that are loaded after some code."""
    return run(f"{code}\nimport sys; print(*(name for name in {HEAVY!r} if name in sys.modules))")


@pytest.mark.parametrize(
    "code",
    [
        "import norbert_store",
        "import norbert_store; dir(norbert_store); norbert_store.__version__; hasattr(norbert_store, 'nonsense')",
        "import norbert_store; norbert_store.errors",
        "from norbert_store import quality",
        "import norbert_store._command.cli",
    ],
)
def test_import_is_light(code):
    assert loaded_after(code) == []


def test_names_are_loaded_when_they_are_used():
    loaded = loaded_after("import norbert_store; norbert_store.TF")
    assert "numpy" in loaded
    assert "matplotlib" not in loaded


@pytest.mark.parametrize("name", norbert_store.__all__)  # type: ignore[attr-defined]
def test_every_public_name_is_there(name):
    assert getattr(norbert_store, name) is getattr(norbert_store, name)
    assert name in dir(norbert_store)
    assert name == "__version__" or getattr(norbert_store, name).__doc__


def test_a_star_import_gives_the_public_names():
    names = {}
    exec("from norbert_store import *", names)
    assert set(names) - {"__builtins__"} == set(norbert_store.__all__)  # type: ignore[attr-defined]
    assert names["open"] is norbert_store.open


def test_an_unknown_attribute_is_an_error():
    with pytest.raises(AttributeError, match="norbert_store attribute nonsense"):
        _ = norbert_store.nonsense  # type: ignore[attr-defined]
    with pytest.raises(ImportError, match="cannot import name 'nonsense'"):
        from norbert_store import nonsense  # type: ignore[attr-defined]  # noqa: F401


def test_all_names_can_be_loaded_at_once():
    assert run("import norbert_store, sys; print('norbert_store._store' in sys.modules)", EAGER_IMPORT="1") == ["True"]


def test_the_package_is_typed():
    assert files("norbert_store").joinpath("py.typed").is_file()
