"""Tables that follow from a network's parameters, cached between calls."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from mdgnn.threads import ForkSafeLock

_making = ForkSafeLock()  # tables are made by one thread, for all that want them


class TableCache:
    """Tables by name, made again when a tensor that one follows from has changed; in training they are made every time.

    A change is another tensor, other memory, or a write that torch has counted, or should have: those of its fused
    optimisers are counted here. It counts none to `tensor.data`. Copies and pickles start empty. Several threads may
    ask at once.
    """

    def __init__(self) -> None:
        self._tables: dict[str, tuple[Sequence[Tensor], Any, Any]] = {}

    def get(self, name: str, follows_from: Sequence[Tensor], make: Callable[[], Any]) -> Any:
        """What `make` returns, or what it returned for the same tensors."""
        if torch.compiler.is_compiling() or (torch.is_grad_enabled() and any(t.requires_grad for t in follows_from)):
            return make()
        if any(t.is_inference() for t in follows_from):  # whose writes torch does not count
            with torch.inference_mode(False), torch.no_grad():
                return make()
        with _making:
            return self._made(name, follows_from, make)

    def _made(self, name: str, follows_from: Sequence[Tensor], make: Callable[[], Any]) -> Any:
        state = [(t.data_ptr(), t.dtype, t._version) for t in follows_from]
        tensors, before, table = self._tables.get(name, ((), None, None))
        if state != before or any(a is not b for a, b in zip(tensors, follows_from, strict=True)):
            with torch.inference_mode(False), torch.no_grad():  # so that autograd may use it later
                table = make()
            self._tables[name] = (follows_from, state, table)
        return table

    def __deepcopy__(self, memo: Any) -> "TableCache":
        return TableCache()

    def __reduce__(self) -> Any:
        return TableCache, ()


def _count_writes(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    """Of a step that was fused: torch 2.13 does not. Counted twice they do no harm."""
    for group in optimizer.param_groups:
        if group.get("fused"):
            increment_version([p for p in group["params"] if p.grad is not None])


register_optimizer_step_post_hook(_count_writes)
