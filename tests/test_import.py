"""Importing the package costs next to nothing, and all of its public names are there."""

from __future__ import annotations

import subprocess
import sys
from importlib.resources import files

import pytest

import norbert_store

HEAVY = ("numpy", "zarr", "xarray", "scipy", "soundfile", "matplotlib", "imagecodecs", "PIL", "rich", "av")


def loaded_after(code):
    """Those of the `HEAVY` modules that are loaded after some code, in a process of its own."""
    report = f"import sys; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    "code",
    [
        "import norbert_store",
        "import norbert_store; dir(norbert_store); norbert_store.__version__; hasattr(norbert_store, 'nonsense')",
        "import norbert_store.errors",
        "import norbert_store._command.cli",
    ],
)
def test_import_is_light(code):
    assert loaded_after(code) == []


def test_names_are_loaded_when_they_are_used():
    loaded = loaded_after("import norbert_store; norbert_store.TF")
    assert "numpy" in loaded
    assert "matplotlib" not in loaded


@pytest.mark.parametrize("name", norbert_store.__all__)
def test_every_public_name_is_there(name):
    assert getattr(norbert_store, name) is getattr(norbert_store, name)
    assert name in dir(norbert_store)
    assert name == "__version__" or getattr(norbert_store, name).__doc__


def test_public_names():
    assert {"open", "create", "export_musdb", "Store", "Track", "Writer", "TF", "Coder"} <= set(norbert_store.__all__)
    assert len(set(norbert_store.__all__)) == len(norbert_store.__all__)
    assert set(norbert_store.__all__) == {"__version__", *norbert_store._HOMES}
    assert dir(norbert_store) == sorted(set(dir(norbert_store)))


def test_a_star_import_gives_the_public_names():
    names = {}
    exec("from norbert_store import *", names)
    assert set(names) - {"__builtins__"} == set(norbert_store.__all__)
    assert names["open"] is norbert_store.open


def test_an_unknown_attribute_is_an_error():
    with pytest.raises(AttributeError, match="module 'norbert_store' has no attribute 'nonsense'"):
        _ = norbert_store.nonsense
    with pytest.raises(ImportError, match="cannot import name 'nonsense'"):
        from norbert_store import nonsense  # noqa: F401


def test_the_package_is_typed():
    assert files("norbert_store").joinpath("py.typed").is_file()
