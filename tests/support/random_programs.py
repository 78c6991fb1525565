"""Programs for the engine that nobody wrote, and what they mean, in plain torch."""

import json
import random
from math import log
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

CUTOFF, ELEMENTS = 2.0, (1, 2)
SCALE, SHIFT = [0.5, 2.0], [1.0, -3.0]

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
POSITIVE = ("power", "reciprocal", "sqrt", "log", "log1p")  # what they take is made positive first
OTHERS = {
    "add": lambda x, w, shape: sum(x[1:], start=x[0]).expand(-1, *shape),
    "subtract": lambda x, w, shape: x[0] - x[1],
    "multiply": lambda x, w, shape: x[0] * x[1],
    "divide": lambda x, w, shape: x[0] / x[1],
    "add_weight": lambda x, w, shape: x[0] + w[0],
    "multiply_weight": lambda x, w, shape: x[0] * w[0],
    "copy": lambda x, w, shape: x[0].expand(-1, *shape),
    "sum_components": lambda x, w, shape: x[0].sum(1, keepdim=True),
    "sum_channels": lambda x, w, shape: x[0].sum(2, keepdim=True),
    "dot": lambda x, w, shape: (x[0] * x[1]).sum(1, keepdim=True),
    "linear": lambda x, w, shape: sum(a @ b.T for a, b in zip(x, w, strict=False)) + (w[-1] if len(w) > len(x) else 0),
}
MESSAGES = ("cfconv", "painn_message", "concat_message_table")
OPERATIONS = {*UNARY, *OTHERS, *MESSAGES, "embed", "zeros"}

# Of version 1, which has one or three components, and no tables but weights.
OLD_NAMES = {"add_constant": "plus", "clamp_min": "at_least", "sqrt": "root"}
OLD_UNARY = ["add_constant", "clamp_min", "sqrt", "silu", "shifted_softplus"]


class Step(NamedTuple):
    op: str
    inputs: list
    outputs: list
    weights: list
    numbers: list


