"""How far rounding may take the results of an op from the exact ones: a bound for each number of them.

A number is a sum of terms. Its bound is T times the number of roundings that a term may go through, times eps (Higham,
Accuracy and Stability of Numerical Algorithms, chapters 3 and 4). T, the sum of the absolute values of the terms, is
what the op's reference gives in float64 for the absolute values of its inputs, with differences turned into sums; for
derivatives, too, since autograd multiplies and adds alone.

Beside that, t, the place of r between two knots, has an absolute error, unless it is exact: r in units of the knots'
spacing is rounded where it is about the number G of intervals. It is worth G eps times the derivative of T with respect
to t.
"""

import math

import torch
from kernels import differentiable, everything
from torch.autograd import Function
from torch.overrides import TorchFunctionMode

from mdgnn.ops import TabulatedFilter, silu
from mdgnn.ops.static import flatten

ROUNDINGS = 20  # of a term, beside those of its sum: of the edges of a row, column or interval, or of features
ROUNDINGS_OF_T = 3  # that of r times 1 / spacing, and that of 1 / spacing, which is a quotient
SUMS = 1, 2, 5  # in each other: of an output, a derivative (of its square), a second one (of the square of that)
STEP = 1e-6  # of t, for the derivative of T
# |silu(x)| <= 1.1 |x|, and bounds on its derivatives, from the first on.
SILU = 0.0, 1.1, 0.5, 0.31, 0.5, 0.66


class BoundOfSilu(Function):
    """On the k-th derivative at a sum, whose rounding changes it by the next."""

    @staticmethod
    def forward(ctx, terms, k):
        ctx.save_for_backward(terms)
        ctx.k = k
        return SILU[k] + SILU[k + 1] * terms

    @staticmethod
    def backward(ctx, grad):
        (terms,) = ctx.saved_tensors
        return grad * BoundOfSilu.apply(terms, ctx.k + 1), None


class AbsoluteTerms(TorchFunctionMode):
    """In which references, of inputs that are not negative, add up the absolute values of their terms."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = function.__name__.strip("_")
        if function is silu:
            return BoundOfSilu.apply(args[0], 0)
        if name == "neg":
            return args[0]
        if name == "sub" and args[1].is_floating_point():  # from r an integer is taken, which leaves t
            return args[0] + args[1]
        if name in ("mul", "rmul"):
            args = [x if isinstance(x, torch.Tensor) else abs(x) for x in args]
        return function(*args, **(kwargs or {}))


def in_float64(inputs, change=lambda x: x):
    return [None if x is None else change(x.detach().double()).requires_grad_(x.requires_grad) for x in inputs]


def terms_of(op, static, inputs, reference):
    """T for each result of `everything`; inputs are not negative."""
    if getattr(static, "reduce", "") == "max":  # which of the absolute values is another: not more than their sum
        return terms_of(op, static._replace(reduce="sum"), inputs, reference)[: 1 + len(differentiable(inputs))]
    with AbsoluteTerms():
        return everything(op, static, inputs, reference)


def moved(argument):
    """A filter by the table whose polynomials of t are those of t + STEP; all else stays."""
    if not isinstance(argument, TabulatedFilter):
        return argument
    a, b, c, d = argument.table.coefficients.unbind(1)
    values = a + STEP * (b + STEP * (c + STEP * d)), b + STEP * (2 * c + STEP * 3 * d), c + STEP * 3 * d, d
    return argument._replace(table=argument.table._replace(coefficients=torch.stack(values, dim=1)))


def places(filter):
    """Of distances, in units of the knots' spacing, which is exact if it is a power of two."""
    n_intervals = len(filter.table.coefficients)
    return filter.r * (n_intervals / filter.table.cutoff), n_intervals / filter.table.cutoff


def places_are_exact(filter):
    rounded, per_unit = places(filter)
    exact, _ = places(filter._replace(r=filter.r.double()))
    return math.frexp(per_unit)[0] == 0.5 and torch.equal(rounded.double(), exact)


def longest_sum(static, inputs, filters):
    """The most edges of a row, a column or an interval, or features of an edge."""
    row_ptr, index = flatten(static)[:2]  # of the first rows, by receiver, that all ops with kernels have
    counts = [row_ptr.diff(), *([] if index is None else [torch.bincount(index)])]
    counts += [torch.bincount(places(filter)[0].long()) for filter in filters]
    features = [x[:1].numel() for x in inputs if x is not None and x.ndim > 1]
    return max([int(c.max()) for c in counts if c.numel()] + features + [1])


def largest_excess(op, static, inputs, results):
    """The largest error of the results that `everything` gave, as a fraction of its bound: 1 or less is rounding.

    `inputs` are those that the kernel was given, on the CPU.
    """
    exact, absolute = everything(op, static, in_float64(inputs), op.reference), in_float64(inputs, torch.abs)
    terms, by_t = terms_of(op, static, absolute, op.reference), [None] * len(exact)
    filters = [
        f
        for f in op.arguments(static, *(None if x is None else x.detach() for x in inputs))
        if isinstance(f, TabulatedFilter)
    ]
    for filter in filters:
        if not places_are_exact(filter):
            n_intervals = len(filter.table.coefficients)
            after = terms_of(op, static, absolute, lambda *given: op.reference(*map(moved, given)))
            by_t = [None if t is None else n_intervals * (u - t) / STEP for t, u in zip(terms, after, strict=True)]
    longest = longest_sum(static, inputs, filters)
    n_inputs, largest = len(differentiable(inputs)), 0.0
    n_outputs = len(exact) - n_inputs * op.max_derivatives(static)
    for k, (ours, x, of_x, of_t) in enumerate(zip(results, exact, terms, by_t, strict=True)):
        ours, x, of_x, of_t = (torch.zeros(1) if t is None else t.detach() for t in (ours, x, of_x, of_t))
        derivatives = 0 if k < n_outputs else 1 + (k - n_outputs) // n_inputs
        eps = torch.finfo(inputs[0].dtype if derivatives else ours.dtype).eps  # two roundings: the reference has one
        bound = eps * (SUMS[derivatives] * (longest + ROUNDINGS) * of_x + ROUNDINGS_OF_T * of_t)
        error = (ours.double() - x).abs()
        fractions = torch.where(error == 0, 0.0, error / bound).flatten()
        largest = torch.cat([fractions, torch.full((1,), largest)]).max().item()  # NaN, if one is
    return largest
