"""What is mathematically the same is captured the same: rewritings of lines of models.

Each is a line as the models have it and another way to write it. Both are put between the layers and the readout of a
small PaiNN; the programs of both mean what torch makes of either.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from ase import Atoms
from engines import with_given_tables
from laws import assert_equal
from program_meaning import meaning
from systems import icosahedron
from torch import nn

from mdgnn import Engine, Graph, PaiNN, evaluate
from mdgnn.engine import trace
from mdgnn.nn import shifted_softplus
from mdgnn.ops import polar, silu

WIDTH = 8
F64 = torch.float64


class Line(PaiNN):
    """A PaiNN with a line of its own, of features h (N, F) and vectors v (N, 3, F)."""

    def __init__(self, line):
        super().__init__(WIDTH, 1, 6, cutoff=2.5, n_knots=64)
        self.line, self.dropout, self.linear = line, nn.Dropout(0.5), nn.Linear(WIDTH, WIDTH)
        self.wide, self.activation = nn.Linear(2 * WIDTH, WIDTH), nn.SiLU()
        self.factor = nn.Parameter(torch.rand(WIDTH) + 0.5)

    def atomic_features(self, graph, vectors, types):
        h, (r, unit) = self.embedding(types), polar(vectors)
        v = h.new_zeros(h.shape[0], 3, h.shape[1])
        (filter,) = self.filters(r)  # interpolated by whoever runs the program, as torch does
        filter = filter._replace(table=filter.table._replace(function=None))
        h, v = self.layers[0](h, v, filter, unit, graph.edges)
        out = self.line(self, h, v)
        return out.square().sum(1) if out.ndim == 3 else out


def in_place_sum(m, h, v):
    h = silu(h)
    h += m.linear(h)
    return h


def in_place_product(m, h, v):
    return silu(h).mul_(2).add_(h)


def normal(m, h, v):
    """A norm whose slope is finite."""
    return ((v * v).sum(1) + 1e-2).sqrt()


REWRITINGS = {
    # products of scalars and vectors
    "broadcast by unsqueeze": (lambda m, h, v: h[:, None] * v, lambda m, h, v: h.unsqueeze(1) * v),
    "order of factors": (lambda m, h, v: h[:, None] * v, lambda m, h, v: v * h[:, None]),
    "broadcast by view": (lambda m, h, v: h[:, None] * v, lambda m, h, v: h.view(-1, 1, WIDTH) * v),
    "broadcast by reshape": (lambda m, h, v: h[:, None] * v, lambda m, h, v: h.reshape(len(h), 1, WIDTH).mul(v)),
    "broadcast by expand": (lambda m, h, v: h[:, None] * v, lambda m, h, v: h[:, None].expand(-1, 3, -1) * v),
    "broadcast by expand_as": (lambda m, h, v: h[:, None] * v, lambda m, h, v: h[:, None, :].expand_as(v) * v),
    "broadcast by transposing": (
        lambda m, h, v: h[:, None] * v,
        lambda m, h, v: (h * v.transpose(0, 1)).transpose(0, 1),
    ),
    "product by einsum": (lambda m, h, v: h[:, None] * v, lambda m, h, v: torch.einsum("nc,nkc->nkc", h, v)),
    "axes in another order": (
        lambda m, h, v: h[:, None] * v,
        lambda m, h, v: (v.permute(0, 2, 1) * h[..., None]).permute(0, 2, 1),
    ),
    # signs and numbers
    "negation": (lambda m, h, v: h * -1.0, lambda m, h, v: -h),
    "negation by subtraction": (lambda m, h, v: -h, lambda m, h, v: 0 - h),
    "difference of itself": (lambda m, h, v: h + (h - h), lambda m, h, v: h),
    "number on the left": (lambda m, h, v: h * 2.0, lambda m, h, v: 2 * h),
    "twice by addition": (lambda m, h, v: h * 2.0, lambda m, h, v: h + h),
    "division by a number": (lambda m, h, v: h * 0.25, lambda m, h, v: h / 4),
    "difference from a number": (lambda m, h, v: 1 - h, lambda m, h, v: -(h - 1)),
    "number as a tensor": (lambda m, h, v: h * 3.0, lambda m, h, v: torch.tensor(3.0) * h),
    "division by a row": (lambda m, h, v: h / m.factor, lambda m, h, v: h * (1 / m.factor)[None]),
    "division by an array": (lambda m, h, v: h / (1 + h * h), lambda m, h, v: h * (1 + h.square()).reciprocal()),
    "number over an array": (lambda m, h, v: 2 / (1 + h * h), lambda m, h, v: 2 * (1 + h**2) ** -1),
    "sum with factors": (lambda m, h, v: h + 2 * h * m.factor, lambda m, h, v: torch.addcmul(h, h, m.factor, value=2)),
    "add with a factor": (lambda m, h, v: h - 3 * silu(h), lambda m, h, v: torch.sub(h, silu(h), alpha=3)),
    "interpolation": (lambda m, h, v: h + 0.3 * (silu(h) - h), lambda m, h, v: torch.lerp(h, silu(h), 0.3)),
    # powers
    "square as a power": (lambda m, h, v: h * h, lambda m, h, v: h**2),
    "square by pow": (lambda m, h, v: h * h, lambda m, h, v: h.pow(2)),
    "square by square": (lambda m, h, v: h * h, lambda m, h, v: torch.square(h)),
    "cube": (lambda m, h, v: h * h * h, lambda m, h, v: h**3.0),
    "root as a power": (normal, lambda m, h, v: ((v**2).sum(dim=1) + 1e-2) ** 0.5),
    "inverse root": (lambda m, h, v: h / normal(m, h, v), lambda m, h, v: h * ((v * v).sum(-2) + 1e-2).rsqrt()),
    "power of a number": (lambda m, h, v: torch.exp(h * math.log(2)), lambda m, h, v: 2**h),
    # sums
    "dot product by einsum": (lambda m, h, v: (v * v).sum(1), lambda m, h, v: torch.einsum("nkc,nkc->nc", v, v)),
    "dot product by matmul": (
        lambda m, h, v: (v * v).sum(1),
        lambda m, h, v: (v.transpose(1, 2)[:, :, None] @ v.transpose(1, 2)[..., None]).squeeze(-1).squeeze(-1),
    ),
    "sum of columns by a product": (
        lambda m, h, v: h * h.sum(1, keepdim=True),
        lambda m, h, v: h * (h @ torch.ones(WIDTH, 1)),
    ),
    "sum without keepdim": (lambda m, h, v: h * h.sum(1, keepdim=True), lambda m, h, v: h * h.sum(-1)[:, None]),
    "mean": (lambda m, h, v: h - h.mean(1, keepdim=True), lambda m, h, v: h - (h.sum(1) / WIDTH).unsqueeze(1)),
    "components one by one": (
        lambda m, h, v: (v * v).sum(1),
        lambda m, h, v: v[:, 0] ** 2 + v[:, 1] ** 2 + v[:, 2] ** 2,
    ),
    "components unbound": (lambda m, h, v: (v * v).sum(1), lambda m, h, v: sum(x * x for x in v.unbind(1))),
    "norm": (
        lambda m, h, v: (v * v).sum(1).clamp(min=1e-30).sqrt(),
        lambda m, h, v: torch.linalg.vector_norm(v, dim=1),
    ),
    "norm as a method": (lambda m, h, v: torch.linalg.norm(v, dim=1), lambda m, h, v: v.norm(dim=1)),
    # layers
    "linear by matmul": (lambda m, h, v: m.linear(h), lambda m, h, v: h @ m.linear.weight.T + m.linear.bias),
    "linear by F.linear": (lambda m, h, v: m.linear(h), lambda m, h, v: F.linear(h, m.linear.weight, m.linear.bias)),
    "linear by addmm": (
        lambda m, h, v: m.linear(h),
        lambda m, h, v: torch.addmm(m.linear.bias, h, m.linear.weight.t()),
    ),
    "linear from the left": (
        lambda m, h, v: m.linear(h),
        lambda m, h, v: torch.matmul(m.linear.weight, h.t()).t() + m.linear.bias,
    ),
    "linear by einsum": (
        lambda m, h, v: m.linear(h),
        lambda m, h, v: torch.einsum("dc,nc->nd", m.linear.weight, h).add(m.linear.bias),
    ),
    "linear of vectors by einsum": (
        lambda m, h, v: F.linear(v, m.linear.weight),
        lambda m, h, v: torch.einsum("nkc,dc->nkd", v, m.linear.weight),
    ),
    "linear of flat vectors": (
        lambda m, h, v: F.linear(v, m.linear.weight),
        lambda m, h, v: (v.reshape(-1, WIDTH) @ m.linear.weight.T).view(-1, 3, WIDTH),
    ),
    "columns side by side": (
        lambda m, h, v: m.wide(torch.cat([h, normal(m, h, v)], dim=1)),
        lambda m, h, v: (
            F.linear(h, m.wide.weight[:, :WIDTH], m.wide.bias) + normal(m, h, v) @ m.wide.weight[:, WIDTH:].T
        ),
    ),
    "stacked and flattened": (
        lambda m, h, v: m.wide(torch.cat([h, h * h], dim=-1)),
        lambda m, h, v: m.wide(torch.concatenate((h, h.pow(2)), 1)),
    ),
    "last layer as a sum": (
        lambda m, h, v: h * (F.linear(h, m.factor[None])),
        lambda m, h, v: h * (h * m.factor).sum(1, keepdim=True),
    ),
    "matrix times vector": (
        lambda m, h, v: h * (F.linear(h, m.factor[None])),
        lambda m, h, v: h * torch.mv(h, m.factor)[:, None],
    ),
    "scaled layer": (lambda m, h, v: 0.5 * m.linear(h), lambda m, h, v: m.linear(h) / 2),
    "layer of the scaled": (
        lambda m, h, v: F.linear(2 * h, m.linear.weight),
        lambda m, h, v: 2 * h @ m.linear.weight.mT,
    ),
    "dropout in evaluation": (lambda m, h, v: h, lambda m, h, v: m.dropout(h)),
    # parts
    "split": (
        lambda m, h, v: torch.mul(*m.linear(h).chunk(2, 1)).sum(1, keepdim=True) * h,
        lambda m, h, v: torch.mul(*m.linear(h).split(WIDTH // 2, dim=1)).sum(1, keepdim=True) * h,
    ),
    "slices": (
        lambda m, h, v: torch.mul(*m.linear(h).chunk(2, 1)).sum(1, keepdim=True) * h,
        lambda m, h, v: (m.linear(h)[:, :4] * m.linear(h)[:, -4:]).sum(1)[:, None] * h,
    ),
    "narrow": (
        lambda m, h, v: torch.mul(*v.chunk(2, 2)).sum((1, 2))[:, None] * h,
        lambda m, h, v: (v.narrow(2, 0, 4) * v.narrow(-1, 4, 4)).sum(dim=(-1, -2), keepdim=True)[:, 0] * h,
    ),
    "one column": (lambda m, h, v: h * h[:, 3:4], lambda m, h, v: h * h.select(1, 3).unsqueeze(1)),
    "columns put back": (lambda m, h, v: h, lambda m, h, v: torch.cat(h.tensor_split(3, dim=1), dim=1)),
    "every other column": (
        lambda m, h, v: h * (h[:, 0] + h[:, 2] + h[:, 4] + h[:, 6])[:, None],
        lambda m, h, v: h * h[:, ::2].sum(1, keepdim=True),
    ),
    "flattened vectors": (lambda m, h, v: v * v, lambda m, h, v: v.flatten(1).square().unflatten(1, (3, WIDTH))),
    # activations
    "silu by sigmoid": (lambda m, h, v: silu(h), lambda m, h, v: h * torch.sigmoid(h)),
    "silu by torch": (lambda m, h, v: silu(h), lambda m, h, v: F.silu(h)),
    "silu as a module": (lambda m, h, v: silu(h), lambda m, h, v: m.activation(h)),
    "silu by exp": (lambda m, h, v: silu(h), lambda m, h, v: h / (1 + torch.exp(-h))),
    "sigmoid by exp": (lambda m, h, v: h.sigmoid(), lambda m, h, v: 1 / (1 + (-h).exp())),
    "sigmoid by tanh": (lambda m, h, v: torch.sigmoid(h), lambda m, h, v: 0.5 * (1 + torch.tanh(h / 2))),
    "softplus by log": (lambda m, h, v: F.softplus(h), lambda m, h, v: torch.log(1 + torch.exp(h))),
    "softplus by log1p": (lambda m, h, v: F.softplus(h), lambda m, h, v: torch.log1p(h.exp())),
    "softplus by log sigmoid": (lambda m, h, v: F.softplus(h), lambda m, h, v: -F.logsigmoid(-h)),
    "softplus with a rate": (lambda m, h, v: F.softplus(h, beta=2), lambda m, h, v: F.softplus(2 * h) / 2),
    "shifted softplus": (lambda m, h, v: shifted_softplus(h), lambda m, h, v: F.softplus(h) - math.log(2.0)),
    "shifted softplus by log": (lambda m, h, v: shifted_softplus(h), lambda m, h, v: torch.log(0.5 * h.exp() + 0.5)),
    "clamp by maximum": (lambda m, h, v: h.clamp(min=0.1), lambda m, h, v: torch.maximum(h, torch.tensor(0.1))),
    "relu": (lambda m, h, v: h.relu(), lambda m, h, v: F.relu(h)),
    "relu in place": (lambda m, h, v: torch.relu(h + 1), lambda m, h, v: F.relu(h + 1, inplace=True)),
    "clamp from above": (lambda m, h, v: -((-h).clamp(min=-0.1)), lambda m, h, v: h.clamp(max=0.1)),
    "leaky relu": (lambda m, h, v: F.leaky_relu(h, 0.1), lambda m, h, v: 0.55 * h + 0.45 * h.abs()),
    # residuals
    "order of a residual": (lambda m, h, v: h + m.linear(h), lambda m, h, v: m.linear(h) + h),
    "sum of three": (lambda m, h, v: h + silu(h) + m.linear(h), lambda m, h, v: m.linear(h) + (h + silu(h))),
    "in place": (lambda m, h, v: silu(h) + m.linear(silu(h)), in_place_sum),
    "in place, one after the other": (lambda m, h, v: 2 * silu(h) + h, in_place_product),
    # constants and elements
    "zeros": (lambda m, h, v: h, lambda m, h, v: torch.zeros(len(h), WIDTH) + h),
    "zeros like": (lambda m, h, v: h, lambda m, h, v: torch.zeros_like(h).add_(h)),
    "ones": (lambda m, h, v: h + 1, lambda m, h, v: h.new_ones(h.shape) + h),
    "full": (lambda m, h, v: h + 0.5, lambda m, h, v: torch.full_like(h, 0.5) + h),
    "copies": (lambda m, h, v: h * h, lambda m, h, v: h.clone() * h.contiguous().detach().to(h.dtype)),
}
assert len(REWRITINGS) >= 40


def made(line):
    torch.manual_seed(0)
    return Line(line).double().eval()


@pytest.fixture(autouse=True)
def in_double():
    """Constants that lines make are in the default dtype."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", list(REWRITINGS))