class Steps:
    """Arrays, and instructions on them: of a program, or of a table."""

    def __init__(self, rng, weights, normal, space, old=False):
        self.rng, self.weights, self.normal, self.space, self.old = rng, weights, normal, space, old
        self.arrays, self.instructions, self.computed = [], [], []

    def shape(self, v):
        return tuple(self.arrays[v][1:3])

    def array(self, components, channels, *place):
        self.arrays.append([self.space, components, channels, *place])
        return len(self.arrays) - 1

    def weight(self, *shape):
        name = f"w{len(self.weights)}"
        self.weights[name] = self.normal(0, 0.5 / np.sqrt(shape[-1]), shape)
        return name

    def pick(self, components=None, channels=None, whole=False):
        """An array that has been computed, or None."""
        fits = [
            v
            for v in self.computed
            if components in (None, self.arrays[v][1])
            and channels in (None, self.arrays[v][2])
            and not (whole and len(self.arrays[v]) > 3)
        ]
        return self.rng.choice(fits) if fits else None

    def add(self, op, inputs, *shapes, weights=(), numbers=()):
        """One more instruction, and ranges of what it gives."""
        outputs = [self.array(*shape) for shape in shapes]
        self.instructions.append(Step(op, list(inputs), outputs, list(weights), list(numbers)))
        for v in outputs:
            self.computed.append(v)
            components, channels = self.shape(v)
            if components * channels > 1 and self.rng.random() < 0.5:
                k = components if self.old or self.rng.random() < 0.5 else self.rng.randint(1, components)
                c = self.rng.randint(1, channels)
                first = 0 if self.old else self.rng.randint(0, components - k)
                self.computed.append(self.array(k, c, v, first, self.rng.randint(0, channels - c)))
        return outputs[0]

    def linear(self, channels=None, components=None):
        channels = channels or self.rng.choice([1, 2, 3, 5, 9, 18])
        components = components or self.rng.choice([1, 1, 3])
        first = self.pick(components)
        inputs = [self.zeros(components) if first is None else first]
        inputs += [self.pick(components) for _ in range(self.rng.choice([0, 0, 1, 2]))]
        weights = [self.weight(channels, self.shape(v)[1]) for v in inputs]
        weights += [self.weight(channels)] if self.rng.random() < 0.5 else []
        return self.add("linear", inputs, (components, channels), weights=weights)

    def zeros(self, components=3, channels=2):
        return self.add("zeros", [], (components, channels))

    def alike(self, v):
        """An array that broadcasts together with another one."""
        k, c = self.shape(v)
        if self.old:
            return self.pick(k, c)
        fits = [u for u in self.computed if self.shape(u)[0] in (1, k) and self.shape(u)[1] in (1, c)]
        return self.rng.choice(fits)

    def sum(self):
        x = self.pick()
        inputs = [x, *(self.alike(x) for _ in range(self.rng.choice([0, 1, 2])))]
        self.rng.shuffle(inputs)
        self.add("add", inputs, self.shape(x))

    def product(self):
        x = self.pick()
        inputs = [x, self.alike(x)]
        self.rng.shuffle(inputs)
        self.add("multiply" if self.old else self.rng.choice(["multiply", "subtract"]), inputs, self.shape(x))

    def vectors(self):
        v = self.pick(3)
        v = self.zeros() if v is None else v
        _, channels = self.shape(v)
        x = self.pick(1, channels)
        self.add("multiply", [self.linear(channels, 1) if x is None else x, v], (3, channels))
        self.add("dot", [v, self.pick(3, channels)], (1, channels))

    def divide(self):
        x = self.pick(1)
        s = self.linear(1, 1) if self.old else self.alike(x)
        square = self.add("multiply", [s, s], self.shape(s))
        self.add("divide", [x, self.add("add_constant", [square], self.shape(s), numbers=[1.0])], self.shape(x))

    def elementwise(self, op=None):
        x = self.pick()
        shape = self.shape(x)
        op = op or self.rng.choice(OLD_UNARY if self.old else list(UNARY))
        if op in POSITIVE:
            square = self.add("multiply", [x, x], shape)
            x = self.add("add_constant", [square], shape, numbers=[0.5])
        constant = [self.rng.uniform(-0.2, 0.2)] if op in ("scale", "add_constant", "clamp_min") else []
        self.add(op, [x], shape, numbers=[self.rng.uniform(-2, 2)] if op == "power" else constant)

    def reduction(self):
        v = self.pick()
        k, c = self.shape(v)
        self.add("sum_components", [v], (1, c))
        self.add("sum_channels", [v], (k, 1))

    def weighted(self):
        v = self.pick()
        k, c = self.shape(v)
        c = self.rng.randint(2, 5) if c == 1 else c
        self.add(self.rng.choice(["add_weight", "multiply_weight"]), [v], (k, c), weights=[self.weight(c)])

    def copied(self):
        v = self.pick()
        k, c = self.shape(v)
        self.add("copy", [v], (self.rng.randint(1, 5) if k == 1 else k, self.rng.randint(1, 5) if c == 1 else c))


