"""The one kind of JPEG that is stored: baseline, 8 bits, one grey component, a restart marker per row of blocks.

Conventions
-----------
An image is a ``uint8`` array (rows, columns) of levels; in a store, rows are frames and columns are frequencies.
A *block* is 8 x 8 pixels, a *row of blocks* 8 rows of the image, and a *segment* the entropy-coded bytes of one row
of blocks, between two restart markers.

`layout` says where everything stands: it writes and reads headers, and cuts rows of blocks out. `stream` decodes JPEGs
from anywhere, `rows` those of this library, fast. `cosine` makes coefficients of images, `trellis` quantises them,
`huffman` and `entropy` make bytes of them, and `encoder` says how coarse all that is.
"""
