"""Torch as this package needs it, whatever its caller has set; imported when it is entered, since what it decorates may
stand in a module that is imported without torch."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from mdgnn.threads import ForkSafeLock, mend_fork

KINDS = ("cpu", "cuda")
_lock = ForkSafeLock()
_n_within, _before = 0, "highest"  # callers within `full_precision`; what was set before the first


@contextmanager
def torch_context() -> Iterator[None]:
    """Tensors that autograd may use, in the precision that they have, on the CPU unless a device is named.

    Around the caller may be ``torch.inference_mode``, ``torch.autocast``, another default device; all of that is as it
    was afterwards. A child process by fork runs torch's operators on one thread from here on.
    """
    import torch

    mend_fork()
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        for kind in KINDS:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield


@contextmanager
def full_precision() -> Iterator[None]:
    """Products of float32 matrices in float32, whatever ``torch.set_float32_matmul_precision`` has been told.

    That is one setting for all threads: it comes back when the last of several callers leaves.
    """
    import torch

    global _n_within, _before
    with _lock:
        if _n_within == 0:
            _before = torch.get_float32_matmul_precision()
        _n_within += 1
        if _before != "highest":
            torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        with _lock:
            _n_within -= 1
            if _n_within == 0 and _before != "highest":
                torch.set_float32_matmul_precision(_before)
