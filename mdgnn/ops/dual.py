"""Dual numbers: a function of distance and its slope together, by the function's own code.

Torch's forward mode keeps its levels in one place for the whole process: two threads that tabulated at once got errors,
or each other's slopes. Here are plain operations on tensors: any number of threads may run them, and autograd and
torch.compile see through them. Operations without a rule here take torch's reverse mode, in two passes.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class Dual:
    """A tensor and its derivative with respect to one number, of the same shape.

    Torch's functions of it go by the rules at the end of this file; one without a rule is refused.
    """

    __array_ufunc__ = None  # NumPy's numbers leave operations to the methods below

    def __init__(self, value: Tensor, slope: Tensor):
        self.value, self.slope = value, slope

    @property
    def shape(self) -> torch.Size:
        return self.value.shape

    @property
    def ndim(self) -> int:
        return self.value.ndim

    @property
    def dtype(self) -> torch.dtype:
        return self.value.dtype

    @property
    def device(self) -> torch.device:
        return self.value.device

    def __len__(self) -> int:
        return len(self.value)

    def __bool__(self) -> bool:
        raise NotImplementedError("a number with its slope is neither true nor false")

    def __eq__(self, other: object) -> Any:  # objects would compare by identity
        raise NotImplementedError("numbers with their slopes are not compared")

    __ne__, __hash__ = __eq__, object.__hash__

    def __getitem__(self, index: Any) -> "Dual":
        return Dual(self.value[index], self.slope[index])

    def __neg__(self) -> "Dual":
        return Dual(-self.value, -self.slope)

    def __add__(self, other: Any) -> "Dual":
        return _add(self, other)

    def __radd__(self, other: Any) -> "Dual":
        return _add(other, self)

    def __sub__(self, other: Any) -> "Dual":
        return _add(self, -other)

    def __rsub__(self, other: Any) -> "Dual":
        return _add(other, -self)

    def __mul__(self, other: Any) -> "Dual":
        return _multiply(self, other)

    def __rmul__(self, other: Any) -> "Dual":
        return _multiply(other, self)

    def __truediv__(self, other: Any) -> "Dual":
        return _divide(self, other)

    def __rtruediv__(self, other: Any) -> "Dual":
        return _divide(other, self)

    def __pow__(self, exponent: float) -> "Dual":
        return _power(self, exponent)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """A method of tensors, such as `square`."""
        method = getattr(Tensor, name, None)
        if not callable(method) or name.startswith("__"):  # a property is not what a method would give
            raise AttributeError(f"'Dual' object has no attribute {name!r}")
        return lambda *args, **kwargs: _apply(method, (self, *args), kwargs)

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _apply(function, args, kwargs or {})


def value_and_slope(function: Callable[[Any], Any], r: Tensor, dr: Tensor) -> tuple[Tensor, Tensor]:
    """Of a function of (G,) with values (G, ...), which depend on their own r alone: by rules, else in reverse."""
    try:
        result = function(Dual(r, dr))
        return result.value, result.slope
    except (NotImplementedError, AttributeError, TypeError):  # no rule, or a use of tensors that is none of a Dual
        return _in_reverse(function, r, dr)


def _in_reverse(function: Callable[[Any], Any], r: Tensor, dr: Tensor) -> tuple[Tensor, Tensor]:
    """The derivative of <v, derivative of <function, v>> for v is what forward mode gives."""
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        x = r.detach().requires_grad_()
        value: Tensor = function(x)
        v = torch.zeros_like(value, requires_grad=True)
        slope: Tensor | None = None
        if value.requires_grad:
            (g,) = torch.autograd.grad(value, x, v, create_graph=True, allow_unused=True)
            if g is not None:
                (slope,) = torch.autograd.grad(g, v, dr, create_graph=keep, allow_unused=True)
    slope = torch.zeros_like(value) if slope is None else slope
    return (value, slope) if keep else (value.detach(), slope.detach())


def sigmoid(x: Tensor) -> Tensor:
    """``1 / (1 + exp(-x))``; the bits of torch's depend on the number of threads."""
    return torch.exp(F.logsigmoid(x))


def _value(x: Any) -> Any:
    return x.value if isinstance(x, Dual) else x


def _slope(x: Any) -> Any:
    """None of what is constant."""
    return x.slope if isinstance(x, Dual) else None


def _add(a: Any, b: Any) -> Dual:
    value, slopes = _value(a) + _value(b), [s for s in (_slope(a), _slope(b)) if s is not None]
    return Dual(value, (slopes[0] if len(slopes) == 1 else slopes[0] + slopes[1]).expand_as(value))


