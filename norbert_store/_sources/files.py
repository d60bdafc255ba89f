"""Audio files to blocks of samples: one stem a file by libsndfile, or all stems of an MP4 in one pass by FFmpeg.

The *source* of a track is a folder with a file per stem, one file with a stream per stem, or one plain file.

Conventions
-----------
A block is float32 (samples, channels), full scale 1.0. Integers are divided by their full scale, so 16- and 24-bit
files are read exactly.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
from numpy.typing import NDArray

from norbert_store.errors import AudioError, SourceError

if TYPE_CHECKING:
    import av.container
    import soundfile

Block = NDArray[np.float32]
Audio = NDArray[np.floating[Any]]

BLOCK_SAMPLES = 1 << 18
STEM_SUFFIXES = (".mp4", ".m4a")

# libsndfile takes the length of a file that was cut off from its size, and tells of it in its log alone.
_CUT_OFF = re.compile(r"(?:data|SSND|Data Size)\s*: (\d+) \(should be (\d+)\)")
# Programs that write into a pipe put a length from here on, before they know it.
_UNKNOWN_LENGTH = 0x7FFFF000
# What libsndfile takes a FLAC for whose writer didn't know it.
_UNKNOWN_SAMPLES = 2**62

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


def audio_info(path: str | os.PathLike[str]) -> AudioInfo:
    """Read the header of an audio file that libsndfile knows (WAV, FLAC, Ogg, MP3, AIFF, ...).

    Raises
    ------
    SourceError
        If there is no such file.
    AudioError
        If it is empty, cut off, or no audio that can be read.
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
    return AudioInfo(int(info.samplerate), int(info.channels), int(info.frames))


def read_blocks(path: str | os.PathLike[str]) -> Iterator[Block]:
    """Read an audio file in blocks.

    Raises
    ------
    SourceError, AudioError
        As `audio_info`; also where the file ends before its header says.
    """
    import soundfile

    info = audio_info(path)
    found = 0
    try:
        with soundfile.SoundFile(os.fspath(path)) as file:
            while len(block := file.read(BLOCK_SAMPLES, dtype="float32", always_2d=True)):
                found += len(block)
                yield block
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{os.fspath(path)} can't be read on after {found} samples: {error.error_string}") from None
    if found != info.samples:
        raise AudioError(f"{os.fspath(path)} is cut off: its header says {info.samples} samples, found {found}")


def stems_info(path: str | os.PathLike[str]) -> dict[str, AudioInfo]:
    """Read which stems an MP4 with one audio stream per stem holds.

    Parameters
    ----------
    path : str or path
        Such as MUSDB18's ``.stem.mp4``. The names of stems are in the streams' ``handler_name``; where there are five
        streams without names, they are taken in MUSDB18's order.

    Returns
    -------
    dict of str to AudioInfo
        In the order of the streams.

    Raises
    ------
    SourceError
        If there is no such file, or PyAV isn't installed.
    AudioError
        If it can't be read, or has no audio streams, or two of the same name.
    """
    with _open_container(path) as container:
        names = _stem_names(container, path)
        return {
            name: AudioInfo(int(stream.rate), int(stream.codec_context.channels), _stream_samples(stream))
            for name, stream in zip(names, container.streams.audio, strict=True)
        }


def read_stems(path: str | os.PathLike[str]) -> Iterator[tuple[str, Block]]:
    """Read all stems of an MP4 in one pass: (name of the stem, block), in the order in which they lie in the file.

    What decoders add at the end is cut off, and what they leave out there is silent, so that every stem is as long as
    its stream says.

    Raises
    ------
    SourceError, AudioError
        As `stems_info`.
    """
    import av

    with _open_container(path) as container:
        streams = list(container.streams.audio)
        names = dict(zip((stream.index for stream in streams), _stem_names(container, path), strict=True))
        left = {stream.index: _stream_samples(stream) for stream in streams}
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


def read_stem(source: str | os.PathLike[str], stem: str) -> tuple[AudioInfo, Iterator[Block]]:
    """Read one stem of a track's source, in blocks.

    Parameters
    ----------
    source : str or path
        A folder that holds ``<stem>.wav``, a file with one stream per stem (``.stem.mp4``), a plain audio file (taken
        as it is), or a ``file:`` URI of one of these.
    stem : str
        Such as "mixture".

    Returns
    -------
    info : AudioInfo
    blocks : iterator of ndarray of float32
        (samples, channels)

    Raises
    ------
    SourceError
        If there is no such file, or it has no such stem.
    AudioError
        If it can't be read.
    """
    path = local_path(source)
    if path.is_dir():
        path = path / f"{stem}.wav"
    if not has_stems(path):
        return audio_info(path), read_blocks(path)
    stems = stems_info(path)
    if len(stems) == 1:
        (stem,) = stems
    if stem not in stems:
        raise SourceError(f"{path} has no stem {stem!r}; it has {', '.join(map(repr, stems))}")
    return stems[stem], (block for name, block in read_stems(path) if name == stem)


def local_path(source: str | os.PathLike[str]) -> Path:
    """Take a path, or a ``file:`` URI, as a path.

    Raises
    ------
    SourceError
        If it is another kind of URI.
    """
    text = os.fspath(source)
    if "://" not in text:
        return Path(text)
    parts = urlsplit(text)
    if parts.scheme != "file":
        raise SourceError(f"audio at {text} can't be read from here; fetch it first")
    return Path(url2pathname(parts.path))


def source_reference(path: Path, store_folder: Path | None) -> str:
    """Write where a source is: relative to the folder that holds the store, or a URI where the store is elsewhere."""
    if store_folder is None:
        return path.absolute().as_uri()
    try:
        # resolved, since the way back from the store may not lead through the links that led there
        return Path(os.path.relpath(path.resolve(), store_folder.resolve().parent)).as_posix()
    except ValueError:  # on Windows, another drive
        return path.absolute().as_uri()


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


def has_stems(path: str | os.PathLike[str]) -> bool:
    """Whether a path is named like a file that holds one stream per stem."""
    return Path(path).suffix.lower() in STEM_SUFFIXES


def _open_container(path: str | os.PathLike[str]) -> av.container.InputContainer:
    try:
        import av
    except ImportError:
        raise SourceError(f"reading {os.fspath(path)} needs PyAV: pip install 'norbert_store[musdb]'") from None
    check_file(path)
    try:
        # absolute, as FFmpeg takes what stands before a colon for a protocol
        return av.open(os.path.abspath(path))
    except av.FFmpegError as error:
        raise AudioError(f"{os.fspath(path)} can't be read as audio: {error.strerror}") from None


def _stem_names(container: av.container.InputContainer, path: str | os.PathLike[str]) -> list[str]:
    streams = container.streams.audio
    if not streams:
        raise AudioError(f"{os.fspath(path)} holds no audio")
    names = [str(stream.metadata.get("handler_name", "")) for stream in streams]
    # players' tools write one generic name, or none, over all streams
    if len(set(names)) == len(names) and all(names):
        return names
    if len(names) == len(_MUSDB_ORDER):
        return list(_MUSDB_ORDER)
    raise AudioError(f"{os.fspath(path)} has {len(names)} streams whose handler_name doesn't tell them apart: {names}")


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
