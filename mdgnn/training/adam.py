"""torch's Adam and AdamW, whose step over the dozens of small parameters of a network on the CPU is one call."""

from array import array
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from mdgnn.ops.kernels import kernels_for

_FLOATS = {torch.float32: 4, torch.float64: 8}
_FIELDS = 7  # of a parameter in a table: the addresses of what csrc/ops/adam/adam.hpp lists, and its size


class _Table(NamedTuple):
    """What `_C.adam_step` reads of a group, and what it was made of, which holds the memory."""

    group: dict[str, Any]
    made_of: tuple[Any, ...]  # that must be as it was
    parameters: list[Tensor]  # those that have a gradient
    arrays: list[Tensor]
    addresses: "array[int]"


class _InOneCall(torch.optim.Optimizer):
    """The step of an optimiser of torch's, which it is in all else: options, state, checkpoints.

    torch's own goes over the parameters in Python, and adds one to a tensor of each. It takes the first step, which
    makes the state, and all of what is not dense and in float32 or float64 on the CPU.
    """

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        # torch.amp.GradScaler sets the last two for a step that has to look at them
        others = closure, getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        left_to_torch = any(other is not None for other in others)
        tables = [None] if left_to_torch else [self._table(group) for group in self.param_groups]
        if None in tables:
            return super().step(closure)
        for group, table in zip(self.param_groups, tables, strict=True):
            assert table is not None
            size, n, (beta_1, beta_2) = _FLOATS[table.parameters[0].dtype], len(table.parameters), group["betas"]
            address, lr, eps, decay = table.addresses.buffer_info()[0], group["lr"], group["eps"], group["weight_decay"]
            decoupled = group.get("decoupled_weight_decay", isinstance(self, torch.optim.AdamW))
            kernels_for(table.parameters[0])[0].adam_step(size, address, n, lr, beta_1, beta_2, eps, decay, decoupled)
            increment_version(table.parameters)
        return None

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As torch's."""
        if not set_to_none:
            return super().zero_grad(set_to_none=False)
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def _table(self, group: dict[str, Any]) -> _Table | None:
        """Of a group, with the gradients of now; None for what torch must do."""
        grads = [p.grad for p in group["params"]]
        made_of = (
            [p.data_ptr() for p in group["params"]],  # others, where the parameters have been moved
            [grad is not None for grad in grads],
            [group[name] for name in ("amsgrad", "maximize", "capturable", "differentiable")],
            [id(tensor) for state in self.state.values() for tensor in state.values()],
        )
        tables: dict[int, _Table | None] = self.__dict__.setdefault("_tables", {})
        table = tables.get(id(group))
        if table is None or table.made_of != made_of:
            table = tables[id(group)] = self._new_table(group, made_of)
        if table is None or not table.parameters or isinstance(group["lr"], Tensor):
            return None
        grads = [grad for grad in grads if grad is not None]
        if {(grad.layout, grad.dtype) for grad in grads} != {(torch.strided, table.parameters[0].dtype)}:
            return None
        if {grad.is_contiguous() for grad in grads} != {True}:
            return None
        table.addresses[1::_FIELDS] = array("q", [grad.data_ptr() for grad in grads])
        return table

    def _new_table(self, group: dict[str, Any], made_of: tuple[Any, ...]) -> _Table | None:
        """Without the addresses of gradients; None where torch has yet to make a state, or has another."""
        amsgrad, *others = made_of[2]
        if any(others):
            return None
        names = ("exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if amsgrad else []))
        parameters = [p for p in group["params"] if p.grad is not None]
        addresses, arrays = array("q"), list[Tensor]()
        for p in parameters:
            state = self.state.get(p)
            if not state or p.dtype not in _FLOATS or p.dtype is not parameters[0].dtype:
                return None
            moments, step = [state.get(name) for name in names], state["step"]
            for tensor in (p, *moments):
                if tensor is None or tensor.dtype is not p.dtype or not tensor.is_cpu or not tensor.is_contiguous():
                    return None
            if step.dtype is not torch.float32 or not step.is_cpu:
                return None
            pointers = [tensor.data_ptr() for tensor in moments]
            addresses.extend([p.data_ptr(), 0, *pointers, *([] if amsgrad else [0]), step.data_ptr(), p.numel()])
            arrays += [*moments, step]
        return _Table(group, made_of, parameters, arrays, addresses)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Of a state that is loaded, too: what was read of the one before, and held its memory, goes."""
        super().__setstate__(state)
        self.__dict__.pop("_tables", None)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_tables"}


def _fused(options: dict[str, Any]) -> dict[str, Any]:
    """Options with torch's fused step, unless they ask for another of its steps."""
    return options if options.get("foreach") or options.get("differentiable") else {"fused": True, **options}


class Adam(_InOneCall, torch.optim.Adam):
    """`torch.optim.Adam` with its arguments; on the CPU a step takes a tenth of the time for a small network."""

    def __init__(self, params: Any, **options: Any):
        super().__init__(params, **_fused(options))


class AdamW(_InOneCall, torch.optim.AdamW):
    """`torch.optim.AdamW`, as `Adam` is `torch.optim.Adam`."""

    def __init__(self, params: Any, **options: Any):
        super().__init__(params, **_fused(options))
