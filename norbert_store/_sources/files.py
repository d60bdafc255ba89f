"""Audio files to blocks of samples, and back: plain files by libsndfile, files with a stream per stem by FFmpeg.

Whoever reads a file may hand in what its header said before: the file is compared with it, and its header isn't read
twice.

Conventions
-----------
A block is float32 (samples, channels), full scale 1.0. Integers are divided by their full scale, so 16- and 24-bit
files are read exactly.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from norbert_store.errors import AudioError, SourceError

if TYPE_CHECKING:
    import av.container
    import soundfile

Block = NDArray[np.float32]
Audio = NDArray[np.floating[Any]]

BLOCK_SAMPLES = 1 << 18

# libsndfile takes the length of a file that was cut off from its size, and tells of it in its log alone.
_CUT_OFF = re.compile(r"(?:data|SSND|Data Size)\s*: (\d+) \(should be (\d+)\)")
# Programs that write into a pipe put a length from here on, before they know it.
_UNKNOWN_LENGTH = 0x7FFFF000
# What libsndfile takes a FLAC for whose writer didn't know it.
_UNKNOWN_SAMPLES = 2**62

# More than a file of any format holds; a FLAC comes closest, with 65,535 samples of silence in some ten bytes.
_MOST_SAMPLES_PER_BYTE = 2**14

# The order in which MUSDB18 writes its streams, for files whose streams bear no names.
_MUSDB_ORDER = ("mixture", "drums", "bass", "other", "vocals")


@dataclass(frozen=True)
class AudioInfo:
    """What a file's header says.

    Attributes
    ----------
    rate : int
        Samples per second.
    channels : int
    samples : int
        Length.
    """

    rate: int
    channels: int
    samples: int

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.samples / self.rate

    def __str__(self) -> str:
        return f"{self.samples} samples x {self.channels} channels at {self.rate} Hz"


def audio_info(path: str | os.PathLike[str]) -> AudioInfo:
    """Read the header of an audio file that libsndfile knows (WAV, FLAC, Ogg, MP3, AIFF, ...).

    Raises
    ------
    SourceError
        If there is no such file.
    AudioError
        If it is empty, cut off, or no audio that can be read, or its header says more samples than it can hold.
    """
    import soundfile

    check_file(path)
    try:
        info = soundfile.info(os.fspath(path))
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{os.fspath(path)} can't be read as audio: {error.error_string}") from None
    cut_off = _CUT_OFF.search(info.extra_info)
    if cut_off and int(cut_off[2]) < int(cut_off[1]) < _UNKNOWN_LENGTH:
        raise AudioError(f"{os.fspath(path)} is cut off: its header says {cut_off[1]} bytes, found {cut_off[2]}")
    if info.frames == 0:
        raise AudioError(f"{os.fspath(path)} holds no samples")
    if info.frames >= _UNKNOWN_SAMPLES:
        raise AudioError(f"{os.fspath(path)} doesn't say how long it is, as if written into a pipe; write it anew")
    _check_room(path, int(info.frames))
    return AudioInfo(int(info.samplerate), int(info.channels), int(info.frames))


def read_blocks(path: str | os.PathLike[str], header: AudioInfo | None = None) -> Iterator[Block]:
    """Read an audio file in blocks.

    Parameters
    ----------
    path : str or path
    header : AudioInfo, optional
        What `audio_info` said of it before.

    Raises
    ------
    SourceError, AudioError
        As `audio_info`; also where the file isn't as long any more as it was then, or ends before its header says.
    """
    import soundfile

    if header is None:
        header = audio_info(path)
    else:
        check_file(path)
    found = 0
    try:
        with soundfile.SoundFile(os.fspath(path)) as file:
            _check_same(path, header, AudioInfo(int(file.samplerate), int(file.channels), int(file.frames)))
            while len(block := file.read(BLOCK_SAMPLES, dtype="float32", always_2d=True)):
                found += len(block)
                yield block
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{os.fspath(path)} can't be read on after {found} samples: {error.error_string}") from None
    if found != header.samples:
        raise AudioError(f"{os.fspath(path)} is cut off: its header says {header.samples} samples, found {found}")


def stems_info(path: str | os.PathLike[str], alone: str | None = None) -> dict[str, AudioInfo]:
    """Read which stems an MP4 with one audio stream per stem holds.

    Parameters
    ----------
    path : str or path
        Such as MUSDB18's ``.stem.mp4``. The names of stems are in the streams' ``handler_name``; where there are five
        streams without names, they are taken in MUSDB18's order.
    alone : str, optional
        The stem that a single stream is taken for, whatever its name.

    Returns
    -------
    dict of str to AudioInfo
        In the order of the streams.

    Raises
    ------
    SourceError
        If there is no such file, or PyAV isn't installed.
    AudioError
        If it can't be read, has no audio streams or two of the same name, or one says more samples than the file can
        hold.
    """
    with _open_container(path) as container:
        return {name: _stream_info(stream, path) for name, stream in _streams(container, path, alone).items()}


def read_stems(
    path: str | os.PathLike[str], headers: Mapping[str, AudioInfo] | None = None, alone: str | None = None
) -> Iterator[tuple[str, Block]]:
    """Read stems of an MP4 in one pass: (name of the stem, block), in the order in which they lie in the file.

    What decoders add at the end is cut off, and what they leave out there is silent, so that every stem is as long as
    its stream says.

    Parameters
    ----------
    path : str or path
    headers : mapping of str to AudioInfo, optional
        The stems that are wanted, and what `stems_info` said of them before; all stems if left out.
    alone : str, optional
        As for `stems_info`.

    Raises
    ------
    SourceError, AudioError
        As `stems_info`; also where a stem isn't as long any more as it was then, or ends before its stream says.
    """
    import av

    with _open_container(path) as container:
        found = _streams(container, path, alone)
        infos = {name: _stream_info(stream, path) for name, stream in found.items()}
        for name, header in (headers or {}).items():
            _check_same(f"{os.fspath(path)}, {name}", header, infos.get(name))
        wanted = infos if headers is None else headers
        streams = [stream for name, stream in found.items() if name in wanted]
        names = {stream.index: name for name, stream in found.items()}
        left = {stream.index: infos[names[stream.index]].samples for stream in streams}
        try:
            for packet in container.demux(streams):
                index = packet.stream.index
                for frame in packet.decode():
                    block = _frame_samples(frame)[: left[index]]
                    left[index] -= len(block)
                    if len(block):
                        yield names[index], block
        except av.FFmpegError as error:
            raise AudioError(f"{os.fspath(path)} can't be read on: {error.strerror}") from None
        for stream in streams:
            # most containers round the length to milliseconds, and some FFmpeg versions decode to the exact end
            if 0 < left[stream.index] < stream.rate / 100:
                yield names[stream.index], np.zeros((left.pop(stream.index), stream.codec_context.channels), np.float32)
    short = ", ".join(f"{names[index]} by {count}" for index, count in left.items() if count > 0)
    if short:
        raise AudioError(f"{os.fspath(path)} is cut off: samples are missing from {short}")


def write_audio(path: str | os.PathLike[str], blocks: Iterable[Audio], rate: int, channels: int) -> None:
    """Write blocks of audio (samples, channels) into a file; the suffix tells the format.

    WAV takes float, so nothing clips.

    Raises
    ------
    SourceError, AudioError
        As `check_output`; also if the format can't hold this audio.
    OSError
        If the file can't be written.
    """
    with open_output(path, rate, channels) as file:
        for block in blocks:
            file.write(block)


@contextmanager
def open_output(path: str | os.PathLike[str], rate: int, channels: int) -> Iterator[soundfile.SoundFile]:
    """Open an audio file for blocks (samples, channels), as `write_audio` does; an error leaves all as it was."""
    import soundfile

    check_output(path)
    final = Path(path)
    partial = final.with_name(f".{final.stem}.partial{final.suffix}")
    subtype = "FLOAT" if final.suffix.lower() == ".wav" else None
    try:
        file = soundfile.SoundFile(partial, "w", rate, channels, subtype)
    except (soundfile.LibsndfileError, TypeError) as error:
        raise AudioError(f"{final} can't be written: {error}") from None
    try:
        with file:
            yield file
        partial.replace(final)
    finally:
        partial.unlink(missing_ok=True)


def check_output(path: str | os.PathLike[str]) -> None:
    """Check that audio can be written to a path, before it is made.

    Raises
    ------
    SourceError
        If there is no such folder.
    AudioError
        If the suffix is none of an audio format that can be written.
    """
    import soundfile

    file = Path(path)
    if file.is_dir():
        raise AudioError(f"{file} is a folder; give the name of a file")
    if not file.parent.is_dir():
        raise SourceError(f"there is no folder {file.parent} to write {file.name} into")
    known = {f".{name.lower()}" for name in soundfile.available_formats()} | {".aif", ".oga"}
    if file.suffix.lower() not in known:
        raise AudioError(f"{file} can't be written: its suffix is none of an audio format, such as .wav or .flac")


def check_file(path: str | os.PathLike[str]) -> None:
    """Raise `SourceError` or `AudioError` unless there is a file, and it isn't empty."""
    if not os.path.isfile(path):
        raise SourceError(f"there is no file {os.fspath(path)}")
    if os.path.getsize(path) == 0:
        raise AudioError(f"{os.fspath(path)} is empty (0 bytes)")


