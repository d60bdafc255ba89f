"""The pictures of `quality.py`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator
from numpy.typing import NDArray
from quality_contestants import EXACT, SEED, SEED_2018, THIS_STORE

Means = Mapping[tuple[str, float], Mapping[str, Any]]
Points = NDArray[np.float64]

GOOD = -1  # perceptible, but not annoying
LOWEST, HIGHEST = -4.0, 0.25
MEANINGS = {0: "imperceptible", -1: "not annoying", -2: "slightly annoying", -3: "annoying", -4: "very annoying"}
RATE_TICKS = (0.5, 1, 2, 5, 10, 20, 50, 100)
LOWEST_RATE, HIGHEST_RATE = 0.4, 110

BLUE, RED, GREY, GREEN, PURPLE = "#1f5fbf", "#c8442b", "#6b6b6b", "#2f8f4e", "#8a55a8"
COLOURS = {
    THIS_STORE: BLUE,
    f"{THIS_STORE}, effort 0": BLUE,
    SEED: RED,
    SEED_2018: RED,
    "lilcom": GREY,
    "zfp": GREY,
    "zstd": GREY,
    "SZ3": GREY,
    "JPEG XL": GREEN,
    "HTJ2K": GREEN,
    "Opus": PURPLE,
    "AAC": PURPLE,
    "MP3": PURPLE,
}
LABEL_SIZE = 9  # points
LABEL_GAP = 5  # from its line, points
ENOUGH_ROOM = 15  # to other lines, points


def draw_rates(means: Means, path: Path) -> None:
    """Draw the grade over bytes a second, a line for each contestant."""
    figure = Figure(figsize=(9, 5.6), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    axes.set(xscale="log", xlabel="kB a second of stereo", xlim=(LOWEST_RATE, HIGHEST_RATE))
    show_grades(axes)
    kilobits = axes.secondary_xaxis("top", functions=(lambda rate: 8 * rate, lambda rate: rate / 8))
    kilobits.set_xlabel("kbit a second")
    for axis, scale in ((axes.xaxis, 1), (kilobits.xaxis, 8)):
        axis.set_major_locator(FixedLocator([scale * rate for rate in RATE_TICKS]))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_locator(NullLocator())
    limits = [row["odg"] for (name, _), row in means.items() if name == EXACT]
    for limit in limits:
        axes.axhline(limit, color="black", linewidth=0.8, linestyle=":")
        axes.text(1.1 * LOWEST_RATE, limit, "exact magnitudes, up to 16 kHz", fontsize=8, va="bottom")

    curves = {name: curve_of(means, name) for name in COLOURS if any(one == name for one, _ in means)}
    for name, curve in curves.items():
        ours = name == THIS_STORE
        width, size, order = (2.6, 5, 3) if ours else (1.2, 3, 2)
        axes.plot(*curve.T, "o-", color=COLOURS[name], linewidth=width, markersize=size, zorder=order)
    figure.draw_without_rendering()  # until then, nobody knows where things lie
    label_lines(axes, curves, [np.array([[LOWEST_RATE, limit], [HIGHEST_RATE, limit]]) for limit in limits])
    figure.savefig(path)


def curve_of(means: Means, name: str) -> Points:
    """Rates and grades (settings, 2) of a contestant, from few bytes to many."""
    return np.array(sorted((row["kB/s"], row["odg"]) for (one, _), row in means.items() if one == name))


def label_lines(axes: Axes, curves: Mapping[str, Points], unnamed: Sequence[Points]) -> None:
    """Write each line's name beside it, where it is farthest from all others and from those that need no name."""
    point = axes.figure.dpi / 72
    lines = {name: densely(axes.transData.transform(curve)) for name, curve in curves.items()}
    taken = [densely(axes.transData.transform(line)) for line in unnamed]
    frame = axes.get_window_extent()
    for name in sorted(lines, key=len, reverse=True):
        line, rows = lines[name], name.replace(", ", ",\n").split("\n")
        size = np.array([0.6 * max(map(len, rows)), 1.2 * len(rows)]) * LABEL_SIZE * point
        others = np.concatenate([*(other for one, other in lines.items() if one != name), *taken])
        best, best_room = line[0], -np.inf
        for corner in corners_beside(line, size, LABEL_GAP * point):
            inside = (corner > frame.min).all() and (corner + size < frame.max).all()
            if inside and distance_to_box(line, corner, size) > point:
                room = min(distance_to_box(others, corner, size), ENOUGH_ROOM * point)
                room = room or -np.count_nonzero(((others > corner) & (others < corner + size)).all(axis=1))
                if room > best_room:
                    best, best_room = corner, room
        taken.append(best + size * np.stack(np.meshgrid(np.linspace(0, 1, 9), (0, 0.5, 1)), axis=-1).reshape(-1, 2))
        weight = "bold" if name == THIS_STORE else "normal"
        style = {"color": COLOURS[name], "fontsize": LABEL_SIZE, "weight": weight, "va": "bottom"}
        axes.annotate("\n".join(rows), best, xycoords="figure pixels", **style)