def test_rewriting(name):
    graph = Graph.from_atoms(icosahedron(2, 0.05), 2.5)
    edges = graph.atomic_numbers, graph.senders, graph.receivers, graph.vectors
    expected = evaluate(made(REWRITINGS[name][0]), graph)
    assert expected.forces.abs().max() > 1e-6, "a line that the energy depends on"
    for line in REWRITINGS[name]:
        energies, forces = meaning(trace(made(line)), *edges)
        for ours, theirs in ((energies, expected.energies), (forces, expected.forces)):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10 * float(theirs.abs().max()))


@pytest.mark.parametrize(
    "name",
    [
        *("broadcast by unsqueeze", "broadcast by expand", "order of factors", "product by einsum"),
        *("axes in another order", "negation", "number on the left", "division by a number", "square by pow"),
        *("square as a power", "root as a power", "dot product by einsum", "linear by matmul", "linear by addmm"),
        *("linear by einsum", "linear from the left", "linear of flat vectors", "last layer as a sum"),
        *(
            "matrix times vector",
            "scaled layer",
            "split",
            "slices",
            "one column",
            "columns put back",
            "silu by sigmoid",
        ),
        *("silu by exp", "silu by torch", "sigmoid by exp", "softplus by log", "softplus by log1p"),
        *("softplus by log sigmoid", "shifted softplus", "relu", "in place", "zeros", "zeros like", "copies"),
        *("dropout in evaluation", "columns side by side"),
    ],
)
def test_the_program_is_the_same_too(name):
    """Not only its meaning: nothing is lost by writing a line so."""
    one, other = (trace(made(line)).instructions for line in REWRITINGS[name])
    assert sorted(i.op for i in one) == sorted(i.op for i in other)


