"""Every public name, and where it is defined.

`lazy_loader` reads this at run time. It doesn't know ``as`` with another name, so everything bears its public name
where it is defined.
"""

from . import codecs as codecs
from . import errors as errors
from . import filters as filters
from . import quality as quality
from ._chain import TF as TF
from ._chain import BandwidthLimiter as BandwidthLimiter
from ._chain import Coder as Coder
from ._chain import LogScaler as LogScaler
from ._chain import PowerScaler as PowerScaler
from ._chain import Quantizer as Quantizer
from ._check.repair import repair as repair
from ._check.report import Report as Report
from ._check.verify import verify as verify
from ._excerpts import Excerpts as Excerpts
from ._export.run import export as export
from ._export.run import export_folder as export_folder
from ._export.run import export_musdb as export_musdb
from ._export.summary import Progress as Progress
from ._export.summary import Summary as Summary
from ._spectra.bins import Mel as Mel
from ._spectra.bins import ReadyBins as ReadyBins
from ._spectra.levels import LogCurve as LogCurve
from ._spectra.levels import PowerCurve as PowerCurve
from ._store import Store as Store
from ._store import open as open
from ._track import Track as Track
from ._version import __version__ as __version__
from ._writer import Writer as Writer
from ._writer import append as append
from ._writer import create as create
