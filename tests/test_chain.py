"""The seed's chain: its code runs as it stands, loses no more than it says, and can be inverted from the file alone."""

from __future__ import annotations

import copy
import io
import json
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import indent
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

import norbert_store as norbert
from norbert_store._chain import Spectrogram, remember
from norbert_store._picture import FORMATS, write_picture
from norbert_store._spectra.levels import LogCurve, PowerCurve
from norbert_store.errors import AudioError, MagnitudeError

LOSSLESS = [name for name in FORMATS if name != "jpg"]

SEED = """\
audio, rate = sf.read(audio_file)

# set up modules
tf = norbert.TF()
bw = norbert.BandwidthLimiter(bandwidth=16000)
ls = norbert.LogScaler()
qt = norbert.Quantizer()
im = norbert.Coder(format='jpg', quality=75)

# forward path
Xc = tf.transform(audio)            # complex spectrogram
Xl = bw.downsample(Xc)              # limit spectrogram to 16 kHz
Xs = ls.scale(Xl)                   # log scale
Xq = qt.quantize(Xs)                # quantize to 8 bit
im.encode(Xq, "quantized_image.jpg")

# inverse path
Xm_hat, _ = im.decode("quantized_image.jpg")
Xm_hat = qt.dequantize(Xm_hat)
Xm_hat = ls.unscale(Xm_hat)
Xm_hat = bw.upsample(Xm_hat)

# apply reconstruction using original phase
X_hat = np.multiply(Xm_hat, np.exp(1j * np.angle(Xc)))
audio_hat = tf.inverse_transform(X_hat)
sf.write("reconstruction.wav", audio_hat, rate)
"""

IMPORTS = """\
import numpy as np
import soundfile as sf
import norbert_store as norbert

"""


def tones(samples, channels, rate=44100):
    """A few decaying partials with a little noise, different in each channel."""
    dice = np.random.default_rng(samples + channels)
    seconds = np.arange(samples)[:, np.newaxis] / rate
    pitches = 200 * (1 + np.arange(channels))
    partials = sum(np.sin(2 * np.pi * pitches * k * seconds) * np.exp(-k * seconds) / k for k in range(1, 9))
    return 0.3 * partials + dice.uniform(-0.01, 0.01, (samples, channels))


def run_seed(folder, monkeypatch, audio, rate, code=SEED):
    sf.write(folder / "original.wav", audio, rate)
    monkeypatch.chdir(folder)
    names = {"audio_file": "original.wav"}
    exec(IMPORTS + code, names)
    return names


def snr(original, reconstruction):
    original = original.reshape(reconstruction.shape)
    return 10 * np.log10(np.sum(original**2) / np.sum((original - reconstruction) ** 2))


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def roundtrip(levels, **options):
    file = io.BytesIO()
    norbert.Coder(**options).encode(levels, file)
    file.seek(0)
    return norbert.Coder().decode(file)


# ---- the seed's code


@pytest.mark.parametrize("rate", [8000, 44100, 48000, 192000])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("samples", [1, 2, 100, 1023, 1024, 1025, 50_000])
def test_seed_gives_back_length_channels_and_rate(tmp_path, monkeypatch, samples, channels, rate):
    names = run_seed(tmp_path, monkeypatch, tones(samples, channels, rate), rate)
    assert names["audio_hat"].shape == (samples, channels)
    assert np.isfinite(names["audio_hat"]).all()
    written = sf.info("reconstruction.wav")
    assert (written.frames, written.channels, written.samplerate) == (samples, channels, rate)


@pytest.mark.parametrize("scaler", ["LogScaler", "PowerScaler"])
@pytest.mark.parametrize("channels", [1, 2])
def test_seed_sounds_like_the_original(tmp_path, monkeypatch, channels, scaler):
    code = SEED.replace("LogScaler", scaler)
    names = run_seed(tmp_path, monkeypatch, tones(50_000, channels), 44100, code)
    assert snr(names["audio"], names["audio_hat"]) > 15
    assert snr(names["audio"], names["tf"].inverse_transform(names["Xc"])) > 250


def test_seed_takes_silence(tmp_path, monkeypatch):
    names = run_seed(tmp_path, monkeypatch, np.zeros((5000, 2)), 44100)
    assert not names["audio_hat"].any()


def test_example_and_readme_have_the_seeds_code_as_it_stands():
    root = Path(__file__).parents[1]
    assert indent(SEED, "    ") in (root / "examples" / "encode_decode.py").read_text(encoding="utf-8")
    assert IMPORTS + SEED in (root / "README.md").read_text(encoding="utf-8")


