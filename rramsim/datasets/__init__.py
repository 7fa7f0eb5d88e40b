"""Data sets behind one type, and the files shipped with the package."""

from rramsim.datasets.embedded import Dataset, Split, balanced_split, load_dataset, make_dataset
from rramsim.datasets.teachers import data_path, load_teacher, teacher_names

__all__ = [
    "Dataset",
    "Split",
    "balanced_split",
    "data_path",
    "load_dataset",
    "load_teacher",
    "make_dataset",
    "teacher_names",
]
