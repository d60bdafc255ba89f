"""What a store holds along frequency describes itself in full, and comes back."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from norbert_store._spectra.bins import (
    LinearBins,
    Mel,
    MelBands,
    ReadyBins,
    bins_within,
    stored_transform,
    transform_from_config,
)
from norbert_store._spectra.stft import Stft
from norbert_store.errors import FormatError

quick = settings(max_examples=60)


def test_sixteen_kilohertz_of_the_default_transform_are_744_bins():
    view = LinearBins(Stft(), bandwidth=16000)
    assert view.frequencies.shape == (744,)
    assert view.frequencies[-1] <= 16000 < Stft().frequencies[744]
    assert (view.name, view.rate, view.hop, view.stft) == ("stft", 44100, 1024, Stft())


def test_linear_bins_cut_and_come_back_with_zeros_above():
    view = LinearBins(Stft(8000, 64), bandwidth=1000)
    magnitude = np.random.default_rng(0).random((2, 5, 33)).astype(np.float32)
    stored = view.reduce(magnitude)
    assert stored.shape == (2, 5, 9)
    extended = view.extend(stored)
    assert extended.shape == (2, 5, 33)
    assert extended.dtype == np.float32
    assert np.array_equal(extended[..., :9], magnitude[..., :9])
    assert not extended[..., 9:].any()


def test_bandwidth_beyond_half_the_rate_keeps_all_bins():
    assert LinearBins(Stft(8000, 64), bandwidth=1e9).frequencies.shape == (33,)


def test_bins_within_counts_a_bin_at_the_bandwidth_and_keeps_at_least_one():
    frequencies = np.array([0.0, 100.0, 200.0])
    assert [bins_within(frequencies, bandwidth) for bandwidth in (1, 99.9, 100, 150, 1000)] == [1, 1, 2, 2, 3]


def test_a_bandwidth_in_kilohertz_is_refused():
    with pytest.raises(ValueError, match=r"bandwidth must be in Hz, .* at 21.5332 Hz; found 16$"):
        stored_transform(Stft(), bandwidth=16)
    assert len(stored_transform(Stft(), bandwidth=22).frequencies) == 2


def test_transforms_tell_their_parameters():
    assert repr(stored_transform(Stft(8000, 64), bandwidth=1000)) == (
        "<transform 'stft': rate 8000, n_fft 64, hop 32, window hann, centred True, padding zeros, bandwidth 1000.0>"
    )
    assert repr(ReadyBins("cqt", 8000, 32, [100.0])) == "<transform 'cqt': rate 8000, hop 32>"


@pytest.mark.parametrize("bandwidth", [0, -1, np.nan, np.inf, "16000", None])
def test_bad_bandwidth_is_refused(bandwidth):
    with pytest.raises(ValueError, match="bandwidth must be a positive number of Hz"):
        LinearBins(Stft(), bandwidth)


def slaney_mel(hertz):
    return 3 * hertz / 200 if hertz <= 1000 else 15 + 27 * math.log(hertz / 1000) / math.log(6.4)


def slaney_hertz(mel):
    return 200 * mel / 3 if mel <= 15 else 1000 * 6.4 ** ((mel - 15) / 27)


def htk_mel(hertz):
    return 2595 * math.log10(1 + hertz / 700)


def htk_hertz(mel):
    return 700 * (10 ** (mel / 2595) - 1)


SCALES = {"slaney": (slaney_mel, slaney_hertz), "htk": (htk_mel, htk_hertz)}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("n_mels", "lowest", "bandwidth"), [(40, 0.0, 8000.0), (24, 300.0, 3400.0), (1, 0.0, 8000.0)])
def test_mel_bands_agree_with_a_direct_computation(scale, n_mels, lowest, bandwidth):
    bands = MelBands(Stft(16000, 1024), n_mels, lowest, bandwidth, scale)
    to_mel, to_hertz = SCALES[scale]
    low, high = to_mel(lowest), to_mel(bandwidth)
    edges = [to_hertz(low + (high - low) * i / (n_mels + 1)) for i in range(n_mels + 2)]
    assert np.allclose(bands.frequencies, edges[1:-1], rtol=1e-12)
    magnitude = np.random.default_rng(0).random((6, 513))
    expected = np.empty((6, n_mels))
    for band in range(n_mels):
        triangle = np.interp(bands.stft.frequencies, edges[band : band + 3], [0, 1, 0], left=0, right=0)
        expected[:, band] = (magnitude * triangle).sum(axis=1) / triangle.sum()
    assert np.allclose(bands.reduce(magnitude), expected, rtol=1e-12)


@quick
@given(st.integers(1, 60), st.sampled_from(list(SCALES)), st.integers(0, 2**32 - 1))
def test_a_mel_band_is_a_mean_and_lies_between_the_extremes(n_mels, scale, seed):
    bands = MelBands(Stft(16000, 1024), n_mels, scale=scale)
    magnitude = np.random.default_rng(seed).random((3, 513))
    stored = bands.reduce(magnitude)
    assert stored.max() <= magnitude.max() * (1 + 1e-12)
    assert stored.min() >= magnitude.min() * (1 - 1e-12)
    assert np.allclose(bands.reduce(np.ones((1, 513))), 1)


def test_mel_bands_reduce_and_extend_keep_leading_axes_and_dtype():
    bands = stored_transform(Mel(40, 16000, 1024), bandwidth=6000)
    magnitude = np.random.default_rng(0).random((2, 3, 7, 513)).astype(np.float32)
    stored = bands.reduce(magnitude)
    assert stored.shape == (2, 3, 7, 40)
    assert stored.dtype == np.float32
    extended = bands.extend(stored)
    assert extended.shape == magnitude.shape
    assert extended.dtype == np.float32
    assert extended.max() <= magnitude.max()


def test_mel_bands_of_a_flat_spectrum_extend_to_a_flat_spectrum_within_the_band():
    bands = MelBands(Stft(16000, 1024), 40, 100.0, 6000.0)
    extended = bands.extend(np.full((1, 40), 0.25))
    inside = (bands.stft.frequencies > 100) & (bands.stft.frequencies < 6000)
    assert np.allclose(extended[0, inside], 0.25)
    # 6000 Hz is a bin, and an edge: no part of the band
    assert not extended[0, ~inside].any()


def test_mel_bandwidth_beyond_half_the_rate_is_half_the_rate():
    direct = MelBands(Stft(8000, 1024), 20, bandwidth=4000.0)
    assert np.array_equal(MelBands(Stft(8000, 1024), 20, bandwidth=16000.0).frequencies, direct.frequencies)


def test_mel_passes_its_parameters_on():
    bands = stored_transform(Mel(20, 8000, 512, 128, "hamming", centred=False, lowest=50.0, scale="htk"), 3000.0)
    assert isinstance(bands, MelBands)
    assert bands.stft == Stft(8000, 512, 128, "hamming", centred=False)
    assert (bands.name, bands.n_mels, bands.lowest, bands.bandwidth, bands.scale) == ("mel", 20, 50.0, 3000.0, "htk")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_mels": 0}, "n_mels must be a whole number of at least 1"),
        ({"n_mels": 200}, r"mel band 0 .* holds none of the STFT's bins.*use fewer than 200 bands, or a larger n_fft"),
        ({"scale": "bark"}, "scale must be one of 'slaney', 'htk'; found 'bark'"),
        ({"lowest": -1.0}, "lowest must be from 0 to below 4000 Hz"),
        ({"lowest": 5000.0}, "lowest must be from 0 to below 4000 Hz"),
        ({"lowest": np.nan}, "lowest must be from 0"),
        ({"bandwidth": np.nan}, "lowest must be from 0 to below nan"),
    ],
)
def test_bad_parameter_of_mel_bands_is_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        MelBands(Stft(8000, 256), **{"n_mels": 20, **parameters})


def test_ready_bins_describe_themselves_and_compute_nothing():
    bins = ReadyBins("cqt", 22050, 512, [32.7, 65.4, 130.8], {"bins_per_octave": 1})
    assert (bins.name, bins.rate, bins.hop) == ("cqt", 22050, 512)
    assert bins.frequencies.tolist() == [32.7, 65.4, 130.8]
    assert bins.config == {"name": "cqt", "rate": 22050, "hop": 512, "bins_per_octave": 1}
    assert stored_transform(bins, 1000.0) is bins
    assert np.allclose(bins.frame_seconds(3), np.arange(3) * 512 / 22050)
    with pytest.raises(ValueError, match="'cqt' are computed elsewhere"):
        _ = bins.stft
    with pytest.raises(ValueError, match="'cqt' are computed elsewhere"):
        bins.reduce(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="'cqt' can only be inverted elsewhere"):
        bins.extend(np.zeros((1, 3)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("stft", 8000, 512, [1.0]), "the name 'stft' stands for a transform of this library"),
        (("mel", 8000, 512, [1.0]), "the name 'mel' stands for a transform of this library"),
        (("cqt", 0, 512, [1.0]), "rate must be a whole number"),
        (("cqt", 8000, 1.5, [1.0]), "hop must be a whole number"),
        (("cqt", 8000, 512, []), "expected one frequency per bin"),
        (("cqt", 8000, 512, [[1.0]]), "expected one frequency per bin"),
        (("cqt", 8000, 512, [2.0, 1.0]), "ascending order"),
        (("cqt", 8000, 512, [1.0, 1.0]), "ascending order"),
        (("cqt", 8000, 512, [1.0, np.nan]), "finite frequencies"),
    ],
)
def test_bad_ready_bins_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ReadyBins(*arguments)


TRANSFORMS = [
    LinearBins(Stft(), 16000),
    LinearBins(Stft(8000, 512, 100, "hamming", centred=False), 3000.5),
    MelBands(Stft(16000, 1024), 40, 20.0, 7000.0, "htk"),
    stored_transform(Mel(np.int64(40), np.int64(16000), np.int64(1024))),  # type: ignore[arg-type]
    ReadyBins("cqt", np.int64(22050), np.int64(512), [32.7, 65.4], {"bins_per_octave": 1}),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("transform", TRANSFORMS, ids=["stft", "stft of all kinds", "mel", "mel of NumPy's", "ready"])
def test_config_survives_json_and_builds_the_same(transform):
    config = json.loads(json.dumps(transform.config))
    again = transform_from_config(config, transform.frequencies)
    assert type(again) is type(transform)
    assert again.config == transform.config
    assert np.array_equal(again.frequencies, transform.frequencies)
    assert (again.name, again.rate, again.hop) == (transform.name, transform.rate, transform.hop)
    if not isinstance(transform, ReadyBins):
        assert again.stft == transform.stft


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"name": "stft"},
        {"name": "stft", "bandwidth": -1},
        {"name": "stft", "bandwidth": 16000, "n_fft": 7},
        {"name": "stft", "bandwidth": 16000, "n_fft": "2048"},
        {"name": "mel", "bandwidth": 16000},
        {"name": "mel", "bandwidth": 16000, "n_mels": 40, "lowest": 0, "scale": "bark"},
        {"name": "cqt", "rate": 8000},
        {"name": "cqt", "rate": 8000, "hop": 512},
        {"name": ["stft"]},
        None,
        5,
    ],
)
def test_config_that_is_incomplete_or_wrong_is_a_format_error(config):
    with pytest.raises(FormatError, match="can't be built again"):
        transform_from_config(config)