def in_a_loop(m, h, v):
    """A constant that changes in place between its uses."""
    shift, total = torch.zeros(WIDTH, dtype=h.dtype), h
    for k in range(3):
        shift[k] = 1.0 + k
        total = total + silu(h + shift)
    return total


def matrix_changed(m, h, v):
    weight = torch.eye(WIDTH, dtype=h.dtype)
    first = F.linear(h, weight)
    weight.mul_(2)
    return first + F.linear(h, weight)


# What at 0, where the components of planar vectors are, has the slope that torch gives it.
AT_ZERO = {
    "relu": lambda v: F.relu(v),
    "leaky relu": lambda v: F.leaky_relu(v, 0.3),
    "relu6": lambda v: F.relu6(v + 6) + F.relu6(v),
    "hardtanh": lambda v: F.hardtanh(v, 0.0, 0.5) + F.hardtanh(v, -0.5, 0.0),
    "clamp": lambda v: v.clamp(0.0, 0.5),
    "maximum": lambda v: torch.maximum(v, torch.tensor(0.0)),
    "minimum of arrays": lambda v: torch.minimum(v, 2 * v),
}


@pytest.mark.parametrize(("change", "derivatives"), [(in_a_loop, True), (matrix_changed, False)])
def test_constants_are_those_of_the_moment(change, derivatives):
    """Of a matrix that has changed torch has no derivatives."""
    torch.manual_seed(0)
    model = Line(change).double().requires_grad_(False)
    graph = Graph.from_atoms(icosahedron(2, 0.05), 2.5)
    energies = with_given_tables(model).evaluate(graph).energies
    expected = evaluate(model, graph, forces=False)
    torch.testing.assert_close(energies, expected.energies, rtol=1e-12, atol=1e-12)
    if derivatives:
        assert_equal(with_given_tables(model).evaluate(graph, virial=True), evaluate(model, graph, virial=True), F64)


