"""The demo's music: a small multi-track data set, made by NumPy alone, in the layout of MUSDB18-HQ.

Conventions: audio is ``(samples, channels)``, stereo, left before right, full scale at 1. Times are in seconds from
the start of the track, frequencies in hertz, pitches in semitones (MIDI numbers: 69 is 440 Hz), pans from -1 (left)
to 1 (right). A bar has four beats. Rhythms are written as text: ``x`` strikes a note, ``-`` holds it, ``.`` rests.

Every pitched sound is a sum of harmonics whose gains move along a control grid of `CONTROL` seconds
(`_tone`), every unpitched one is noise that is drawn in the frequency domain (`_noise`). Both leave out what lies
above the Nyquist frequency: nothing aliases, and a track is the same music at every sampling rate.

Each draw comes from a generator seeded by the track's index, so that a track is the same in every run. Between
machines, sines may differ in their last bits, and so a sample here and there by a step of 16 bits.
"""

from __future__ import annotations

import math
import os
import re
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["STEMS", "TITLES", "compose", "write_musdb"]

STEMS = ("drums", "bass", "other", "vocals")
TITLES = (
    ("train", "Tin Harbour - Low Tide Lullaby"),
    ("train", "Velvet Abacus - Counting Rain"),
    ("test", "Juniper Static - Porch Light"),
    ("train", "Okra Parade - Left on Marigold"),
    ("train", "The Restart Markers - Row by Row"),
    ("test", "Wren and the Window Functions - Leakage"),
    ("train", "Salt Cartographers - Edge of the Map"),
    ("train", "Half Past Never - Borrowed Umbrella"),
    ("test", "Moth Committee - Minutes of the Last Lamp"),
    ("train", "Granite Picnic - Ants in Formation"),
    ("train", "Lady Decibel - Quieter Than This"),
    ("test", "Eleven Small Engines - Idle"),
)

SEED = 2018  # the year of Norbert
PEAK = 0.8  # of the mixture, full scale being 1
FULL_SCALE = 32768  # steps of 16 bits
CONTROL = 0.004  # seconds between two points of a sound's pitch and gains

MAJOR, MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)
MAJOR_PROGRESSIONS = ((0, 4, 5, 3), (0, 5, 3, 4), (0, 3, 1, 4), (3, 0, 4, 5))
MINOR_PROGRESSIONS = ((0, 5, 2, 6), (0, 3, 5, 4), (0, 6, 5, 6), (0, 2, 6, 3))

# Sixteenths of one bar
KICKS = ("x...x...x...x...", "x.....x.x.......", "x..x......x..x..", "x.....x...x.....")
SNARES = ("....x.......x...", "....x.......x..x", "....x..x....x...", "........x.......")
HATS = ("x.x.x.x.x.x.x.x.", "..x...x...x...x.", "xxx.xxx.xxx.xxx.", "x.xxx.x.x.xxx.x.")
BASSES = ("x-----x-x-----x-", "x--x--x-x--x--x-", "x-x-x-x-x-x-x-x-", "x-----------x---")
ARPEGGIOS = ("x-x-x-x-x-x-x-x-", "x--x--x-x--x--x-", "x---x-x---x-x---", "x-----x-----x---")
# Eighths of two bars
PHRASES = ("x-x-x---x---....", "..xxx-x-x---....", "x--xx-x-----....", "..x-x-x-x-xx--..")

FORMANTS = (  # of five vowels, in hertz
    (750, 1200, 2600, 3500),  # a
    (480, 1800, 2550, 3500),  # e
    (300, 2200, 3000, 3700),  # i
    (480, 850, 2450, 3400),  # o
    (330, 750, 2300, 3300),  # u
)
FORMANT_WIDTHS = np.array([90.0, 110.0, 160.0, 220.0])  # hertz
FORMANT_GAINS = np.array([1.0, 0.6, 0.35, 0.25])