class RandomProgram(Steps):
    """What `mdgnn._C.Engine` takes; all kinds of instructions and messages, arrays that are ranges of others, overlap,
    are used twice or not at all. `old`: of version 1 too."""

    def __init__(self, seed, old=False):
        rng = random.Random(seed)
        super().__init__(rng, {}, np.random.default_rng(seed).normal, "atom", old)
        self.tables = []
        self.embed(rng.choice([2, 4, 7, 17]))
        kinds = ["embed", "zeros", "sum", "product", "vectors", "divide", "elementwise"]
        kinds += [] if old else ["reduction", "weighted", "copied", *["elementwise"] * 6]
        for _ in range(rng.randint(3, 14)):
            getattr(self, rng.choice(["linear"] * 3 + kinds + list(MESSAGES) * 3))()
        one = self.pick(1, 1) if rng.random() < 0.3 else None
        self.energies = self.linear(1, 1) if one is None else one
        if rng.random() < 0.3:
            self.linear(3, 1)  # after the energy

    def arguments(self):
        header = {"dtype": "float64", "readout": "sum", "cutoff": CUTOFF, "energies": self.energies}
        header |= {"scale": SCALE, "shift": SHIFT, "element_of": [-1, 0, 1]}
        header |= self.version_1() if self.old else self.version_2()
        return json.dumps(header), self.weights

    def version_2(self):
        return {
            "version": 2,
            "arrays": self.arrays,
            "instructions": [i._asdict() for i in self.instructions],
            "tables": self.tables,
        }

    def version_1(self):
        values = [[k, c, *((place[0], place[2]) if place else (-1, 0))] for _, k, c, *place in self.arrays]
        instructions = []
        for op, inputs, outputs, weights, numbers in self.instructions:
            if op == "multiply" and self.shape(inputs[0]) != self.shape(inputs[1]):
                op = "scale_vectors"
            if op == "concat_message_table":  # which named what its way back needs
                outputs = [*outputs, len(values)]
                values.append([1, self.shape(outputs[0])[1], -1, 0])
            constant = numbers[0] if numbers else 0.0
            names = ("code", "inputs", "outputs", "weights", "constant")
            step = (OLD_NAMES.get(op, op), inputs, outputs, weights, constant)
            instructions.append(dict(zip(names, step, strict=True)))
        return {"version": 1, "values": values, "instructions": instructions}

    def embed(self, channels=3):
        return self.add("embed", [], (1, channels), weights=[self.weight(2, channels)])

    def table(self, width):
        """The name of a weight, or of a table."""
        if self.old or self.rng.random() < 0.5:
            return self.weight(6, 4, width)
        table = random_table(self.rng, self.weights, self.normal, f"t{len(self.tables)}", width)
        self.tables.append(table)
        return table["name"]

    def cfconv(self):
        x = self.pick(1, whole=True)
        self.add("cfconv", [x], self.shape(x), weights=[self.table(self.shape(x)[1])])

    def painn_message(self):
        v = self.pick(3, whole=True)
        v = self.zeros() if v is None else v
        _, channels = self.shape(v)
        x = self.pick(1, 3 * channels, whole=True)
        inputs = [self.linear(3 * channels, 1) if x is None else x, v]
        self.add("painn_message", inputs, (1, channels), (3, channels), weights=[self.table(3 * channels)])

    def concat_message_table(self):
        channels = self.rng.choice([1, 2, 3, 5])
        x = self.pick(1, 2 * channels, whole=True)
        x = self.linear(2 * channels, 1) if x is None else x
        self.add("concat_message_table", [x], (1, channels), (1, 1), weights=[self.table(channels + 1)])


def random_table(rng, weights, normal, name, width, knots=7):
    """A function of the distance that is not zero at the cutoff."""
    steps = Steps(rng, weights, normal, "edge")
    steps.computed.append(steps.array(1, 1))
    for _ in range(rng.randint(0, 6)):
        getattr(
            steps, rng.choice(["linear", "sum", "product", "divide", "reduction", "weighted", *["elementwise"] * 4])
        )()
    output = steps.linear(width, 1)
    header = {"name": name, "knots": knots, "cutoff": CUTOFF, "input": 0, "output": output}
    return header | {"arrays": steps.arrays, "instructions": [i._asdict() for i in steps.instructions]}


