"""Notebook views are safe HTML, and pictures of all kinds of tracks show what is in them."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
import zarr
from PIL import Image

import norbert_store
from norbert_store._show import plot_track, save_plot

RATE = 8000
MARKUP = "<script>alert('x')</script> & [red]\"x\"[/red] $x$ \\$ $\\nonsense{$"


def make(targets=("mixture",), name="x", seconds=0.5, channels=2, absent=(), transform=None, tracks=1, **row):
    """Open a store in memory of noise, which is loud enough to be seen."""
    place = zarr.storage.MemoryStore()
    audio = np.random.default_rng(0).uniform(-0.5, 0.5, (max(1, round(seconds * RATE)), channels))
    transform = transform or norbert_store.TF(rate=RATE, n_fft=256)
    with norbert_store.create(place, targets=targets, channels=channels, transform=transform) as writer:
        for i in range(tracks):
            stems = {target: None if target in absent else audio for target in targets}
            writer.add(name if tracks == 1 else f"{name} {i}", stems, **row)
    return norbert_store.open(place)


def texts(html):
    """All texts of HTML that is well-formed, and in which markup in names has become text."""
    root = ElementTree.fromstring(f"<div>{html}</div>")
    assert {element.tag for element in root.iter()} <= {"div", "b", "table", "tr", "th", "td"}
    return [text.strip() for text in root.itertext()]


def image_of(axis):
    (image,) = axis.get_images()
    return np.asarray(image.get_array())


def panels(figure):
    return [axis for axis in figure.axes if axis.get_ylabel().endswith("\nHz")]


# ---- in a notebook


@pytest.mark.slow
def test_a_store_shows_what_it_holds_and_its_first_tracks():
    shown = texts(make(("mixture", "vocals"), tracks=12, split="train")._repr_html_())
    for text in (
        "12",
        "mixture, vocals",
        "left, right",
        "stft, 8000 Hz, hop 128, 129 bins from 0 to 4000 Hz",
        "x 0",
        "x 9",
        "... 2 more",
        "0.5 s",
    ):
        assert text in shown
    assert "x 10" not in shown


def test_an_empty_store_is_shown():
    assert "0" in texts(make(tracks=0)._repr_html_())


def test_a_track_shows_its_facts():
    (track,) = make(("mixture", "vocals"), absent=["vocals"], split="train", source="a.wav", labels={"year": 1999})
    shown = texts(track._repr_html_())
    for text in ("x", "train", "0.50 s, 33 frames", "mixture", "a.wav", "year", "1999"):
        assert text in shown
    assert "vocals" not in " ".join(shown)


def test_markup_in_names_is_escaped():
    target = MARKUP.replace("/", "").replace("\\", "")
    (track,) = db = make((target,), name=MARKUP, split=MARKUP, source=MARKUP, labels={"genre": MARKUP})
    found = texts(db._repr_html_())
    assert (found.count(MARKUP), found.count(target)) == (2, 1)  # name and split
    found = texts(track._repr_html_())
    assert (sum(MARKUP in text for text in found), sum(target in text for text in found)) == (4, 1)


# ---- pictures


@pytest.mark.parametrize("targets", [["mixture"], ["mixture", "drums", "bass", "other", "vocals"]])
def test_a_picture_has_a_panel_for_each_target(targets):
    figure = plot_track(make(targets)[0])
    assert [axis.get_ylabel() for axis in panels(figure)] == [f"{target}\nHz" for target in targets]
    assert figure.get_suptitle() == "x"
    assert panels(figure)[-1].get_xlabel() == "seconds"
    assert [axis.get_ylabel() for axis in figure.axes if axis not in panels(figure)] == ["dB re 1"]
    figure.canvas.draw()


def test_absent_targets_are_not_drawn():
    figure = plot_track(make(("mixture", "vocals"), absent=["mixture"])[0])
    assert [axis.get_ylabel() for axis in panels(figure)] == ["vocals\nHz"]


TRANSFORMS = {
    "stft": norbert_store.TF(rate=RATE, n_fft=256),
    "mel": norbert_store.Mel(n_mels=40, rate=RATE, n_fft=256),
    "shortest": norbert_store.TF(rate=RATE, n_fft=2),
    "not centred": norbert_store.TF(rate=RATE, n_fft=256, centred=False),
}


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0, 0.5])
@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_picture_of_any_track(transform, channels, seconds):
    track = make(transform=TRANSFORMS[transform], channels=channels, seconds=seconds)[0]
    (axis,) = panels(plot_track(track))
    assert image_of(axis).shape == (300, min(track.frames, 1500))
    assert np.isfinite(image_of(axis)).all()
    first, last = axis.get_xlim()
    assert first == track.magnitude.time.values[0]
    assert last == pytest.approx(max(track.magnitude.time.values[-1], first + 0.001))


def test_a_track_of_one_frame():
    track = make(transform=TRANSFORMS["not centred"], seconds=0)[0]
    assert track.frames == 1
    figure = plot_track(track)
    figure.canvas.draw()
    assert image_of(panels(figure)[0]).shape == (300, 1)


def test_bins_that_are_no_frequencies_above_zero():
    place = zarr.storage.MemoryStore()
    bins = norbert_store.ReadyBins("other", rate=RATE, hop=100, frequencies=[0.0])
    with norbert_store.create(place, targets=["x"], transform=bins) as writer:
        writer.add_magnitudes("x", {"x": np.full((2, 5, 1), 0.5, np.float32)})
    (axis,) = panels(plot_track(norbert_store.open(place)[0]))
    assert np.allclose(image_of(axis), 20 * np.log10(0.5), atol=0.1)


def test_a_tone_is_drawn_at_its_time_frequency_and_level():
    place = zarr.storage.MemoryStore()
    seconds = np.arange(2 * RATE) / RATE
    tone = np.where(seconds < 1, 0.5 * np.sin(2 * np.pi * 1000 * seconds), 0)[:, np.newaxis]
    with norbert_store.create(place, targets=["x"], rate=RATE, channels=1) as writer:
        writer.add("x", {"x": tone})
    figure = plot_track(norbert_store.open(place)[0])
    (axis,) = panels(figure)
    image = image_of(axis)
    row, column = np.unravel_index(image.argmax(), image.shape)
    frequencies = np.geomspace(40, RATE / 2, 300)
    assert frequencies[row] == pytest.approx(1000, rel=0.02)
    assert column < image.shape[1] / 2
    assert image[:, -1].max() == -90
    assert image.max() == pytest.approx(20 * np.log10(0.25), abs=1)
    marks = dict(zip((label.get_text() for label in axis.get_yticklabels()), axis.get_yticks(), strict=True))
    assert marks["1,000"] == pytest.approx((row + 0.5) / 300, abs=0.01)
    figure.canvas.draw()


def test_names_are_drawn_as_they_are(tmp_path):
    (track,) = make(("$x$", "[red]b[red]"), name="$\\nonsense{$ <b> $y$")
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        save_plot(track, tmp_path / "x.svg")
    text = "".join(ElementTree.parse(tmp_path / "x.svg").getroot().itertext())
    for name in ("$\\nonsense{$ <b> $y$", "$x$", "[red]b[red]"):
        assert name in text


# ---- files


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["png", "PNG", "jpg", "pdf", "svg"])
def test_the_suffix_tells_the_format(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    save_plot(make()[0], path)
    start = {"png": b"\x89PNG", "jpg": b"\xff\xd8", "pdf": b"%PDF", "svg": b"<?xml"}[suffix.lower()]
    assert path.read_bytes().startswith(start)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.slow
def test_a_picture_has_the_shape_of_the_figure(tmp_path):
    save_plot(make(("mixture", "vocals"))[0], str(tmp_path / "x.png"))
    with Image.open(tmp_path / "x.png") as image:
        assert image.size == (1300, pytest.approx(1.3 * 100 * (0.9 + 2 * 1.9), abs=1))


@pytest.mark.parametrize("name", ["x", "x.xyz", ".png"])
def test_a_suffix_that_cannot_be_drawn_is_an_error(tmp_path, name):
    with pytest.raises(ValueError, match=r"can't be drawn; expected a file named .*\.png") as caught:
        save_plot(make()[0], tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nowhere/x.png", "file/x.png", "folder.png"])
def test_a_file_that_cannot_be_written_is_an_error(tmp_path, name):
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OSError, match=Path(name).name):
        save_plot(make()[0], tmp_path / name)
