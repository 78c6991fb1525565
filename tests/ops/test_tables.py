"""What all ops with a table have in common: any width, edges beyond the cutoff, bits of each derivative alone."""

import pytest
import torch
from kernels import (
    devices,
    dtypes,
    some_distances,
    some_edges,
    some_table,
)

from mdgnn.ops import RadialTable, TabulatedFilter, cfconv, concat_message_table, painn_message

OPS = {"cfconv": cfconv, "concat_message_table": concat_message_table, "painn_message": painn_message}
ops = pytest.mark.parametrize("name", list(OPS))


def problem(name, n=5, n_edges=17, width=4, dtype=torch.float64, device="cpu"):
    """A function of the differentiable inputs, and those: features, coefficients, distances and directions."""
    edges = some_edges(n, n_edges, device)
    g = torch.Generator().manual_seed(4)
    r = some_distances(n_edges, device=device, dtype=dtype).detach()

    def random(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=g).to(device, dtype)

    inputs = {
        "cfconv": lambda: [random(n, width), r],
        "concat_message_table": lambda: [random(n, 2 * width), r],
        "painn_message": lambda: [random(n, 3 * width), random(n, 3, width), r, random(n_edges, 3)],
    }[name]()
    table = some_table({"cfconv": width, "concat_message_table": width + 1, "painn_message": 3 * width}[name])
    place = 2 if name == "painn_message" else 1  # of the table among the arguments

    def call(coefficients, *rest):
        filter = TabulatedFilter(RadialTable(coefficients, table.cutoff), rest[place])
        out = OPS[name](*rest[:place], filter, *rest[place + 1 :], edges)
        return (out,) if name == "cfconv" else out

    return call, [t.requires_grad_() for t in (table.coefficients.detach().to(device, dtype), *inputs)]


def loss(results):
    return sum((t * (1 + k)).square().sum() for k, t in enumerate(results))


@ops
@pytest.mark.parametrize("width", [1, 15, 16, 17, 63, 64, 65, 129, 512])
def test_every_width_gives_what_its_columns_give_alone(name, width):
    """Blocks of vectors, vectors and single numbers are sums over the same edges: results for x are the same bits."""
    call, (coefficients, x, *rest) = problem(name, width=width)
    parts = {"cfconv": 1, "concat_message_table": 2, "painn_message": 3}[name]
    wide = call(coefficients, x, *rest)[0]
    for f in {0, width // 2, width - 1}:
        columns = [f + k * width for k in range(parts)]
        of_table = [f, width] if name == "concat_message_table" else columns
        vectors = [rest[0][:, :, f : f + 1]] if name == "painn_message" else []
        narrow = call(
            coefficients[:, :, of_table].contiguous(), x[:, columns].contiguous(), *vectors, *rest[len(vectors) :]
        )
        assert torch.equal(wide[:, f], narrow[0][:, 0])


@devices
@ops
def test_edges_beyond_the_cutoff_contribute_exactly_nothing(name, device):
    """A skin's edges: results and gradients are those of the list without them."""
    call, inputs = problem(name, device=device)
    with torch.no_grad():
        inputs[0][:, 0] += 1.0  # a table that does not vanish at the cutoff
    r = inputs[3 if name == "painn_message" else 2]
    beyond = r.detach() >= 2.0
    assert beyond.any() and not beyond.all()
    out = call(*inputs)
    grads = torch.autograd.grad(loss(out), inputs)
    with torch.no_grad():
        r[beyond] = 2.0  # the cutoff itself is beyond
    again = call(*inputs)
    for a, b in zip((*out, *grads), (*again, *torch.autograd.grad(loss(again), inputs)), strict=True):
        assert torch.equal(a, b)
    assert not grads[3 if name == "painn_message" else 2][beyond].any()


@dtypes
@pytest.mark.parametrize("width", [1, 4, 24, 37])
@ops
def test_bits_of_a_derivative_do_not_depend_on_what_else_is_asked_for(name, width, dtype):
    """So a calculator, whose weights have no gradient, gives the forces of a model in training."""
    call, inputs = problem(name, 12, 60, width, dtype)
    every = torch.autograd.grad(loss(call(*inputs)), inputs)
    for k, expected in enumerate(every):
        alone = [t if m == k else t.detach() for m, t in enumerate(inputs)]
        (grad,) = torch.autograd.grad(loss(call(*alone)), alone[k])
        assert torch.equal(grad, expected)