def _multiply(a: Any, b: Any) -> Dual:
    x, y, dx, dy = _value(a), _value(b), _slope(a), _slope(b)
    if dx is None:
        return Dual(x * y, x * dy)
    return Dual(x * y, dx * y if dy is None else dx * y + x * dy)


def _divide(a: Any, b: Any) -> Dual:
    x, y, dx, dy = _value(a), _value(b), _slope(a), _slope(b)
    value = x / y
    if dx is None:
        return Dual(value, -value * dy / y)
    return Dual(value, (dx if dy is None else dx - value * dy) / y)


def _power(x: Dual, exponent: float) -> Dual:
    value, n = x.value**exponent, torch.as_tensor(exponent, dtype=x.value.dtype, device=x.value.device)
    slope = torch.where(n == 0, 0.0, n * x.value ** (n - 1))  # of r^0 at r = 0, too
    return Dual(value, (slope * x.slope).expand_as(value))


def _clamp(x: Dual, min: float | None = None, max: float | None = None) -> Dual:
    value = x.value.clamp(min, max)
    return Dual(value, x.slope * (value == x.value).to(value.dtype))


def _linear(x: Dual, weight: Tensor, bias: Tensor | None = None) -> Dual:
    return Dual(F.linear(x.value, weight, bias), F.linear(x.slope, weight))


def _softplus(x: Dual, beta: float = 1.0, threshold: float = 20.0) -> Dual:
    value, scaled = F.softplus(x.value, beta, threshold), beta * x.value
    return Dual(value, torch.where(scaled > threshold, 1.0, sigmoid(scaled)) * x.slope)


def _where(condition: Tensor, a: Any, b: Any) -> Dual:
    da, db = (0.0 if s is None else s for s in (_slope(a), _slope(b)))
    value, slope = torch.where(condition, _value(a), _value(b)), torch.where(condition, da, db)
    return Dual(value, slope.expand_as(value))


def _join(join: Callable[..., Tensor]) -> Callable[..., Dual]:
    def joined(parts: Any, dim: int = 0) -> Dual:
        slopes = [torch.zeros_like(x) if s is None else s for x, s in ((_value(p), _slope(p)) for p in parts)]
        return Dual(join([_value(p) for p in parts], dim), join(slopes, dim))

    return joined


def silu_slope(x: Tensor, y: Tensor) -> Tensor:
    s = sigmoid(x)
    return s * (1 + x * (1 - s))


# Elementwise functions: the derivative from argument and value.
DERIVATIVES: dict[Any, Callable[[Tensor, Tensor], Tensor]] = {
    F.logsigmoid: lambda x, y: sigmoid(-x),
    F.silu: silu_slope,
}
_RULES: dict[Any, Callable[..., Any]] = {F.linear: _linear, F.softplus: _softplus}


def _as_function_and_method(table: dict[Any, Any], **rules: Any) -> None:
    table.update(
        {getattr(home, name): r for name, r in rules.items() for home in (torch, Tensor) if hasattr(home, name)}
    )


_as_function_and_method(
    DERIVATIVES,
    cos=lambda x, y: -torch.sin(x),
    exp=lambda x, y: y,
    log=lambda x, y: 1 / x,
    reciprocal=lambda x, y: -y * y,
    sigmoid=lambda x, y: y * (1 - y),
    sin=lambda x, y: torch.cos(x),
    sqrt=lambda x, y: 0.5 / y,
    square=lambda x, y: 2 * x,
    tanh=lambda x, y: 1 - y * y,
)
_as_function_and_method(
    _RULES,
    add=_add,
    cat=_join(torch.cat),
    clamp=_clamp,
    div=_divide,
    mul=_multiply,
    ones_like=lambda x: torch.ones_like(x.value),
    pow=_power,
    stack=_join(torch.stack),
    sub=lambda a, b: _add(a, -b),
    where=_where,
    zeros_like=lambda x: torch.zeros_like(x.value),
)


def _apply(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    kwargs.pop("inplace", None)  # where the value goes, not what it is
    if function in DERIVATIVES and len(args) == 1 and not kwargs:
        (x,) = args
        value = function(x.value)
        return Dual(value, DERIVATIVES[function](x.value, value) * x.slope)
    if function in _RULES:
        return _RULES[function](*args, **kwargs)
    if function is Tensor.__rsub__:  # what torch.compile makes of dual - tensor and, below, dual / tensor
        return _add(args[1], -args[0])
    if function is Tensor.__rdiv__:
        return _divide(args[1], args[0])
    raise NotImplementedError(
        f"a table needs the slope of {getattr(function, '__name__', function)}, for which mdgnn.ops.dual has no rule"
    )
