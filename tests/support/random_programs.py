"""Programs for the engine that nobody wrote."""

import json
import random
import re
from typing import NamedTuple

import numpy as np
from program_meaning import UNARY

from mdgnn.engine.messages import MESSAGES, features_of, has_components, result_shapes
from mdgnn.ops.declaration import fits, shape_of

CUTOFF = 2.0
SCALE, SHIFT = [0.5, 2.0], [1.0, -3.0]

POSITIVE = ("power", "reciprocal", "sqrt", "log", "log1p")  # what they take is made positive first
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

    def pick(self, components=None, channels=None):
        """An array that has been computed, or None."""
        suitable = [
            v
            for v in self.computed
            if components in (None, self.arrays[v][1]) and channels in (None, self.arrays[v][2])
        ]
        return self.rng.choice(suitable) if suitable else None

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

    def linear(self, channels=None, components=None, first=None):
        channels = channels or self.rng.choice([1, 2, 3, 5, 9, 18])
        components = components or self.rng.choice([1, 1, 3])
        first = self.pick(components) if first is None else first
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
        suitable = [u for u in self.computed if self.shape(u)[0] in (1, k) and self.shape(u)[1] in (1, c)]
        return self.rng.choice(suitable)

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
    are used twice or not at all. `old`: of version 1 too. `properties`: with some, sometimes without energies."""

    def __init__(self, seed, old=False, properties=False):
        rng = random.Random(seed)
        super().__init__(rng, {}, np.random.default_rng(seed).normal, "atom", old)
        self.tables = []
        self.embed(rng.choice([2, 4, 7, 17]))
        kinds = ["embed", "zeros", "sum", "product", "vectors", "divide", "elementwise"]
        kinds += [] if old else ["reduction", "weighted", "copied", *["elementwise"] * 6]
        for _ in range(rng.randint(3, 14)):
            kind = rng.choice(["linear"] * 3 + kinds + list(MESSAGES) * 3)
            self.message(MESSAGES[kind]) if kind in MESSAGES else getattr(self, kind)()
        one = self.pick(1, 1) if rng.random() < 0.1 else None
        self.energies = self.linear(1, 1, self.of_edges()) if one is None else one
        if rng.random() < 0.3:
            self.linear(3, 1)  # after the energy
        self.properties = [self.property(k) for k in range(rng.randint(1, 3))] if properties else []
        if properties and rng.random() < 0.2:
            self.energies = None

    def property(self, number):
        """One number of atoms: any that there is, or one of a message or two of its own."""
        one = self.pick(1, 1) if self.rng.random() < 0.3 else None
        for _ in range(self.rng.randint(0, 2) if one is None else 0):
            self.message(MESSAGES[self.rng.choice(list(MESSAGES))])
        array = self.linear(1, 1, self.rng.choice(self.whole(1))) if one is None else one
        kind = self.rng.choice(["extensive", "intensive", "atomic"])
        scale, shift = ([self.rng.uniform(0.5, 2) for _ in SCALE] for _ in range(2))
        return {"name": f"p_{number}", "kind": kind, "array": array, "scale": scale, "shift": shift}

    def of_edges(self):
        """An array of one component that follows from a message: without one there are no forces."""
        follows = set()
        for i in self.instructions:
            if i.op in MESSAGES or any({v, *self.arrays[v][3:4]} & follows for v in i.inputs):
                follows |= {*i.outputs}
        suitable = [v for v in self.computed if self.arrays[v][1] == 1 and {v, *self.arrays[v][3:4]} & follows]
        if not suitable:
            self.message(MESSAGES["cfconv"])
            return self.instructions[-1].outputs[0]
        return self.rng.choice(suitable)

    def arguments(self):
        return json.dumps(self.version_1() if self.old else self.entry()), self.weights

    def entry(self):
        """Of version 2 or, with properties, 3."""
        with_properties = {"version": 3, "properties": self.properties} if self.properties else {}
        return self.version_2() | with_properties

    def version_2(self):
        return {
            **self.header(),
            "version": 2,
            "arrays": self.arrays,
            "instructions": [i._asdict() for i in self.instructions],
            "tables": self.tables,
        }

    def header(self):
        header = {"dtype": "float64", "readout": "sum", "cutoff": CUTOFF, "energies": self.energies}
        return header | {"scale": SCALE, "shift": SHIFT, "element_of": [-1, 0, 1]}

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
        return {**self.header(), "version": 1, "values": values, "instructions": instructions}

    def embed(self, channels=3):
        return self.add("embed", [], (1, channels), weights=[self.weight(2, channels)])

    def table(self, width):
        """The name of a weight, or of a table."""
        if self.old or self.rng.random() < 0.5:
            return self.weight(6, 4, width)
        table = random_table(self.rng, self.weights, self.normal, f"t{len(self.tables)}", width)
        self.tables.append(table)
        return table["name"]

    def message(self, op):
        """Of arrays that there are, where some fit."""
        sizes, inputs = {"N": 0}, []
        for array in reversed(features_of(op)):
            components = 3 if has_components(array) else 1
            suitable = [v for v in self.whole(components) if fits(array, self.axes(v), dict(sizes))]
            if suitable and self.rng.random() < 0.8:
                v = self.rng.choice(suitable)
                fits(array, self.axes(v), sizes)
            else:
                symbols = re.findall("[A-Z]", array.shape)
                sizes.update({x: self.rng.choice([1, 2, 3, 5]) for x in symbols if x not in sizes})
                v = self.linear(shape_of(array, sizes)[-1], components)
            inputs.insert(0, v)
        width = next(shape_of(a, sizes | {"G": 0})[2] for a in op.inputs if a.name == "coefficients")
        shapes = result_shapes(op, [self.shape(v) for v in inputs])
        self.add(op.name, inputs, *shapes, weights=[self.table(width)])

    def axes(self, v):
        """(N, C) or (N, K, C), with 0 for N."""
        k, c = self.shape(v)
        return (0, c) if k == 1 else (0, k, c)

    def whole(self, components):
        """Arrays that are no ranges of others."""
        return [v for v in self.computed if self.arrays[v][1] == components and len(self.arrays[v]) == 3]


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
