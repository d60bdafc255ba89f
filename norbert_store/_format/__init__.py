"""The format on disk, as code: all that writer and reader share, next to `norbert_store._spectra.levels` and `jpeg`.

`document` is the one JSON document that commits and opens a store, `shard` the layout of a shard's bytes, `table`
the columns of the track table. ``docs/format.md`` is the same in words.
"""
