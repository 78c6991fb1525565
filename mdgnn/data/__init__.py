"""Data sets: frames of files with their labels, checked, written and split; graphs with targets; batches.

Frames and labels are numpy's: torch is imported with graphs and targets.
"""

from typing import TYPE_CHECKING

from mdgnn._internal.lazy_names import lazy_names

if TYPE_CHECKING:
    from mdgnn.data.batches import EdgeBatches, split
    from mdgnn.data.dataset import Dataset
    from mdgnn.data.frames import DataError, FrameList, read_frames, split_structures
    from mdgnn.data.labels import Keys, PropertyKey
    from mdgnn.data.summary import Summary, summarize
    from mdgnn.data.targets import Sample, Targets, collate
    from mdgnn.data.write import split_file, write_frames

_HOME = {
    "DataError": "mdgnn.data.frames",
    "Dataset": "mdgnn.data.dataset",
    "EdgeBatches": "mdgnn.data.batches",
    "FrameList": "mdgnn.data.frames",
    "Keys": "mdgnn.data.labels",
    "PropertyKey": "mdgnn.data.labels",
    "Sample": "mdgnn.data.targets",
    "Summary": "mdgnn.data.summary",
    "Targets": "mdgnn.data.targets",
    "collate": "mdgnn.data.targets",
    "read_frames": "mdgnn.data.frames",
    "split": "mdgnn.data.batches",
    "split_file": "mdgnn.data.write",
    "split_structures": "mdgnn.data.frames",
    "summarize": "mdgnn.data.summary",
    "write_frames": "mdgnn.data.write",
}

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
    "split_file",
    "split_structures",
    "summarize",
    "write_frames",
]

__getattr__, __dir__ = lazy_names("mdgnn.data", _HOME)