# ---- what is lost


@pytest.mark.parametrize(
    ("scaler", "curve"),
    [
        (norbert.LogScaler(), LogCurve()),
        (norbert.LogScaler(range_decibel=40, reference=0.5), LogCurve(range_decibel=40)),
        (norbert.PowerScaler(), PowerCurve()),
        (norbert.PowerScaler(exponent=1, reference=0.7), PowerCurve(exponent=1)),
    ],
    ids=repr,
)
@pytest.mark.parametrize("format", LOSSLESS)
def test_lossless_formats_err_by_half_a_level_at_most(format, scaler, curve):  # noqa: A002
    Xc = norbert.TF(n_fft=256).transform(tones(3000, 2))
    levels, _ = roundtrip(norbert.Quantizer().quantize(scaler.scale(Xc)), format=format)
    magnitude = scaler.unscale(norbert.Quantizer().dequantize(levels))
    off = curve.compress(np.abs(np.asarray(Xc)) / scaler.reference)
    off -= curve.compress(np.asarray(magnitude) / scaler.reference)
    assert np.abs(off).max() <= 0.5 / 255 + 1e-12
    assert np.abs(off).max() > 0.4 / 255


def test_less_quality_is_less_alike_and_smaller(tmp_path):
    Xc = norbert.TF().transform(tones(20_000, 2))
    ps, qt = norbert.PowerScaler(), norbert.Quantizer()
    Xq = qt.quantize(ps.scale(Xc))
    sizes, errors = [], []
    for quality in (0, 50, 80, 100):
        norbert.Coder(quality=quality).encode(Xq, tmp_path / "picture.jpg")
        levels, _ = norbert.Coder().decode(tmp_path / "picture.jpg")
        sizes.append((tmp_path / "picture.jpg").stat().st_size)
        errors.append(np.abs(levels.astype(int) - Xq).mean())
    assert sizes == sorted(set(sizes))
    assert errors == sorted(set(errors), reverse=True)


@pytest.mark.slow
@given(levels=arrays(np.uint8, array_shapes(min_dims=3, max_dims=3, max_side=24)), format=st.sampled_from(LOSSLESS))
@settings(max_examples=150)
def test_any_levels_survive_a_lossless_format(levels, format):  # noqa: A002
    back, metadata = roundtrip(levels, format=format)
    assert back.dtype == np.uint8
    assert np.array_equal(back, levels)
    assert metadata == {"channels": levels.shape[2], "steps": []}


@given(shape=array_shapes(min_dims=3, max_dims=3, max_side=60), seed=st.integers(0, 99))
@settings(max_examples=60)
def test_any_levels_come_close_in_a_jpeg(shape, seed):
    """At quality 100 the table's steps give a block an error of 8.5 in the Euclidean norm at most, before rounding."""
    levels = noise(*shape, seed=seed)
    back, metadata = roundtrip(levels, quality=100)
    assert back.shape == shape
    assert np.abs(back.astype(int) - levels).max() <= 10
    assert metadata == {"channels": shape[2], "steps": []}


@given(
    samples=st.integers(1, 900),
    channels=st.integers(1, 3),
    n_fft=st.integers(1, 64).map(lambda half: 2 * half),
    rate=st.sampled_from([8000, 44100, 192000]),
    bandwidth=st.floats(1, 200_000),
)
@settings(max_examples=60)
def test_any_audio_keeps_its_shape(samples, channels, n_fft, rate, bandwidth):
    tf, bw, ls, qt = (
        norbert.TF(rate, n_fft),
        norbert.BandwidthLimiter(bandwidth),
        norbert.LogScaler(),
        norbert.Quantizer(),
    )
    Xc = tf.transform(tones(samples, channels, rate))
    levels, metadata = roundtrip(qt.quantize(ls.scale(bw.downsample(Xc))), format="png")
    Xm_hat = bw.upsample(ls.unscale(qt.dequantize(levels)))
    assert Xm_hat.shape == Xc.shape
    assert tf.inverse_transform(Xm_hat * np.exp(1j * np.angle(Xc))).shape == (samples, channels)
    assert norbert.Coder.modules(metadata) == [tf, norbert.BandwidthLimiter(bandwidth, rate, n_fft), ls, qt]


# ---- the picture


