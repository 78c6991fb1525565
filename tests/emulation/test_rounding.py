"""The bounds on rounding hold for the CPU's kernels, and not for results that are wrong."""

import pytest
import torch
from fuzz import WITH_KERNELS
from kernels import differentiable, dtypes, everything, outputs, problem_of
from rounding import largest_excess

from mdgnn.ops.examples import Example

variants = pytest.mark.parametrize(
    ("op", "options"), [pytest.param(op, o, id=f"{op.name}-{o}") for op in WITH_KERNELS for o in op.options]
)


@dtypes
@variants
def test_kernels_stay_within_their_bounds(op, options, dtype):
    static, inputs = problem_of(op, Example(8, 60, 5, dtype=dtype, options=options))
    assert largest_excess(op, static, inputs, everything(op, static, inputs)) <= 1


@dtypes
@variants
def test_a_wrong_number_is_seen(op, options, dtype):
    """In any of the results; but for second derivatives in float32, whose terms may be large beside their sum."""
    static, inputs = problem_of(op, Example(8, 60, 5, dtype=dtype, options=options))
    results = everything(op, static, inputs)
    n_results = (
        len(results) if dtype == torch.float64 else len(outputs(op, static, inputs)) + len(differentiable(inputs))
    )
    shown = [k for k, result in enumerate(results[:n_results]) if result is not None and result.any()]
    assert shown
    for k in shown:
        wrong = results[k]
        changed = wrong.detach().clone()
        place = changed.abs().argmax()
        changed.view(-1)[place] *= {torch.float64: 1 + 1e-5, torch.float32: 1.1}[dtype]
        assert largest_excess(op, static, inputs, [*results[:k], changed, *results[k + 1 :]]) > 1


def test_numbers_that_are_none_are_seen():
    op = WITH_KERNELS[0]
    static, inputs = problem_of(op, Example())
    first, *rest = everything(op, static, inputs)
    assert not largest_excess(op, static, inputs, [first * float("nan"), *rest]) <= 1
