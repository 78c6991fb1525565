"""Programs for the engine that nobody wrote, and what they mean, in plain torch."""

import random
from math import log

import numpy as np
import torch
import torch.nn.functional as F

CUTOFF, ELEMENTS = 2.0, (1, 2)
SCALE, SHIFT = [0.5, 2.0], [1.0, -3.0]
MESSAGES = ("cfconv", "painn_message", "concat_message_table")


class RandomProgram:
    """Arrays, instructions and weights as `mdgnn._C.Engine` takes them; all kinds of instructions and messages, values
    that are slices, overlap, are used twice or not at all."""

    def __init__(self, seed):
        self.rng, self.normal = random.Random(seed), np.random.default_rng(seed).normal
        self.values, self.instructions, self.weights, self.known = [], [], [], []
        self.embed(self.rng.choice([2, 4, 7, 17]))
        for _ in range(self.rng.randint(3, 14)):
            getattr(self, self.rng.choice(["linear"] * 3 + [*KINDS, *MESSAGES * 3]))()
        one = self.pick(1, 1) if self.rng.random() < 0.3 else None
        self.energies = self.linear(1, 1) if one is None else one
        if self.rng.random() < 0.3:
            self.linear(3, 1)  # after the energy

    def arguments(self):
        read_out = (self.energies, SCALE, SHIFT, [-1, 0, 1], CUTOFF)
        return 8, self.values, self.instructions, self.weights, read_out

    def value(self, blocks, cols, base=-1, first=0):
        self.values.append((blocks, cols, base, first))
        return len(self.values) - 1

    def weight(self, *shape):
        self.weights.append(self.normal(0, 0.5 / np.sqrt(shape[-1]), shape))
        return len(self.weights) - 1

    def pick(self, blocks=None, cols=None, whole=False):
        """A value that is there, or None."""
        fits = [
            v
            for v in self.known
            if blocks in (None, self.values[v][0])
            and cols in (None, self.values[v][1])
            and not (whole and self.values[v][2] >= 0)
        ]
        return self.rng.choice(fits) if fits else None

    def add(self, code, inputs, outputs, weights=(), constant=0.0, hidden=0):
        self.instructions.append((code, list(inputs), outputs, list(weights), constant))
        for v in outputs[: len(outputs) - hidden]:
            self.known.append(v)
            blocks, cols = self.values[v][:2]
            if cols > 1 and self.rng.random() < 0.5:
                width = self.rng.randint(1, cols)
                self.known.append(self.value(blocks, width, v, self.rng.randint(0, cols - width)))
        return outputs[0]

    def same(self, code, inputs, constant=0.0):
        return self.add(code, inputs, [self.value(*self.values[inputs[0]][:2])], constant=constant)

    def embed(self, cols=3):
        return self.add("embed", [], [self.value(1, cols)], [self.weight(2, cols)])

    def zeros(self, blocks=3, cols=2):
        return self.add("zeros", [], [self.value(blocks, cols)])

    def linear(self, cols=None, blocks=None):
        cols, blocks = cols or self.rng.choice([1, 2, 3, 5, 9, 18]), blocks or self.rng.choice([1, 1, 3])
        first = self.pick(blocks)
        inputs = [self.zeros() if first is None else first]
        inputs += [self.pick(blocks) for _ in range(self.rng.choice([0, 0, 1, 2]))]
        weights = [self.weight(cols, self.values[v][1]) for v in inputs]
        weights += [self.weight(cols)] if self.rng.random() < 0.5 else []
        return self.add("linear", inputs, [self.value(blocks, cols)], weights)

    def sum(self):
        x = self.pick()
        self.same("add", [x, *(self.pick(*self.values[x][:2]) for _ in range(self.rng.choice([0, 1, 2])))])

    def multiply(self):
        x = self.pick()
        self.same("multiply", [x, self.pick(*self.values[x][:2])])

    def vectors(self):
        v = self.pick(3)
        v = self.zeros() if v is None else v
        cols = self.values[v][1]
        x = self.pick(1, cols)
        self.add("scale_vectors", [self.linear(cols, 1) if x is None else x, v], [self.value(3, cols)])
        self.add("dot", [v, self.pick(3, cols)], [self.value(1, cols)])

    def divide(self):
        x, s = self.pick(1), self.linear(1, 1)
        divisor = self.same("plus", [self.same("multiply", [s, s])], 1.0)
        self.same("divide", [x, divisor])

    def elementwise(self):
        x = self.pick()
        code = self.rng.choice(["silu", "shifted_softplus", "at_least", "plus", "root"])
        x = self.same("multiply", [x, x]) if code == "root" else x
        self.same(code, [x], 0.5 if code == "root" else self.rng.uniform(-0.2, 0.2))

    def cfconv(self):
        x = self.pick(1, whole=True)
        cols = self.values[x][1]
        self.add("cfconv", [x], [self.value(1, cols)], [self.weight(6, 4, cols)])

    def painn_message(self):
        v = self.pick(3, whole=True)
        v = self.zeros() if v is None else v
        cols = self.values[v][1]
        x = self.pick(1, 3 * cols, whole=True)
        inputs = [self.linear(3 * cols, 1) if x is None else x, v]
        self.add("painn_message", inputs, [self.value(1, cols), self.value(3, cols)], [self.weight(6, 4, 3 * cols)])

    def concat_message_table(self):
        cols = self.rng.choice([1, 2, 3, 5])
        x = self.pick(1, 2 * cols, whole=True)
        outputs = [self.value(1, cols), self.value(1, 1), self.value(1, cols)]
        x = self.linear(2 * cols, 1) if x is None else x
        self.add("concat_message_table", [x], outputs, [self.weight(6, 4, cols + 1)], hidden=1)