@pytest.mark.parametrize("format", FORMATS)
def test_low_frequencies_are_at_the_bottom_time_goes_right_first_channel_on_top(format, tmp_path):  # noqa: A002
    frames, bins, channels = 40, 16, 3
    levels = np.zeros((frames, bins, channels), np.uint8)
    for channel in range(channels):
        levels[10 * (channel + 1), 4 * channel + 1, channel] = 255
    norbert.Coder(format, 100).encode(levels, tmp_path / "picture")
    with Image.open(tmp_path / "picture") as image:
        picture = np.asarray(image)
    assert picture.shape == (channels * bins, frames)
    bright = {(int(row), int(column)) for row, column in np.argwhere(picture > 200)}
    # counted from above: bins 1, 5 and 9 of 16
    assert bright == {(14, 10), (16 + 10, 20), (32 + 6, 30)}


@pytest.mark.parametrize("format", FORMATS)
def test_metadata_and_steps_come_back(format):  # noqa: A002
    tf, bw = norbert.TF(rate=np.int64(16000), n_fft=256, hop=64), norbert.BandwidthLimiter(4000)  # type: ignore[arg-type]
    ps, qt = norbert.PowerScaler(exponent=np.float32(0.5)), norbert.Quantizer()  # type: ignore[arg-type]
    Xq = qt.quantize(ps.scale(bw.downsample(tf.transform(tones(1000, 2)))))
    back, metadata = roundtrip(Xq, format=format)
    assert metadata == {
        "channels": 2,
        "steps": [
            {
                "step": "TF",
                "rate": 16000,
                "n_fft": 256,
                "hop": 64,
                "window": "hann",
                "centred": True,
                "padding": "zeros",
                "samples": 1000,
            },
            {"step": "BandwidthLimiter", "bandwidth": 4000.0, "rate": 16000, "n_fft": 256},
            {"step": "PowerScaler", "reference": 1.0, "exponent": 0.5},
            {"step": "Quantizer"},
        ],
    }
    assert back.steps == Xq.steps == tuple(metadata["steps"])
    assert norbert.Coder.modules(metadata) == [tf, norbert.BandwidthLimiter(4000, 16000, 256), ps, qt]


