"""PEAQ, the perceptual evaluation of audio quality: how much a listener would mind a difference.

The basic version (FFT ear model) of [1]_, read with the help of [2]_. A reference and a test signal become, frame by
frame, what the ear makes of them (`norbert_store.quality._ear`); eleven variables tell how far the two differ
(`norbert_store.quality._variables`); a small network, trained on listening tests, turns them into one grade. Where [1]_
leaves a choice, it is made as in [3]_, so that grades can be compared; ``docs/quality.md`` lists these choices.

References
----------
.. [1] ITU-R, Recommendation BS.1387-1, "Method for objective measurements of perceived audio quality", 2001.
.. [2] P. Kabal, "An Examination and Interpretation of ITU-R BS.1387: Perceptual Evaluation of Audio Quality",
   McGill University, 2002.
.. [3] M. Holters and U. Zölzer, "GstPEAQ: an open source implementation of the PEAQ algorithm", Proc. of the 18th Int.
   Conference on Digital Audio Effects (DAFx), 2015.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from norbert_store.errors import AudioError
from norbert_store.quality._ear import Heard, band_energies, padded, resampled, spectra
from norbert_store.quality._variables import SpectralDifferences, model_output_variables

# BS.1387-1, section 6: for each variable its range, and its weights to the three hidden nodes
_NETWORK = {
    "BandwidthRefB": (393.916656, 921.0, -0.502657, 0.436333, 1.219602),
    "BandwidthTestB": (361.965332, 881.131226, 4.307481, 3.246017, 1.123743),
    "Total NMRB": (-24.045116, 16.212030, 4.984241, -2.211189, -0.192096),
    "WinModDiff1B": (1.110661, 107.137772, 0.051056, -1.762424, 4.331315),
    "ADBB": (-0.206623, 2.886017, 2.321580, 1.789971, -0.754560),
    "EHSB": (0.074318, 13.933351, -5.303901, -3.452257, -10.814982),
    "AvgModDiff1B": (1.113683, 63.257874, 2.730991, -6.111805, 1.519223),
    "AvgModDiff2B": (0.950345, 1145.018555, 0.624950, -1.331523, -5.955151),
    "RmsNoiseLoudB": (0.029985, 14.819740, 3.102889, 0.871260, -5.922878),
    "MFPDB": (0.000101, 1.0, -1.051468, -0.939882, -0.142913),
    "RelDistFramesB": (0.0, 1.0, -1.804679, -0.503610, -0.620456),
}
_HIDDEN_BIAS = np.array([-2.518254, 0.654841, -2.207228])
_OUTPUT_WEIGHTS = np.array([-3.817048, 4.107138, 4.629582])
_OUTPUT_BIAS = -0.307594
_WORST, _BEST = -3.98, 0.22

# 20 dB beyond full scale: no overshoot of a codec, but numbers of another scale
_LARGEST = 10.0
_HIGHEST_RATE = 1_000_000


@dataclass(frozen=True)
class PeaqResult:
    """What PEAQ says.

    Parameters
    ----------
    odg : float
        Objective difference grade: 0 imperceptible (equal signals reach 0.2), -1 perceptible but not annoying,
        -2 slightly annoying, -3 annoying, -4 very annoying.
    distortion_index : float
        The network's output before it is squeezed into the range of grades; tells signals apart where grades are
        all near one end.
    movs : mapping of str to float
        The eleven model output variables.
    """

    odg: float
    distortion_index: float
    movs: Mapping[str, float]


class Reference:
    """A reference signal, prepared once to be compared with many test signals.

    It holds about 2 MB for a second of stereo. Threads may share it.

    Parameters
    ----------
    reference : array_like of float
        (samples,), (samples, 1) or (samples, 2), full scale 1.0; integers are scaled by the range of their type.
    rate : int
        Samples a second; other rates than 48000 are resampled.

    Raises
    ------
    AudioError
        If there is no sample, if there are more than two channels, if a value isn't finite or is far beyond full scale,
        or if the rate isn't a whole number from 1 to 1,000,000.
    """

    def __init__(self, reference: ArrayLike, rate: int) -> None:
        self.rate = _check_rate(rate)
        audio = _as_audio(reference, "reference")
        self.shape = audio.shape
        samples = padded(np.ascontiguousarray(resampled(audio, self.rate).T))
        self._spectra = np.concatenate([spectrum for _, spectrum in spectra(samples)])
        self._heard = Heard(samples, band_energies(self._spectra**2))

    def compare(self, test: ArrayLike) -> PeaqResult:
        """Grade a test signal of the reference's rate, channels and length.

        Raises
        ------
        AudioError
            If its shape isn't the reference's, or as for the reference.
        """
        audio = _as_audio(test, "test")
        if audio.shape != self.shape:
            raise AudioError(
                f"the test signal has {audio.shape[0]} samples and {audio.shape[1]} channels, the reference "
                f"{self.shape[0]} and {self.shape[1]}; expected equal shapes, aligned to the sample: cut or pad one"
            )
        samples = padded(np.ascontiguousarray(resampled(audio, self.rate).T))
        energies, differences = [], []
        for block, spectrum in spectra(samples):
            energies.append(band_energies(spectrum**2))
            differences.append(SpectralDifferences.between(self._spectra[block], spectrum))
        heard = Heard(samples, np.concatenate(energies))
        return _grade(model_output_variables(self._heard, heard, SpectralDifferences.joined(differences)))


def peaq(reference: ArrayLike, test: ArrayLike, rate: int) -> PeaqResult:
    """Grade how much a listener would mind the difference between a reference and a test signal.

    Parameters
    ----------
    reference, test : array_like of float
        (samples,), (samples, 1) or (samples, 2), of equal shape, full scale 1.0.
    rate : int
        Samples a second of both.

    Returns
    -------
    PeaqResult

    Raises
    ------
    AudioError
        See `Reference`.

    Examples
    --------
    >>> import numpy as np
    >>> noise = 0.1 * np.random.default_rng(0).standard_normal((48000, 2))
    >>> round(peaq(noise, noise, 48000).odg, 1)
    0.2
    """
    return Reference(reference, rate).compare(test)


def _grade(movs: dict[str, float]) -> PeaqResult:
    lowest, highest, *weights = np.array(list(_NETWORK.values())).T
    values = np.array([movs[name] for name in _NETWORK])
    hidden = _sigmoid(_HIDDEN_BIAS + np.array(weights) @ ((values - lowest) / (highest - lowest)))
    index = float(_OUTPUT_BIAS + _OUTPUT_WEIGHTS @ hidden)
    return PeaqResult(float(_WORST + (_BEST - _WORST) * _sigmoid(index)), index, movs)


def _sigmoid(x: Any) -> Any:
    return 0.5 * (1 + np.tanh(x / 2))


def _check_rate(rate: int) -> int:
    number = isinstance(rate, int | float | np.integer | np.floating) and not isinstance(rate, bool)
    if not (number and 1 <= rate <= _HIGHEST_RATE and rate == int(rate)):
        raise AudioError(f"expected a whole number of samples a second, from 1 to {_HIGHEST_RATE}; found {rate!r}")
    return int(rate)


def _as_audio(values: ArrayLike, which: str) -> NDArray[np.float64]:
    """(samples, channels), full scale 1.0, checked."""
    array = np.asarray(values)
    if array.ndim == 1:
        array = array[:, np.newaxis]
    if array.ndim != 2 or array.shape[1] not in (1, 2):
        raise AudioError(
            f"the {which} has shape {np.shape(values)}; expected (samples,) or (samples, channels) "
            "with one or two channels"
        )
    if not len(array):
        raise AudioError(f"the {which} has no samples")
    if np.issubdtype(array.dtype, np.signedinteger):
        array = array / -float(np.iinfo(array.dtype).min)
    elif not np.issubdtype(array.dtype, np.floating):
        raise AudioError(f"the {which} has dtype {array.dtype}; expected floats of full scale 1.0, or signed integers")
    peak = np.abs(array).max()
    if not np.isfinite(peak):
        raise AudioError(f"the {which} has values that are NaN or infinite")
    if peak > _LARGEST:
        raise AudioError(
            f"the {which} reaches {peak:g}; expected floats of full scale 1.0: divide it by its full scale"
        )
    return array.astype(np.float64, copy=False)
