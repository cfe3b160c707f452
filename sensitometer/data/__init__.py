"""The data sets: what they are, where they are looked for, how they are fetched, and how they become points on a sphere."""

from .datasets import Dataset, Points, load_dataset
from .fetching import Fetched, fetch_dataset
from .locations import DatasetStatus, list_datasets
from .sources import dataset_names

__all__ = ["Dataset", "DatasetStatus", "Fetched", "Points", "dataset_names", "fetch_dataset", "list_datasets", "load_dataset"]