def compose(index: int, seconds: float = 20.0, rate: int = 44100) -> dict[str, NDArray[np.float32]]:
    """Make the stems of one track, and their sum.

    Parameters
    ----------
    index : int
        Which track, from 0; those past the end of `TITLES` have no title, but music all the same.
    seconds : float
        Length of the track; it ends in a short fade, wherever the music then is.
    rate : int
        Sampling rate in hertz, 8000 or more.

    Returns
    -------
    dict of str to ndarray of float32, shape (samples, 2)
        ``mixture``, then `STEMS`, each of ``round(seconds * rate)`` samples. Values are whole steps of 16 bits
        (k / 32768). The mixture is exactly the sum of the stems, and peaks at 0.8.

    Raises
    ------
    ValueError
        If the index is negative, the rate below 8000 Hz, or the length not finite or below one sample.

    Examples
    --------
    >>> track = compose(0, seconds=0.5, rate=8000)
    >>> list(track)
    ['mixture', 'drums', 'bass', 'other', 'vocals']
    >>> track["vocals"].shape
    (4000, 2)
    >>> bool((track["mixture"] == sum(track[stem] for stem in STEMS)).all())
    True
    """
    audio = _compose_steps(index, seconds, rate)
    return {name: np.divide(steps, FULL_SCALE, dtype=np.float32) for name, steps in audio.items()}


def write_musdb(root: str | os.PathLike[str], tracks: int = 6, seconds: float = 20.0, rate: int = 44100) -> list[Path]:
    """Write the first tracks of `TITLES` as MUSDB18-HQ lays them out: ``root/split/Artist - Title/stem.wav``.

    Parameters
    ----------
    root : path
        Folder to write into; it is made where missing, and files of the same names are replaced.
    tracks : int
        How many tracks, from 1 to ``len(TITLES)``. The default gives 4 to train with and 2 to test with.
    seconds, rate : float, int
        Length of every track and its sampling rate in hertz, as in `compose`.

    Returns
    -------
    list of Path
        The tracks' folders, each with ``mixture.wav`` and one file for each of `STEMS`, stereo, 16 bits.

    Raises
    ------
    ValueError
        If the number of tracks is out of range, or for what `compose` refuses.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as root:
    ...     folders = write_musdb(root, tracks=1, seconds=0.1, rate=8000)
    ...     folders[0].relative_to(root).as_posix()
    ...     sorted(file.name for file in folders[0].iterdir())
    'train/Tin Harbour - Low Tide Lullaby'
    ['bass.wav', 'drums.wav', 'mixture.wav', 'other.wav', 'vocals.wav']
    """
    if not 1 <= tracks <= len(TITLES):
        raise ValueError(f"tracks is {tracks!r}, expected 1 to {len(TITLES)}, as many as have titles")
    _count_samples(seconds, rate)  # refuse before the first folder is made
    import soundfile

    folders = []
    for index, (split, title) in enumerate(TITLES[:tracks]):
        folder = Path(root) / split / title
        folder.mkdir(parents=True, exist_ok=True)
        for name, steps in _compose_steps(index, seconds, rate).items():
            soundfile.write(folder / f"{name}.wav", steps, rate, subtype="PCM_16")
        folders.append(folder)
    return folders


def _compose_steps(index: int, seconds: float, rate: int) -> dict[str, NDArray[np.int16]]:
    """What `compose` returns, in steps of 16 bits."""
    if index < 0:
        raise ValueError(f"index is {index!r}, expected 0 or more: tracks are counted from 0")
    samples = _count_samples(seconds, rate)
    song = _Song(index)
    players = {"drums": _play_drums, "bass": _play_bass, "other": _play_other, "vocals": _sing}
    stems = {}
    for name in STEMS:
        tape = _Tape(samples, rate)
        players[name](song, tape, song.dice(name))
        stems[name] = tape.finish()
    peak = max(float(np.abs(stem).max()) for stem in [sum(stems.values()), *stems.values()])
    scale = PEAK * FULL_SCALE / peak if peak > 0 else 0.0  # the first samples of a track are silent
    steps = {name: np.rint(stem * scale).astype(np.int16) for name, stem in stems.items()}
    # The stems are rounded before they are added, so that the sum is exact.
    return {"mixture": np.sum(list(steps.values()), axis=0, dtype=np.int16), **steps}


def _count_samples(seconds: float, rate: int) -> int:
    if rate < 8000:
        raise ValueError(f"rate is {rate!r} Hz, expected 8000 or more: give it in hertz, for example 44100")
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"seconds is {seconds!r}, expected a finite number above 0: give the track's length")
    samples = round(seconds * rate)
    if samples < 1:
        least = 1 / rate
        raise ValueError(f"seconds is {seconds!r}, no sample at {rate} Hz, expected {least:.2g} or more: ask for more")
    return samples


