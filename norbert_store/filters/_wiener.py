"""The multichannel Wiener filter, with the names, arguments and numbers of the package norbert 0.2.1.

Conventions
-----------
mixture, ``x``
    complex64 or complex128, (frames, bins, channels).
estimates, ``y``
    complex, (frames, bins, channels, sources): the image of every source in every channel.
magnitudes or power spectral densities, ``v``
    float32 or float64, finite and not negative; of magnitudes (frames, bins, channels or 1, sources), of power spectral
    densities (frames, bins, sources).
spatial covariances, ``R``
    complex, (bins, channels, channels, sources), Hermitian, no unit: which way a source comes from.
dtype
    Single precision in gives single precision out (complex64 and float32); anything double, double. No argument is
    ever changed.
``eps``
    By default the rounding unit of the mixture's dtype, 2.2e-16 or 1.2e-7. Its square root is the power of the
    white noise that the model adds to every channel, and which is kept out of the estimates.

The model
---------
In the frame ``t`` of a bin ``f``, the image of source ``j`` is a complex Gaussian vector over the channels, with mean
zero and covariance ``v_j(t, f) R_j(f)``, independent of all others. So the covariance of the mixture is

    Cxx(t, f) = sum of v_j(t, f) R_j(f) over j + sqrt(eps) I,

and the mean of a source, given the mixture, is

    y_j(t, f) = v_j(t, f) R_j(f) Cxx(t, f)^-1 x(t, f).

Expectation maximization takes turns: from estimates ``y`` to the model ``v``, ``R``, and from the model to estimates.
As norbert's, it is simplified: it takes the covariance of the estimates for that of the sources, without the posterior
covariance that an exact expectation step adds to it, and weighs frames by their power in the update of ``R``.
The estimates sum to the mixture less ``sqrt(eps) Cxx^-1 x``, the noise.

Bins don't know of each other. So they are refined a few at a time, all iterations at once, which needs little memory
beside the result and keeps the work in the processor's cache.

References
----------
.. [1] N. Q. K. Duong, E. Vincent and R. Gribonval, "Under-determined reverberant audio source separation using a
   full-rank spatial covariance model", IEEE TASLP 18(7), 2010: the model, and the exact algorithm.
.. [2] A. A. Nugraha, A. Liutkus and E. Vincent, "Multichannel audio source separation with deep neural networks",
   IEEE/ACM TASLP 24(9), 2016: the weighted update of the spatial covariances.
.. [3] A. Liutkus, D. Fitzgerald, Z. Rafii, B. Pardo and L. Daudet, "Kernel additive models for source separation",
   IEEE TSP 62(16), 2014: the simplified expectation step.
.. [4] A. Liutkus and R. Badeau, "Generalized Wiener filtering with fractional power spectrograms", ICASSP 2015: masks
   of any exponent.
.. [5] T. Prätzlich, R. Bittner, A. Liutkus and M. Müller, "Kernel additive modeling for interference reduction in
   multi-channel music recordings", ICASSP 2015: `reduce_interferences`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from norbert_store._spectra.bins import Magnitude
from norbert_store._spectra.stft import Spectrum, whole_number
from norbert_store.filters._masks import (
    MIXTURE_AXES,
    SOURCES_AXES,
    as_array,
    as_exponent,
    as_magnitudes,
    check_fit,
    shares,
)

# Complex numbers, over all sources, channels and frames, that are refined at a time: few enough to stay in the cache,
# many enough that a call of NumPy costs little beside its work. Measured with benchmarks/wiener.py.
BLOCK = 2**17
# The mixture is scaled to this peak before it is refined, if it is louder, for eps is absolute.
LOUDEST = 10.0


def wiener(
    v: ArrayLike,
    x: ArrayLike,
    iterations: int = 1,
    use_softmask: bool = True,
    eps: float | None = None,
    alpha: float = 1.0,
) -> Spectrum:
    """Separate a mixture, given magnitudes of its sources, by the multichannel Wiener filter.

    First estimates are those of `softmask`, or the magnitudes with the phase of the mixture; then
    `expectation_maximization` makes them consistent between the channels.

    Parameters
    ----------
    v : array_like of float
        Magnitudes of the sources, (frames, bins, channels or 1, sources).
    x : array_like of complex
        Mixture, (frames, bins, channels).
    iterations : int
        Of expectation maximization; 0 gives the first estimates.
    use_softmask : bool
        Whether first estimates come of `softmask`. If not, magnitudes must be on the scale of the mixture; that is
        better where they are good, say a deep net's.
    eps : float, optional
        Regularization, see the module.
    alpha : float
        The mask shares out ``v ** alpha``. Only with ``use_softmask``.

    Returns
    -------
    ndarray of complex64 or complex128
        Estimates, (frames, bins, channels, sources).

    Raises
    ------
    ValueError
        If an array isn't as described, they don't fit each other, or a number is out of range.

    Examples
    --------
    Two sources, one mostly left and one mostly right, whose magnitudes are known in mono:

    >>> rng = np.random.default_rng(0)
    >>> sources = rng.standard_normal((200, 3, 1, 2)) + 1j * rng.standard_normal((200, 3, 1, 2))
    >>> images = sources * np.array([[1.0, 0.2], [0.2, 1.0]])
    >>> v, x = abs(images).mean(axis=2, keepdims=True), images.sum(axis=-1)
    >>> for iterations in (0, 1, 2):
    ...     error = wiener(v, x, iterations) - images
    ...     print(round(float((abs(error) ** 2).sum() / (abs(images) ** 2).sum()), 3))
    0.357
    0.163
    0.112
    """
    v, x = _magnitudes_and_mixture(v, x)
    alpha = as_exponent("alpha", alpha)
    if alpha != 1 and not use_softmask:
        raise ValueError(f"alpha is the exponent of the mask, and use_softmask is False; leave it at 1, found {alpha}")
    iterations = whole_number("iterations", iterations, at_least=0)
    eps = _as_eps(eps, x)
    scale = max(1.0, _peak(x) / LOUDEST) if iterations else 1.0

    def separate(v: Magnitude, x: Spectrum) -> Spectrum:
        x *= 1 / scale
        if use_softmask:
            y = x[:, :, np.newaxis] * shares(v, alpha, eps, axis=2)
        else:
            y = _phase(x)[:, :, np.newaxis] * (v / scale)
        y, _, _ = _refine(y, x, iterations, eps)
        y *= scale
        return y

    return _by_bins(separate, v, x)


def softmask(
    v: ArrayLike, x: ArrayLike, logit: float | None = None, eps: float | None = None, alpha: float = 1.0
) -> Spectrum:
    """Separate a mixture by a ratio mask, every channel by itself.

    ``y_j = x v_j ** alpha / (eps + sum of v_i ** alpha over i)`` [4]_. The estimates sum to the mixture where the
    magnitudes are well above ``eps``, and everywhere if it is 0.

    Parameters
    ----------
    v : array_like of float
        Magnitudes of the sources, (frames, bins, channels or 1, sources).
    x : array_like of complex
        Mixture, (frames, bins, channels).
    logit : float, optional
        If given, masks above it are pushed towards 1, those below towards 0, by the logistic function of slope 15.
        They then no longer sum to one.
    eps : float, optional
        Regularization, see the module.
    alpha : float
        Above 0: 1 shares out ``v`` as it is.

    Returns
    -------
    ndarray of complex64 or complex128
        Estimates, (frames, bins, channels, sources).

    Raises
    ------
    ValueError
        If an array isn't as described, they don't fit each other, or a number is out of range.

    Examples
    --------
    >>> v = np.array([3.0, 1.0]).reshape(1, 1, 1, 2)
    >>> softmask(v, np.array([[[4.0 + 0j]]])).real
    array([[[[3., 1.]]]])
    >>> softmask(v, np.array([[[10.0 + 0j]]]), alpha=2).real
    array([[[[9., 1.]]]])
    """
    v, x = _magnitudes_and_mixture(v, x)
    alpha = as_exponent("alpha", alpha)
    eps = _as_eps(eps, x)

    def separate(v: Magnitude, x: Spectrum) -> Spectrum:
        mask = shares(v, alpha, eps, axis=2)
        if logit is not None:
            mask = _logistic(mask, logit, slope=15)
        return x[:, :, np.newaxis] * mask

    return _by_bins(separate, v, x)


def expectation_maximization(
    y: ArrayLike, x: ArrayLike, iterations: int = 2, verbose: int = 0, eps: float | None = None
) -> tuple[Spectrum, Magnitude, Spectrum]:
    """Refine estimates so that they agree between the channels, by expectation maximization [1]_, [2]_.

    Every iteration is a `get_local_gaussian_model` of each estimate, and the Wiener filter of those models.

    Powers must fit the dtype: amplitudes up to about 1e18 in single precision. `wiener` scales a loud mixture itself.

    Parameters
    ----------
    y : array_like of complex
        First estimates, (frames, bins, channels, sources).
    x : array_like of complex
        Mixture, (frames, bins, channels).
    iterations : int
        At least 0.
    verbose : int
        Whether to print what is done.
    eps : float, optional
        Regularization, see the module.

    Returns
    -------
    y : ndarray of complex64 or complex128
        Estimates, (frames, bins, channels, sources).
    v : ndarray of float32 or float64
        Power spectral densities that they were filtered with, (frames, bins, sources); 0 without iterations.
    R : ndarray of complex64 or complex128
        Spatial covariances that they were filtered with, (bins, channels, channels, sources); 0 without iterations.

    Raises
    ------
    ValueError
        If an array isn't as described, they don't fit each other, or a number is out of range.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> first = rng.standard_normal((20, 5, 2, 3)) + 1j * rng.standard_normal((20, 5, 2, 3))
    >>> y, v, R = expectation_maximization(first, first.sum(axis=-1), iterations=3)
    >>> y.shape, v.shape, R.shape
    ((20, 5, 2, 3), (20, 5, 3), (5, 2, 2, 3))
    >>> np.allclose(y.sum(axis=-1), first.sum(axis=-1))
    True
    """
    y = as_array("y", y, SOURCES_AXES, np.complexfloating)
    x = as_array("x", x, MIXTURE_AXES, np.complexfloating)
    _check_shape("y", y, (*x.shape, y.shape[3]), "to fit the mixture x")
    iterations = whole_number("iterations", iterations, at_least=0)
    eps = _as_eps(eps, x)
    dtype = np.result_type(y, x)
    estimates = np.empty(y.shape, dtype)
    v = np.empty((*x.shape[:2], y.shape[3]), _real(dtype))
    R = np.empty((x.shape[1], x.shape[2], *y.shape[2:]), dtype)
    for bins in _blocks(y.shape):
        if verbose:
            print(f"expectation maximization: {iterations} iterations, to bin {bins.stop} of {x.shape[1]}")
        refined = _refine(_frames_last(y[:, bins], dtype), _frames_last(x[:, bins], dtype), iterations, eps)
        estimates[:, bins], v[:, bins] = (np.moveaxis(array, -1, 0) for array in refined[:2])
        R[bins] = refined[2]
    return estimates, v, R


def get_local_gaussian_model(y_j: ArrayLike, eps: float = 1.0) -> tuple[Magnitude, Spectrum]:
    """Fit the local Gaussian model to one source [1]_, frames weighted by their power [2]_.

    ``v(t, f)`` is the mean of ``|y|^2`` over the channels, and
    ``R(f) = sum of y y^H over t / (eps + sum of v over t)``.

    Parameters
    ----------
    y_j : array_like of complex
        Estimate of one source, (frames, bins, channels).
    eps : float
        Regularization, at least 0.

    Returns
    -------
    v_j : ndarray of float32 or float64
        Power spectral density, (frames, bins).
    R_j : ndarray of complex64 or complex128
        Spatial covariance, (bins, channels, channels). Its trace is the number of channels, but for ``eps``.

    Raises
    ------
    ValueError
        If the estimate isn't such an array, or ``eps`` isn't a number of at least 0.

    Examples
    --------
    >>> v, R = get_local_gaussian_model(np.array([[[1.0, 1j]]]), eps=0)
    >>> v, R[0]
    (array([[1.]]), array([[1.+0.j, 0.-1.j],
           [0.+1.j, 1.+0.j]]))
    """
    y_j = as_array("y_j", y_j, MIXTURE_AXES, np.complexfloating)
    v, R = _local_gaussian_model(_frames_last(y_j, y_j.dtype)[:, :, np.newaxis], _as_eps(eps, y_j))
    return np.ascontiguousarray(v[:, 0].T), R[..., 0]


def get_mix_model(v: ArrayLike, R: ArrayLike) -> Spectrum:
    """Covariance of the mixture, ``sum of v_j R_j over j`` [1]_, without the noise.

    Parameters
    ----------
    v : array_like of float
        Power spectral densities, (frames, bins, sources).
    R : array_like of complex
        Spatial covariances, (bins, channels, channels, sources).

    Returns
    -------
    ndarray of complex64 or complex128
        (frames, bins, channels, channels)

    Raises
    ------
    ValueError
        If the arrays aren't such, or don't fit each other.

    Examples
    --------
    >>> R = np.stack((np.eye(2), np.ones((2, 2))), axis=-1)[np.newaxis].astype(complex)
    >>> get_mix_model(np.array([[[1.0, 2.0]]]), R).real
    array([[[[3., 2.],
             [2., 3.]]]])
    """
    v = as_magnitudes(v, axes="frames, bins, sources")
    R = as_array("R", R, "bins, channels, channels, sources", np.complexfloating)
    _check_shape("R", R, (v.shape[1], R.shape[1], R.shape[1], v.shape[2]), "to fit the power spectral densities v")
    bins, channels, _, sources = R.shape
    Cxx = R.reshape(bins, channels**2, sources) @ _frames_last(v, np.result_type(v, R))
    return np.ascontiguousarray(np.moveaxis(Cxx, -1, 0)).reshape(*v.shape[:2], channels, channels)


def wiener_gain(v_j: ArrayLike, R_j: ArrayLike, inv_Cxx: ArrayLike) -> Spectrum:
    """Wiener filter of one source, ``v_j R_j Cxx^-1`` [1]_.

    Parameters
    ----------
    v_j : array_like of float
        Power spectral density, (frames, bins).
    R_j : array_like of complex
        Spatial covariance, (bins, channels, channels).
    inv_Cxx : array_like of complex
        Inverse of the mixture's covariance, (frames, bins, channels, channels).

    Returns
    -------
    ndarray of complex64 or complex128
        Matrices for `apply_filter`, (frames, bins, channels, channels).

    Raises
    ------
    ValueError
        If the arrays aren't such, or don't fit each other.

    Examples
    --------
    >>> v, R = np.ones((1, 1, 2)), np.eye(2).reshape(1, 2, 2, 1) * np.ones(2) + 0j
    >>> gain = wiener_gain(v[..., 0], R[..., 0], np.linalg.inv(get_mix_model(v, R)))
    >>> gain[0, 0].real
    array([[0.5, 0. ],
           [0. , 0.5]])
    """
    v_j = as_magnitudes(v_j, "v_j", "frames, bins")
    R_j = as_array("R_j", R_j, "bins, channels, channels", np.complexfloating)
    inv_Cxx = as_array("inv_Cxx", inv_Cxx, "frames, bins, channels, channels", np.complexfloating)
    channels = R_j.shape[1]
    _check_shape("R_j", R_j, (v_j.shape[1], channels, channels), "to fit the power spectral density v_j")
    _check_shape("inv_Cxx", inv_Cxx, (*v_j.shape, channels, channels), "to fit v_j and R_j")
    gain = R_j @ inv_Cxx
    return gain * v_j[..., np.newaxis, np.newaxis]


def apply_filter(x: ArrayLike, W: ArrayLike) -> Spectrum:
    """Filter a mixture, ``W x`` in every bin of every frame.

    Parameters
    ----------
    x : array_like of complex
        Mixture, (frames, bins, channels).
    W : array_like of complex
        Matrices, (frames, bins, channels, channels), as of `wiener_gain`.

    Returns
    -------
    ndarray of complex64 or complex128
        (frames, bins, channels)

    Raises
    ------
    ValueError
        If the arrays aren't such, or don't fit each other.

    Examples
    --------
    >>> swap = np.array([[[[0, 1], [1, 0]]]], complex)
    >>> apply_filter(np.array([[[1.0, 2j]]]), swap)
    array([[[0.+2.j, 1.+0.j]]])
    """
    x = as_array("x", x, MIXTURE_AXES, np.complexfloating)
    W = as_array("W", W, "frames, bins, channels, channels", np.complexfloating)
    _check_shape("W", W, (*x.shape, x.shape[2]), "to fit the mixture x")
    return (W @ x[..., np.newaxis])[..., 0]


def residual_model(v: ArrayLike, x: ArrayLike, alpha: float = 1.0, autoscale: bool = True) -> Magnitude:
    """Append what the mixture has more than the sources, as one more source.

    The residual is ``max(0, |x| ** alpha - sum of v_j over j)``, of the magnitudes as they were given.

    Parameters
    ----------
    v : array_like of float
        Magnitudes of the sources, to the power of ``alpha``: (frames, bins, channels or 1, sources).
    x : array_like of complex
        Mixture, (frames, bins, channels).
    alpha : float
        Exponent that ``v`` has: 1 for magnitudes, 2 for powers.
    autoscale : bool
        Whether to scale the sources, together and in every bin and channel, to the mixture by least squares over time.
        As in norbert 0.2.1, the residual doesn't follow. To let it, call twice: scale, drop the residual, and call
        again with ``autoscale=False``.

    Returns
    -------
    ndarray of float32 or float64
        (frames, bins, channels, sources + 1); the residual comes last.

    Raises
    ------
    ValueError
        If the arrays aren't such, or don't fit each other, or alpha isn't a number above 0.

    Examples
    --------
    >>> v = np.array([1.0, 2.0]).reshape(1, 1, 1, 2)
    >>> residual_model(v, np.array([[[4.5 + 0j]]]), autoscale=False)
    array([[[[1. , 2. , 1.5]]]])
    >>> residual_model(v, np.array([[[4.5 + 0j]]]))
    array([[[[1.5, 3. , 1.5]]]])
    """
    v, x = _magnitudes_and_mixture(v, x)
    alpha = as_exponent("alpha", alpha)
    eps = _rounding_unit(v)
    observed = np.maximum(eps, np.abs(x) ** alpha)
    total = v.sum(axis=-1)
    result = np.empty((*x.shape, v.shape[-1] + 1), np.result_type(v, observed))
    result[..., :-1] = v
    if autoscale:
        # least squares: min over g of sum (observed - g total)^2 over the frames
        gain = (observed * total).sum(axis=0) / (eps + (total**2).sum(axis=0))
        result[..., :-1] *= gain[..., np.newaxis]
    result[..., -1] = np.maximum(0, observed - total)
    return result


def smooth(v: ArrayLike, width: float = 1, temporal: bool = False) -> Magnitude:
    """Blur by a Gaussian.

    Parameters
    ----------
    v : array_like of float
        (frames, ...)
    width : float
        Standard deviation, in frames (and bins, channels, sources).
    temporal : bool
        Whether to blur along frames only, cut off at 4 widths; otherwise along every axis, cut off at ``width`` widths.

    Returns
    -------
    ndarray of float32 or float64
        Of the shape and dtype of ``v``.

    Raises
    ------
    ValueError
        If it isn't such an array, or the width isn't above 0.

    Examples
    --------
    >>> smooth(np.array([0.0, 0.0, 1.0, 0.0, 0.0])).round(3)
    array([0.   , 0.274, 0.452, 0.274, 0.   ])
    """
    from scipy.ndimage import gaussian_filter, gaussian_filter1d  # here, for it takes a tenth of a second to import

    v = as_array("v", v, "frames, ...", np.floating)
    width = as_exponent("width", width)
    if temporal:
        return gaussian_filter1d(v, sigma=width, axis=0)
    return gaussian_filter(v, sigma=width, truncate=width)


def reduce_interferences(v: ArrayLike, thresh: float = 0.4, slope: float = 15) -> Magnitude:
    """Make magnitudes sparser: quieter where a source's share of the blurred energy is small [5]_.

    The share goes through the logistic function and multiplies ``v``. As in norbert, the blur is a `smooth` of width 10
    over every axis, sources included; the default threshold is the one that norbert 0.2.1 uses, whatever it is told.

    Parameters
    ----------
    v : array_like of float
        Magnitudes, (frames, ..., sources).
    thresh : float
        Share, from 0 to 1, that is halved: the larger, the less interference and the more distortion.
    slope : float
        Of the logistic function: the larger, the more abrupt.

    Returns
    -------
    ndarray of float32 or float64
        Of the shape and dtype of ``v``.

    Raises
    ------
    ValueError
        If ``v`` isn't such an array.

    Examples
    --------
    >>> v = np.ones((4, 3, 1, 2))
    >>> reduce_interferences(v, thresh=0.5).round(3)[0, 0, 0]
    array([0.5, 0.5])
    """
    v = as_magnitudes(v, axes="frames, ..., sources")
    blurred = smooth(v, 10)
    total = float(np.finfo(np.float32).eps) + blurred.sum(axis=-1, keepdims=True)
    return v * _logistic(blurred / total, thresh, slope)


def compress_filter(W: ArrayLike, thresh: float = 0.6, slope: float = 15) -> Spectrum:
    """Push Wiener filters towards all or nothing: less interference, more distortion.

    A filter is taken for a beamformer times a mask, the trace of the filter. Only the mask goes through the logistic
    function. With one channel, the filter is the mask.

    Parameters
    ----------
    W : array_like of complex
        Matrices, (..., channels, channels), as of `wiener_gain`.
    thresh : float
        Mask that becomes one half.
    slope : float
        Of the logistic function: the larger, the more abrupt.

    Returns
    -------
    ndarray of complex64 or complex128
        Of the shape and dtype of ``W``.

    Raises
    ------
    ValueError
        If the filters aren't such an array.

    Examples
    --------
    >>> compress_filter(np.full((1, 1, 1, 1), 0.6 + 0j))[0, 0, 0]
    array([0.5+0.j])
    """
    W = as_array("W", W, "..., channels, channels", np.complexfloating)
    if W.ndim < 2 or W.shape[-1] != W.shape[-2]:
        raise ValueError(f"expected W of shape (..., channels, channels), found {W.shape}")
    if W.shape[-1] == 1:
        return _logistic(W, thresh, slope)
    mask = np.trace(W, axis1=-2, axis2=-1)
    ratio = _logistic(mask, thresh, slope) / (_rounding_unit(W) + mask)
    return W * ratio[..., np.newaxis, np.newaxis]


# Below, frames come last, so that they are contiguous and every operation runs along them:
#     x (bins, channels, frames), y (bins, channels, sources, frames), v (bins, sources, frames)


def _refine(y: Spectrum, x: Spectrum, iterations: int, eps: float) -> tuple[Spectrum, Magnitude, Spectrum]:
    """Expectation maximization; y is overwritten."""
    bins, channels, sources, frames = y.shape
    noise = math.sqrt(max(eps, _smallest(x)))
    if channels == 1:
        noise += eps  # as norbert's inverse does
    v = np.zeros((bins, sources, frames), _real(y.dtype))
    R = np.zeros((bins, channels, channels, sources), y.dtype)
    for _ in range(iterations):
        v, R = _local_gaussian_model(y, eps)
        # y_j = v_j R_j (Cxx^-1 x): the inverse is applied once for all sources, and no filter is ever built
        whitened = _solve(v, R, noise, x)
        directions = R.swapaxes(2, 3).reshape(bins, channels * sources, channels)
        np.matmul(directions, whitened, out=y.reshape(bins, channels * sources, frames))
        y *= v[:, np.newaxis]
    return y, v, R


def _local_gaussian_model(y: Spectrum, eps: float) -> tuple[Magnitude, Spectrum]:
    """Power spectral densities (bins, sources, frames) and spatial covariances (bins, channels, channels, sources)."""
    with np.errstate(over="ignore", invalid="ignore"):
        v = (y.real**2 + y.imag**2).mean(axis=1)
        # vecdot conjugates its first argument: R[c, d] = sum of y_c conj(y_d) over the frames
        R = np.vecdot(y[:, np.newaxis], y[:, :, np.newaxis])
        R /= np.maximum(eps + v.sum(axis=-1), _smallest(v))[:, np.newaxis, np.newaxis]  # silence over silence is 0
    if not np.isfinite(R).all():
        raise ValueError(f"expected estimates whose powers fit {v.dtype}, found larger ones; scale them and x down")
    return v, R


def _solve(v: Magnitude, R: Spectrum, noise: float, x: Spectrum) -> Spectrum:
    """``Cxx^-1 x``, (bins, channels, frames), by Gaussian elimination of ``Cxx = L D L^H``.

    The loops run over channels only: for one and two they are the closed form. Unlike the one by the determinant, which
    is a difference of nearly equal numbers where channels are nearly identical, it gives the well-determined part of
    the solution in full precision.
    """
    channels = x.shape[1]
    u = x.copy()
    pivot = np.einsum("fccj->fcj", R).real @ v + noise
    # what is left of a pivot, where it is below the rounding error of what there was, is nothing but that error
    rounding = _rounding_unit(pivot) * pivot
    lower = {(i, k): _mix_entry(v, R, i, k) for i in range(channels) for k in range(i)}
    factors = {}
    for k in range(channels):
        pivot[:, k] = 1 / np.maximum(pivot[:, k], rounding[:, k])
        for i in range(k + 1, channels):
            column = lower[i, k]
            factor = factors[i, k] = column * pivot[:, k]
            pivot[:, i] -= factor.real * column.real + factor.imag * column.imag
            for m in range(k + 1, i):
                lower[i, m] -= factor * lower[m, k].conj()
            u[:, i] -= factor * u[:, k]
    for k in reversed(range(channels)):
        u[:, k] *= pivot[:, k]
        for i in range(k + 1, channels):
            u[:, k] -= factors[i, k].conj() * u[:, i]
    return u


def _mix_entry(v: Magnitude, R: Spectrum, row: int, column: int) -> Spectrum:
    """One entry of the mixture's covariance, (bins, frames), off its diagonal."""
    entry = np.empty((v.shape[0], 1, v.shape[2]), R.dtype)
    # in two real products, for a product of mixed kinds would first make v complex
    np.matmul(R[:, row, column, np.newaxis].real, v, out=entry.real)
    np.matmul(R[:, row, column, np.newaxis].imag, v, out=entry.imag)
    return entry[:, 0]