def test_another_process_inverts_the_chain_from_the_file_alone(tmp_path):
    tf, bw, ls, qt = (
        norbert.TF(rate=16000, n_fft=512),
        norbert.BandwidthLimiter(5000),
        norbert.LogScaler(range_decibel=70, reference=0.9),
        norbert.Quantizer(),
    )
    Xc = tf.transform(tones(5000, 2, rate=16000))
    Xq = qt.quantize(ls.scale(bw.downsample(Xc)))
    np.save(tmp_path / "phase.npy", np.angle(Xc))
    expected = {}
    for name in FORMATS:
        norbert.Coder(name).encode(Xq, tmp_path / name)
        levels, _ = norbert.Coder().decode(tmp_path / name)
        magnitude = bw.upsample(ls.unscale(qt.dequantize(levels)))
        expected[name] = tf.inverse_transform(magnitude * np.exp(1j * np.angle(Xc)))
    code = """
import sys
import numpy as np
import norbert_store as norbert

phase = np.load("phase.npy")
for name in sys.argv[1:]:
    levels, metadata = norbert.Coder().decode(name)
    tf, bw, ls, qt = norbert.Coder.modules(metadata)
    magnitude = bw.upsample(ls.unscale(qt.dequantize(levels)))
    np.save(f"{name}.npy", tf.inverse_transform(magnitude * np.exp(1j * phase)))
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code, *FORMATS], cwd=tmp_path, check=True)
    for name, audio in expected.items():
        assert np.array_equal(np.load(tmp_path / f"{name}.npy"), audio), name


def test_file_may_be_a_string_a_path_or_an_open_file(tmp_path):
    levels, coder = noise(5, 6, 2), norbert.Coder("png")
    coder.encode(levels, tmp_path / "path.png")
    coder.encode(levels, str(tmp_path / "string.png"))
    with (tmp_path / "open.png").open("wb") as file:
        coder.encode(levels, file)
    for name in ("path.png", "string.png", "open.png"):
        with (tmp_path / name).open("rb") as file:
            for picture in (tmp_path / name, str(tmp_path / name), file):
                assert np.array_equal(coder.decode(picture)[0], levels)
    with pytest.raises(FileNotFoundError):
        coder.decode(tmp_path / "missing.png")


@pytest.mark.parametrize("name", ["PNG", "JPEG", "TIFF"])
def test_grey_picture_from_elsewhere_has_one_channel_and_no_steps(name):
    rows = np.linspace(0, 255, 24 * 40).reshape(24, 40).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(rows).save(file, name)
    file.seek(0)
    levels, metadata = norbert.Coder().decode(file)
    assert levels.shape == (40, 24, 1)
    assert np.abs(levels[:, ::-1, 0].T.astype(int) - rows).max() <= (3 if name == "JPEG" else 0)
    assert metadata == {"channels": 1, "steps": []}
    assert levels.steps == ()
    assert norbert.Coder.modules(metadata) == []
    assert norbert.Quantizer().dequantize(levels).shape == (40, 24, 1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it begins with nothing"),
        (b"garbage", "it begins with 67 61 72 62"),
        (b"\xff\xd8\xff\xe0", "the JPEG ends within its header"),
    ],
)
def test_what_is_no_picture_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        norbert.Coder().decode(io.BytesIO(data))


@pytest.mark.parametrize("channels", [0, -1, 5, 13, 1.0, "2", None, [1]])
def test_metadata_that_lies_about_channels_is_refused(channels):
    data = write_picture(noise(12, 5), "png", 75, {"channels": channels, "steps": []})
    with pytest.raises(ValueError, match=f"claims {re.escape(repr(channels))} channels in 12 rows"):
        norbert.Coder().decode(io.BytesIO(data))


@pytest.mark.parametrize("steps", [None, 5, "TF", ["TF"], [["step", "TF"]], {"step": "TF"}])
def test_metadata_with_steps_that_are_none_is_refused(steps):
    data = write_picture(noise(12, 5), "png", 75, {"channels": 2, "steps": steps})
    with pytest.raises(ValueError, match="expected a list of objects as the steps"):
        norbert.Coder().decode(io.BytesIO(data))


@pytest.mark.parametrize(
    "step",
    [
        {},
        {"step": "Vocoder"},
        {"step": "Coder"},
        {"step": ["TF"]},
        {"step": "Quantizer", "bits": 4},
        {"step": "TF", "hop": 0},
        {"step": "TF", "rate": "fast"},
        {"step": "BandwidthLimiter", "rate": "fast"},
        {"step": "BandwidthLimiter", "n_fft": 7},
        {"step": "LogScaler", "range_decibel": "80"},
        {"step": "PowerScaler", "exponent": 2},
        "TF",
    ],
    ids=str,
)
def test_steps_that_cant_be_built_again_are_refused(step):
    with pytest.raises(ValueError, match=r"can't be built again|must be"):
        norbert.Coder.modules({"steps": [{"step": "Quantizer"}, step]})


def test_more_frames_than_a_jpeg_has_columns(tmp_path):
    levels = noise(65_504, 8, 1)
    with pytest.raises(ValueError, match="at most 65500 rows and columns"):
        norbert.Coder().encode(levels, tmp_path / "picture.jpg")
    assert not (tmp_path / "picture.jpg").exists()
    assert np.array_equal(roundtrip(levels, format="png")[0], levels)


@pytest.mark.parametrize("format", ["gif", "JPG", "jpeg", "", None, 5])
def test_unknown_format_is_refused(format):  # noqa: A002
    with pytest.raises(ValueError, match=f"format must be one of 'jpg', 'png', .*; found {format!r}"):
        norbert.Coder(format=format)


@pytest.mark.parametrize("quality", [-1, 100.5, np.nan, np.inf, "75", None, True])
def test_quality_out_of_range_is_refused(quality):
    with pytest.raises(ValueError, match="quality must be a number from 0 to 100"):
        norbert.Coder(quality=quality)


# ---- what the modules refuse


FORWARD_AND_BACK: dict[str, Callable[..., Any]] = {
    "TF.inverse_transform": norbert.TF(n_fft=8).inverse_transform,
    "BandwidthLimiter.downsample": norbert.BandwidthLimiter().downsample,
    "BandwidthLimiter.upsample": norbert.BandwidthLimiter().upsample,
    "LogScaler.scale": norbert.LogScaler().scale,
    "LogScaler.unscale": norbert.LogScaler().unscale,
    "PowerScaler.scale": norbert.PowerScaler().scale,
    "PowerScaler.unscale": norbert.PowerScaler().unscale,
    "Quantizer.quantize": norbert.Quantizer().quantize,
    "Quantizer.dequantize": norbert.Quantizer().dequantize,
    "Coder.encode": lambda spectrogram: norbert.Coder().encode(spectrogram, io.BytesIO()),
}

NO_SPECTROGRAMS = {
    "a number": 0.5,
    "one dimension": np.zeros(5),
    "two dimensions": np.zeros((3, 5)),
    "four dimensions": np.zeros((3, 5, 1, 1)),
    "no frames": np.zeros((0, 5, 1)),
    "no bins": np.zeros((3, 0, 1)),
    "no channels": np.zeros((3, 5, 0)),
    "nan": np.full((3, 5, 1), np.nan),
    "infinity": np.full((3, 5, 1), np.inf),
    "one complex nan": np.array([0, 0, 0, 0, 1j * np.nan]).reshape(1, 5, 1),
    "strings": np.full((3, 5, 1), "loud"),
    "objects": np.full((3, 5, 1), None),
    "booleans": np.full((3, 5, 1), True),
    "a string": "loud",
    "nothing": None,
    "ragged": [[[0.0], [0.0, 0.0]]],
}


@pytest.mark.parametrize("name", NO_SPECTROGRAMS)
@pytest.mark.parametrize("method", FORWARD_AND_BACK)
def test_what_is_no_spectrogram_is_refused(method, name):
    with pytest.raises(ValueError, match=r"expected a spectrogram|NaN|inhomogeneous"):
        FORWARD_AND_BACK[method](NO_SPECTROGRAMS[name])


@pytest.mark.parametrize(
    "audio",
    [
        np.zeros(0),
        np.zeros((0, 2)),
        np.zeros((5, 0)),
        np.zeros((5, 2, 2)),
        np.array([0.0, np.nan]),
        np.array([0.0, -np.inf]),
        np.zeros(5, np.int16),
        np.array(["loud"]),
        1.0,
    ],
    ids=lambda audio: f"{np.shape(audio)} {np.asarray(audio).dtype}",
)
def test_what_is_no_audio_is_refused(audio):
    with pytest.raises(AudioError):
        norbert.TF().transform(audio)


@pytest.mark.parametrize("dtype", [float, np.float32, np.int64, np.int8, np.uint16, complex])
def test_only_uint8_is_dequantized_and_encoded(dtype):
    for method in ("Quantizer.dequantize", "Coder.encode"):
        with pytest.raises(ValueError, match=f"expected 256 levels as uint8, found dtype {np.dtype(dtype)}"):
            FORWARD_AND_BACK[method](np.ones((3, 5, 1), dtype))


@pytest.mark.parametrize("value", [-0.01, 1.01, 80, -np.float32(1e-3)])
@pytest.mark.parametrize("method", ["LogScaler.unscale", "PowerScaler.unscale", "Quantizer.quantize"])
def test_compressed_values_outside_0_to_1_are_refused(method, value):
    values = np.full((3, 5, 1), 0.5)
    values[1, 2, 0] = value
    with pytest.raises(ValueError, match=r"expected values from 0 to 1, found .*; scale them first"):
        FORWARD_AND_BACK[method](values)


@pytest.mark.parametrize("method", ["LogScaler.unscale", "PowerScaler.unscale", "Quantizer.quantize"])
def test_complex_values_are_not_taken_for_compressed_ones(method):
    with pytest.raises(ValueError, match="found dtype complex128"):
        FORWARD_AND_BACK[method](np.full((3, 5, 1), 0.5 + 0j))


@pytest.mark.parametrize("scaler", [norbert.LogScaler, norbert.PowerScaler])
@pytest.mark.parametrize("reference", [1.0, 0.25])
def test_magnitudes_above_the_reference_are_refused_with_the_reference_they_need(scaler, reference):
    for spectrogram in (np.full((3, 5, 1), 2.5), np.full((3, 5, 1), 1.5 + 2j), np.full((3, 5, 1), 2.4512349)):
        with pytest.raises(MagnitudeError, match=f"above the reference {reference:g}; use a reference of") as error:
            scaler(reference=reference).scale(spectrogram)
        needed = float(re.search(r"a reference of ([\d.]+)", str(error.value))[1])
        assert needed == 2.5  # rounded up, so that what is copied is enough
        assert scaler(reference=needed).scale(spectrogram).max() <= 1


@pytest.mark.parametrize("scaler", [norbert.LogScaler(), norbert.PowerScaler()])
def test_negative_magnitudes_are_refused(scaler):
    with pytest.raises(MagnitudeError, match=r"found a value of -0\.5; magnitudes must not be negative"):
        scaler.scale(np.full((3, 5, 1), -0.5))


@pytest.mark.parametrize("options", [{"reference": 0}, {"reference": -1}, {"reference": np.inf}, {"reference": "1"}])
def test_references_out_of_range_are_refused(options):
    for scaler in (norbert.LogScaler, norbert.PowerScaler):
        with pytest.raises(ValueError, match="reference must be"):
            scaler(**options)


@pytest.mark.parametrize(
    ("scaler", "options"),
    [
        (norbert.LogScaler, {"range_decibel": 0}),
        (norbert.LogScaler, {"range_decibel": np.nan}),
        (norbert.PowerScaler, {"exponent": 0}),
        (norbert.PowerScaler, {"exponent": 1.5}),
        (norbert.PowerScaler, {"exponent": True}),
    ],
)
def test_curves_out_of_range_are_refused(scaler, options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        scaler(**options)


# ---- the modules themselves


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (
            norbert.TF(),
            "TF(rate=44100, n_fft=2048, hop=1024, window='hann', centred=True, padding='zeros')",
        ),
        (norbert.BandwidthLimiter(8000), "BandwidthLimiter(bandwidth=8000, rate=None, n_fft=None)"),
        (norbert.LogScaler(60), "LogScaler(reference=1.0, range_decibel=60.0)"),
        (norbert.PowerScaler(0.5, 2), "PowerScaler(reference=2.0, exponent=0.5)"),
        (norbert.Quantizer(), "Quantizer()"),
        (norbert.Coder("png", 75), "Coder(format='png', quality=75)"),
    ],
)
def test_modules_are_values_that_tell_their_parameters(module, text):
    assert repr(module) == text
    again = eval(text, {type(module).__name__: type(module)})
    assert again == module
    assert hash(again) == hash(module)
    assert pickle.loads(pickle.dumps(module)) == module


def test_modules_with_other_parameters_are_other_modules():
    assert norbert.LogScaler(60) != norbert.LogScaler(80)
    assert norbert.LogScaler() != norbert.PowerScaler()
    assert norbert.TF() != norbert.TF(rate=48000)


def test_config_of_the_transform_builds_it_again():
    tf = norbert.TF(rate=22050, n_fft=512, hop=128, centred=False)
    assert norbert.TF(**json.loads(json.dumps(tf.config))) == tf


def test_modules_keep_their_hands_off_what_they_get():
    audio = tones(2000, 2)
    tf, bw, ls, qt = norbert.TF(n_fft=256), norbert.BandwidthLimiter(), norbert.LogScaler(), norbert.Quantizer()
    Xc = tf.transform(audio)
    chain = [Xc, bw.downsample(Xc)]
    chain.append(ls.scale(chain[-1]))
    chain.append(qt.quantize(chain[-1]))
    before = [(np.array(array), array.steps) for array in chain]
    magnitude = bw.upsample(ls.unscale(qt.dequantize(chain[-1])))
    roundtrip(chain[-1])
    tf.inverse_transform(magnitude)
    for array, (values, steps) in zip(chain, before, strict=True):
        assert np.array_equal(array, values)
        assert array.steps == steps
    assert np.array_equal(audio, tones(2000, 2))


def test_scalers_take_plain_lists_and_integers():
    assert norbert.PowerScaler().scale([[[0], [1]]]).tolist() == [[[0.0], [1.0]]]
    assert norbert.LogScaler().unscale([[[0], [1]]]).tolist() == [[[0.0], [1.0]]]
    assert norbert.Quantizer().quantize([[[0], [1]]]).tolist() == [[[0], [255]]]


@pytest.mark.parametrize("scaler", [norbert.LogScaler(), norbert.PowerScaler()])
def test_single_precision_stays_single_precision(scaler):
    Xc = norbert.TF(n_fft=256).transform(tones(1000, 1).astype(np.float32))
    assert Xc.dtype == np.complex64
    assert scaler.scale(Xc).dtype == np.float32
    assert norbert.TF(n_fft=256).inverse_transform(Xc).dtype == np.float32


def test_magnitudes_below_the_logarithms_range_become_zero():
    ls = norbert.LogScaler(range_decibel=40)
    assert ls.scale([[[0.009], [0.01], [0.0]]]).ravel() == pytest.approx([0, 0, 0], abs=1e-12)
    assert ls.unscale(np.zeros((1, 1, 1))).item() == 0


# ---- what arrays remember


def test_steps_are_undone_on_the_way_back():
    tf, bw, ls, qt = norbert.TF(n_fft=256), norbert.BandwidthLimiter(), norbert.LogScaler(), norbert.Quantizer()

    def steps(array):
        return [step["step"] for step in array.steps]

    Xc = tf.transform(tones(1000, 1))
    Xl = bw.downsample(Xc)
    Xs = ls.scale(Xl)
    Xq = qt.quantize(Xs)
    assert [steps(array) for array in (Xc, Xl, Xs, Xq)] == [
        ["TF"],
        ["TF", "BandwidthLimiter"],
        ["TF", "BandwidthLimiter", "LogScaler"],
        ["TF", "BandwidthLimiter", "LogScaler", "Quantizer"],
    ]
    levels = qt.dequantize(Xq)
    magnitude = ls.unscale(levels)
    assert (levels.steps, magnitude.steps, bw.upsample(magnitude).steps) == (Xs.steps, Xl.steps, Xc.steps)


def test_spectrogram_remembers_through_what_numpy_does():
    Xc = norbert.TF(n_fft=256).transform(tones(1000, 2))
    phase = np.exp(1j * np.angle(Xc))
    for derived in (
        np.multiply(np.abs(Xc), phase),
        np.multiply(np.ones(Xc.shape), phase),
        0.5 * Xc,
        Xc[2:5],
        Xc[:, :, 0],
        Xc[..., np.newaxis],
        Xc.copy(),
        Xc.T,
        Xc.astype(np.complex64),
        Xc.reshape(-1),
        copy.deepcopy(Xc),
    ):
        assert isinstance(derived, Spectrogram)
        assert derived.steps == Xc.steps


def test_spectrogram_is_an_ordinary_array_otherwise():
    plain = np.arange(24.0).reshape(4, 3, 2)
    array = remember(plain.copy(), ({"step": "Quantizer"},))
    assert type(np.asarray(array)) is np.ndarray
    assert np.array_equal(array, plain)
    assert np.array_equal(array + array, plain + plain)
    for number in (array.mean(), np.sum(array), array.max(), np.abs(array).std(), array[0, 1, 1]):
        assert type(number) is np.float64
    assert array.mean() == plain.mean()
    assert array.sum(axis=0).tolist() == plain.sum(axis=0).tolist()
    assert np.array_equal(np.concatenate([array, array]), np.concatenate([plain, plain]))
    assert np.array_equal(np.linalg.norm(array, axis=0), np.linalg.norm(plain, axis=0))
    array[0, 0, 0] = 7
    assert array[0, 0, 0] == 7
    assert np.array_equal(pickle.loads(pickle.dumps(array)), array)
    assert Spectrogram((2, 3, 4)).steps == ()
    plain.view(Spectrogram)
    assert not hasattr(plain, "steps")


def test_arrays_without_memory_go_through_the_chain_too():
    tf, bw, ls, qt = norbert.TF(), norbert.BandwidthLimiter(), norbert.LogScaler(), norbert.Quantizer()
    Xc = np.asarray(tf.transform(tones(3000, 2)))
    Xq = np.asarray(qt.quantize(np.asarray(ls.scale(np.asarray(bw.downsample(Xc))))))
    levels, metadata = roundtrip(Xq, format="png")
    assert metadata == {"channels": 2, "steps": []}
    Xm_hat = bw.upsample(np.asarray(ls.unscale(np.asarray(qt.dequantize(np.asarray(levels))))))
    assert Xm_hat.shape == Xc.shape
    # without the length, it is all that the frames cover
    assert tf.inverse_transform(Xm_hat).shape == (3 * 1024, 2)
    assert tf.inverse_transform(Xm_hat, samples=3000).shape == (3000, 2)


def test_part_of_a_spectrogram_has_the_length_of_its_frames():
    tf = norbert.TF(n_fft=256)
    Xc = tf.transform(tones(1000, 2))
    assert tf.inverse_transform(Xc).shape == (1000, 2)
    assert tf.inverse_transform(Xc[2:6]).shape == (3 * 128, 2)
    assert tf.inverse_transform(Xc, samples=500).shape == (500, 2)


def test_inverse_transform_refuses_another_number_of_bins():
    with pytest.raises(ValueError, match=r"expected a spectrogram \(frames, 1025, channels\), found \(3, 744, 1\)"):
        norbert.TF().inverse_transform(np.zeros((3, 744, 1)))


# ---- the bandwidth


def test_limiter_takes_rate_and_n_fft_from_what_the_transform_left():
    Xc = norbert.TF(rate=8000, n_fft=256).transform(tones(1000, 1))
    Xl = norbert.BandwidthLimiter(1000).downsample(Xc)
    assert Xl.shape[1] == 1 + 32  # bins lie 31.25 Hz apart
    assert Xl.steps[-1] == {"step": "BandwidthLimiter", "bandwidth": 1000.0, "rate": 8000, "n_fft": 256}
    # the limiter that puts the bins back need not be the one that took them
    assert norbert.BandwidthLimiter().upsample(Xl).shape == Xc.shape


def test_limiter_takes_n_fft_from_the_shape_where_nothing_is_remembered():
    bw = norbert.BandwidthLimiter(11025)
    for n_fft in (2, 256, 2048):
        Xl = bw.downsample(np.ones((3, n_fft // 2 + 1, 1)))
        assert Xl.shape[1] == n_fft // 4 + 1
        assert Xl.steps[-1] == {"step": "BandwidthLimiter", "bandwidth": 11025.0, "rate": 44100, "n_fft": n_fft}
        assert bw.upsample(Xl).shape[1] == n_fft // 2 + 1
    # and without a shape of the whole, from its own default
    assert bw.upsample(np.ones((3, 5, 1))).shape[1] == 1025


def test_limiter_takes_its_own_rate_and_n_fft_first():
    Xc = norbert.TF(rate=8000, n_fft=256).transform(tones(1000, 1))
    bw = norbert.BandwidthLimiter(1000, rate=np.int64(16000), n_fft=np.int64(256))  # type: ignore[arg-type]
    Xl = bw.downsample(Xc)
    assert Xl.shape[1] == 1 + 16
    assert json.loads(json.dumps(Xl.steps[-1])) == {
        "step": "BandwidthLimiter",
        "bandwidth": 1000.0,
        "rate": 16000,
        "n_fft": 256,
    }
    assert norbert.BandwidthLimiter(n_fft=512).upsample(np.ones((3, 5, 1))).shape[1] == 257


@pytest.mark.parametrize("bandwidth", [22050, 22051, 1e9])
def test_bandwidth_from_half_the_rate_up_keeps_all_bins(bandwidth):
    Xc = norbert.TF().transform(tones(3000, 1))
    bw = norbert.BandwidthLimiter(bandwidth)
    assert np.array_equal(bw.downsample(Xc), Xc)
    assert np.array_equal(bw.upsample(bw.downsample(Xc)), Xc)


def test_any_bandwidth_keeps_a_bin():
    assert norbert.BandwidthLimiter(1e-9).downsample(np.ones((3, 1025, 1))).shape == (3, 1, 1)


def test_bins_above_the_bandwidth_come_back_as_zeros():
    Xc = norbert.TF().transform(tones(3000, 2))
    bw = norbert.BandwidthLimiter(16000)
    full = bw.upsample(bw.downsample(Xc))
    assert full.dtype == Xc.dtype
    assert np.array_equal(full[:, :744], Xc[:, :744])
    assert not full[:, 744:].any()


def test_bins_that_dont_fit_the_transform_are_refused():
    Xc = norbert.TF().transform(tones(3000, 1))
    with pytest.raises(ValueError, match="expected 1025 bins for n_fft=2048, found 500"):
        norbert.BandwidthLimiter().downsample(Xc[:, :500])
    with pytest.raises(ValueError, match="expected 129 bins for n_fft=256, found 1025"):
        norbert.BandwidthLimiter(n_fft=256).downsample(np.asarray(Xc))
    with pytest.raises(ValueError, match="at most 129 bins for n_fft=256, found 1025; give n_fft"):
        norbert.BandwidthLimiter(n_fft=256).upsample(Xc)


@pytest.mark.parametrize(
    "options",
    [
        {"bandwidth": 0},
        {"bandwidth": -1},
        {"bandwidth": np.nan},
        {"bandwidth": np.inf},
        {"bandwidth": "wide"},
        {"rate": 0},
        {"rate": -44100},
        {"rate": "fast"},
        {"n_fft": 0},
        {"n_fft": 7},
        {"n_fft": 2048.0},
    ],
    ids=str,
)
def test_limiter_refuses_parameters_out_of_range(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        norbert.BandwidthLimiter(**options)
