"""What a program means: every instruction in plain torch, in float64, one after the other; forces by autograd."""

import json
from math import log
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from mdgnn.engine.program import Instruction, Program, Table

UNARY = {
    "scale": lambda x, c: x * c,
    "add_constant": lambda x, c: x + c,
    "clamp_min": lambda x, c: x.clamp(min=c),
    "relu": torch.relu,
    "expm1": torch.expm1,
    "log1p": torch.log1p,
    "power": lambda x, c: x**c,
    "reciprocal": lambda x: 1 / x,
    "sqrt": torch.sqrt,
    "square": torch.square,
    "exp": torch.exp,
    "log": torch.log,
    "sin": torch.sin,
    "cos": torch.cos,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "softplus": lambda x: torch.logaddexp(x, torch.zeros_like(x)),  # F.softplus is x beyond 20
    "shifted_softplus": lambda x: torch.logaddexp(x, torch.zeros_like(x)) - log(2),
    "abs": torch.abs,
}
BINARY = {
    "subtract": lambda x, y: x - y,
    "multiply": lambda x, y: x * y,
    "divide": lambda x, y: x / y,
    "multiply_weight": lambda x, w: x * w,
    "add_weight": lambda x, w: x + w,
}
OTHERS = {  # of inputs, weights, elements, and the shape (N, K, C) of the result
    "add": lambda x, w, elements, shape: sum(x[1:], start=x[0]),
    "linear": lambda x, w, elements, shape: sum(a @ b.T for a, b in zip(x, w, strict=False)) + sum(w[len(x) :]),
    "sum_components": lambda x, w, elements, shape: x[0].sum(1, keepdim=True),
    "sum_channels": lambda x, w, elements, shape: x[0].sum(2, keepdim=True),
    "dot": lambda x, w, elements, shape: (x[0] * x[1]).sum(1, keepdim=True),
    "copy": lambda x, w, elements, shape: x[0].expand(shape),
    "zeros": lambda x, w, elements, shape: torch.zeros(shape, dtype=torch.float64),
    "embed": lambda x, w, elements, shape: w[0][elements][:, None],
}


class Edges(NamedTuple):
    """Where messages go: atoms (E,), directions (E, 3), and the number of atoms."""

    senders: torch.Tensor
    receivers: torch.Tensor
    unit: torch.Tensor
    n_atoms: int

    def total(self, messages):
        """Over the edges of each receiver."""
        return messages.new_zeros(self.n_atoms, *messages.shape[1:]).index_add(0, self.receivers, messages)


def cfconv(edges, f, x):
    return [edges.total(x[edges.senders, 0] * f)[:, None]]


def painn_message(edges, f, x, v):
    a, b, c = (x[edges.senders, 0] * f).chunk(3, 1)
    return [
        edges.total(a)[:, None],
        edges.total(edges.unit[:, :, None] * b[:, None] + v[edges.senders] * c[:, None]),
    ]


def concat_message_table(edges, f, ends):
    width = f.shape[1] - 1
    y = F.silu(ends[edges.senders, 0, :width] + ends[edges.receivers, 0, width:] + f[:, :-1])
    return [edges.total(f[:, -1:] * y)[:, None], edges.total(f[:, -1:])[:, None]]


# Of edges, values of the filter (E, C), and inputs.
MESSAGES = {"cfconv": cfconv, "painn_message": painn_message, "concat_message_table": concat_message_table}
OPERATIONS = {*UNARY, *BINARY, *OTHERS, *MESSAGES}


class Arrays:
    """The arrays of a program, or of a table, (rows, components, channels)."""

    def __init__(self, of, n_rows, weights, elements=None):
        self.of, self.n_rows, self.elements, self.values = of, n_rows, elements, {}
        self.weights = {name: weight.double() for name, weight in weights.items()}

    def __getitem__(self, number):
        _, components, channels, *place = self.of.arrays[number]
        if not place:
            return self.values[number]
        base, k, c = place
        return self.values[base][:, k : k + components, c : c + channels]

    def run(self, instruction, message=None):
        """`message`: (instruction, inputs) -> the results of an instruction that sums over edges."""
        op, x = instruction.op, [self[v] for v in instruction.inputs]
        shapes = [(self.n_rows, *self.of.arrays[v][1:3]) for v in instruction.outputs]
        if op in MESSAGES:
            results = message(instruction, x)
        else:
            w = [self.weights[name] for name in instruction.weights]
            if op in UNARY:
                results = [UNARY[op](*x, *instruction.numbers)]
            elif op in BINARY:
                results = [BINARY[op](*x, *w)]
            else:
                results = [OTHERS[op](x, w, self.elements, shapes[0])]
        for number, value, shape in zip(instruction.outputs, results, shapes, strict=True):
            assert value.shape == shape, f"{instruction}: {tuple(value.shape)} is not {shape}"
            self.values[number] = value


