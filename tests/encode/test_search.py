"""Magnitudes to JPEGs with the ear's advice: fewer bytes for what is heard, from any input."""

import io

import numpy as np
import pytest
from PIL import Image

from norbert_store._encode.search import Encoding, PerceptualEncoder, PlainEncoder
from norbert_store._jpeg import stream
from norbert_store._jpeg.encoder import HIGHEST_EFFORT, check_effort
from norbert_store._jpeg.layout import read_header
from norbert_store._spectra.bins import Mel, ReadyBins
from norbert_store._spectra.levels import LogCurve, scale_of, table
from norbert_store._spectra.stft import Stft
from norbert_store._write.settings import new_document

RATE = 16000
STFT = Stft(rate=RATE, n_fft=512)


def music(seconds: float = 3.0, rate: int = RATE) -> np.ndarray:
    """Two voices that glide, with a stroke every quarter of a second; stereo, float32."""
    rng = np.random.default_rng(0)
    time = np.arange(round(seconds * rate))[:, np.newaxis] / rate
    sung = sum(0.1 / n * np.sin(2 * np.pi * n * (150 * time + np.array([5, 9]) * time**2)) for n in range(1, 12))
    struck = rng.standard_normal((len(time), 2)) * np.exp(-25 * (time % 0.25)) * 0.1
    return (sung + struck).astype(np.float32)


class Coded:
    """What becomes of audio: JPEGs (chunks, channels), and decoded magnitudes (frames, channels, bins)."""

    def __init__(self, audio: np.ndarray, transform=STFT, with_phase: bool = True, **options) -> None:
        options = {"channels": audio.shape[1], "bandwidth": 0.45 * transform.rate, "chunk_frames": 32, **options}
        self.document, stored = new_document(targets=["mixture"], transform=transform, **options)
        self.spectrum = np.moveaxis(stored.stft.transform(audio), 2, 1)
        self.exact = stored.reduce(np.abs(self.spectrum))
        frames, bins = self.document.layout.chunk_frames, self.document.layout.bins
        self.scale = scale_of(float(self.exact.max()))
        encoder = Encoding(self.document, stored).stem(self.scale)
        self.jpegs = []
        for start in range(0, len(self.exact), frames):
            phase = self.spectrum[start : start + frames, :, :bins] if with_phase else None
            self.jpegs += encoder.push(self.exact[start : start + frames], phase)
        self.jpegs += encoder.finish()
        levels = [np.stack([stream.decode(jpeg) for jpeg in jpegs], axis=1) for jpegs in self.jpegs]
        self.levels = np.concatenate(levels)
        self.magnitude = table(self.document.layout.curve, self.scale)[self.levels]

    @property
    def size(self) -> int:
        return len(b"".join(jpeg for jpegs in self.jpegs for jpeg in jpegs))

    @property
    def error(self) -> float:
        """Root of the mean squared error, over that of the magnitudes."""
        return float(np.sqrt(((self.magnitude - self.exact) ** 2).mean() / (self.exact**2).mean()))

    def heard_error(self, audio: np.ndarray, stft: Stft = STFT) -> float:
        """The same of audio, with the phase that was there."""
        spectrum = np.zeros_like(self.spectrum)
        bins = self.magnitude.shape[2]
        spectrum[..., :bins] = self.spectrum[..., :bins] * (self.magnitude / np.maximum(self.exact, 1e-20))
        again = stft.inverse_transform(np.moveaxis(spectrum, 2, 1), len(audio))
        return float(np.sqrt(((again - audio) ** 2).mean() / (audio**2).mean()))


@pytest.fixture(scope="module")
def audio() -> np.ndarray:
    return music()


@pytest.fixture(scope="module")
def coded(audio) -> dict[int, Coded]:
    return {effort: Coded(audio, effort=effort) for effort in range(HIGHEST_EFFORT + 1)}


# ---- what effort and quality do


def test_effort_0_is_the_plain_encoder(coded):
    document, transform = new_document(targets=["a"], transform=STFT, effort=0)
    assert isinstance(Encoding(document, transform).stem(0), PlainEncoder)
    document, transform = new_document(targets=["a"], transform=STFT, effort=1)
    assert isinstance(Encoding(document, transform).stem(0), PerceptualEncoder)


def test_documents_of_older_stores_ask_for_the_plain_encoder():
    document, transform = new_document(targets=["a"], transform=STFT)
    document.encoder.pop("effort")
    assert isinstance(Encoding(document, transform).stem(0), PlainEncoder)


@pytest.mark.parametrize("effort", [-1, HIGHEST_EFFORT + 1, 1.0, "1", None, True])
def test_efforts_out_of_range_are_refused(effort):
    with pytest.raises(ValueError, match="effort must be a whole number from 0 to"):
        check_effort(effort)