def _check_room(path: str | os.PathLike[str], samples: int) -> None:
    """Check that a file can hold as many samples as its header says: exports plan by them before they read any."""
    size = os.path.getsize(path)
    if samples > size * _MOST_SAMPLES_PER_BYTE:
        raise AudioError(
            f"the header of {os.fspath(path)} says {samples} samples, more than its {size} bytes can hold; "
            "write the file anew"
        )


def _check_same(path: str | os.PathLike[str], header: AudioInfo, now: AudioInfo | None) -> None:
    if now != header:
        raise AudioError(
            f"{os.fspath(path)} was changed since its header was read: that said {header}, found {now or 'nothing'}"
        )


def _open_container(path: str | os.PathLike[str]) -> av.container.InputContainer:
    try:
        import av
    except ModuleNotFoundError:
        raise SourceError(f"reading {os.fspath(path)} needs PyAV: pip install 'norbert_store[musdb]'") from None
    check_file(path)
    try:
        # absolute, as FFmpeg takes what stands before a colon for a protocol
        # and in no other format, for there are some that name other files to be read
        return av.open(os.path.abspath(path), format="mp4")
    except av.FFmpegError as error:
        raise AudioError(f"{os.fspath(path)} can't be read as audio: {error.strerror}") from None


def _streams(container: av.container.InputContainer, path: str | os.PathLike[str], alone: str | None) -> dict[str, Any]:
    """Audio streams by the stem that each holds, in their order."""
    streams = container.streams.audio
    if not streams:
        raise AudioError(f"{os.fspath(path)} holds no audio")
    if len(streams) == 1 and alone is not None:
        return {alone: streams[0]}
    names = [str(stream.metadata.get("handler_name", "")) for stream in streams]
    # players' tools write one generic name, or none, over all streams
    if len(set(names)) == len(names) and all(names):
        return dict(zip(names, streams, strict=True))
    if len(names) == len(_MUSDB_ORDER):
        return dict(zip(_MUSDB_ORDER, streams, strict=True))
    raise AudioError(f"{os.fspath(path)} has {len(names)} streams whose handler_name doesn't tell them apart: {names}")


def _stream_info(stream: Any, path: str | os.PathLike[str]) -> AudioInfo:
    samples = _stream_samples(stream)
    _check_room(path, samples)
    return AudioInfo(int(stream.rate), int(stream.codec_context.channels), samples)


def _stream_samples(stream: Any) -> int:
    """Length of a stream in samples, by its container; FFmpeg versions differ in what they decode past it."""
    if stream.duration is None:
        raise AudioError(f"stream {stream.index} doesn't say how long it is")
    return round(stream.duration * stream.time_base * stream.rate)


def _frame_samples(frame: Any) -> Block:
    """Samples of a decoded frame as (samples, channels)."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype != np.float32:
        samples = samples.astype(np.float32) / np.float32(np.iinfo(samples.dtype).max + 1)
    return np.ascontiguousarray(samples.T)
