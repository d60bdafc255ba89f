"""How good something sounds, in numbers.

`peaq` grades the difference between two signals, as the recommendation ITU-R BS.1387-1 does; a `Reference` is prepared
once for many comparisons. `Original` and `through_store` tell what storing magnitudes costs, in bytes and in sound.

The names are loaded when they are first used; ``__init__.pyi`` lists them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
