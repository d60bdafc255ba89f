"""`Track`: one track of a store, from the track table to audio."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from norbert_store._read.track import StoredTrack, present_target
from norbert_store._signature import spelled_out
from norbert_store._spectra.stft import Audio


class Track(StoredTrack):
    """One track of a store, returned by ``db["name"]`` or ``db[0]``; everything is read only when it is asked for."""

    def _repr_html_(self) -> str:
        from norbert_store._show import track_html

        return track_html(self)

    @spelled_out()
    def to_audio(self, target: str | int, *, mixture: ArrayLike | str | os.PathLike[str] | None = None) -> Audio:
        """Make audio from a target's magnitudes and the mixture's phase.

        Parameters
        ----------
        target : str or int
            Name or position.
        mixture : array_like or path, optional
            Audio (samples, channels) at the store's rate and of the track's length, or a file of it. If left out, it is
            read from `source`.

        Returns
        -------
        ndarray of float32
            (samples, channels)

        Raises
        ------
        NameNotFoundError
            If the track doesn't have the target.
        AudioError
            If the mixture has another length, rate or number of channels than the track.
        SourceError
            If the mixture's file isn't there, or the track's source may not be read.
        DamagedError
            If what is stored is damaged.
        ValueError
            If the magnitudes were computed elsewhere, so that the library has no inverse for them.

        Examples
        --------
        >>> import norbert_store, zarr
        >>> place = zarr.storage.MemoryStore()
        >>> vocals, drums = np.random.default_rng(0).uniform(-0.4, 0.4, (2, 8000, 1)).astype(np.float32)
        >>> targets = {"mixture": vocals + drums, "vocals": vocals, "drums": drums}
        >>> with norbert_store.create(place, targets=tuple(targets), rate=8000, channels=1, effort=0) as writer:
        ...     writer.add("x", targets)
        >>> track = norbert_store.open(place)["x"]
        >>> track.to_audio("vocals", mixture=targets["mixture"]).shape
        (8000, 1)

        References
        ----------
        A. Liutkus and F.-R. Stöter, "The 2018 Signal Separation Evaluation Campaign", LVA/ICA 2018, for magnitudes
        combined with the mixture's phase.
        """
        from norbert_store._resynthesis import resynthesize

        return np.concatenate(list(resynthesize(self, present_target(self, target), mixture)))

    @spelled_out()
    def separate(
        self,
        *,
        mixture: ArrayLike | str | os.PathLike[str] | None = None,
        method: str = "wiener",
        targets: Sequence[str] | None = None,
        iterations: int = 1,
        exponent: float | None = None,
        threshold: float = 0.0,
        block_seconds: float = 30.0,
    ) -> dict[str, Audio]:
        """Separate the mixture into targets, by their stored magnitudes.

        Parameters
        ----------
        mixture : array_like or path, optional
            As for `to_audio`.
        method : str
            "wiener" (multichannel Wiener filter, `norbert_store.filters.wiener`), "softmask", "irm" (ideal ratio mask)
            or "ibm" (ideal binary mask).
        targets : sequence of str, optional
            What the mixture is made of; if left out, all targets of the track except "mixture". The whole mixture is
            divided among them: a single one gets all of it, so the rest has to be a target, too.
        iterations : int
            Of expectation maximization, for "wiener".
        exponent : float, optional
            The power of magnitudes that shares are in proportion to, for "softmask" (1 if left out) and "irm" (2).
        threshold : float
            How much louder than the sum of the others a target must be to get a bin, dB, for "ibm".
        block_seconds : float
            The Wiener filter estimates its spatial covariances for each block of this length; the masks don't depend
            on it.

        Returns
        -------
        dict of str to ndarray of float32
            By target, (samples, channels). Above the store's bandwidth each target has the share that it has just
            below it.

        Raises
        ------
        TrackError
            If the track doesn't have one of the targets, or has none but the mixture.
        AudioError, SourceError, DamagedError
            As for `to_audio`.
        ValueError
            If the method is unknown, or a parameter is out of range or for other methods; and as for `to_audio`.

        Examples
        --------
        >>> import norbert_store, zarr
        >>> place = zarr.storage.MemoryStore()
        >>> vocals, drums = np.random.default_rng(0).uniform(-0.4, 0.4, (2, 8000, 1)).astype(np.float32)
        >>> targets = {"mixture": vocals + drums, "vocals": vocals, "drums": drums}
        >>> with norbert_store.create(place, targets=tuple(targets), rate=8000, channels=1, effort=0) as writer:
        ...     writer.add("x", targets)
        >>> track = norbert_store.open(place)["x"]
        >>> estimates = track.separate(mixture=targets["mixture"])
        >>> list(estimates), estimates["drums"].shape
        (['vocals', 'drums'], (8000, 1))
        """
        from norbert_store._resynthesis import separate

        blocks = list(separate(self, mixture, method, targets, iterations, exponent, threshold, block_seconds))
        return {target: np.concatenate([block[target] for block in blocks]) for target in blocks[0]}
