"""Separation by stored magnitudes: what comes out adds up, resembles the sources, and doesn't depend on blocks."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

import norbert_store
from norbert_store import Mel
from norbert_store._resynthesis import METHODS
from norbert_store.errors import AudioError, SourceError, TrackError

ADDITIVE = ("wiener", "softmask", "irm")


def decibel(reference, estimate):
    return 10 * np.log10((reference**2).sum() / ((reference - estimate) ** 2).sum())


@pytest.mark.parametrize("method", METHODS)
def test_targets_come_back_at_the_tracks_length_and_nearer_than_the_mixture(small, method):
    stems = small.audio["Ann - Long"]
    separated = small.db["Ann - Long"].separate(mixture=stems["mixture"], method=method)
    assert list(separated) == ["vocals", "drums"]
    for target, estimate in separated.items():
        assert estimate.shape == stems[target].shape
        assert estimate.dtype == np.float32
        assert decibel(stems[target], estimate) > decibel(stems[target], stems["mixture"]) + 5


@pytest.mark.parametrize("method", ADDITIVE)
def test_estimates_sum_to_the_mixture_above_the_bandwidth_too(small, method):
    mixture = small.audio["Ann - Long"]["mixture"]
    separated = small.db["Ann - Long"].separate(mixture=mixture, method=method)
    assert decibel(mixture, sum(separated.values())) > 60


@pytest.mark.parametrize("method", ["softmask", "irm", "ibm"])
def test_masks_do_not_depend_on_blocks(small, method):
    track, mixture = small.db["Ann - Long"], small.audio["Ann - Long"]["mixture"]
    whole = track.separate(mixture=mixture, method=method, block_seconds=1000)
    blocks = track.separate(mixture=mixture, method=method, block_seconds=0.1)
    for target in whole:
        assert np.abs(whole[target] - blocks[target]).max() < 1e-6


def test_the_wiener_filter_in_blocks_is_near_that_of_the_whole(small):
    track, mixture = small.db["Ann - Long"], small.audio["Ann - Long"]["mixture"]
    whole, blocks = track.separate(mixture=mixture), track.separate(mixture=mixture, block_seconds=1.0)
    for target in whole:
        assert decibel(whole[target], blocks[target]) > 10


def test_parameters_matter(small):
    track, mixture = small.db["Ann - Long"], small.audio["Ann - Long"]["mixture"]
    assert not np.allclose(*(track.separate(mixture=mixture, iterations=count)["vocals"] for count in (0, 2)))
    assert not np.allclose(
        *(track.separate(mixture=mixture, method="irm", exponent=power)["vocals"] for power in (1, 2))
    )
    assert not np.allclose(
        *(track.separate(mixture=mixture, method="ibm", threshold=level)["vocals"] for level in (0, 20))
    )
    softmask, ratio = (
        track.separate(mixture=mixture, method="softmask"),
        track.separate(mixture=mixture, method="irm", exponent=1),
    )
    assert np.allclose(softmask["vocals"], ratio["vocals"], atol=1e-6)


def test_without_a_mixture_the_source_is_read(small):
    track, mixture = small.db["Ann - Long"], small.audio["Ann - Long"]["mixture"]
    assert np.array_equal(track.separate(method="irm")["drums"], track.separate(mixture=mixture, method="irm")["drums"])
    place = small.path.parent / "audio" / "0" / "mixture.wav"
    assert np.array_equal(
        track.separate(mixture=place, method="irm")["drums"], track.separate(mixture=mixture, method="irm")["drums"]
    )


def test_an_absent_target_is_left_out_and_one_source_is_the_mixture(small):
    track, mixture = small.db["Bob - Short"], small.audio["Bob - Short"]["mixture"]
    separated = track.separate(mixture=mixture, method="softmask")
    assert list(separated) == ["drums"]
    assert decibel(mixture, separated["drums"]) > 60


def test_one_sample_separates(small):
    mixture = small.audio["one sample"]["mixture"]
    for method in METHODS:
        separated = small.db["one sample"].separate(mixture=mixture, method=method)
        assert all(np.isfinite(estimate).all() and estimate.shape == (1, 2) for estimate in separated.values())


def test_silence_separates_into_silence(tmp_path, options):
    silence = np.zeros((3000, 2), np.float32)
    with norbert_store.create(tmp_path / "x.zarr", **options()) as writer:
        writer.add("silence", dict.fromkeys(("mixture", "vocals", "drums"), silence))
    for method in METHODS:
        for estimate in norbert_store.open(tmp_path / "x.zarr")[0].separate(mixture=silence, method=method).values():
            assert np.array_equal(estimate, silence)


def test_mel_bands_separate(tmp_path, music):
    stems = music(16000, 1)
    transform = Mel(n_mels=24, rate=8000, n_fft=512)
    with norbert_store.create(tmp_path / "x.zarr", targets=tuple(stems), transform=transform, bandwidth=3000) as writer:
        writer.add("music", stems)
    separated = norbert_store.open(tmp_path / "x.zarr")[0].separate(mixture=stems["mixture"], method="softmask")
    assert decibel(stems["mixture"], sum(separated.values())) > 60
    assert decibel(stems["drums"], separated["drums"]) > 3


def test_bad_input_is_refused(small, tmp_path):
    track, mixture = small.db["Ann - Long"], small.audio["Ann - Long"]["mixture"]
    with pytest.raises(ValueError, match="method must be one of 'wiener', .*; found 'magic'"):
        track.separate(mixture=mixture, method="magic")
    with pytest.raises(TrackError, match="has 'mixture', 'vocals', 'drums'; found 'piano' to separate"):
        track.separate(mixture=mixture, targets=["vocals", "piano"])
    with pytest.raises(ValueError, match="targets must be a sequence of names, found the one name 'vocals'"):
        track.separate(mixture=mixture, targets="vocals")
    with pytest.raises(TrackError, match="no target"):
        track.separate(mixture=mixture, targets=[])
    with pytest.raises(AudioError, match="the mixture is 100 samples x 2 channels; track 'Ann - Long' is 25600 x 2"):
        track.separate(mixture=mixture[:100])
    with pytest.raises(AudioError, match="the mixture is 25600 samples x 1 channels"):
        track.separate(mixture=mixture[:, :1])
    with pytest.raises(AudioError, match="NaN"):
        track.separate(mixture=np.full_like(mixture, np.nan))
    with pytest.raises(AudioError, match="dtype int16"):
        track.separate(mixture=(mixture * 1000).astype(np.int16))
    soundfile.write(tmp_path / "rate.wav", mixture, 16000)
    with pytest.raises(AudioError, match="the mixture has 16000 samples per second; track 'Ann - Long' has 8000"):
        track.separate(mixture=tmp_path / "rate.wav")
    with pytest.raises(SourceError, match="no file"):
        track.separate(mixture=tmp_path / "none.wav")
    with pytest.raises(ValueError, match="block_seconds"):
        track.separate(mixture=mixture, block_seconds=0)
    with pytest.raises(ValueError, match="iterations"):
        track.separate(mixture=mixture, iterations=-1)
    with pytest.raises(ValueError, match="threshold"):
        track.separate(mixture=mixture, method="ibm", threshold=np.nan)
    with pytest.raises(ValueError, match="exponent|alpha"):
        track.separate(mixture=mixture, method="irm", exponent=0)


@pytest.mark.parametrize(
    ("method", "parameter", "value", "others"),
    [
        ("irm", "iterations", 2, "'wiener'"),
        ("wiener", "exponent", 1.0, "'softmask' or 'irm'"),
        ("ibm", "exponent", 1.0, "'softmask' or 'irm'"),
        ("softmask", "threshold", 3.0, "'ibm'"),
    ],
)
def test_a_parameter_without_effect_is_refused(small, method, parameter, value, others):
    track, mixture = small.db["Ann - Long"], small.audio["Ann - Long"]["mixture"]
    with pytest.raises(ValueError, match=f"^{parameter} must be left out for .* {method!r}: it is for {others}$"):
        track.separate(mixture=mixture, method=method, **{parameter: value})


def test_magnitudes_without_a_transform_cannot_be_separated(tmp_path):
    ready = norbert_store.ReadyBins("cqt", 8000, 100, [100.0, 200.0])
    with norbert_store.create(tmp_path / "x.zarr", targets=["a", "b"], transform=ready, channels=1) as writer:
        writer.add_magnitudes("x", {target: np.full((1, 5, 2), 0.5) for target in "ab"})
    with pytest.raises(ValueError, match="magnitudes of transform 'cqt' are computed elsewhere"):
        norbert_store.open(tmp_path / "x.zarr")[0].separate(mixture=np.zeros((500, 1)))


def test_frames_that_begin_at_zero_do_not_blow_up_the_first_samples(tmp_path, music):
    stems = music(16000, 1)
    transform = norbert_store.TF(rate=8000, n_fft=512, centred=False)
    with norbert_store.create(tmp_path / "x.zarr", targets=tuple(stems), transform=transform) as writer:
        writer.add("music", stems)
    audio = norbert_store.open(tmp_path / "x.zarr")[0].to_audio("mixture", mixture=stems["mixture"])
    assert np.abs(audio).max() < 1.2 * np.abs(stems["mixture"]).max()
    assert decibel(stems["mixture"][200:-200], audio[200:-200]) > 15
