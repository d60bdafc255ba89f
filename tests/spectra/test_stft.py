"""The STFT equals SciPy's, streams bit for bit and inverts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from norbert_store._spectra.stft import Stft, StftStream, StftSynthesis, as_audio
from norbert_store.errors import AudioError

quick = settings(max_examples=60)


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
        blocks = [synthesis.push(spectrum[start : start + size]) for start in range(0, len(spectrum), size)]
        assert np.abs(np.concatenate([*blocks, synthesis.finish()]) - whole).max() <= 1e-12


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
        ({"window": ("kaiser", 8.0)}, "window must be a name, such as 'hann', found"),
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