def _phase(x: Spectrum) -> Spectrum:
    """``x / |x|``, and 1 where there is nothing."""
    magnitude = np.abs(x)
    phase = np.ones_like(x)
    # part by part, for a quotient of complex numbers isn't exactly 1 or -1 where x is real, as in the lowest bin;
    # sources of which the model says that all channels are equal would be a little unequal, which it magnifies
    np.divide(x.real, magnitude, out=phase.real, where=magnitude > 0)
    np.divide(x.imag, magnitude, out=phase.imag, where=magnitude > 0)
    return phase


def _logistic(values: NDArray[Any], threshold: float, slope: float) -> NDArray[Any]:
    # 1 / (1 + exp(-z)) = (1 + tanh(z / 2)) / 2, which can't overflow
    return (1 + np.tanh((values - threshold) * (slope / 2))) / 2


def _by_bins(separate: Callable[[Magnitude, Spectrum], Spectrum], v: Magnitude, x: Spectrum) -> Spectrum:
    """Estimates (frames, bins, channels, sources), by a function that makes them of a few bins, frames last."""
    dtype = np.result_type(v, x)
    y = np.empty((*x.shape, v.shape[-1]), dtype)
    for bins in _blocks(y.shape):
        estimates = separate(_frames_last(v[:, bins], _real(dtype)), _frames_last(x[:, bins], dtype))
        y[:, bins] = np.moveaxis(estimates, -1, 0)
    return y


