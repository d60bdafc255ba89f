"""The demo runs, writes what it says, and leaves other people's folders alone."""

from __future__ import annotations

import io
import math
import re
import sys

import pytest
import soundfile
from PIL import Image
from rich.console import Console

import norbert_store
from norbert_store._check.verify import verify
from norbert_store._command import cli
from norbert_store._command.demo import run_demo
from norbert_store.errors import StoreExistsError


def console():
    return Console(file=io.StringIO(), highlight=False, soft_wrap=True, emoji=False)


@pytest.mark.slow
def test_the_command_writes_what_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["norbert-store", "demo", "--tracks", "2", "--seconds", "2.5"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 0
    out, err = capsys.readouterr()
    assert err == ""
    folder = tmp_path / "norbert-store-demo"
    assert sorted(path.name for path in folder.iterdir()) == ["musdb", "musdb.zarr", "picture.png", "vocals.wav"]
    for path in folder.iterdir():
        assert f"norbert-store-demo/{path.name}" in out
    assert len(list((folder / "musdb").rglob("*.wav"))) == 10

    db = norbert_store.open(folder / "musdb.zarr")
    assert verify(folder / "musdb.zarr")
    assert str(db).replace(str(folder), "norbert-store-demo") in out
    with Image.open(folder / "picture.png") as picture:
        assert picture.format == "PNG"
    info = soundfile.info(folder / "vocals.wav")
    assert (info.frames, info.samplerate, info.channels) == (round(2.5 * 44100), 44100, 2)

    # what it shows can be typed
    commands = re.findall(r"^>>> (.*)", out, re.M)
    names = {"norbert_store": norbert_store}
    exec("\n".join(commands[:-1]), names)
    values = eval(commands[-1], names)
    assert f"{values.shape[0]} frames x {values.shape[1]} bins, largest {values.max():.4f}, in " in out
    assert values.shape[0] > 0
    assert out.splitlines()[-1] == "Next: norbert-store info norbert-store-demo/musdb.zarr"


@pytest.mark.slow
def test_an_empty_folder_will_do_and_a_track_may_be_short(tmp_path):
    told = console()
    run_demo(tmp_path, 1, 0.2, told)
    assert "1 frames x 186 bins" in told.file.getvalue()
    assert len(norbert_store.open(tmp_path / "musdb.zarr")) == 1


def test_a_folder_that_is_not_empty_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(StoreExistsError, match="exists already and isn't empty; give another folder"):
        run_demo(tmp_path, 1, 0.2, console())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(OSError, match=r"thesis\.txt"):
        run_demo(tmp_path / "thesis.txt", 1, 0.2, console())
    assert (tmp_path / "thesis.txt").read_text() == "x"


@pytest.mark.parametrize(("tracks", "seconds"), [(0, 1.0), (13, 1.0), (1, 0.0), (1, math.nan)])
def test_numbers_out_of_range_are_errors_before_anything_is_written(tmp_path, tracks, seconds):
    with pytest.raises(ValueError, match="tracks is" if seconds == 1 else "seconds is"):
        run_demo(tmp_path / "demo", tracks, seconds, console())
    assert not (tmp_path / "demo").exists()
