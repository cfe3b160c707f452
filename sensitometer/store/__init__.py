"""A survey's results: the file with one row per network, and the arrays beside it. Imports neither torch nor ray."""

from .folder import ARRAYS, SAVED, SPECIFICATION, WEIGHTS
from .store import EXPORTS, Store, open_survey

__all__ = ["ARRAYS", "EXPORTS", "SAVED", "SPECIFICATION", "WEIGHTS", "Store", "open_survey"]
