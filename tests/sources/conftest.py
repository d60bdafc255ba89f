"""Music of two seconds, as files of each kind."""

from __future__ import annotations

import av
import numpy as np
import pytest
import soundfile

from norbert_store._command.demo_music import compose

RATE = 16000


@pytest.fixture(scope="package")
def stems():
    return compose(0, seconds=2.0, rate=RATE)


@pytest.fixture
def wav(tmp_path, stems):
    path = tmp_path / "a song.wav"
    soundfile.write(path, stems["mixture"], RATE)
    return path


def _write_stems(path, stems, names=None, **options):
    with av.open(str(path), "w", format="mp4", options=options) as container:
        streams = []
        for i in range(len(stems)):
            streams.append(container.add_stream("aac", rate=RATE, layout="stereo"))
            streams[i].bit_rate = 128000
            if names is not None:
                streams[i].metadata["handler_name"] = names[i]
        for stream, samples in zip(streams, stems, strict=True):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout="stereo")
            frame.rate, frame.pts = RATE, 0
            for packet in (*stream.encode(frame), *stream.encode(None)):
                container.mux(packet)
    return path


@pytest.fixture(scope="package")
def write_stems():
    """Write an MP4 with an AAC stream a stem, as MUSDB18's; without names, FFmpeg calls each "SoundHandler"."""
    return _write_stems


@pytest.fixture(scope="package")
def mp4(tmp_path_factory, stems):
    return _write_stems(tmp_path_factory.mktemp("mp4") / "a song.stem.mp4", list(stems.values()), list(stems))
