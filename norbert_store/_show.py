"""What a person looks at: notebook views and pictures of stores and tracks.

Names of tracks are text of unknown origin: what is shown as HTML, or in a picture, is escaped here.
"""

from __future__ import annotations

import os
from html import escape as escaped
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from norbert_store._read.selection import Selection
from norbert_store._read.track import StoredTrack, store_name
from norbert_store._spectra.levels import heard_scale
from norbert_store._text import printable, shortened, shown
from norbert_store.errors import DamagedError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_ROWS = 10
_MOST_COLUMNS = 1500
_MOST_LINES = 300
_RANGE_DECIBEL = 90.0
_LOWEST_SHOWN = 40.0
_LONGEST_FACT = 2000


def store_html(selection: Selection) -> str:
    """Show a store in a notebook: what it holds, and its first tracks."""
    rows = [
        [shortened(track.name), shortened(track.split), f"{track.duration:.1f} s"]
        for track in islice(selection, _MOST_ROWS)
    ]
    if len(selection) > _MOST_ROWS:
        rows.append([f"... {len(selection) - _MOST_ROWS} more", "", ""])
    facts, tracks = _facts_html(selection.facts()), _table_html(("track", "split", "length"), rows)
    return f"<b>Store</b> {_html(selection.name)}{facts}{tracks}"


def track_html(track: StoredTrack) -> str:
    """Show a track in a notebook."""
    facts = {
        "split": track.split,
        "length": f"{track.duration:.2f} s, {track.frames} frames",
        "targets": ", ".join(target for target, there in track.present.items() if there),
        "source": track.source,
        **{key: str(value) for key, value in track.labels.items()},
    }
    facts = {key: shortened(value, _LONGEST_FACT) for key, value in facts.items()}
    return f"<b>Track</b> {_html(shortened(track.name))}{_facts_html(facts)}"


def plot_track(track: StoredTrack) -> Figure:
    """Draw a track: a spectrogram for each target, mean over channels, in dB over time and the logarithm of frequency.

    Parameters
    ----------
    track : StoredTrack

    Returns
    -------
    matplotlib.figure.Figure
        Not yet shown or saved.

    Raises
    ------
    DamagedError
        If the track table says that the track has no target.
    """
    from matplotlib.figure import Figure

    targets = [target for target, there in track.present.items() if there]
    if not targets:
        raise DamagedError(f"track {shown(track.name)} has no target; expected at least one", store=store_name(track))
    figure = Figure(figsize=(10, 0.9 + 1.9 * len(targets)), layout="constrained")
    figure.suptitle(_plain(track.name))
    axes = figure.subplots(len(targets), sharex=True, squeeze=False)[:, 0]
    loudest = max(track.scales.values())
    # full scale, unless that is far from what is there
    reference = 2.0 ** (loudest - heard_scale(loudest))
    frames = _spread(track.frames, _MOST_COLUMNS)
    magnitude = track.magnitude.isel(time=frames)
    seconds = magnitude.time.values
    lines, edges = _log_lines(magnitude.frequency.values)
    for axis, target in zip(axes, targets, strict=True):
        mean = magnitude.sel(target=target).values.mean(axis=0)[:, lines]
        decibel = 20 * np.log10(np.maximum(mean / reference, 10 ** (-_RANGE_DECIBEL / 20)))
        image = axis.imshow(
            decibel.T,
            origin="lower",
            aspect="auto",
            extent=(seconds[0], max(seconds[-1], seconds[0] + 1e-3), 0, 1),
            vmin=-_RANGE_DECIBEL,
            vmax=0,
            cmap="magma",
        )
        _label_frequencies(axis, edges)
        axis.set_ylabel(f"{_plain(target)}\nHz")
    axes[-1].set_xlabel("seconds")
    figure.colorbar(image, ax=axes, label=f"dB re {reference:g}", shrink=min(1.0, 3 / len(targets)))
    return figure


def save_plot(track: StoredTrack, file: str | os.PathLike[str]) -> None:
    """Draw a track into a file; the suffix tells the format (png, pdf, svg, ...).

    Raises
    ------
    ValueError
        If the suffix is none that can be drawn.
    OSError
        If the file can't be written, such as in a folder that isn't there.
    """
    from matplotlib.backend_bases import FigureCanvasBase

    known = FigureCanvasBase.get_supported_filetypes()
    # matplotlib itself takes a file without a suffix, and writes another one
    if Path(file).suffix.removeprefix(".").lower() not in known:
        raise ValueError(f"{os.fspath(file)} can't be drawn; expected a file named .{', .'.join(sorted(known))}")
    if not Path(file).parent.is_dir():
        raise FileNotFoundError(f"there is no folder {Path(file).parent} to write {Path(file).name} into")
    plot_track(track).savefig(file, dpi=130)


def _spread(size: int, most: int) -> NDArray[np.int64]:
    """Positions spread over an axis, at most ``most``."""
    return np.unique(np.linspace(0, size - 1, min(size, most)).astype(np.int64))


def _log_lines(frequencies: NDArray[np.float64]) -> tuple[NDArray[np.int64], tuple[float, float]]:
    """Bins for lines that are evenly spaced in the logarithm of frequency, and the lowest and highest frequency."""
    low = max(_LOWEST_SHOWN, float(frequencies[frequencies > 0][0])) if (frequencies > 0).any() else 1.0
    high = max(float(frequencies[-1]), low * 1.01)
    wanted = np.geomspace(low, high, _MOST_LINES)
    nearest = np.abs(frequencies[np.newaxis] - wanted[:, np.newaxis]).argmin(axis=1)
    return nearest, (low, high)


def _label_frequencies(axis: Any, edges: tuple[float, float]) -> None:
    low, high = edges
    marks = [mark for mark in (50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000) if low <= mark <= high][::2]
    axis.set_yticks([np.log(mark / low) / np.log(high / low) for mark in marks], [f"{mark:,}" for mark in marks])


def _html(text: str) -> str:
    """Text that browsers show as it is."""
    return escaped(printable(text))


def _plain(text: str) -> str:
    """Text that matplotlib shows as it is: a dollar sign would begin a formula."""
    return printable(shortened(text)).replace("$", r"\$")


def _facts_html(facts: dict[str, str]) -> str:
    rows = "".join(
        f"<tr><th style='text-align:left'>{_html(key)}</th><td style='text-align:left'>{_html(value)}</td></tr>"
        for key, value in facts.items()
    )
    return f"<table>{rows}</table>"


def _table_html(head: tuple[str, ...], rows: list[list[str]]) -> str:
    cells = "".join(f"<th style='text-align:left'>{_html(title)}</th>" for title in head)
    body = "".join(
        "<tr>" + "".join(f"<td style='text-align:left'>{_html(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{cells}</tr>{body}</table>"
