"""Programs of version 1, which the compiled engine reads so far: from and to those of version 2."""

from typing import Any

import torch
from torch import Tensor

from mdgnn import _C
from mdgnn.engine.algebra import ELEMENTWISE
from mdgnn.engine.program import Instruction, Program, Table, UnsupportedError, names_of
from mdgnn.ops import tabulate

_NAMES = {"add_constant": "plus", "clamp_min": "at_least", "shifted_softplus": "shifted_softplus", "silu": "silu"}


def engine_of(program: Program) -> Any:
    values, instructions, weights, read_out = arguments(program)
    itemsize = torch.empty(0, dtype=program.dtype).element_size()
    return _C.Engine(itemsize, values, instructions, [w.numpy() for w in weights], read_out)


def arguments(program: Program) -> Any:
    """What the compiled engine takes."""
    writer = _Writer(program)
    for instruction in program.instructions:
        writer.write(instruction)
    read_out = (program.energies, program.scale, program.shift, program.element_of, program.cutoff)
    return writer.values, writer.instructions, writer.weights, read_out


def stored(program: Program, state: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a model file of format 2 holds."""
    values, instructions, weights, read_out = arguments(program)
    names, own = names_of(weights, state)
    keys = ("code", "inputs", "outputs", "weights", "constant")
    entry = {
        **{key: value for key, value in program.entry().items() if key not in ("arrays", "tables")},
        "version": 1,
        "values": values,
        "instructions": [
            dict(zip(keys, (code, i, o, [names[k] for k in w], c), strict=True)) for code, i, o, w, c in instructions
        ],
    }
    return entry, own


def program_of(compiled: Any, readout: str) -> Program:
    """What the compiled engine has read."""
    itemsize, values, instructions, weights, read_out = compiled.program()
    program = Program(torch.float32 if itemsize == 4 else torch.float64, readout, read_out[4])
    program.energies, program.scale, program.shift, program.element_of = read_out[:4]
    program.weights = {f"weight.{k}": torch.from_numpy(w) for k, w in enumerate(weights)}
    for components, channels, base, first in values:
        place = () if base < 0 else (base, 0, first)
        program.arrays.append(("atom", components, channels, *place))
    old = {"plus": "add_constant", "at_least": "clamp_min", "scale_vectors": "multiply"}
    for code, inputs, outputs, of, constant in instructions:
        numbers = [constant] if code in ("plus", "at_least", "root") else []
        if code == "root" and constant == 0:
            code, numbers = "sqrt", []
        elif code == "root":
            program.arrays.append(program.arrays[inputs[0]][:3])
            program.instructions.append(Instruction("add_constant", inputs, [len(program.arrays) - 1], [], numbers))
            code, inputs, numbers = "sqrt", [len(program.arrays) - 1], []
        outputs = outputs[:2] if code == "concat_message_table" else outputs
        names = [f"weight.{k}" for k in of]
        program.instructions.append(Instruction(old.get(code, code), inputs, outputs, names, numbers))
    return program


class _Writer:
    def __init__(self, program: Program):
        self.program = program
        self.values = []
        for _, components, channels, *place in program.arrays:
            base, k, c = place or (-1, 0, 0)
            if k:
                raise UnsupportedError("it has no instruction for parts of components")
            self.values.append((components, channels, base, c))
        self.instructions: list[Any] = []
        self.weights: list[Tensor] = []

    def add(self, code: str, inputs: Any, outputs: Any, weights: Any = (), constant: float = 0.0) -> None:
        first = len(self.weights)
        self.weights += [w.to(self.program.dtype).contiguous() for w in weights]
        self.instructions.append((code, inputs, outputs, list(range(first, len(self.weights))), constant))

    def write(self, i: Instruction) -> None:
        op, numbers = i.op, i.numbers or [0.0]
        components, channels = self.values[i.outputs[0]][:2]
        shapes = [self.values[x][:2] for x in i.inputs]
        weights = [self.program.weights[w] for w in i.weights if w in self.program.weights]
        if op in ("linear", "embed", "zeros", "dot") or (op == "add" and len(set(shapes)) == 1):
            self.add(op, i.inputs, i.outputs, weights)
        elif op in _NAMES:
            self.add(_NAMES[op], i.inputs, i.outputs, constant=numbers[0])
        elif op == "sqrt":
            self.add("root", i.inputs, i.outputs)
        elif op == "multiply" and len(set(shapes)) == 1:
            self.add("multiply", i.inputs, i.outputs)
        elif op == "multiply" and sorted(shapes) == [(1, channels), (3, channels)]:
            self.add("scale_vectors", [x for _, x in sorted(zip(shapes, i.inputs, strict=True))], i.outputs)
        elif op == "square":
            self.add("multiply", i.inputs * 2, i.outputs)
        elif op == "divide" and shapes[1] == (components, 1):
            self.add("divide", i.inputs, i.outputs)
        elif op in ("scale", "copy") and shapes[0] == (components, channels):
            self.add("linear", i.inputs, i.outputs, [torch.eye(channels) * (numbers[0] if op == "scale" else 1.0)])
        elif op == "multiply_weight":
            weight = torch.diag(weights[0]) if shapes[0][1] == channels else weights[0][:, None]
            self.add("linear", i.inputs, i.outputs, [weight])
        elif op == "add_weight" and components == 1:
            self.add("linear", i.inputs, i.outputs, [torch.eye(channels), weights[0]])
        elif op == "subtract" and len(set(shapes)) == 1:
            self.add("linear", i.inputs, i.outputs, [torch.eye(channels), -torch.eye(channels)])
        elif op == "sum_channels":
            self.add("linear", i.inputs, i.outputs, [torch.ones(1, shapes[0][1])])
        elif op in ("cfconv", "painn_message", "concat_message_table"):
            outputs = list(i.outputs)
            if op == "concat_message_table":
                self.values.append((components, channels, -1, 0))
                outputs.append(len(self.values) - 1)
            self.add(op, i.inputs, outputs, weights or [coefficients(self.program, i.weights[0])])
        else:
            raise UnsupportedError(f"it has no instruction for {op} yet")


def coefficients(program: Program, name: str) -> Tensor:
    (table,) = (t for t in program.tables if t.name == name)
    like = torch.empty(0, dtype=program.dtype)
    with torch.no_grad():
        return tabulate(lambda r: value_of(table, program, r), table.cutoff, table.knots, like).coefficients


def value_of(table: Table, program: Program, r: Tensor) -> Tensor:
    """(G,) -> (G, C); arrays are (G, channels)."""
    arrays: dict[int, Any] = {table.input: r[:, None]}

    def array(v: int) -> Any:
        _, _, channels, *place = table.arrays[v]
        return arrays[v] if not place else array(place[0])[:, place[2] : place[2] + channels]

    for i in table.instructions:
        x, w = [array(v) for v in i.inputs], [program.weights[n].double() for n in i.weights]
        channels = table.arrays[i.outputs[0]][2]
        if i.op == "linear":
            out = sum(torch.nn.functional.linear(a, b) for a, b in zip(x, w, strict=False))
            out = out + w[-1] if len(w) > len(x) else out
        elif i.op in ("multiply_weight", "add_weight"):
            out = x[0] * w[0] if i.op == "multiply_weight" else x[0] + w[0]
        elif i.op == "zeros":
            out = torch.zeros(len(r), channels, dtype=torch.float64)
        elif i.op == "copy":
            out = x[0] * torch.ones(channels, dtype=torch.float64)
        elif i.op in ("sum_channels",):
            out = torch.nn.functional.linear(x[0], torch.ones(1, x[0].shape[1], dtype=torch.float64))
        elif len(x) > 1:
            out = x[0]
            for y in x[1:]:
                out = {"add": out + y, "subtract": out - y, "multiply": out * y, "divide": out / y}[i.op]
        elif i.op == "clamp_min":
            out = x[0].clamp(min=i.numbers[0])
        elif i.op == "scale":
            out = x[0] * i.numbers[0]
        elif i.op == "add_constant":
            out = x[0] + i.numbers[0]
        elif i.op == "softplus":
            out = -torch.nn.functional.logsigmoid(-x[0])
        elif i.op == "shifted_softplus":
            out = -torch.nn.functional.logsigmoid(-x[0]) - 0.6931471805599453
        elif i.op in ("power", "abs"):
            out = x[0] ** i.numbers[0] if i.op == "power" else (x[0].square()).sqrt()
        else:
            out = ELEMENTWISE[i.op](x[0], *i.numbers)
        arrays[i.outputs[0]] = out
    return array(table.output)
