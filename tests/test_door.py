"""The door: every public name once, and nobody who shows how to use the package goes another way."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import soundfile
from zarr.storage import MemoryStore

import norbert_store
from norbert_store._export.tracks import ExportOptions
from norbert_store._write.settings import CreateOptions, new_document

PACKAGE = Path(norbert_store.__file__).parent
PROJECT = Path(__file__).resolve().parent.parent

FUNCTIONS = {
    *("append", "create", "export", "export_folder", "export_musdb", "open", "repair", "verify"),
}
CLASSES = {
    *("Excerpts", "Progress", "Report", "Store", "Summary", "Track", "Writer"),
    *("LogCurve", "Mel", "PowerCurve", "ReadyBins", "TF"),
    *("BandwidthLimiter", "Coder", "LogScaler", "PowerScaler", "Quantizer"),
}
MODULES = {"codecs", "errors", "filters", "quality"}

# what measures how parts work inside, and so has to take hold of them
MEASURE_PARTS = {
    "encoder_search.py",
    "export.py",
    "fuzz_targets.py",
    "hostile_jpegs.py",
    "quality_contestants.py",
    "read_contestants.py",
    "reliability.py",
    "scale.py",
}


def listed():
    """What the stub lists: public name -> module, "" where it is a module itself."""
    names = [
        (alias.asname, alias.name, node.module or "")
        for node in ast.parse((PACKAGE / "__init__.pyi").read_text()).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    assert all(public == name for public, name, _ in names)
    assert len({public for public, _, _ in names}) == len(names)
    return {public: module for public, _, module in names}


# ---- the names


def test_the_stub_lists_the_public_names():
    assert set(listed()) == FUNCTIONS | CLASSES | MODULES | {"__version__"}
    assert set(norbert_store.__all__) == set(listed())  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", sorted(FUNCTIONS | CLASSES))
def test_every_name_is_defined_where_the_stub_says(name):
    value = getattr(norbert_store, name)
    module = import_module(f"norbert_store.{listed()[name]}")
    assert getattr(module, name) is value
    assert (value.__module__, value.__name__) == (module.__name__, name)
    assert inspect.isclass(value) == (name in CLASSES)


def test_all_other_modules_of_the_package_begin_with_an_underscore():
    found = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert {name for name in found if not name.startswith("_")} == MODULES


def test_names_are_what_they_are_whatever_was_imported_before():
    code = f"""
import importlib, pathlib
root = pathlib.Path({str(PACKAGE)!r})
for path in sorted(root.rglob("*.py")):
    name = path.relative_to(root.parent).with_suffix("")
    importlib.import_module(".".join(part for part in name.parts if part != "__init__"))
import norbert_store
print(*(name for name in {sorted(FUNCTIONS)!r} if not callable(getattr(norbert_store, name))))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


# ---- arguments


