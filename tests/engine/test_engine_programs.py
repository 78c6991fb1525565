"""The engine on programs that nobody wrote: what they mean in plain torch, whatever ran before in the same memory."""

import numpy as np
import pytest
import torch
from random_programs import CUTOFF, RandomProgram, meaning
from systems import gnn

from mdgnn import _C, NeighborList
from mdgnn.engine import trace
from mdgnn.engine.program import Instruction, Program
from mdgnn.engine.simplify import simplify


def system(seed, n):
    """Atomic numbers, row_ptr, senders, receivers, vectors; some edges are beyond the cutoff, some have no partner."""
    rng = np.random.default_rng(seed)
    edges = NeighborList(1.15 * CUTOFF).update(rng.uniform(0, (2 * n) ** (1 / 3), (n, 3)))
    kept = rng.random(len(edges.senders)) < 0.9
    receivers = edges.receivers[kept]
    row_ptr = np.searchsorted(receivers, np.arange(n + 1))
    return rng.integers(1, 3, n), row_ptr, edges.senders[kept], receivers, np.ascontiguousarray(edges.vectors[kept])


def run(engine, system, share=None, forces=True, n_threads=1):
    numbers, row_ptr, senders, _, vectors = system
    place = 0 if share is None else share.ctypes.data
    return engine.run(numbers, row_ptr, senders, (0, 0, 0, 0), vectors, place, forces, forces, n_threads)


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * max(1.0, np.abs(expected).max(initial=0)))


def simplified(program):
    """As its arguments for the engine."""
    p = Program(torch.float64, CUTOFF)
    p.values, p.energies = list(program.values), program.energies
    p.instructions = [Instruction(*i) for i in program.instructions]
    p.weights = [torch.from_numpy(w) for w in program.weights]
    simplify(p)
    assert len(p.instructions) <= len(program.instructions)
    itemsize, _, _, _, (_, *read_out) = program.arguments()
    return itemsize, p.values, p.instructions, [w.numpy() for w in p.weights], (p.energies, *read_out)


def check(program, seed, arguments=None):
    engine = _C.Engine(*(arguments or program.arguments()))
    given, other = system(seed, (1, 2, 13, 40, 97)[seed % 5]), system(seed + 1000, 100)
    numbers, _, senders, receivers, vectors = given
    share = np.random.default_rng(seed).integers(0, 2, len(numbers)).astype(np.float64)
    energies, forces = meaning(program, numbers - 1, senders, receivers, vectors, share)
    if not np.abs(forces).max(initial=0) < 1e6:
        return  # products of products: rounding would be all there is to see
    for n_threads in (1, 2):
        run(engine, other)  # what it leaves in memory is nobody's
        found = run(engine, given, share, n_threads=n_threads)
        assert_close(found[0], energies)
        assert_close(found[1], forces)
    np.testing.assert_array_equal(run(engine, given, forces=False)[0], found[0])


@pytest.mark.parametrize("first", range(0, 160, 40))
def test_random_programs(first):
    for seed in range(first, first + 40):
        check(RandomProgram(seed), seed)


@pytest.mark.parametrize("first", range(200, 360, 40))
def test_simplified_programs_mean_the_same(first):
    for seed in range(first, first + 40):
        program = RandomProgram(seed)
        check(program, seed, simplified(program))


def test_what_simplifying_spares():
    """The first message's share of an atom is looked up, and no layer stands upon another."""
    instructions = trace(gnn()).instructions
    made = {v: i.code for i in instructions for v in i.outputs}
    first = next(i for i in instructions if i.code == "concat_message_table")
    assert [made[v] for v in first.inputs] == ["embed"]
    assert not any(made[v] == "linear" for i in instructions if i.code == "linear" for v in i.inputs)


def test_a_message_without_directions_after_one_with_them():
    """The gradient of directions was added to what an earlier call had left there."""
    program = RandomProgram(0)
    weights = np.random.default_rng(0).normal
    program.values = [(1, 6, -1, 0), (3, 2, -1, 0), (1, 2, -1, 0), (3, 2, -1, 0), (1, 2, -1, 0), (1, 1, -1, 0)]
    program.weights = [weights(size=s) for s in ((2, 6), (6, 4, 6), (6, 4, 2), (1, 2))]
    program.instructions = [
        ("embed", [], [0], [0], 0.0),
        ("zeros", [], [1], [], 0.0),
        ("painn_message", [0, 1], [2, 3], [1], 0.0),
        ("cfconv", [2], [4], [2], 0.0),
        ("linear", [4], [5], [3], 0.0),
    ]
    program.energies = 5
    check(program, 3)
    # A message with directions that the energy does not depend on: nobody writes their gradient.
    program.instructions[3] = ("cfconv", [0], [4], [2], 0.0)
    program.values[4], program.weights[2], program.weights[3] = (
        (1, 6, -1, 0),
        weights(size=(6, 4, 6)),
        weights(size=(1, 6)),
    )
    check(program, 3)


def with_slopes(instructions):
    """The last instruction takes what a message keeps for its backward alone."""
    slopes = next(i[2][2] for i in instructions if i[0] == "concat_message_table")
    code, inputs, *rest = instructions[-1]
    return [*instructions[:-1], (code, [slopes] * len(inputs), *rest)]


def test_bad_programs_are_refused():
    program = trace(gnn())
    weights = [w.numpy() for w in program.weights]
    values, instructions = program.values, [tuple(i) for i in program.instructions]
    read_out = (program.energies, program.scale, program.shift, program.element_of, program.cutoff)
    _C.Engine(8, values, instructions, weights, read_out)
    code, _, outputs, of, constant = next(i for i in instructions if i[0] == "linear")
    inputs = [0]
    for change, message in (
        ((4, values, instructions, weights[:-1], read_out), "weights that exist"),
        ((8, values, [("nonsense", *instructions[0][1:]), *instructions[1:]], weights, read_out), "got 'nonsense'"),
        ((8, values, instructions[1:], weights, read_out), "inputs that have been computed"),
        ((8, values, [instructions[0], instructions[0], *instructions[1:]], weights, read_out), "outputs of its own"),
        ((8, values, instructions, [w[:1] for w in weights], read_out), "shapes that fit"),
        ((8, [(7, 8, -1, 0), *values[1:]], instructions, weights, read_out), "array 0.*bad shape"),
        ((8, [(1, 8, 10**9, 0), *values[1:]], instructions, weights, read_out), "array 0.*bad shape"),
        ((8, values, [instructions[0], (code, [-5], outputs, of, constant)], weights, read_out), "been computed"),
        ((8, values, [instructions[0], (code, inputs, [10**6], of, constant)], weights, read_out), "of its own"),
        ((8, [(1, 8, -1, -5), *values[1:]], instructions, weights, read_out), "array 0.*bad shape"),
        ((8, values, with_slopes(instructions), weights, read_out), "been computed"),
        ((8, values, instructions, weights, (10**6, *read_out[1:])), "one energy for each atom"),
        ((8, values, instructions, weights, (*read_out[:-1], float("nan"))), "positive cutoff"),
        ((8, values, instructions, weights, (*read_out[:3], [99], read_out[4])), "elements with a scale"),
        ((2, values, instructions, weights, read_out), "float32 or float64"),
    ):
        with pytest.raises(ValueError, match=message):
            _C.Engine(*change)