def _blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Slices of bins, for estimates of such a shape, that hold about `BLOCK` numbers each."""
    frames, bins, channels, sources = shape
    step = max(1, BLOCK // (frames * channels * sources))
    for start in range(0, bins, step):
        yield slice(start, min(start + step, bins))


def _frames_last(array: NDArray[Any], dtype: DTypeLike) -> NDArray[Any]:
    """Copy an array (frames, ...) to (..., frames)."""
    return np.array(np.moveaxis(array, 0, -1), dtype, order="C")


def _peak(x: Spectrum) -> float:
    return max(float(np.abs(frame).max()) for frame in x)


def _real(dtype: DTypeLike) -> np.dtype[Any]:
    """Dtype of the real part."""
    return np.finfo(dtype).dtype


def _rounding_unit(array: NDArray[Any]) -> float:
    return float(np.finfo(array.dtype).eps)


def _smallest(array: NDArray[Any]) -> float:
    """Smallest normal number."""
    return float(np.finfo(array.dtype).tiny)


def _magnitudes_and_mixture(v: ArrayLike, x: ArrayLike) -> tuple[Magnitude, Spectrum]:
    """Take and check both."""
    v = as_magnitudes(v)
    x = as_array("x", x, MIXTURE_AXES, np.complexfloating)
    check_fit(v, x)
    return v, x


def _as_eps(eps: float | None, x: Spectrum) -> float:
    if eps is None:
        return _rounding_unit(x)
    if not (0 <= eps < math.inf):
        raise ValueError(f"eps must be a finite number of at least 0, or None, found {eps!r}")
    return float(eps)


def _check_shape(name: str, array: NDArray[Any], expected: tuple[int, ...], why: str) -> None:
    if array.shape != expected:
        raise ValueError(f"expected {name} of shape {expected}, {why}; found {array.shape}")