KINDS = ["embed", "zeros", "sum", "multiply", "vectors", "divide", "elementwise"]


def meaning(program, elements, senders, receivers, vectors, share):
    """Energies of atoms and forces, by autograd; elements are 0 or 1."""
    vectors = torch.tensor(vectors, requires_grad=True)
    elements, senders, receivers, share = map(torch.from_numpy, (elements, senders, receivers, share))
    r = vectors.norm(dim=1)
    unit, n, arrays = vectors / r[:, None], len(elements), {}

    def array(v):
        _, cols, base, first = program.values[v]
        return arrays[v] if base < 0 else arrays[base][:, :, first : first + cols]

    def filters(table):
        u = r * (len(table) / CUTOFF)
        g = u.detach().floor().long().clamp(max=len(table) - 1)
        t, c = (u - g)[:, None], table[g]
        return torch.where(r[:, None] < CUTOFF, ((c[:, 3] * t + c[:, 2]) * t + c[:, 1]) * t + c[:, 0], 0.0)

    def total(messages):
        return messages.new_zeros(n, *messages.shape[1:]).index_add(0, receivers, messages)

    def outputs(code, x, w, constant, shape):
        if code == "linear":
            return [sum(a @ b.T for a, b in zip(x, w, strict=False)) + (w[-1] if len(w) > len(x) else 0)]
        if code == "cfconv":
            return [total(x[0][senders, 0] * filters(w[0]))[:, None]]
        if code == "painn_message":
            a, b, d = (x[0][senders, 0] * filters(w[0])).chunk(3, 1)
            return [total(a)[:, None], total(unit[:, :, None] * b[:, None] + x[1][senders] * d[:, None])]
        if code == "concat_message_table":
            t = filters(w[0])
            width = t.shape[1] - 1
            y = F.silu(x[0][senders, 0, :width] + x[0][receivers, 0, width:] + t[:, :-1])
            return [total(t[:, -1:] * y)[:, None], total(t[:, -1:])[:, None]]
        simple = {
            "embed": lambda: w[0][elements][:, None],
            "zeros": lambda: torch.zeros(n, *shape, dtype=torch.float64),
            "add": lambda: sum(x),
            "multiply": lambda: x[0] * x[1],
            "scale_vectors": lambda: x[0] * x[1],
            "dot": lambda: (x[0] * x[1]).sum(1, keepdim=True),
            "divide": lambda: x[0] / x[1],
            "plus": lambda: x[0] + constant,
            "at_least": lambda: x[0].clamp(min=constant),
            "root": lambda: (x[0] + constant).sqrt(),
            "silu": lambda: F.silu(x[0]),
            "shifted_softplus": lambda: F.softplus(x[0]) - log(2),
        }
        return [simple[code]()]

    for code, inputs, outs, weights, constant in program.instructions:
        w = [torch.from_numpy(program.weights[k]) for k in weights]
        found = outputs(code, [array(v) for v in inputs], w, constant, program.values[outs[0]][:2])
        arrays.update(zip(outs, found, strict=False))
    scale, shift = (torch.tensor(x, dtype=torch.float64)[elements] for x in (SCALE, SHIFT))
    energies = shift + scale * array(program.energies)[:, 0, 0]
    g = torch.zeros_like(vectors)
    if energies.requires_grad:
        found = torch.autograd.grad((energies * share).sum(), vectors, allow_unused=True)[0]
        g = g if found is None else found
    return energies.detach().numpy(), g.new_zeros(n, 3).index_add(0, receivers, g).index_add(0, senders, -g).numpy()