class _Song:
    """What makes one track differ from another; the players share it."""

    def __init__(self, index: int) -> None:
        self.index = index
        dice = np.random.default_rng([SEED, index])
        is_major = dice.random() < 0.5
        self.beat = 60 / float(dice.integers(84, 133))  # seconds
        self.swing = float(dice.choice([0, 0, 0.15, 0.3]))  # how late every second sixteenth comes, in sixteenths
        self.tonic = int(dice.integers(12))  # semitones
        self.scale = MAJOR if is_major else MINOR
        progressions = MAJOR_PROGRESSIONS if is_major else MINOR_PROGRESSIONS
        self.progression: list[int] = dice.choice(progressions).tolist()  # degree that each bar's chord stands on
        self.kick, self.snare, self.hat, self.bass, self.arpeggio = (
            str(dice.choice(rhythms)) for rhythms in (KICKS, SNARES, HATS, BASSES, ARPEGGIOS)
        )
        self.phrases: list[str] = dice.choice(PHRASES, 2, replace=False).tolist()
        self.brightness = float(dice.random())  # of the pad and the arpeggio
        self.evenness = float(dice.random())  # of the pad: at 0 it has odd harmonics only, as a clarinet
        self.width = float(dice.uniform(0.4, 0.9))  # pan of the pad's two halves
        self.side = float(dice.choice([-1, 1]) * dice.uniform(0.2, 0.6))  # pan of the arpeggio
        self.singer = "low" if dice.random() < 0.5 else "high"

    def dice(self, stem: str) -> np.random.Generator:
        """The stem's own generator: to change how one plays leaves the others as they are."""
        return np.random.default_rng([SEED, self.index, 1 + STEMS.index(stem)])

    def start_of(self, bar: int, sixteenth: int = 0) -> float:
        late = self.swing if sixteenth % 2 else 0.0
        return (4 * bar + (sixteenth + late) / 4) * self.beat

    def bars(self, seconds: float) -> range:
        return range(math.ceil(seconds / (4 * self.beat)))

    def semitones(self, degree: int) -> int:
        """Pitch of a degree of the scale, 0 being the tonic of the lowest octave."""
        octave, step = divmod(degree, len(self.scale))
        return self.tonic + 12 * octave + self.scale[step]

    def root(self, bar: int) -> int:
        return self.progression[bar % len(self.progression)]

    def chord(self, bar: int, lowest: int) -> list[int]:
        """The bar's triad, inverted so that it lies in the octave above `lowest`, in semitones."""
        return sorted(lowest + (self.semitones(self.root(bar) + third) - lowest) % 12 for third in (0, 2, 4))

    def nearest(self, bar: int, pitch: int) -> int:
        """The note of the bar's chord next to a pitch."""
        return min(self.chord(bar, lowest=pitch - 6), key=lambda note: abs(note - pitch))


class _Tape:
    """One stem while it is being recorded."""

    def __init__(self, samples: int, rate: int) -> None:
        self.samples, self.rate, self.seconds = samples, rate, samples / rate
        self.sound = np.zeros((samples, 2), dtype=np.float32)

    def add(self, sound: NDArray[np.float32], second: float, gain: float = 1.0, pan: float = 0.0) -> None:
        """Mix a mono sound in; what would lie past the end is dropped."""
        start = round(second * self.rate)
        end = min(start + len(sound), self.samples)
        if start < end:
            angle = (1 + pan) * math.pi / 4  # sine and cosine: equal power wherever the sound is panned
            for channel, share in enumerate((math.cos(angle), math.sin(angle))):
                self.sound[start:end, channel] += np.float32(gain * share) * sound[: end - start]

    def echo(self, delay: float, gain: float) -> None:
        """Repeat everything once, `delay` seconds later, with the sides swapped."""
        late = round(delay * self.rate)
        if late < self.samples:
            self.sound[late:] += np.float32(gain) * self.sound[: self.samples - late, ::-1].copy()

    def finish(self) -> NDArray[np.float32]:
        """The recording, with a short fade at its end, as the music may stop in the middle of a note."""
        fade = min(self.samples, round(0.05 * self.rate))
        self.sound[self.samples - fade :] *= _ease(np.linspace(1, 0, fade))[:, None]
        return self.sound


