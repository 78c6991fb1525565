"""Torch as this package needs it, whatever its caller has set."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from mdgnn.threads import is_forked, one_torch_thread

KINDS = ("cpu", "cuda")


@contextmanager
def torch_context() -> Iterator[None]:
    """Tensors that autograd may use, in the precision that they have, on the CPU unless a device is named.

    Around the caller may be ``torch.inference_mode``, ``torch.autocast``, another default device; all of that is as it
    was afterwards. A child process by fork runs torch's operators on one thread, as torch would wait for ever for
    threads that only the parent has.
    """
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        for kind in KINDS:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if is_forked():
            stack.enter_context(one_torch_thread())
        yield
