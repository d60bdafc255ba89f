"""Data sets of spectrograms, as small as their JPEGs, as easy to slice as an xarray.

The public names stand in ``__init__.pyi``, once. Type checkers read them there, and so does this module: each name is
loaded when it is first used, so that ``import norbert_store`` costs next to nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