def run_steps(arrays, instructions, weights, values, others=lambda step, x, w, shape: None):
    """Values by array, with those that are there; `others` gives what this module does not know."""

    def array(v):
        _, k, c, *place = arrays[v]
        if not place:
            return values[v]
        return values[place[0]][:, place[1] : place[1] + k, place[2] : place[2] + c]

    for step in instructions:
        step = step if isinstance(step, Step) else Step(**step)
        x, w = [array(v) for v in step.inputs], [torch.from_numpy(weights[n]) for n in step.weights if n in weights]
        shape = tuple(arrays[step.outputs[0]][1:3])
        if step.op in UNARY:
            results = [UNARY[step.op](*x, *step.numbers)]
        elif step.op in OTHERS:
            results = [OTHERS[step.op](x, w, shape)]
        else:
            results = others(step, x, w, shape)
        values.update(zip(step.outputs, results, strict=True))
    return array


def coefficients_of(table, weights):
    """As `mdgnn.ops.tabulate`, by autograd."""
    r = torch.linspace(0, table["cutoff"], table["knots"], dtype=torch.float64)

    def function(r):
        values = {table["input"]: r[:, None, None]}
        others = lambda step, x, w, shape: [torch.zeros(len(r), *shape, dtype=torch.float64)]  # noqa: E731
        return run_steps(table["arrays"], table["instructions"], weights, values, others)(table["output"])[:, 0]

    f, s = torch.autograd.functional.jvp(function, r, torch.full_like(r, table["cutoff"] / (table["knots"] - 1)))
    d = f.diff(dim=0)
    return torch.stack([f[:-1], s[:-1], 3 * d - 2 * s[:-1] - s[1:], s[:-1] + s[1:] - 2 * d], dim=1)


def meaning(program, elements, senders, receivers, vectors, share):
    """Energies of atoms and forces, by autograd; elements are 0 or 1."""
    vectors = torch.tensor(vectors, requires_grad=True)
    elements, senders, receivers, share = map(torch.from_numpy, (elements, senders, receivers, share))
    r = vectors.norm(dim=1)
    unit, n = vectors / r[:, None], len(elements)
    tables = {t["name"]: coefficients_of(t, program.weights) for t in program.tables}

    def filters(name):
        table = tables[name] if name in tables else torch.from_numpy(program.weights[name])
        u = r * (len(table) / CUTOFF)
        g = u.detach().floor().long().clamp(max=len(table) - 1)
        t, c = (u - g)[:, None], table[g]
        return torch.where(r[:, None] < CUTOFF, ((c[:, 3] * t + c[:, 2]) * t + c[:, 1]) * t + c[:, 0], 0.0)

    def total(messages):
        return messages.new_zeros(n, *messages.shape[1:]).index_add(0, receivers, messages)

    def others(step, x, w, shape):
        if step.op == "embed":
            return [w[0][elements][:, None]]
        if step.op == "zeros":
            return [torch.zeros(n, *shape, dtype=torch.float64)]
        t = filters(*step.weights)
        if step.op == "cfconv":
            return [total(x[0][senders, 0] * t)[:, None]]
        if step.op == "painn_message":
            a, b, d = (x[0][senders, 0] * t).chunk(3, 1)
            return [total(a)[:, None], total(unit[:, :, None] * b[:, None] + x[1][senders] * d[:, None])]
        width = t.shape[1] - 1
        y = F.silu(x[0][senders, 0, :width] + x[0][receivers, 0, width:] + t[:, :-1])
        return [total(t[:, -1:] * y)[:, None], total(t[:, -1:])[:, None]]

    array = run_steps(program.arrays, program.instructions, program.weights, {}, others)
    scale, shift = (torch.tensor(x, dtype=torch.float64)[elements] for x in (SCALE, SHIFT))
    energies = shift + scale * array(program.energies)[:, 0, 0]
    g = torch.zeros_like(vectors)
    if energies.requires_grad:
        gradient = torch.autograd.grad((energies * share).sum(), vectors, allow_unused=True)[0]
        g = g if gradient is None else gradient
    return energies.detach().numpy(), g.new_zeros(n, 3).index_add(0, receivers, g).index_add(0, senders, -g).numpy()
