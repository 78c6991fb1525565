"""Less to do for the same results: what a program computes is worked out beforehand where atoms make no difference."""

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor

from mdgnn.engine.program import Instruction, Program
from mdgnn.nn import shifted_softplus

_OF_ELEMENTS: dict[str, Callable[..., Tensor]] = {
    "silu": torch.nn.functional.silu,
    "shifted_softplus": shifted_softplus,
    "add": lambda *x: sum(x[1:], start=x[0]),
    "multiply": torch.mul,
}


def simplify(program: Program) -> None:
    """Change the instructions in place; weights are combined in float64.

    What follows from an atom's element alone becomes an embedding. A linear layer upon another one becomes one layer,
    where that takes fewer multiplications. Zeros are not added. What nobody uses is dropped.
    """
    _look_up_what_elements_decide(program)
    _join_layers(program)
    _drop_what_nobody_uses(program)
    _renumber_weights(program)


def _look_up_what_elements_decide(program: Program) -> None:
    tables: dict[int, Tensor] = {}  # (elements, cols), of arrays that an element decides
    zeros: set[int] = set()
    same: dict[int, int] = {}  # arrays that equal others
    found = []
    for instruction in program.instructions:
        code, inputs, outputs, weights, _ = instruction
        inputs = [same.get(v, v) for v in inputs]
        instruction = instruction._replace(inputs=inputs)
        if code == "add" and len(inputs) == 2 and set(inputs) & zeros:
            other = inputs[0] if inputs[1] in zeros else inputs[1]
            if program.values[other][2] < 0:  # of a part of an array there are no parts
                same[outputs[0]] = other
                continue
        known = [tables[v] for v in inputs if v in tables]
        table = None
        if code == "embed":
            table = program.weights[weights[0]].double()
        elif code == "linear" and len(known) == len(inputs):
            ws = [program.weights[w].double() for w in weights]
            table = sum((x @ w.T for x, w in zip(known, ws, strict=False)), start=torch.zeros(()))
            table = table + ws[-1] if len(ws) > len(known) else table
        elif code in _OF_ELEMENTS and known and len(known) == len(inputs):
            table = _OF_ELEMENTS[code](*known)
        if code == "zeros":
            zeros.add(outputs[0])
        if table is not None:
            tables[outputs[0]] = table
            if code != "embed":
                instruction = Instruction("embed", [], outputs, [_weight(program, table)], 0.0)
        found.append(instruction)
    program.instructions = found
    program.energies = same.get(program.energies, program.energies)
    program.values = [(b, c, same.get(base, base), first) for b, c, base, first in program.values]


def _join_layers(program: Program) -> None:
    uses = _uses(program)
    layers: dict[int, Instruction] = {}  # by output, of linear layers that one other instruction takes, once
    found = []
    for instruction in program.instructions:
        if instruction.code == "linear":
            for v in [v for v in instruction.inputs if v in layers]:
                instruction = _joined(program, instruction, layers[v]) or instruction
            (out,) = instruction.outputs
            if uses[out] == 1:
                layers[out] = instruction
        found.append(instruction)
    program.instructions = found


def _joined(program: Program, second: Instruction, first: Instruction) -> Instruction | None:
    """The second layer on the inputs of the first; None if that takes more multiplications."""
    at = second.inputs.index(first.outputs[0])
    w = [program.weights[k].double() for k in second.weights]
    u = [program.weights[k].double() for k in first.weights]
    outer, inner = w[at], u[: len(first.inputs)]
    products = [outer @ x for x in inner]
    if sum(p.numel() for p in products) > outer.numel() + sum(x.numel() for x in inner):
        return None
    bias = w[len(second.inputs) :]
    if len(u) > len(inner):
        bias = [outer @ u[-1] + (bias[0] if bias else 0.0)]
    inputs = [*second.inputs[:at], *first.inputs, *second.inputs[at + 1 :]]
    weights = [*w[:at], *products, *w[at + 1 : len(second.inputs)], *bias]
    return second._replace(inputs=inputs, weights=[_weight(program, x) for x in weights])


def _drop_what_nobody_uses(program: Program) -> None:
    while True:
        uses = _uses(program)
        kept = [i for i in program.instructions if any(uses[v] for v in i.outputs)]
        if len(kept) == len(program.instructions):
            return
        program.instructions = kept


def _uses(program: Program) -> "Counter[int]":
    """How often an array is taken, by itself or in parts."""
    taken = [v for i in program.instructions for v in i.inputs] + [program.energies]
    return Counter(v if program.values[v][2] < 0 else program.values[v][2] for v in taken)


def _weight(program: Program, values: Tensor) -> int:
    program.weights.append(values.to(program.dtype).contiguous())
    return len(program.weights) - 1


def _renumber_weights(program: Program) -> None:
    """Keep those that are used, in the order of the instructions."""
    old = program.weights
    program.weights = []
    for k, instruction in enumerate(program.instructions):
        first = len(program.weights)
        program.weights += [old[w] for w in instruction.weights]
        program.instructions[k] = instruction._replace(weights=list(range(first, len(program.weights))))
