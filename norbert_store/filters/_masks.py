"""Masks: what part of each time-frequency bin of a mixture belongs to which source.

Conventions
-----------
magnitudes, ``v``
    float32 or float64, (frames, bins, channels, sources), finite and not negative; one channel stands for all of the
    mixture's. Of the true sources for an ideal mask, of a model's estimates otherwise.
mixture, ``x``
    complex64 or complex128, (frames, bins, channels).
mask
    Of the magnitudes' shape and dtype, from 0 to 1.
estimates, ``y``
    (frames, bins, channels, sources); complex64 if all that they are made of is single precision, else complex128.

Masks of one mixture sum to one over the sources, to the last rounding, so the estimates sum to the mixture: no small
number is added to any denominator. The one exception is `ideal_binary_mask`, which judges each source by itself.

References
----------
D. Wang, "On ideal binary mask as the computational goal of auditory scene analysis", in Speech Separation by Humans
and Machines, Kluwer, 2005, for the binary mask. Y. Wang, A. Narayanan and D. Wang, "On training targets for supervised
speech separation", IEEE/ACM TASLP 22(12), 2014, for the ideal ratio mask. A. Liutkus and R. Badeau, "Generalized Wiener
filtering with fractional power spectrograms", ICASSP 2015, for exponents other than 2.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from norbert_store._spectra.bins import Magnitude
from norbert_store._spectra.levels import check_magnitude
from norbert_store._spectra.stft import Spectrum

SOURCES_AXES = "frames, bins, channels, sources"
MIXTURE_AXES = "frames, bins, channels"

_WIDEST_THRESHOLD = 300.0  # dB; beyond it, float32 itself ends


def ideal_binary_mask(v: ArrayLike, threshold: float = 0.0) -> Magnitude:
    """1 where a source is louder than all others together, by more than a threshold.

    ``mask_j = 1`` if ``20 log10(v_j / sum of v_i over i != j) > threshold``, else 0.

    A tie, and silence, give 0. At 0 dB or more at most one source has a bin, and several that are about equally loud
    give it to no source; below 0 dB several may have it. For masks that share out every bin, see `winner_mask`.

    Parameters
    ----------
    v : array_like of float
        Magnitudes of the sources, (frames, bins, channels, sources).
    threshold : float
        dB, from -300 to 300. Wang's local criterion.

    Returns
    -------
    ndarray of float32 or float64
        0 or 1, of the shape and dtype of ``v``.

    Raises
    ------
    ValueError
        If ``v`` isn't such an array, or the threshold is out of range.

    Examples
    --------
    >>> v = np.array([3.0, 1.0, 1.0]).reshape(1, 1, 1, 3)
    >>> ideal_binary_mask(v)[0, 0, 0]
    array([1., 0., 0.])
    >>> ideal_binary_mask(v, threshold=6.0)[0, 0, 0]
    array([0., 0., 0.])
    """
    v = as_magnitudes(v)
    if not abs(threshold) <= _WIDEST_THRESHOLD:
        raise ValueError(f"threshold must lie from -300 to 300 dB, found {threshold!r}")
    ratio = 10 ** (threshold / 20)
    mask = np.empty_like(v)
    for source in range(v.shape[-1]):
        # summed anew, since the total less one loud source would lose the quiet ones
        others = np.delete(v, source, axis=-1).sum(axis=-1, dtype=np.float64)
        mask[..., source] = v[..., source] > ratio * others
    return mask


def winner_mask(v: ArrayLike) -> Magnitude:
    """Give every bin wholly to its loudest source, and to exactly one.

    Of several that are equally loud, silent ones too, the first has it.

    Parameters
    ----------
    v : array_like of float
        Magnitudes of the sources, (frames, bins, channels, sources).

    Returns
    -------
    ndarray of float32 or float64
        One 1 per bin, else 0; of the shape and dtype of ``v``.

    Raises
    ------
    ValueError
        If ``v`` isn't such an array.

    Examples
    --------
    >>> winner_mask(np.array([0.2, 0.5, 0.5]).reshape(1, 1, 1, 3))[0, 0, 0]
    array([0., 1., 0.])
    """
    v = as_magnitudes(v)
    mask = np.zeros_like(v)
    np.put_along_axis(mask, v.argmax(axis=-1, keepdims=True), 1, axis=-1)
    return mask


def ideal_ratio_mask(v: ArrayLike, exponent: float = 1.0) -> Magnitude:
    """Share out every bin in proportion to a power of the magnitudes.

    ``mask_j = v_j ** exponent / sum of v_i ** exponent over i``, and ``1 / sources`` where all are silent.

    The exponent is that of magnitudes: 1 shares out magnitudes, and 2 powers, as the Wiener filter does. Wang,
    Narayanan and Wang's mask of a target against noise is a root of this, usually ``ideal_ratio_mask(v, 2) ** 0.5``;
    their masks don't sum to one.

    Parameters
    ----------
    v : array_like of float
        Magnitudes of the sources, (frames, bins, channels, sources).
    exponent : float
        Above 0. The larger it is, the nearer is the mask to `winner_mask`.

    Returns
    -------
    ndarray of float32 or float64
        From 0 to 1, of the shape and dtype of ``v``.

    Raises
    ------
    ValueError
        If ``v`` isn't such an array, or the exponent isn't a number above 0.

    Examples
    --------
    >>> v = np.array([3.0, 1.0, 0.0]).reshape(1, 1, 1, 3)
    >>> ideal_ratio_mask(v)[0, 0, 0]
    array([0.75, 0.25, 0.  ])
    >>> ideal_ratio_mask(v, exponent=2)[0, 0, 0]
    array([0.9, 0.1, 0. ])
    """
    return shares(as_magnitudes(v), as_exponent("exponent", exponent))


def soft_mask(v: ArrayLike, x: ArrayLike, alpha: float = 1.0) -> Spectrum:
    """Separate a mixture by the ratio masks of any number of estimated magnitudes.

    ``y_j = x v_j ** alpha / sum of v_i ** alpha over i``: the mean of each source given the mixture, where sources are
    alpha-stable with scales ``v_j`` (Liutkus and Badeau). The estimates sum to the mixture in every bin.

    Parameters
    ----------
    v : array_like of float
        Magnitudes, (frames, bins, channels or 1, sources).
    x : array_like of complex
        Mixture, (frames, bins, channels).
    alpha : float
        Above 0: 2 for Gaussian sources (Wiener), about 1 for music.

    Returns
    -------
    ndarray of complex64 or complex128
        Estimates, (frames, bins, channels, sources).

    Raises
    ------
    ValueError
        If ``v`` and ``x`` aren't such arrays or don't fit each other, or alpha isn't a number above 0.

    Examples
    --------
    >>> v = np.array([3.0, 1.0]).reshape(1, 1, 1, 2)
    >>> soft_mask(v, np.array([[[4j, -8.0]]])).real
    array([[[[ 0.,  0.],
             [-6., -2.]]]])

    See Also
    --------
    norbert_store.filters.softmask : the same with a regularization, under the name that it has in norbert.
    """
    return apply_mask(ideal_ratio_mask(v, as_exponent("alpha", alpha)), x)


def apply_mask(mask: ArrayLike, x: ArrayLike) -> Spectrum:
    """Multiply a mixture by the mask of every source.

    Parameters
    ----------
    mask : array_like of float
        (frames, bins, channels or 1, sources)
    x : array_like of complex
        Mixture, (frames, bins, channels).

    Returns
    -------
    ndarray of complex64 or complex128
        Estimates, (frames, bins, channels, sources).

    Raises
    ------
    ValueError
        If the arrays aren't such, or don't fit each other.

    Examples
    --------
    >>> apply_mask(np.array([[[[1.0, 0.0]]]]), np.array([[[2 + 1j]]]))[0, 0, 0]
    array([2.+1.j, 0.+0.j])
    """
    mask = as_array("mask", mask, SOURCES_AXES, np.floating)
    x = as_array("x", x, MIXTURE_AXES, np.complexfloating)
    check_fit(mask, x)
    return mask * x[..., np.newaxis]


def shares(v: Magnitude, exponent: float, floor: float = 0.0, axis: int = -1) -> Magnitude:
    """Share of every source, ``v_j ** exponent / (floor + sum of v_i ** exponent over i)``, without overflow.

    Parameters
    ----------
    v : ndarray of float32 or float64
        Magnitudes, any shape.
    exponent : float
        Above 0.
    floor : float
        At least 0. If it is 0, silent bins are shared equally.
    axis : int
        That of the sources.
    """
    power = v
    if exponent != 1:
        peak = v.max(axis=axis, keepdims=True)
        peak[peak == 0] = 1
        power = (v / peak) ** exponent  # at most 1, so that it doesn't overflow
        with np.errstate(over="ignore"):  # beside the loudest source, a floor may be nothing, or all
            floor = floor / np.maximum(peak**exponent, np.finfo(v.dtype).tiny)
    total = power.sum(axis=axis, keepdims=True) + floor
    silent = total == 0
    if silent.any():
        return np.where(silent, 1 / v.shape[axis], power / np.where(silent, 1, total))
    return power / total


def as_array(name: str, values: ArrayLike, axes: str, kind: type[np.inexact[Any]]) -> NDArray[Any]:
    """Take an array, and check its dtype, its number of dimensions, and that its values are finite.

    Parameters
    ----------
    name : str
        What errors call it.
    values : array_like
    axes : str
        Names of its dimensions, joined by ", "; "..." stands for any number of them.
    kind : type
        ``numpy.floating`` or ``numpy.complexfloating``, of single or double precision.

    Raises
    ------
    ValueError
        If it is anything else, empty, or holds NaN or infinity.
    """
    array = _as_shaped(name, values, axes, kind)
    if not np.isfinite(array).all():
        count = np.count_nonzero(~np.isfinite(array))
        raise ValueError(f"expected finite values, found {count} of {array.size} in {name} that are NaN or infinite")
    return array


def as_magnitudes(v: ArrayLike, name: str = "v", axes: str = SOURCES_AXES) -> Magnitude:
    """Take an array of magnitudes, and check as `as_array` does, and that none is negative."""
    array = _as_shaped(name, v, axes, np.floating)
    check_magnitude(array)
    return array


def as_exponent(name: str, value: float) -> float:
    """Take a finite number above 0, or raise ``ValueError``."""
    if not (0 < value < math.inf):
        raise ValueError(f"{name} must be a finite number above 0, found {value!r}")
    return float(value)


def check_fit(v: NDArray[Any], x: NDArray[Any]) -> None:
    """Raise ``ValueError`` unless magnitudes have the frames and bins of a mixture, and its channels or one."""
    frames, bins, channels = x.shape
    if v.shape[:2] != (frames, bins) or v.shape[2] not in (1, channels):
        raise ValueError(
            f"expected magnitudes or masks of shape ({frames}, {bins}, {channels} or 1, sources) for a mixture of "
            f"shape {x.shape}, found {v.shape}; both are (frames, bins, channels, ...)"
        )


def _as_shaped(name: str, values: ArrayLike, axes: str, kind: type[np.inexact[Any]]) -> NDArray[Any]:
    array = np.asarray(values)
    dtypes = ("complex64", "complex128") if kind is np.complexfloating else ("float32", "float64")
    if array.dtype.name not in dtypes:
        raise ValueError(f"expected {name} of dtype {' or '.join(dtypes)}, found {array.dtype}; convert it by .astype")
    if array.size == 0 or ("..." not in axes and array.ndim != len(axes.split(", "))):
        raise ValueError(f"expected {name} of shape ({axes}), at least one of each, found {array.shape}")
    return array
