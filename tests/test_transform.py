"""The STFT equals SciPy's, streams bit for bit and inverts; the stored views of it describe themselves in full."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from norbert_store.errors import AudioError, FormatError
from norbert_store.transform import (
    LinearBins,
    Mel,
    MelBands,
    ReadyBins,
    Stft,
    StftStream,
    StftSynthesis,
    as_audio,
    bins_within,
    transform_from_config,
)

quick = settings(max_examples=60, deadline=None, derandomize=True)


@st.composite
def stfts(draw):
    n_fft = 2 * draw(st.integers(1, 64))
    return Stft(8000, n_fft, draw(st.integers(1, max(1, n_fft // 2))), centred=draw(st.booleans()))


def noise(samples, channels=1, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).uniform(-1, 1, (samples, channels)).astype(dtype)


def scipy_stft(audio, transform):
    """The same from SciPy, as (frames, bins, channels)."""
    ends = {"boundary": "zeros" if transform.centred else None, "padded": True}
    overlap = transform.n_fft - transform.hop
    _, _, spectrum = scipy.signal.stft(
        audio, transform.rate, transform.window, transform.n_fft, overlap, axis=0, scaling="spectrum", **ends
    )
    return np.moveaxis(spectrum, -1, 0)


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize(("n_fft", "hop"), [(2048, 1024), (512, 128), (400, 160), (6, 1), (2, 1)])
@pytest.mark.parametrize(("windows", "channels"), [(1, 1), (1.01, 2), (7.3, 3)])
def test_equals_scipy_stft_from_one_window_up(n_fft, hop, centred, windows, channels):
    transform = Stft(44100, n_fft, hop, centred=centred)
    audio = noise(math.ceil(windows * n_fft), channels)
    spectrum = transform.transform(audio)
    expected = scipy_stft(audio, transform)
    assert spectrum.shape == expected.shape
    assert np.abs(spectrum - expected).max() <= 1e-12


@pytest.mark.parametrize("window", ["hamming", "blackman", "boxcar"])
def test_other_windows_equal_scipy_too(window):
    transform = Stft(16000, 256, 64, window)
    audio = noise(1000)
    assert np.abs(transform.transform(audio) - scipy_stft(audio, transform)).max() <= 1e-12
    assert np.abs(transform.inverse_transform(transform.transform(audio), 1000) - audio).max() <= 1e-12


def test_full_scale_sine_is_one_half_and_constant_one_is_one():
    transform = Stft(8000, 256)
    sine = np.sin(2 * np.pi * 1000 * np.arange(4000) / 8000)
    assert abs(transform.transform(sine)[10, 32, 0]) == pytest.approx(0.5, abs=1e-9)
    assert abs(transform.transform(np.ones(4000))[10, 0, 0]) == pytest.approx(1.0, abs=1e-9)


@quick
@given(stfts(), st.integers(1, 400), st.integers(0, 2**32 - 1), st.booleans())
def test_samples_within_one_give_magnitudes_within_one(transform, samples, seed, extreme):
    audio = noise(samples, 2, seed)
    if extreme:
        audio = np.sign(audio)
    assert np.abs(transform.transform(audio)).max() <= 1 + 1e-9


@quick
@given(stfts(), st.integers(1, 500), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_inverse_gives_the_audio_back_wherever_frames_weigh_anything(transform, samples, channels, seed):
    audio = noise(samples, channels, seed)
    spectrum = transform.transform(audio)
    assert spectrum.shape == (transform.frame_count(samples), transform.n_fft // 2 + 1, channels)
    back = transform.inverse_transform(spectrum, samples)
    assert back.shape == audio.shape
    lead = transform.n_fft // 2 if transform.centred else 0
    weight = np.zeros(lead + len(spectrum) * transform.hop + transform.n_fft + samples)
    for frame in range(len(spectrum)):
        weight[frame * transform.hop :][: transform.n_fft] += transform.weights**2
    weighed = weight[lead : lead + samples] > 1e-6
    assert np.abs((back - audio)[weighed]).max(initial=0) <= 1e-9
    if transform.centred:
        assert weighed.all()


@pytest.mark.parametrize("samples", [1, 2, 7, 2047, 2048, 2049, 10000])
def test_inverse_is_exact_for_any_length_with_the_default_transform(samples):
    audio = noise(samples, 2)
    transform = Stft()
    back = transform.inverse_transform(transform.transform(audio), samples)
    assert back.shape == audio.shape
    assert np.abs(back - audio).max() <= 1e-12


@pytest.mark.parametrize("centred", [True, False])
def test_inverse_without_a_length_covers_all_samples_and_at_most_a_hop_more(centred):
    transform = Stft(8000, 64, 16, centred=centred)
    for samples in (64, 65, 100, 160):
        back = transform.inverse_transform(transform.transform(noise(samples)))
        assert samples <= len(back) < samples + transform.hop


@pytest.mark.parametrize(("dtype", "spectral"), [(np.float32, np.complex64), (np.float64, np.complex128)])
def test_precision_is_kept_both_ways(dtype, spectral):
    transform = Stft(8000, 64)
    audio = noise(300, 2, dtype=dtype)
    spectrum = transform.transform(audio)
    assert spectrum.dtype == spectral
    back = transform.inverse_transform(spectrum, 300)
    assert back.dtype == dtype
    assert np.abs(back - audio).max() <= (2e-6 if dtype == np.float32 else 1e-12)


@quick
@given(st.data())
def test_streaming_in_any_blocks_gives_the_same_bits(data):
    transform = data.draw(stfts())
    frames_per_block = data.draw(st.integers(1, 9))
    blocks = data.draw(st.lists(st.integers(0, 300), max_size=8))
    audio = noise(1 + sum(blocks), 2, dtype=np.float32)

    def stream(pieces):
        streaming = StftStream(transform, 2, np.float32, frames_per_block)
        out = [block for piece in pieces for block in streaming.push(piece)]
        return [*out, *streaming.finish()]

    whole = stream([audio])
    cut = stream(np.split(audio, np.cumsum(blocks)))
    assert [block.shape for block in cut] == [block.shape for block in whole]
    assert all(len(block) == frames_per_block for block in whole[:-1])
    assert np.array_equal(np.concatenate(cut), np.concatenate(whole))


def test_streaming_with_the_default_block_equals_the_transform_bit_for_bit():
    transform = Stft(8000, 64, 16)
    audio = noise(20000, 2, dtype=np.float32)
    streaming = StftStream(transform, 2)
    rng = np.random.default_rng(1)
    cuts = np.sort(rng.integers(0, len(audio), 9))
    blocks = [block for piece in np.split(audio, cuts) for block in streaming.push(piece)]
    blocks += streaming.finish()
    assert streaming.samples == 20000
    assert np.array_equal(np.moveaxis(np.concatenate(blocks), 1, 2), transform.transform(audio))


@pytest.mark.parametrize("centred", [True, False])
def test_synthesis_by_blocks_equals_the_whole(centred):
    transform = Stft(8000, 64, 20, centred=centred)
    audio = noise(1000, 2)
    spectrum = transform.transform(audio)
    whole = transform.inverse_transform(spectrum, 1000)
    for size in (1, 2, 7, len(spectrum)):
        synthesis = StftSynthesis(transform, 1000, 2, np.float64)
        for start in range(0, len(spectrum), size):
            synthesis.add(spectrum[start : start + size])
        assert np.abs(synthesis.finish() - whole).max() <= 1e-12


def test_frame_count_and_seconds_of_centred_frames():
    transform = Stft(8000, 256, 100)
    assert [transform.frame_count(samples) for samples in (1, 100, 101, 8000)] == [2, 2, 3, 81]
    assert transform.frame_seconds(3).tolist() == [0.0, 0.0125, 0.025]


def test_frame_count_and_seconds_of_frames_that_begin_at_zero():
    transform = Stft(8000, 256, 100, centred=False)
    assert [transform.frame_count(samples) for samples in (1, 256, 257, 356, 357)] == [1, 1, 2, 2, 3]
    assert transform.frame_seconds(2).tolist() == [0.016, 0.0285]


def test_frequencies_reach_from_zero_to_half_the_rate():
    transform = Stft(8000, 256)
    assert transform.bins == 129
    assert transform.frequencies[[0, 1, 128]].tolist() == [0.0, 31.25, 4000.0]


def test_hop_is_half_a_frame_unless_given():
    assert Stft(n_fft=512).hop == 256


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_fft": 255}, "n_fft must be even, found 255"),
        ({"n_fft": 0}, "n_fft must be a whole number of at least 2"),
        ({"n_fft": 256.0}, "n_fft must be a whole number"),
        ({"n_fft": True}, "n_fft must be a whole number"),
        ({"rate": 0}, "rate must be a whole number of at least 1"),
        ({"rate": 44100.0}, "rate must be a whole number"),
        ({"hop": 0}, "hop must be a whole number of at least 1"),
        ({"hop": -5}, "hop must be a whole number of at least 1"),
        ({"hop": 2048}, "hop of 2048 can't be inverted.*use a hop of at most 1024"),
        ({"hop": 3000}, "hop of 3000 can't be inverted"),
        ({"window": "no such window"}, "no such window|[Uu]nknown window"),
        ({"padding": "reflect"}, "padding must be 'zeros', found 'reflect'"),
    ],
)
def test_bad_parameter_of_the_stft_is_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        Stft(**parameters)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros(10, np.int16), r"floating-point audio.*found dtype int16; divide integers by their full scale"),
        (np.zeros(10, complex), "floating-point audio.*complex128"),
        (np.array(["a"]), "floating-point audio"),
        (np.array([0.0, np.nan, np.inf]), "2 samples are NaN or infinite"),
        (np.zeros(0), "at least one sample"),
        (np.zeros((10, 0)), "at least one sample and one channel"),
        (np.zeros((1, 2, 3)), r"found \(1, 2, 3\)"),
        (np.float64(0.5), r"found \(\)"),
        (np.zeros((2, 1000)), r"expected \(samples, channels\), found \(2, 1000\); transpose"),
    ],
    ids=["integers", "complex", "text", "NaN", "empty", "no channels", "3-D", "0-D", "transposed"],
)
def test_bad_audio_is_refused(audio, message):
    with pytest.raises(AudioError, match=message):
        Stft(8000, 64).transform(audio)


def test_audio_of_one_dimension_is_one_channel_and_half_precision_becomes_double():
    assert as_audio(np.zeros(5, np.float32)).shape == (5, 1)
    assert as_audio(np.zeros(5, np.float32)).dtype == np.float32
    assert as_audio(np.zeros(5, np.float16)).dtype == np.float64
    assert as_audio([0.0, 0.5]).dtype == np.float64


@pytest.mark.parametrize("shape", [(4, 33), (4, 32, 1), (0, 33, 1), (4, 33, 0)])
def test_spectrogram_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"expected a spectrogram \(frames, 33, channels\)"):
        Stft(8000, 64).inverse_transform(np.zeros(shape, complex))


def test_spectrogram_with_nan_is_refused():
    with pytest.raises(ValueError, match="NaN or infinity"):
        Stft(8000, 64).inverse_transform(np.full((4, 33, 1), np.nan + 0j))


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
    bands = Mel(40, 16000, 1024).stored(bandwidth=6000)
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
    bands = Mel(20, 8000, 512, 128, "hamming", centred=False, lowest=50.0, scale="htk").stored(3000.0)
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
    assert bins.stored(1000.0) is bins
    assert np.allclose(bins.frame_seconds(3), np.arange(3) * 512 / 22050)
    with pytest.raises(ValueError, match="'cqt' has no STFT"):
        _ = bins.stft
    with pytest.raises(ValueError, match="'cqt' is not computed here"):
        bins.reduce(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="'cqt' is not inverted here"):
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
    Mel(np.int64(40), np.int64(16000), np.int64(1024)).stored(),
    ReadyBins("cqt", np.int64(22050), np.int64(512), [32.7, 65.4], {"bins_per_octave": 1}),
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
