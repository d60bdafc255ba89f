"""The engine ``norbert_store`` of xarray: ``xarray.open_dataset(store, engine="norbert_store", track=...)``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import xarray
from xarray.backends import BackendEntrypoint

from norbert_store._read.xarrays import Values
from norbert_store._storage.storage import Location
from norbert_store._store import open as open_store


class NorbertStoreBackend(BackendEntrypoint):
    """The engine ``norbert_store`` of `xarray.open_dataset`."""

    description: ClassVar[str] = "Spectrograms in stores of norbert_store"
    open_dataset_parameters: ClassVar[tuple[str, ...]] = ("filename_or_obj", "drop_variables", "track", "values")

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Never: what is named ``.zarr`` belongs to xarray's own engine."""
        return False

    def open_dataset(  # type: ignore[override]
        self,
        filename_or_obj: Location,
        *,
        drop_variables: str | Iterable[str] | None = None,
        track: str | int | None = None,
        values: Values = "magnitude",
    ) -> xarray.Dataset:
        """Open one track, or the packed array of all.

        Parameters
        ----------
        filename_or_obj : str, path or zarr store
        drop_variables : str or iterable of str, optional
            Variables to leave out.
        track : str or int, optional
            Name or position of a track. If left out, all tracks along one packed axis, with NaN between them.
        values : str
            "magnitude" or "levels".

        Returns
        -------
        xarray.Dataset
            With one variable, named for its values: (target, channel, time, frequency) of a track, or (target,
            channel, frame, frequency) of all.
        """
        if values not in ("magnitude", "levels"):
            raise ValueError(f"values must be 'magnitude' or 'levels', found {values!r}")
        store = open_store(filename_or_obj)
        dataset = store.to_xarray(values) if track is None else store[track].to_xarray(values)
        drop = [drop_variables] if isinstance(drop_variables, str) else list(drop_variables or ())
        return dataset.drop_vars(drop, errors="ignore")
