"""
The data sets: what they are, where they are looked for, and how they become points on a sphere.

`fetching`, which downloads them, is imported by those who need it: it loads libraries that nothing else does.
"""

from .datasets import Dataset, Points, load_dataset
from .locations import DatasetStatus, list_datasets
from .sources import dataset_names

__all__ = ["Dataset", "DatasetStatus", "Points", "dataset_names", "list_datasets", "load_dataset"]