def test_effort_is_taken_as_a_plain_int():
    assert type(check_effort(np.int64(2))) is int  # type: ignore[arg-type]


def test_more_effort_takes_fewer_bytes(coded):
    sizes = [coded[effort].size for effort in range(1, HIGHEST_EFFORT + 1)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[2] < 0.93 * sizes[0]


def test_a_closed_loop_moves_errors_to_where_they_are_not_heard(coded, audio):
    """With fewer bytes, the audio errs no more, and less of what the magnitudes err is left in it."""
    heard = [coded[effort].heard_error(audio) / coded[effort].error for effort in (1, 3)]
    assert heard[1] < 0.93 * heard[0]
    assert coded[3].heard_error(audio) < 1.06 * coded[1].heard_error(audio)


@pytest.mark.parametrize("effort", [1, 3])
def test_higher_quality_is_nearer_and_larger(audio, effort):
    tries = [Coded(audio[:16000], effort=effort, quality=quality) for quality in (50, 65, 80, 90)]
    sizes, errors = [one.size for one in tries], [one.error for one in tries]
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.06


def test_what_is_masked_costs_little():
    """A noise 50 dB below another one, in the same band, adds hardly a byte; alone it costs as much as any."""
    rng = np.random.default_rng(0)
    loud, faint = (0.1 * gain * rng.standard_normal((16000, 1)).astype(np.float32) for gain in (1, 10 ** (-50 / 20)))
    sizes = {name: Coded(noise).size for name, noise in {"loud": loud, "both": loud + faint, "faint": faint}.items()}
    assert sizes["both"] < 1.01 * sizes["loud"]
    assert sizes["faint"] > 0.4 * sizes["loud"]


# ---- what is written


def test_any_decoder_opens_it(coded):
    frames = len(coded[3].exact)
    for number, jpegs in enumerate(coded[3].jpegs):
        for jpeg in jpegs:
            with Image.open(io.BytesIO(jpeg)) as image:
                size = 231, min(32, frames - 32 * number)
                assert (image.format, image.mode, image.size) == ("JPEG", "L", size)
            assert read_header(jpeg).segments is not None


@pytest.mark.parametrize("effort", [0, 3])
def test_the_last_chunk_ends_with_the_last_frame(audio, effort):
    coded = Coded(audio[:20300], effort=effort)
    assert len(coded.exact) % 8 > 0
    assert len(coded.levels) == len(coded.exact)


@pytest.mark.parametrize("effort", [0, 1, 3])
@pytest.mark.parametrize("gain", [1e-30, 1e-6, 1e6, 1e30])
def test_any_volume_errs_alike(audio, effort, gain):
    """Far from full scale the ear doesn't count, and what comes back is as near as that of usual sound."""
    coded, usual = Coded(audio[:16000] * np.float32(gain), effort=effort), Coded(audio[:16000], effort=effort)
    relative_error = np.sqrt(np.mean((coded.magnitude / gain - usual.exact) ** 2) / np.mean(usual.exact**2))
    assert relative_error < 2 * usual.error
    assert {stream.check(jpeg, coded.levels[:32, 0].shape).scale for jpeg in coded.jpegs[0]} == {coded.scale}


def test_within_what_is_heard_the_quieter_takes_fewer_bytes(audio):
    sizes = [Coded(audio[:16000] * np.float32(gain)).size for gain in (1, 1 / 8, 1 / 32)]
    assert sizes == sorted(sizes, reverse=True)


def test_the_same_comes_out_every_time(coded, audio):
    assert Coded(audio, effort=3).jpegs == coded[3].jpegs


def test_borders_of_chunks_are_as_good_as_the_rest():
    """The loop knows the frames around a chunk, so what stands at its ends errs no more."""
    noise = 0.1 * np.random.default_rng(0).standard_normal((64000, 1)).astype(np.float32)
    coded = Coded(noise, effort=3)
    errors = ((coded.magnitude - coded.exact) ** 2).sum(axis=(1, 2))[8:-8]
    border = np.isin(np.arange(8, len(errors) + 8) % 32, (0, 31))
    assert errors[border].mean() < 1.2 * errors[~border].mean()


def test_chunks_depend_on_their_neighbours_only():
    """What comes much later doesn't change what was encoded."""
    audio = music()
    other = audio.copy()
    other[32000:] *= 0.5
    ours, theirs = Coded(audio).jpegs, Coded(other).jpegs
    assert ours[:2] == theirs[:2]
    assert ours[-1] != theirs[-1]


# ---- channels


def test_equal_channels_are_encoded_once(audio):
    twice = Coded(np.repeat(audio[:, :1], 2, axis=1))
    assert all(left is right for left, right in twice.jpegs)
    assert [left for left, _ in twice.jpegs] == [mono for (mono,) in Coded(audio[:, :1]).jpegs]


@pytest.mark.slow
def test_channels_that_part_are_encoded_apart(audio):
    """The first chunk knows nothing of it yet; what comes after it is that of each channel alone."""
    parting = np.repeat(audio[:, :1], 2, axis=1)
    parting[24000:, 1] = audio[24000:, 1]
    both = Coded(parting)
    assert both.jpegs[0][0] is both.jpegs[0][1]
    assert both.jpegs[-1][0] != both.jpegs[-1][1]
    for channel in range(2):
        alone = Coded(parting[:, channel : channel + 1])
        assert [jpegs[channel] for jpegs in both.jpegs] == [jpeg for (jpeg,) in alone.jpegs]


def test_one_silent_channel_costs_next_to_nothing(audio):
    half = audio.copy()
    half[:, 1] = 0
    coded = Coded(half)
    assert not coded.levels[:, 1].any()
    assert max(len(silent) for _, silent in coded.jpegs) < 300
    assert [left for left, _ in coded.jpegs] == [left for (left,) in Coded(audio[:, :1]).jpegs]


# ---- other transforms


def test_magnitudes_without_a_phase(audio):
    without = Coded(audio, with_phase=False, effort=3)
    assert without.jpegs == Coded(audio, effort=1).jpegs


@pytest.mark.parametrize("hop", [512, 256, 100])
def test_any_hop(hop, audio):
    coded = Coded(audio, Stft(rate=RATE, n_fft=1024, hop=hop))
    assert coded.error < 0.2


def test_mel_bands(audio):
    assert Coded(audio, Mel(n_mels=40, rate=RATE, n_fft=512), bandwidth=8000).error < 0.15


def test_ready_magnitudes():
    rng = np.random.default_rng(0)
    document, transform = new_document(
        targets=["a"], transform=ReadyBins("cqt", RATE, 100, 55 * 2 ** (np.arange(30) / 6)), channels=1
    )
    magnitude = rng.uniform(0, 4, (75, 1, 30)).astype(np.float32)
    encoder = Encoding(document, transform).stem(2)
    assert encoder.push(magnitude, None) == []
    ((jpeg,),) = encoder.finish()
    decoded = table(document.layout.curve, 2)[stream.decode(jpeg)]
    assert np.abs(decoded - magnitude[:, 0]).mean() < 0.4  # a guess would err by 1


def test_other_curves(audio):
    assert Coded(audio, curve=LogCurve(range_decibel=100)).error < 0.15


# ---- extremes


def extremes(rate: int) -> dict[str, np.ndarray]:
    time = np.arange(rate // 2)[:, np.newaxis] / rate
    noise = np.random.default_rng(0).uniform(-1, 1, (rate // 2, 1))
    signals = {
        "one sample": np.full((1, 1), 0.5),
        "constant": np.ones((rate // 2, 1)),
        "square": np.sign(np.sin(2 * np.pi * 440 * time) + 1e-9),
        "white noise": noise,
        "very quiet noise": noise * 1e-6,
        "click": np.eye(rate // 2, 1, -rate // 4),
        "noise after silence": noise * (time > 0.25),
    }
    return {name: signal.astype(np.float32) for name, signal in signals.items()}


@pytest.mark.parametrize("rate", [8000, 44100, 192000])
@pytest.mark.parametrize("name", list(extremes(8000)))
def test_extremes(name, rate):
    audio, stft = extremes(rate)[name], Stft(rate=rate)
    coded = Coded(audio, stft, chunk_frames=16)
    assert np.isfinite(coded.magnitude).all()
    assert coded.heard_error(audio, stft) < 0.6 or name == "very quiet noise"  # which nobody hears
    assert coded.size < 40_000 + coded.exact.size


@pytest.mark.parametrize("effort", range(HIGHEST_EFFORT + 1))
@pytest.mark.parametrize("quality", [0, 50, 80, 100])
def test_silence_stays_silence(effort, quality):
    coded = Coded(np.zeros((20000, 2), np.float32), effort=effort, quality=quality)
    assert not coded.levels.any()
    assert all(left is right or left == right for left, right in coded.jpegs)
    assert coded.size < 300 * sum(map(len, coded.jpegs))


def test_silence_between_sounds_stays_silence(audio):
    """Blocks of silence, right beside others, are exactly 0."""
    gap = audio.copy()
    gap[12000:24000] = 0
    coded = Coded(gap)
    blocks = coded.exact[: len(coded.exact) // 8 * 8].reshape(-1, 8, 2, coded.exact.shape[2])
    silent = ~blocks.any(axis=(1, 3))
    assert silent.sum() > 4
    assert not coded.magnitude[: len(blocks) * 8].reshape(blocks.shape).swapaxes(1, 2)[silent].any()
