"""Data sets: frames of files with their labels, checked; graphs with targets; batches."""

from mdgnn.data.batches import EdgeBatches, split
from mdgnn.data.dataset import Dataset
from mdgnn.data.frames import DataError, FrameList, read_frames, split_structures
from mdgnn.data.labels import Keys, PropertyKey
from mdgnn.data.summary import Summary, summarize
from mdgnn.data.targets import Sample, Targets, collate

__all__ = [
    "DataError",
    "Dataset",
    "EdgeBatches",
    "FrameList",
    "Keys",
    "PropertyKey",
    "Sample",
    "Summary",
    "Targets",
    "collate",
    "read_frames",
    "split",
    "split_structures",
    "summarize",
]
