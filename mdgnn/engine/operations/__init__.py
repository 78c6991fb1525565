"""What torch's functions are in the algebra of programs: the table at the end has a row for each.

Element-wise operations of `mdgnn.engine.algebra.ELEMENTWISE` need no row: torch's functions of the same name become
ours. Functions are found under their names in ``torch``, ``torch.Tensor``, ``torch.nn.functional`` and
``torch.linalg``; those that change a tensor in place follow from those that do not.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mdgnn.engine.algebra import ELEMENTWISE
from mdgnn.engine.capture import Capture, Captured
from mdgnn.engine.messages import GRAPH_OPS
from mdgnn.engine.operations.arguments import alias, same
from mdgnn.engine.operations.constants import copy, filled_like, new_filled
from mdgnn.engine.operations.elementwise import (
    add,
    addcdiv,
    addcmul,
    clamp,
    composed,
    convert,
    convert_to,
    divide,
    dropout,
    hardtanh,
    leaky_relu,
    lerp,
    maximum,
    minimum,
    multiply,
    power,
    softplus,
    subtract,
    swapped,
    unary,
)
from mdgnn.engine.operations.indexing import embedding, getitem, index_select
from mdgnn.engine.operations.products import add_product, einsum, frobenius, linear, matmul, mean, norm, sum_over
from mdgnn.engine.operations.shapes import (
    cat,
    chunk,
    expand,
    flatten,
    narrow,
    permute,
    repeat,
    select,
    split,
    squeeze,
    stack,
    tensor_split,
    transpose,
    transposed,
    unbind,
    unflatten,
    unsqueeze,
    view,
)
from mdgnn.nn import shifted_softplus
from mdgnn.ops import silu


def apply(capture: Capture, function: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """The result of one of torch's functions of tensors of which some are captured.

    Raises
    ------
    UnsupportedError
        Where there is no row for it, or the row does not take these arguments.
    """
    name, is_property = name_of(function)
    if name in SHAPES_AND_TYPES:
        with torch._C.DisableTorchFunctionSubclass():
            return function(*args, **kwargs)
    if name in NUMBERS_DECIDE:
        raise capture.refusal(f"{name}: numbers that are known only when a program runs decide what the model does")
    operation = PROPERTIES.get(name) if is_property else FUNCTIONS.get(function)
    if operation is None:
        raise capture.refusal(name)
    if "input" in kwargs:
        args = (kwargs.pop("input"), *args)
    in_place = kwargs.pop("inplace", False)
    try:
        out = operation(capture, *args, **kwargs)
    except TypeError as error:
        if error.__traceback__ is not None and error.__traceback__.tb_next is None:  # raised by the call itself
            raise capture.refusal(f"{name} of these arguments") from error
        raise
    return _in_place(capture, out, args[0], name) if in_place else out


def name_of(function: Any) -> tuple[str, bool]:
    """Of a function, or of the property of tensors that it gets."""
    name = getattr(function, "__name__", str(function))
    if name == "__get__":
        return function.__self__.__name__, True
    return name, False


def _changed(operation: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The operation in place."""

    def apply_in_place(capture: Capture, target: Any, *args: Any, **kwargs: Any) -> Captured:
        return _in_place(capture, operation(capture, target, *args, **kwargs), target, name)

    return apply_in_place


def _in_place(capture: Capture, out: Captured, target: Any, name: str) -> Captured:
    if not isinstance(target, Captured):
        raise capture.refusal(f"{name}: changes in place of a constant array")
    if target.shared():
        raise capture.refusal(f"{name}: changes in place of an array of which there are views")
    if out.shape != target.shape or out.dtype != target.dtype:
        raise capture.refusal(f"{name} of shapes {tuple(target.shape)} and {tuple(out.shape)}")
    target.node, target.axes = out.node, out.axes
    return target