def corners_beside(line: Points, size: Points, gap: float) -> Iterator[Points]:
    """Lower left corners of a box right, left, right below and left above the points of a line."""
    width, height = size
    for place in line[::4]:
        for shift in ((gap, -height / 2), (-gap - width, -height / 2), (gap, -height), (-gap - width, 0)):
            yield place + shift


def densely(points: Points) -> Points:
    """Points about every two pixels along a line."""
    steps = np.hypot(*np.diff(points, axis=0).T)
    along = np.concatenate([[0], np.cumsum(steps)])
    places = np.linspace(0, along[-1], max(2, int(along[-1] / 2)))
    return np.stack([np.interp(places, along, coordinate) for coordinate in points.T], axis=1)


def distance_to_box(points: Points, corner: Points, size: Points) -> float:
    """From the nearest of some points; 0 if it lies inside."""
    outside = np.maximum(np.maximum(corner - points, points - corner - size), 0)
    return float(np.hypot(*outside.T).min())


def draw_qualities(means: Means, path: Path) -> None:
    """Draw grade and bytes over quality, of this store and of Norbert."""
    figure = Figure(figsize=(7.5, 6), dpi=130, layout="constrained")
    grades, rates = figure.subplots(2, sharex=True, height_ratios=(3, 2))
    for name in (THIS_STORE, SEED):
        rows = sorted((quality, row) for (one, quality), row in means.items() if one == name)
        qualities = [quality for quality, _ in rows]
        mean, worst, rate = ([row[key] for _, row in rows] for key in ("odg", "worst", "kB/s"))
        style = {"color": COLOURS[name], "linewidth": 2}
        grades.fill_between(qualities, worst, mean, color=COLOURS[name], alpha=0.15, linewidth=0)
        grades.plot(qualities, mean, "o-", **style)
        rates.plot(qualities, rate, "o-", **style)
        for axes, y in ((grades, mean[-1]), (rates, rate[-1])):
            axes.annotate(
                name, (qualities[-1], y), (7, 0), textcoords="offset points", color=COLOURS[name], va="center"
            )
    show_grades(grades)
    grades.set_title("line: mean of all tracks; band: down to the worst track", fontsize=9, loc="left")
    rates.set(xlabel="quality (each has a scale of its own)", ylabel="kB a second of stereo", xlim=(None, 112))
    rates.set_ylim(bottom=0)
    rates.set_xticks(range(10, 101, 10))
    rates.spines[["top", "right"]].set_visible(False)
    kilobits = rates.secondary_yaxis("right", functions=(lambda rate: 8 * rate, lambda rate: rate / 8))
    kilobits.set_ylabel("kbit a second")
    figure.savefig(path)


def show_grades(axes: Axes) -> None:
    """Say what grades mean, and shade those that are good enough."""
    axes.axhspan(GOOD, HIGHEST, color=GREEN, alpha=0.10, linewidth=0)
    axes.set_yticks(list(MEANINGS), [f"{meaning}  {grade}" for grade, meaning in MEANINGS.items()])
    axes.set(ylabel="PEAQ, objective difference grade", ylim=(LOWEST, HIGHEST))
    axes.spines[["top", "right"]].set_visible(False)
