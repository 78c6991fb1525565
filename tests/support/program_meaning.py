"""What a program means: every instruction in plain torch, in float64, one after the other; forces by autograd."""

import torch
import torch.nn.functional as F
from random_programs import UNARY

BINARY = {
    "subtract": lambda x, y: x - y,
    "multiply": lambda x, y: x * y,
    "divide": lambda x, y: x / y,
    "multiply_weight": lambda x, w: x * w,
    "add_weight": lambda x, w: x + w,
}


class Arrays:
    """The arrays of a program, or of a table, (rows, components, channels)."""

    def __init__(self, of, n_rows, weights):
        self.of, self.n_rows, self.weights, self.values = of, n_rows, weights, {}

    def __getitem__(self, number):
        _, components, channels, *place = self.of.arrays[number]
        if not place:
            return self.values[number]
        base, k, c = place
        return self.values[base][:, k : k + components, c : c + channels]

    def run(self, instruction, messages=None):
        x = [self[v] for v in instruction.inputs]
        w = [self.weights[n].double() for n in instruction.weights if n in self.weights]
        shapes = [tuple(self.of.arrays[v][1:3]) for v in instruction.outputs]
        found = messages(instruction, x) if messages else None
        found = found or [self.result(instruction.op, x, w, instruction.numbers, shapes[0])]
        for number, value, shape in zip(instruction.outputs, found, shapes, strict=True):
            assert value.shape == (self.n_rows, *shape), f"{instruction}: {tuple(value.shape)} is not {shape}"
            self.values[number] = value

    def result(self, op, x, w, numbers, shape):
        if op in UNARY:
            return UNARY[op](x[0], *numbers)
        if op in BINARY:
            return BINARY[op](*x, *w)
        if op == "linear":
            assert len(w) in (len(x), len(x) + 1) and (len(w) == len(x) or shape[0] == 1), "a bias of components"
            return sum(a @ b.T for a, b in zip(x, w, strict=False)) + (w[-1] if len(w) > len(x) else 0)
        others = {
            "add": lambda: sum(x[1:], start=x[0]),
            "sum_components": lambda: x[0].sum(1, keepdim=True),
            "sum_channels": lambda: x[0].sum(2, keepdim=True),
            "dot": lambda: (x[0] * x[1]).sum(1, keepdim=True),
            "zeros": lambda: torch.zeros(self.n_rows, *shape, dtype=torch.float64),
            "copy": lambda: x[0].expand(self.n_rows, *shape),
            "embed": lambda: w[0][self.elements][:, None],
        }
        return others[op]()


def table_values(program, name, r):
    """What a message interpolates: the function of a table, (E,) -> (E, C)."""
    (table,) = (t for t in program.tables if t.name == name)
    arrays = Arrays(table, len(r), program.weights)
    arrays.values[table.input] = r[:, None, None]
    for instruction in table.instructions:
        arrays.run(instruction)
    return arrays[table.output][:, 0]


def interpolated(coefficients, cutoff, r):
    """A table that is a weight."""
    u = r * (len(coefficients) / cutoff)
    g = u.detach().floor().long().clamp(max=len(coefficients) - 1)
    t, c = (u - g)[:, None], coefficients.double()[g]
    return ((c[:, 3] * t + c[:, 2]) * t + c[:, 1]) * t + c[:, 0]


def meaning(program, numbers, senders, receivers, vectors):
    """Energies of atoms and forces."""
    vectors = torch.as_tensor(vectors, dtype=torch.float64).detach().requires_grad_()
    numbers, senders, receivers = (torch.as_tensor(x) for x in (numbers, senders, receivers))
    r, n = vectors.norm(dim=1), len(numbers)
    unit, near = vectors / r[:, None], (r < program.cutoff)[:, None]
    arrays = Arrays(program, n, program.weights)
    arrays.elements = torch.tensor(program.element_of)[numbers]

    def total(messages):
        return messages.new_zeros(n, *messages.shape[1:]).index_add(0, receivers, messages)

    def messages(instruction, x):
        if instruction.op not in ("cfconv", "painn_message", "concat_message_table"):
            return None
        (name,) = instruction.weights
        plain = name in program.weights
        f = interpolated(program.weights[name], program.cutoff, r) if plain else table_values(program, name, r)
        f = torch.where(near, f, 0.0)
        if instruction.op == "cfconv":
            return [total(x[0][senders, 0] * f)[:, None]]
        if instruction.op == "painn_message":
            a, b, c = (x[0][senders, 0] * f).chunk(3, 1)
            return [total(a)[:, None], total(unit[:, :, None] * b[:, None] + x[1][senders] * c[:, None])]
        width = f.shape[1] - 1
        y = F.silu(x[0][senders, 0, :width] + x[0][receivers, 0, width:] + f[:, :-1])
        return [total(f[:, -1:] * y)[:, None], total(f[:, -1:])[:, None]]

    for instruction in program.instructions:
        arrays.run(instruction, messages)
    scale, shift = (torch.tensor(v, dtype=torch.float64)[arrays.elements] for v in (program.scale, program.shift))
    energies = shift + scale * arrays[program.energies][:, 0, 0]
    (g,) = torch.autograd.grad(energies.sum(), vectors, allow_unused=True) if energies.requires_grad else (None,)
    g = torch.zeros_like(vectors) if g is None else g
    return energies.detach(), g.new_zeros(n, 3).index_add(0, receivers, g).index_add(0, senders, -g)