OPERATIONS: dict[str, Callable[..., Any]] = {
    **{name: unary(name) for name in ELEMENTWISE},
    "__neg__ neg negative": unary("scale", -1.0),
    "__pow__ pow": power,
    "__rdiv__ __rtruediv__": swapped(divide),
    "__rmatmul__": swapped(matmul),
    "__rpow__": swapped(power),
    "__rsub__ rsub": swapped(subtract),
    "__getitem__": getitem,
    "add": add,
    "addcdiv": addcdiv,
    "addcmul": addcmul,
    "addmm baddbmm": add_product,
    "cat concat concatenate": cat,
    "chunk": chunk,
    "clamp clip": clamp,
    "clamp_max": lambda capture, x, max: clamp(capture, x, max=max),
    "clamp_min": lambda capture, x, min: clamp(capture, x, min=min),
    "clone": same,
    "copy": copy,
    "contiguous detach": alias,  # the same memory, unless it has to be copied
    "div divide true_divide": divide,
    "double": lambda capture, x: convert(capture, x, torch.float64),
    "dropout": dropout,
    "einsum": einsum,
    "embedding": embedding,
    "exp2": composed(("scale", math.log(2)), ("exp",)),
    "expand broadcast_to": expand,
    "expand_as": lambda capture, x, other: expand(capture, x, list(other.shape)),
    "fill full_like": filled_like(None),
    "flatten": flatten,
    "float": lambda capture, x: convert(capture, x, torch.float32),
    "hardtanh": hardtanh,
    "index_select": index_select,
    "leaky_relu": leaky_relu,
    "lerp": lerp,
    "linear": linear,
    "log10": composed(("log",), ("scale", 1 / math.log(10))),
    "log2": composed(("log",), ("scale", 1 / math.log(2))),
    "logsigmoid": composed(("scale", -1.0), ("softplus",), ("scale", -1.0)),
    "matmul mm bmm mv": matmul,
    "maximum": maximum,
    "mean": mean,
    "minimum": minimum,
    "mul multiply": multiply,
    "narrow": narrow,
    "new_full": new_filled(None),
    "new_ones": new_filled(1.0),
    "new_zeros": new_filled(0.0),
    "norm": frobenius,
    "ones_like": filled_like(1.0),
    "permute": permute,
    "relu6": lambda capture, x: hardtanh(capture, x, 0.0, 6.0),
    "repeat": repeat,
    "rsqrt": unary("power", -0.5),
    "select": select,
    "softplus": softplus,
    "split split_with_sizes": split,
    "squeeze": squeeze,
    "stack": stack,
    "sub subtract": subtract,
    "sum": sum_over,
    "t": transposed,
    "tensor_split": tensor_split,
    "to type_as": convert_to,
    "transpose swapaxes swapdims": transpose,
    "unbind": unbind,
    "unflatten": unflatten,
    "unsqueeze": unsqueeze,
    "vector_norm": norm,
    "view reshape": view,
    "view_as reshape_as": lambda capture, x, other: view(capture, x, list(other.shape)),
    "zero zeros_like": filled_like(0.0),
}
PROPERTIES: dict[str, Callable[..., Any]] = {
    "T": transposed,
    "mT": lambda capture, x: transpose(capture, x, -1, -2),
    "data": alias,
}
# What a model may ask of a tensor: the same for all structures, or a number of atoms or edges.
SHAPES_AND_TYPES = frozenset(
    [
        *("__len__", "device", "dim", "dtype", "element_size", "is_contiguous", "is_cpu", "is_cuda", "is_leaf"),
        *("is_floating_point", "is_inference", "layout", "ndim", "ndimension", "numel", "requires_grad", "shape"),
        "size",
    ]
)
NUMBERS_DECIDE = frozenset(
    ["__bool__", "__float__", "__int__", "__index__", "item", "equal", "allclose", "tolist", "numpy", "__array__"]
)


def _by_function() -> dict[Any, Callable[..., Any]]:
    """Torch's functions, and ours."""
    own = {silu: unary("silu"), shifted_softplus: unary("shifted_softplus")}
    table: dict[Any, Callable[..., Any]] = {**GRAPH_OPS, **own}
    for names, operation in OPERATIONS.items():
        for name in names.split():
            for home in (torch, Tensor, F):
                if hasattr(home, name):
                    table[getattr(home, name)] = operation
            if hasattr(Tensor, name + "_") and not name.startswith("__"):
                table[getattr(Tensor, name + "_")] = _changed(operation, name + "_")
    for name in ("norm", "vector_norm"):
        table[getattr(torch.linalg, name)] = norm
    return table


FUNCTIONS = _by_function()
