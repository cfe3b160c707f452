"""
Data sets: the known ones and where they are looked for, data of one's own, and how both become points.

`fetching`, which downloads them, is imported by those who need it: it loads libraries that nothing else does.
"""

from .datasets import Dataset, Points
from .locations import DatasetStatus, list_datasets
from .named import load_dataset, usual_normalisations
from .opening import open_data
from .sources import dataset_names

__all__ = [
    "Dataset",
    "DatasetStatus",
    "Points",
    "dataset_names",
    "list_datasets",
    "load_dataset",
    "open_data",
    "usual_normalisations",
]