def _play_drums(song: _Song, tape: _Tape, dice: np.random.Generator) -> None:
    kick, snare = _kick(tape.rate), _snare(dice, tape.rate)
    closed, open_ = (_noise(dice, 7000, 16000, decay, tape.rate) for decay in (0.03, 0.12))
    for bar in song.bars(tape.seconds):
        for step, _ in _notes(song.kick):
            tape.add(kick, song.start_of(bar, step), 0.8 * dice.uniform(0.9, 1))
        fill = song.snare[:12] + "xxxx"  # ends every fourth bar
        for step, _ in _notes(fill if bar % 4 == 3 else song.snare):
            tape.add(snare, song.start_of(bar, step), 0.55 * dice.uniform(0.8, 1), pan=0.05)
        for step, _ in _notes(song.hat):
            hat = open_ if step == 14 else closed
            tape.add(hat, song.start_of(bar, step), 0.3 * dice.uniform(0.6, 1), pan=-song.side)


def _play_bass(song: _Song, tape: _Tape, dice: np.random.Generator) -> None:
    pluck = cache(partial(_pluck, rate=tape.rate, harmonics=16, slope=1.6, decay=1.2))
    for bar in song.bars(tape.seconds):
        root = 28 + (song.semitones(song.root(bar)) - 28) % 12  # E1, the lowest string, or above
        for step, length in _notes(song.bass):
            leap = int(dice.choice([0, 7, 12])) if step > 8 else 0
            note = pluck(root + leap, 0.95 * length * song.beat / 4)
            tape.add(note, song.start_of(bar, step), 0.4 * dice.uniform(0.85, 1))


def _play_other(song: _Song, tape: _Tape, dice: np.random.Generator) -> None:
    """Play a pad, a chord a bar, and an arpeggio over it; like a sampler's, a note sounds the same each time."""
    pad = cache(partial(_pad, song, rate=tape.rate))
    pluck = cache(partial(_pluck, rate=tape.rate, harmonics=10, slope=1.5 - 0.7 * song.brightness, decay=4))
    for bar in song.bars(tape.seconds):
        for pitch in song.chord(bar, lowest=52):
            for detune in (-0.05, 0.05):  # two halves, slightly out of tune with each other: a wide sound
                tape.add(pad(pitch + detune), song.start_of(bar), 0.08, math.copysign(song.width, detune))
        chord = song.chord(bar, lowest=64)
        for step, _ in _notes(song.arpeggio):
            note = pluck(int(dice.choice([*chord, chord[0] + 12])), 0.9)
            tape.add(note, song.start_of(bar, step), 0.2 * dice.uniform(0.7, 1), song.side)
    tape.echo(0.75 * song.beat, 0.3)