def test_all_options_stand_in_the_signature():
    for name in FUNCTIONS:
        kinds = {parameter.kind for parameter in inspect.signature(getattr(norbert_store, name)).parameters.values()}
        assert kinds <= {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
    signature = inspect.signature(norbert_store.create)
    assert signature.parameters["quality"].default == 80.0
    assert set(signature.parameters) == set(inspect.signature(new_document).parameters) | {"location", "bundle_tracks"}


def test_type_checkers_know_the_same_options():
    of_create = {"targets", "rate", "channels"}
    assert set(CreateOptions.__annotations__) | of_create == set(inspect.signature(new_document).parameters)
    for function in (norbert_store.export_folder, norbert_store.export_musdb):
        assert set(ExportOptions.__annotations__) == set(inspect.signature(function).parameters) - {"root", "out"}


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_one_or_two_arguments_go_by_position(name):
    parameters = inspect.signature(getattr(norbert_store, name)).parameters.values()
    positional = [one for one in parameters if one.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    assert 1 <= len(positional) <= 2
    assert all(one.default is inspect.Parameter.empty for one in positional)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_an_unknown_option_is_named_with_the_one_that_was_meant(name, tmp_path):
    function = getattr(norbert_store, name)
    meant = list(inspect.signature(function).parameters)[-1]
    wrong = meant[:-1] + "x"
    with pytest.raises(TypeError, match=rf"^{name}\(\) has no option '{wrong}'; did you mean '{meant}'\?$"):
        function(tmp_path / "in", tmp_path / "out", **{wrong: 1})
    assert list(tmp_path.iterdir()) == []


def test_unknown_options_of_methods_are_named_as_well():
    store = MemoryStore()
    with norbert_store.create(store, targets=["a"], rate=8000, channels=1) as writer:
        with pytest.raises(TypeError, match=r"^Writer.add\(\) has no option 'lables'; did you mean 'labels'\?$"):
            writer.add("x", {"a": [0.0] * 100}, lables={})  # type: ignore[call-arg]
        with pytest.raises(TypeError, match=r"^Writer.add_magnitudes\(\) has no option 'zzz'$"):
            writer.add_magnitudes("x", {"a": [[[0.0]]]}, zzz=1)  # type: ignore[call-arg]
    assert len(norbert_store.open(store)) == 0


# ---- of classes and methods, and what is neither yes nor no


@pytest.fixture(scope="module")
def db():
    store = MemoryStore()
    with norbert_store.create(store, targets=["mixture", "vocals"], rate=8000, channels=1, effort=0) as writer:
        writer.add("x", {"mixture": [0.1] * 16000, "vocals": [0.0] * 16000})
    return norbert_store.open(store)


def public_callables(db):
    """Every public class that people make, and every public method with parameters: name -> callable."""
    classes = CLASSES - {"Store", "Track", "Excerpts", "Writer", "Progress", "Report", "Summary"}
    found = {name: getattr(norbert_store, name) for name in classes - {"Quantizer"}}
    for one in (db, db[0], db.excerpts(1.0)):
        kind = type(one)
        for name in (name for name in dir(one) if not name.startswith("_") and callable(getattr(kind, name, None))):
            found[f"{kind.__name__}.{name}"] = getattr(one, name)
    takes_any = {"Store.select"}  # labels
    of_mappings = {"Store.get", "Store.keys", "Store.items", "Track.require_target"}
    return {name: function for name, function in found.items() if name not in takes_any | of_mappings}


def test_unknown_options_are_named_by_every_class_and_method(db):
    for name, function in public_callables(db).items():
        with pytest.raises(TypeError, match=rf"^{name}\(\) has no option 'zzz'$"):
            function(zzz=1)


@pytest.mark.parametrize(
    ("function", "option"),
    [("repair", "drop"), ("verify", "decode"), ("export_folder", "resume"), ("export_folder", "skip_broken")],
)
def test_what_is_neither_true_nor_false_is_refused(function, option, tmp_path):
    with pytest.raises(TypeError, match=rf"^{function}\(\): {option} must be True or False, found 'no'$"):
        getattr(norbert_store, function)(*[tmp_path / "x"] * (1 + function.startswith("export")), **{option: "no"})


def test_what_is_neither_true_nor_false_is_refused_by_classes_and_methods(db):
    with pytest.raises(TypeError, match=r"^TF\(\): centred must be True or False, found 'no'$"):
        norbert_store.TF(centred="no")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^Store.excerpts\(\): remix must be True or False, found 1$"):
        db.excerpts(1.0, remix=1)
    assert db.digest(strong=np.bool_(False)) == db.digest()


@pytest.mark.parametrize("function", ["verify", "repair", "export_folder"])
def test_what_cannot_be_called_back_is_refused_before_anything_is_done(function, tmp_path):
    soundfile.write(tmp_path / "x.wav", np.zeros((800, 1)), 8000)
    places = [tmp_path, tmp_path / "out"][-2 if function.startswith("export") else -1 :]
    with pytest.raises(TypeError, match="^progress must be a function, found True$"):
        getattr(norbert_store, function)(*places, progress=True)
    assert not (tmp_path / "out").exists()


# ---- who goes through the door


def private_names(text):
    """What a text takes of the package that isn't public."""
    found = re.findall(r"norbert_store(?:\.\w+)*\._(?!_)\w+", text)
    return found + re.findall(r"from norbert_store(?:\.\w+)* import (?:\w+, )*_(?!_)\w+", text)


def shown():
    """All files that show how to use the package."""
    return [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md")), *sorted((PROJECT / "examples").glob("*"))]


@pytest.mark.parametrize("path", [path for path in shown() if path.is_file()], ids=lambda path: path.name)
def test_documents_and_examples_go_through_the_door(path):
    assert private_names(path.read_text(encoding="utf-8")) == []


def docstrings(one, name):
    """Docstrings of a public module, class or function and of what is public in it: name -> text."""
    found = {name: inspect.getdoc(one) or ""}
    public = getattr(one, "__all__", None) or [inner for inner in dir(one) if not inner.startswith("_")]
    if inspect.ismodule(one) or (inspect.isclass(one) and one.__module__.startswith("norbert_store")):
        for inner in public:
            found |= docstrings(getattr(one, inner, None), f"{name}.{inner}")
    return found


@pytest.mark.parametrize("name", sorted(FUNCTIONS | CLASSES | MODULES))
def test_help_names_what_is_public_alone(name):
    found = docstrings(getattr(norbert_store, name), name)
    assert {name: text for name, text in found.items() if private_names(text)} == {}


def test_benchmarks_of_behaviour_go_through_the_door():
    found = {
        path.name for path in (PROJECT / "benchmarks").glob("*.py") if private_names(path.read_text(encoding="utf-8"))
    }
    assert found == MEASURE_PARTS


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import norbert_store\nfrom norbert_store import TF, codecs\nnorbert_store.open(x)._reader", []),
        ("from norbert_store._store import Store", ["norbert_store._store"]),
        ("import norbert_store.quality._peaq as peaq", ["norbert_store.quality._peaq"]),
        ("from norbert_store import TF, _store", ["from norbert_store import TF, _store"]),
        ("`norbert_store._chain.modules` builds it", ["norbert_store._chain"]),
    ],
)
def test_private_names_are_found(text, found):
    assert private_names(text) == found


# ---- errors


def test_the_tree_of_errors_is_drawn_as_it_is():
    errors = norbert_store.errors
    defined = {
        name: one for name, one in vars(errors).items() if inspect.isclass(one) and one.__module__ == errors.__name__
    }
    drawn, group = {}, ""
    for line in errors.__doc__.splitlines():
        group = re.findall(r"\|   .*  (\w+Error)$", line)[0] if re.search(r"\|   .*  \w+Error$", line) else group
        if found := re.match(r"    [|`]-- (\w+)", line):
            of_python = re.search(r"\((\w+)\)$", line)
            drawn[found[1]] = of_python[1] if of_python else group
    assert set(drawn) == set(defined) - {"NorbertStoreError"}
    for name, python in drawn.items():
        assert defined[name].__bases__[0] is errors.NorbertStoreError
        assert defined[name].__bases__[1].__name__ == python
