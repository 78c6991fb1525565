"""Which compiled extension serves a tensor."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from mdgnn import _C
from mdgnn.threads import get_num_threads


def kernels_for(tensor: Tensor) -> tuple[Any, tuple[int, int, int]]:
    """The extension for a tensor's device, and where it shall run: threads, device, stream."""
    if tensor.is_cpu:
        return _C, (get_num_threads(), 0, 0)
    device = tensor.device
    if device.type != "cuda":
        raise RuntimeError(
            f"expected tensors on a CPU or a CUDA device, got {device.type}: mdgnn has no kernels for it"
        )
    if find_spec("mdgnn._C_cuda") is None:
        raise RuntimeError("mdgnn was built without kernels for CUDA; build it where nvcc is on the PATH")
    stream = torch.cuda.current_stream(device).cuda_stream
    return import_module("mdgnn._C_cuda"), (0, device.index, stream)