def _sing(song: _Song, tape: _Tape, dice: np.random.Generator) -> None:
    middle, size = (57, 1.0) if song.singer == "low" else (64, 1.15)  # semitones; factor of the formants
    melodies = [(_notes(phrase), dice.integers(-2, 3, size=len(phrase))) for phrase in song.phrases]
    for bar in song.bars(tape.seconds)[::2]:
        rhythm, moves = melodies[(0, 0, 1, 0)[bar // 2 % 4]]  # the form A A B A
        notes = np.array(rhythm) * song.beat / 2
        vowels = dice.choice(FORMANTS, size=len(notes)) * size
        phrase = _phrase(notes, _melody(song, bar, rhythm, moves, middle), vowels, tape.rate)
        tape.add(phrase, song.start_of(bar) + notes[0, 0], 0.3)
        for start in notes[dice.random(len(notes)) < 0.5, 0]:  # half of the syllables begin with a hiss
            hiss = _noise(dice, 4500, 10000, 0.03, tape.rate)
            tape.add(hiss, song.start_of(bar) + start, 0.25 * dice.uniform(0.5, 1))
    tape.echo(1.5 * song.beat, 0.15)


def _melody(
    song: _Song, bar: int, rhythm: list[tuple[int, int]], moves: NDArray[np.int64], middle: int
) -> NDArray[np.float64]:
    """Pitches (notes,) of two bars: a walk on the scale, with the accents and the long notes on the chord."""
    home = round((middle - song.tonic) * 7 / 12)  # degree
    degree, pitches = home, []
    for (step, length), move in zip(rhythm, moves, strict=False):
        degree = int(np.clip(degree + move, home - 4, home + 4))
        pitch = song.semitones(degree)
        pitches.append(song.nearest(bar + step // 8, pitch) if step % 4 == 0 or length > 2 else pitch)
    return np.array(pitches, dtype=np.float64)


def _notes(rhythm: str) -> list[tuple[int, int]]:
    """Start and length of every note of a rhythm, in steps."""
    return [(note.start(), len(note.group())) for note in re.finditer("x-*", rhythm)]


def _kick(rate: int) -> NDArray[np.float32]:
    """A sine that falls from 170 Hz to 48 Hz while it fades, about a quarter of a second long."""
    times = np.arange(round(0.3 * rate)) / rate
    cycles = 48 * times + (170 - 48) * 0.03 * (1 - np.exp(-times / 0.03))  # the integral of the falling pitch
    return np.asarray(np.sin(2 * np.pi * cycles) * _strike(times, decay=0.09), dtype=np.float32)


def _snare(dice: np.random.Generator, rate: int) -> NDArray[np.float32]:
    """The skin, a sine at 190 Hz, and the wires, noise."""
    wires = 1.3 * _noise(dice, 1200, 9000, 0.08, rate)
    times = np.arange(len(wires)) / rate
    skin = 0.5 * np.sin(2 * np.pi * 190 * times) * _strike(times, decay=0.05)
    return np.asarray(skin + wires, dtype=np.float32)


def _noise(dice: np.random.Generator, low: float, high: float, decay: float, rate: int) -> NDArray[np.float32]:
    """A burst of noise between two frequencies, the same at every rate: its Fourier coefficients are drawn."""
    seconds = 6 * decay
    samples = round(seconds * rate)
    hertz = np.arange(round(1.2 * high * seconds)) / seconds
    band = _ease(hertz / low - 0.2) * _ease((1.2 - hertz / high) / 0.2)
    spectrum = band * np.exp(2j * np.pi * dice.random(len(hertz)))
    noise = np.fft.irfft(spectrum, samples) * samples / np.sqrt(2 * np.sum(band**2))  # cut at Nyquist, rms 1
    return np.asarray(0.4 * noise * _strike(np.arange(samples) / rate, decay), dtype=np.float32)


def _strike(times: NDArray[np.float64], decay: float) -> NDArray[np.float64]:
    """Envelope of something struck: up within 2 ms, then an exponential decay, which is faded to end at zero."""
    return _ease(times / 0.002) * np.exp(-times / decay) * _ease((times[-1] - times) / 0.02)


def _pluck(pitch: float, seconds: float, rate: int, harmonics: int, slope: float, decay: float) -> NDArray[np.float32]:
    """A plucked string, whose higher harmonics are weaker (by a power, `slope`) and die away sooner."""
    times = _control_times(seconds)
    numbers = np.arange(1, harmonics + 1)
    envelope = _ease(times / 0.008) * _ease((times[-1] - times) / 0.04)
    fading = np.exp(-decay * times[:, None] * (0.6 + 0.4 * numbers))
    return _tone(_hertz(np.full(len(times), pitch)), envelope[:, None] * fading * numbers**-slope, rate)


def _pad(song: _Song, pitch: float, rate: int) -> NDArray[np.float32]:
    """One note of a chord, a bar long, that swells, brightens and closes again."""
    times = _control_times(4 * song.beat + 0.2)  # it reaches into the next bar's attack
    numbers = np.arange(1, 11)
    envelope = _ease(times / 0.2) * _ease((times[-1] - times) / 0.3)
    slope = 2.2 - song.brightness - 0.5 * np.sin(np.pi * times / times[-1])
    gains = np.where(numbers % 2, 1.0, song.evenness) * numbers ** -slope[:, None]
    return _tone(_hertz(np.full(len(times), pitch)), envelope[:, None] * gains, rate)


def _phrase(
    notes: NDArray[np.float64], pitches: NDArray[np.float64], vowels: NDArray[np.float64], rate: int
) -> NDArray[np.float32]:
    """A sung phrase: start and length of the notes (notes, 2), their pitches (notes,) and formants (notes, 4)."""
    starts, lengths = notes[:, 0] - notes[0, 0], notes[:, 1]
    times = _control_times(starts[-1] + lengths[-1])
    note = np.searchsorted(starts, times, side="right") - 1
    since, until = times - starts[note], (starts + lengths)[note] - times
    depth = 0.35 * _ease((since - 0.1) / 0.4) * _ease(until / 0.1)  # of the vibrato, in semitones
    vibrato = depth * np.sin(2 * np.pi * 5.5 * times)
    hertz = _hertz(_glide(times, starts, pitches[:, None], 0.09)[:, 0] + vibrato)
    syllables = 0.25 + 0.75 * _ease(since / 0.06) * _ease(until / 0.05)
    loudness = syllables * _ease(times / 0.05) * _ease((times[-1] - times) / 0.12)
    numbers = np.arange(1, 1 + math.ceil(5000 / hertz.min()))
    gains = _resonances(hertz[:, None] * numbers, _glide(times, starts, vowels, 0.12)) / numbers
    gains *= (loudness / np.sqrt(np.sum(gains**2, axis=1)))[:, None]  # a singer evens the vowels out
    return _tone(hertz, gains, rate)


def _resonances(hertz: NDArray[np.float64], formants: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gain of the vocal tract at the harmonics (times, harmonics), with formants (times, formants)."""
    gains = np.full(hertz.shape, 0.03)
    for formant, width, gain in zip(formants.T, FORMANT_WIDTHS, FORMANT_GAINS, strict=True):
        gains += gain / (1 + ((hertz - formant[:, None]) / width) ** 2)
    return gains


def _glide(
    times: NDArray[np.float64], starts: NDArray[np.float64], values: NDArray[np.float64], seconds: float
) -> NDArray[np.float64]:
    """Values that move smoothly to the next of (notes, n) around each note's start: (times, n)."""
    arrived = _ease((times[:, None] - starts[1:]) / seconds + 0.5)
    return np.asarray(values[0] + arrived @ np.diff(values, axis=0))


def _tone(hertz: NDArray[np.float64], gains: NDArray[np.float64], rate: int) -> NDArray[np.float32]:
    """Sum of the harmonics of a pitch (times,) with gains (times, harmonics), both on the control grid.

    Between two points of the grid lies a block; there, pitch and gains are linear in time, and so the phase is
    ``2 pi (cycles before + pitch * t + slope of the pitch * t**2 / 2)``.
    """
    samples = round(CONTROL * rate)  # of a block
    numbers = np.arange(1, gains.shape[1] + 1, dtype=np.float32)
    gains = np.where(hertz[:, None] * numbers < 0.48 * rate, gains, 0).astype(np.float32)
    ends = np.stack([gains[:-1], gains[1:]], axis=1)  # (blocks, 2, harmonics)
    cycles = (hertz[:-1] + hertz[1:]) / 2 * samples / rate
    slopes = np.diff(hertz) * rate / samples
    curves = 2 * np.pi * np.column_stack([(np.cumsum(cycles) - cycles) % 1, hertz[:-1], slopes / 2])
    powers = (np.arange(samples) / rate) ** np.arange(3)[:, None]
    ramp = np.arange(samples, dtype=np.float32) / samples
    sound = np.empty((len(ends), samples), dtype=np.float32)
    for first in range(0, len(sound), 16):  # a few blocks at a time stay in the cache: three times faster
        few = slice(first, first + 16)
        phases = (curves[few] @ powers).astype(np.float32)
        tones = ends[few] @ np.sin(phases[:, None] * numbers[:, None])  # (blocks, 2, samples)
        sound[few] = tones[:, 0] + (tones[:, 1] - tones[:, 0]) * ramp
    return sound.ravel()


def _control_times(seconds: float) -> NDArray[np.float64]:
    return CONTROL * np.arange(math.ceil(seconds / CONTROL) + 1, dtype=np.float64)


def _hertz(pitch: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(440 * 2 ** ((pitch - 69) / 12), dtype=np.float64)


def _ease(position: NDArray[np.float64]) -> NDArray[np.float64]:
    """From 0 to 1, and no further, with a smooth start and end."""
    position = np.clip(position, 0, 1)
    return np.asarray(position**2 * (3 - 2 * position), dtype=np.float64)