def function_of(table, weights):
    """(E,) distances -> (E, C): what a table is of."""

    def function(r):
        arrays = Arrays(table, len(r), weights)
        arrays.values[table.input] = r[:, None, None]
        for instruction in table.instructions:
            arrays.run(instruction)
        return arrays[table.output][:, 0]

    return function


def coefficients_of(table, weights):
    """As `mdgnn.ops.tabulate`, by autograd."""
    r = torch.linspace(0, table.cutoff, table.knots, dtype=torch.float64)
    spacing = torch.full_like(r, table.cutoff / (table.knots - 1))
    f, s = torch.autograd.functional.jvp(function_of(table, weights), r, spacing)
    d = f.diff(dim=0)
    return torch.stack([f[:-1], s[:-1], 3 * d - 2 * s[:-1] - s[1:], s[:-1] + s[1:] - 2 * d], dim=1)


def interpolated(coefficients, cutoff, r):
    """(E, C) from coefficients (G - 1, 4, C)."""
    u = r * (len(coefficients) / cutoff)
    g = u.detach().floor().long().clamp(max=len(coefficients) - 1)
    t, c = (u - g)[:, None], coefficients.double()[g]
    return ((c[:, 3] * t + c[:, 2]) * t + c[:, 1]) * t + c[:, 0]


def as_table(entry):
    """A table from what JSON says of it."""
    return Table(**{**entry, "instructions": [Instruction(**i) for i in entry["instructions"]]})


def as_program(header, weights):
    """A program of version 2 or 3 from what JSON says of it, and weights in numpy."""
    return Program.from_json(json.dumps(header), {name: torch.from_numpy(np.asarray(w)) for name, w in weights.items()})


def meaning(program, numbers, senders, receivers, vectors, *, share=None, tabulated=False):
    """Energies of atoms and forces; None and zeros of a program that has no energies.

    share: (N,), of the atoms' energies in what the forces are the gradient of; all of them without. tabulated: tables
    are interpolated between their knots, as the engine does; otherwise a message is given their functions.
    """
    vectors = torch.as_tensor(vectors, dtype=torch.float64).detach().requires_grad_()
    senders, receivers = (torch.as_tensor(x) for x in (senders, receivers))
    n, g, energies = len(numbers), None, None
    if program.energies is not None:
        arrays = arrays_of(program, numbers, senders, receivers, vectors, tabulated)
        energies = read_out(arrays, program.energies, program.scale, program.shift)
        share = torch.ones(n, dtype=torch.float64) if share is None else torch.as_tensor(share)
        if energies.requires_grad:
            (g,) = torch.autograd.grad((energies * share).sum(), vectors, allow_unused=True)
        energies = energies.detach()
    g = torch.zeros_like(vectors) if g is None else g
    return energies, g.new_zeros(n, 3).index_add(0, receivers, g).index_add(0, senders, -g)


def properties_meant(program, numbers, senders, receivers, vectors, *, tabulated=False):
    """(P, N): what a program says of atoms beside the energy."""
    senders, receivers = (torch.as_tensor(x) for x in (senders, receivers))
    vectors = torch.as_tensor(vectors, dtype=torch.float64)
    arrays = arrays_of(program, numbers, senders, receivers, vectors, tabulated)
    return torch.stack([read_out(arrays, p.array, p.scale, p.shift) for p in program.properties])


def read_out(arrays, number, scale, shift):
    """(N,): shift + scale * array, of the atoms' elements."""
    scale, shift = (torch.tensor(v, dtype=torch.float64)[arrays.elements] for v in (scale, shift))
    return shift + scale * arrays[number][:, 0, 0]


def arrays_of(program, numbers, senders, receivers, vectors, tabulated):
    """All arrays of a program."""
    numbers = torch.as_tensor(numbers)
    r, n = vectors.norm(dim=1), len(numbers)
    unit, near = vectors / r[:, None], (r < program.cutoff)[:, None]
    arrays = Arrays(program, n, program.weights, torch.tensor(program.element_of)[numbers])
    tables = {table.name: table for table in program.tables}

    def filters(name):
        if name not in tables:
            return interpolated(program.weights[name], program.cutoff, r)
        if tabulated:
            return interpolated(coefficients_of(tables[name], program.weights), tables[name].cutoff, r)
        return function_of(tables[name], program.weights)(r)

    edges = Edges(senders, receivers, unit, n)

    def message(instruction, x):
        (name,) = instruction.weights
        return MESSAGES[instruction.op](edges, torch.where(near, filters(name), 0.0), *x)

    for instruction in program.instructions:
        arrays.run(instruction, message)
    return arrays
