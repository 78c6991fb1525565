"""What all ops with a table have in common: operators for torch.compile, the end of the ladder, bits, any width."""

import pytest
import torch
from kernels import (
    assert_same_bits_for_any_number_of_threads,
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


def outputs_and_kept(name, found):
    """What an operator returns: the results, and what it keeps for its backward, which has no derivative."""
    found = found if isinstance(found, tuple) else (found,)
    n = {"cfconv": 1, "concat_message_table": 2, "painn_message": 2}[name]
    assert not any(t.requires_grad for t in found[n:])
    return found[:n], found[n:]


def loss(results):
    return sum((t * (1 + k)).square().sum() for k, t in enumerate(results))


@devices
@ops
def test_operators_pass_opcheck(name, device):
    call, inputs = problem(name, device=device)
    seen = []
    operator = getattr(torch.ops.mdgnn, name)
    edges = some_edges(device=device)
    rows, columns = edges.by_receiver, edges.by_sender
    place = 2 if name == "painn_message" else 1
    tensors = [*inputs[1 : 1 + place], inputs[0], *inputs[1 + place :]]
    graph = (rows.row_ptr, rows.index, columns.row_ptr, columns.index, columns.edge, 2.0)
    torch.library.opcheck(operator, (*tensors, *graph))
    out, kept = outputs_and_kept(name, operator(*tensors, *graph))
    for ours, theirs in zip(call(*inputs), out, strict=True):
        assert torch.equal(ours, theirs)
        seen.append(torch.ones_like(ours))
    wanted = [True] * len(tensors)
    torch.library.opcheck(getattr(torch.ops.mdgnn, f"{name}_backward"), (*seen, *kept, *tensors, *graph, wanted))


@devices
@ops
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own
def test_compiles_whole_with_both_derivatives(name, device):
    call, inputs = problem(name, device=device)

    def second(*inputs):
        first = torch.autograd.grad(loss(call(*inputs)), inputs, create_graph=True)
        return loss(call(*inputs)), *first

    compiled = torch.compile(lambda *inputs: loss(call(*inputs)), fullgraph=True, backend="aot_eager")
    grads = torch.autograd.grad(compiled(*inputs), inputs), second(*inputs)[1:]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


@devices
@ops
def test_operators_are_differentiable_twice(name, device):
    """The operators' own registration, without compiling: as the eager path, bit for bit."""
    call, inputs = problem(name, device=device)
    edges = some_edges(device=device)
    rows, columns = edges.by_receiver, edges.by_sender
    graph = (rows.row_ptr, rows.index, columns.row_ptr, columns.index, columns.edge, 2.0)
    place = 2 if name == "painn_message" else 1

    def operator(coefficients, *rest):
        return outputs_and_kept(
            name, getattr(torch.ops.mdgnn, name)(*rest[:place], coefficients, *rest[place:], *graph)
        )[0]

    found = []
    for function in (call, operator):
        first = torch.autograd.grad(loss(function(*inputs)), inputs, create_graph=True)
        found.append((*first, *torch.autograd.grad(loss(first), inputs)))
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


@devices
@ops
def test_third_derivative_is_refused(name, device):
    call, inputs = problem(name, device=device)
    first = torch.autograd.grad(loss(call(*inputs)), inputs, create_graph=True)
    second = torch.autograd.grad(loss(first), inputs[1], create_graph=True)
    with pytest.raises(RuntimeError, match=f"{name}: third derivatives"):
        torch.autograd.grad(second[0].sum(), inputs[1])


def all_results(call, inputs):
    """The outputs, with the first and second derivatives of a loss."""
    out = call(*inputs)
    first = torch.autograd.grad(loss(out), inputs, create_graph=True)
    return *out, *first, *torch.autograd.grad(loss(first), inputs)


@ops
@dtypes
def test_bits_do_not_depend_on_threads(name, dtype):
    call, inputs = problem(name, n=700, n_edges=20_000, width=33, dtype=dtype)
    assert_same_bits_for_any_number_of_threads(lambda: all_results(call, inputs))


@devices
@ops
@dtypes
@pytest.mark.parametrize("width", [33, 64])
def test_two_runs_have_the_same_bits(name, dtype, width, device):
    call, inputs = problem(name, n=700, n_edges=20_000, width=width, dtype=dtype, device=device)
    for a, b in zip(all_results(call, inputs), all_results(call, inputs), strict=True):
        assert torch.equal(a, b)


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
        (found,) = torch.autograd.grad(loss(call(*alone)), alone[k])
        assert torch.equal(found, expected)
