"""The version of this package; the version of the format stands in `norbert_store.format`."""

__version__ = "0.1.0"