@pytest.mark.parametrize("name", AT_ZERO)
def test_slopes_at_zero_are_those_of_torch(name):
    torch.manual_seed(0)
    model = Line(lambda m, h, v: h + AT_ZERO[name](v).sum(1)).double()
    graph = Graph.from_atoms(Atoms("H3", [[0, 0, 0], [1.1, 0, 0], [0.3, 1.2, 0]]), 2.5)
    expected = evaluate(model, graph, virial=True)
    assert_equal(with_given_tables(model).evaluate(graph, virial=True), expected, F64)


@pytest.mark.parametrize("function", [torch.expm1, torch.log1p])
def test_small_arguments_keep_their_digits(function):
    torch.manual_seed(0)
    model = Line(lambda m, h, v: function(h.abs() * 1e-6) * 1e6)
    graph = Graph.from_atoms(icosahedron(2, 0.05), 2.5)
    expected = evaluate(model.double(), graph)
    energies = Engine(model.float()).evaluate(graph).energies
    assert float((energies - expected.energies).abs().max()) < 1e-5 * float(expected.energies.abs().max())


def test_nearly_a_shift_is_none():
    torch.manual_seed(0)
    model, graph = Line(lambda m, h, v: F.softplus(h) - 0.6931471).double(), Graph.from_atoms(icosahedron(2, 0.05), 2.5)
    assert_equal(
        with_given_tables(model).evaluate(graph, virial=True), evaluate(model, graph, virial=True), torch.float64
    )
