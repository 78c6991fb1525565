"""The engine on programs that nobody wrote: what they mean in plain torch, whatever ran before in the same memory."""

import json
import math
import random
from collections import Counter

import numpy as np
import pytest
import torch
from program_meaning import OPERATIONS, UNARY, as_program, as_table, coefficients_of, meaning, properties_meant
from random_programs import CUTOFF, POSITIVE, RandomProgram, Step, random_table

from mdgnn import _C, NeighborList
from mdgnn.engine.algebra import ELEMENTWISE
from mdgnn.ops import tabulate

CONSTANTS = {"scale": [-0.7], "add_constant": [0.3], "clamp_min": [0.9], "power": [1.7]}


def system(seed, n):
    """Atomic numbers, row_ptr, senders, receivers, vectors; some edges are beyond the cutoff, some have no partner."""
    rng = np.random.default_rng(seed)
    edges = NeighborList(1.15 * CUTOFF).update(rng.uniform(0, (2 * n) ** (1 / 3), (n, 3)))
    present = rng.random(len(edges.senders)) < 0.9
    receivers = edges.receivers[present]
    row_ptr = np.searchsorted(receivers, np.arange(n + 1))
    return (
        rng.integers(1, 3, n),
        row_ptr,
        edges.senders[present],
        receivers,
        np.ascontiguousarray(edges.vectors[present]),
    )


def run(engine, system, share=None, forces=True, n_threads=1, properties=None):
    numbers, row_ptr, senders, _, vectors = system
    place = 0 if share is None else share.ctypes.data
    given = numbers, row_ptr, senders, (0, 0, 0, 0), vectors, place
    return engine.run(*given, forces, forces, n_threads, properties=properties)


def assert_close(result, expected):
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-11 * max(1.0, np.abs(expected).max(initial=0)))


def check(program, seed):
    """The largest force that was compared; None where nothing was: of products of products of products all that there
    is to see is rounding."""
    engine = _C.Engine(*program.arguments())
    given, other = system(seed, (1, 2, 13, 40, 97)[seed % 5]), system(seed + 1000, 100)
    numbers, _, senders, receivers, vectors = given
    share = np.random.default_rng(seed).integers(0, 2, len(numbers)).astype(np.float64)
    meant = as_program(program.version_2(), program.weights)
    energies, forces = meaning(meant, numbers, senders, receivers, vectors, share=share, tabulated=True)
    energies, forces = energies.numpy(), forces.numpy()
    largest = [np.abs(x).max(initial=0) for x in (energies, forces)]
    assert not np.isnan(largest).any(), "the reference is not a number"
    if max(largest) >= 1e6:
        return None
    for n_threads in (1, 2):
        run(engine, other)  # what it leaves in memory is nobody's
        result = run(engine, given, share, n_threads=n_threads)
        assert_close(result[0], energies)
        assert_close(result[1], forces)
    np.testing.assert_array_equal(run(engine, given, forces=False)[0], result[0])
    return np.abs(forces).max(initial=0)


def check_properties(program, seed):
    """Those of a program, beside what it gives without them, on the same memory; None where they are all rounding."""
    engine = _C.Engine(*program.arguments())
    given, other = system(seed, (1, 2, 13, 40, 97)[seed % 5]), system(seed + 1000, 100)
    numbers, _, senders, receivers, vectors = given
    share = np.random.default_rng(seed).integers(0, 2, len(numbers)).astype(np.float64)
    meant = as_program(program.entry(), program.weights)
    properties = properties_meant(meant, numbers, senders, receivers, vectors, tabulated=True).numpy()
    energies, forces = meaning(meant, numbers, senders, receivers, vectors, share=share, tabulated=True)
    has_energy = energies is not None
    assert (engine.has_energy, engine.properties) == (has_energy, [(p.name, p.kind) for p in meant.properties])
    energies, forces = energies.numpy() if has_energy else np.zeros(len(numbers)), forces.numpy()
    largest = [np.abs(x).max(initial=0) for x in (energies, forces, properties)]
    assert not np.isnan(largest).any(), "the reference is not a number"
    if max(largest) >= 1e6:
        return None
    for with_forces, n_threads in ((False, 1), (has_energy, 1), (has_energy, 2)):
        run(engine, other, forces=has_energy, properties=np.full((len(properties), 100), np.nan))
        said = np.full(properties.shape, np.nan)
        result = run(engine, given, share, with_forces, n_threads, said)
        assert_close(said, properties)
        for x, y in zip(result, run(engine, given, share, with_forces), strict=True):
            assert x is y is None or np.array_equal(x, y)
    if has_energy:
        assert_close(result[0], energies)
        assert_close(result[1], forces)
    return np.abs(properties).max(initial=0)


def check_all(programs):
    """Nearly all of them are compared, and most have forces."""
    largest = [check(program, seed) for seed, program in programs]
    compared = [force for force in largest if force is not None]
    assert len(compared) >= 0.95 * len(programs)
    assert sum(force > 1e-3 for force in compared) >= 0.6 * len(programs)


@pytest.mark.parametrize("first", range(0, 160, 40))
def test_random_programs(first):
    check_all([(seed, RandomProgram(seed)) for seed in range(first, first + 40)])


@pytest.mark.parametrize("first", range(400, 560, 40))
def test_random_programs_with_properties(first):
    programs = [RandomProgram(seed, properties=True) for seed in range(first, first + 40)]
    largest = [check_properties(program, first + k) for k, program in enumerate(programs)]
    assert sum(x is not None and x > 1e-3 for x in largest) >= 0.9 * len(programs)
    assert any(program.energies is None for program in programs)


@pytest.mark.parametrize("first", range(200, 360, 40))
def test_random_programs_of_version_1(first):
    check_all([(seed, RandomProgram(seed, old=True)) for seed in range(first, first + 40)])


def test_random_programs_have_every_instruction():
    """An instruction that is forgotten here is not tested."""
    counts = Counter(i.op for seed in range(160) for i in RandomProgram(seed).instructions)
    assert counts.keys() == OPERATIONS and min(counts.values()) >= 5


def test_text_and_weights_come_back():
    for seed in range(40):
        for options in ({}, {"old": True}, {"properties": True}):
            program = RandomProgram(seed, **options)
            engine = _C.Engine(*program.arguments())
            text, weights = engine.program()
            again, said = _C.Engine(text, weights), json.loads(text)
            assert said["version"] == (3 if program.properties else 2)
            assert said.get("properties", []) == program.properties and said["energies"] == program.energies
            assert again.program()[0] == text
            assert (engine.readout, engine.cutoff, engine.dtype) == (said["readout"], said["cutoff"], said["dtype"])
            for name, weight in engine.program()[1].items():
                assert np.array_equal(again.program()[1][name], weight)
            given = system(seed, 20)
            here, there = (np.full((len(program.properties), 20), np.nan) for _ in range(2))
            results = run(engine, given, None, engine.has_energy, properties=here)
            for x, y in zip(results, run(again, given, None, engine.has_energy, properties=there), strict=True):
                assert x is y is None or np.array_equal(x, y)
            assert np.array_equal(here, there)


# --- tables ----------------------------------------------------------------------------------------------------------


def engine_of(table, weights, width, dtype="float64"):
    """A program with one message that takes the table."""
    weights = weights | {"atoms": np.ones((2, width)), "out": np.ones((1, width))}
    arrays = [["atom", 1, width], ["atom", 1, width], ["atom", 1, 1]]
    instructions = [
        Step("embed", [], [0], ["atoms"], []),
        Step("cfconv", [0], [1], [table["name"]], []),
        Step("linear", [1], [2], ["out"], []),
    ]
    header = {"version": 2, "dtype": dtype, "readout": "sum", "cutoff": CUTOFF, "energies": 2}
    header |= {"scale": [1.0, 1.0], "shift": [0.0, 0.0], "element_of": [-1, 0, 1], "arrays": arrays}
    header |= {"tables": [table], "instructions": [i._asdict() for i in instructions]}
    return lambda n_threads=1: _C.Engine(json.dumps(header), weights, n_threads)


def random_function(seed):
    weights, rng = {}, random.Random(seed)
    return random_table(rng, weights, np.random.default_rng(seed).normal, "f", 5, knots=101), weights


def as_tensors(weights):
    return {name: torch.from_numpy(weight) for name, weight in weights.items()}


def test_tables_are_those_of_their_networks():
    for seed in range(100):
        table, weights = random_function(seed)
        (coefficients,) = engine_of(table, weights, 5)().tables().values()
        expected = coefficients_of(as_table(table), as_tensors(weights)).numpy()
        np.testing.assert_allclose(coefficients, expected, rtol=1e-12, atol=1e-12 * np.abs(expected).max())


def test_each_elementwise_function_is_compared_with_torch():
    assert UNARY.keys() == ELEMENTWISE.keys(), (
        "each has a row of torch's own function in tests/support/program_meaning.py"
    )


@pytest.mark.parametrize("op", list(UNARY))
def test_every_function_of_one_number_in_a_table(op):
    constants = CONSTANTS.get(op, [])
    arrays = [["edge", 1, 1], ["edge", 1, 1], ["edge", 1, 1]]
    instructions = [Step("add_constant", [0], [1], [], [0.5]), Step(op, [1], [2], [], constants)]
    table = {"name": "f", "knots": 64, "cutoff": CUTOFF, "input": 0, "output": 2, "arrays": arrays}
    table["instructions"] = [i._asdict() for i in instructions]
    (coefficients,) = engine_of(table, {}, 1)().tables().values()
    function = lambda r: UNARY[op](r + 0.5, *constants)[:, None]  # noqa: E731
    expected = tabulate(function, CUTOFF, 64, torch.empty(0, dtype=torch.float64)).coefficients.detach().numpy()
    np.testing.assert_allclose(coefficients, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def test_tables_have_the_same_bits_for_any_number_of_threads():
    for seed in range(20):
        for dtype in ("float32", "float64"):
            table, weights = random_function(seed)
            make = engine_of(table, weights, 5, dtype)
            one, three = (make(n).tables()["f"] for n in (1, 3))
            assert one.dtype == dtype and np.array_equal(one, three)


# --- functions of one number, at numbers that programs seldom reach ---------------------------------------------------


def values_of(op, x, channel):
    """op(x) by the engine, of atoms that each are an element of their own, in one of 19 channels."""
    n, dtype = len(x), str(x.dtype)
    arrays = [["atom", 1, 19], ["atom", 1, 19], ["atom", 1, 1, 1, 0, channel]]
    instructions = [Step("embed", [], [0], ["x"], []), Step(op, [0], [1], [], CONSTANTS.get(op, []))]
    header = {"version": 2, "dtype": dtype, "readout": "sum", "cutoff": CUTOFF, "energies": 2, "tables": []}
    header |= {"scale": [1.0] * n, "shift": [0.0] * n, "element_of": list(range(n)), "arrays": arrays}
    header["instructions"] = [i._asdict() for i in instructions]
    engine = _C.Engine(json.dumps(header), {"x": np.repeat(x[:, None], 19, 1)})
    none = np.zeros(0, np.int64)
    return engine.run(np.arange(n), np.zeros(n + 1, np.int64), none, (0,) * 4, np.zeros((0, 3)), 0, False, False, 1)[0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("op", list(UNARY))
def test_functions_of_one_number(op, dtype):
    """Against float64 torch, at every place of a vector; NaN stays, and infinity is what torch makes of it."""
    x = np.concatenate([np.linspace(-30, 30, 601), [0.0, 1e-3, -1e-3, 200.0, -200.0, 700.0, -700.0, math.nan]])
    x = np.concatenate([x, np.array([0.25, -0.25]) * float(np.finfo(dtype).max)])
    x = (np.abs(x) + 0.01 if op in POSITIVE else x).astype(dtype)
    with np.errstate(over="ignore"):
        expected = UNARY[op](torch.from_numpy(x).double(), *CONSTANTS.get(op, [])).numpy()
        expected = expected.astype(dtype).astype(np.float64)
    for channel in (0, 7, 16, 18):
        results = values_of(op, x, channel)
        finite = np.isfinite(expected)
        np.testing.assert_array_equal(results[~finite], expected[~finite])
        size, error = np.abs(expected[finite]), np.abs(results[finite] - expected[finite])
        of = size if op == "exp" else np.maximum(1.0, size)
        assert (error <= 8 * np.finfo(dtype).eps * of + np.finfo(dtype).tiny).all()


def test_a_message_without_directions_after_one_with_them():
    """The gradient of directions was added to what an earlier call had left there."""
    program = RandomProgram(0)
    normal = np.random.default_rng(0).normal
    program.arrays = [["atom", k, c] for k, c in ((1, 6), (3, 2), (1, 2), (3, 2), (1, 2), (1, 1))]
    program.weights = {str(k): normal(size=s) for k, s in enumerate(((2, 6), (6, 4, 6), (6, 4, 2), (1, 2)))}
    program.instructions = [
        Step("embed", [], [0], ["0"], []),
        Step("zeros", [], [1], [], []),
        Step("painn_message", [0, 1], [2, 3], ["1"], []),
        Step("cfconv", [2], [4], ["2"], []),
        Step("linear", [4], [5], ["3"], []),
    ]
    program.energies, program.tables = 5, []
    assert check(program, 3) > 1e-3
    # A message with directions that the energy does not depend on: nobody writes their gradient.
    program.instructions[3] = Step("cfconv", [0], [4], ["2"], [])
    program.arrays[4] = ["atom", 1, 6]
    program.weights |= {"2": normal(size=(6, 4, 6)), "3": normal(size=(1, 6))}
    assert check(program, 3) > 1e-3


# --- refusals --------------------------------------------------------------------------------------------------------


def good():
    """A program with a table, a range of an array and a message."""
    edge = [["edge", 1, 1], ["edge", 1, 2], ["edge", 1, 2]]
    of_table = [Step("multiply_weight", [0], [1], ["k"], []), Step("sin", [1], [2], [], [])]
    table = {"name": "t", "knots": 9, "cutoff": CUTOFF, "arrays": edge, "input": 0, "output": 2}
    table["instructions"] = [i._asdict() for i in of_table]
    arrays = [["atom", 1, 4], ["atom", 1, 2, 0, 0, 1], ["atom", 1, 2], ["atom", 1, 2], ["atom", 1, 1]]
    instructions = [
        Step("embed", [], [0], ["e"], []),
        Step("scale", [1], [2], [], [0.5]),
        Step("cfconv", [2], [3], ["t"], []),
        Step("linear", [3], [4], ["w", "b"], []),
    ]
    header = {"version": 2, "dtype": "float64", "readout": "sum", "cutoff": CUTOFF, "energies": 4, "tables": [table]}
    header |= {"scale": [1.0, 1.0], "shift": [0.0, 0.0], "element_of": [-1, 0, 1], "arrays": arrays}
    header["instructions"] = [i._asdict() for i in instructions]
    weights = {"e": np.ones((2, 4)), "w": np.ones((1, 2)), "b": np.ones(1), "k": np.ones(2)}
    return header, weights


def at(*path, **changes):
    """What changes an entry of a program."""

    def change(header):
        for key in path:
            header = header[key]
        header.update(changes)

    return change


def array(number, *entries, table=False):
    def change(header):
        (header["tables"][0] if table else header)["arrays"][number] = list(entries)

    return change


def rename(name):
    """The table, to the name of a weight."""

    def change(header):
        header["tables"][0]["name"], header["instructions"][2]["weights"] = name, [name]

    return change


T, I = ("tables", 0), "instructions"  # noqa: E741


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (at(version=4), "program of version 1, 2 or 3, got 4"),
        (at(version=3), "an entry 'properties'"),
        (at(properties=[]), "the program without an entry 'properties'"),
        (at(energies=None), "the energies as a whole number"),
        (at(dtype="float16"), "float32' or 'float64', got 'float16'"),
        (at(readout="max"), "'sum' or 'mean', got 'max'"),
        (at(more=1), "the program without an entry 'more'"),
        (lambda h: h.pop("tables"), "an entry 'tables'"),
        (at(cutoff=0.0), "positive cutoff"),
        (at(energies=10**6), "one energy for each atom"),
        (at(energies=0), "one energy for each atom"),
        (at(element_of=[99]), "elements with a scale"),
        (at(scale=[1.0]), "shapes that fit, got embed with weights .2, 4. for .1, 4."),
        (at(shift=[1.0]), "a scale and a shift"),
        (array(0, "atom", 0, 4), "array 0 of the model's program has a bad shape"),
        (array(0, "atom", 2**40, 4), "array 0 of the model's program has a bad shape"),
        (array(0, "atom", 2**15, 2**15), "array 0 of the model's program has a bad shape"),
        (array(0, "atoms", 1, 4), "space 'atom' or 'edge', got 'atoms'"),
        (array(0, "atom", 1), "array 0 as a space and two numbers"),
        (array(0, "atom", 1, 0.5), "an entry of array 0 as a whole number"),
        (array(1, "atom", 1, 2, 0, 0, 3), "array 1 of the model's program has a bad shape"),
        (array(1, "atom", 1, 2, 0, 1, 1), "array 1 of the model's program has a bad shape"),
        (array(1, "atom", 1, 2, 1, 0, 0), "array 1 of the model's program has a bad shape"),
        (array(1, "atom", 1, 2, 10**6, 0, 0), "array 1 of the model's program has a bad shape"),
        (array(1, "edge", 1, 2, 0, 0, 0), "array 1 of the model's program has a bad shape"),
        (array(4, "edge", 1, 1), "space 'atom', the only ones that linear has here, got one of space 'edge'"),
        (array(4, "triplet", 1, 1), "space 'atom' or 'edge', got 'triplet'"),
        (at(I, 0, op="nonsense"), "instruction 0 .expected an instruction that this engine knows, got 'nonsense'"),
        (at(I, 0, op="plus"), "got 'plus'"),
        (at(I, 1, inputs=[]), "instruction 1 .*as many inputs, outputs, weights and numbers as scale takes"),
        (at(I, 1, numbers=[]), "instruction 1 .*as many inputs, outputs, weights and numbers as scale takes"),
        (at(I, 1, numbers=[0.5, 0.5]), "as many inputs, outputs, weights and numbers as scale takes"),
        (at(I, 1, numbers=["0.5"]), "an entry of the numbers of instruction 1 as a finite number"),
        (at(I, 1, weights=["w"]), "as many inputs, outputs, weights and numbers as scale takes"),
        (at(I, 1, more=1), "instruction 1 without an entry 'more'"),
        (at(I, 1, inputs=[-5]), "the inputs of instruction 1 as the number of an array, got -5"),
        (at(I, 1, inputs=[3]), "instruction 1 .*inputs that have been computed"),
        (at(I, 1, inputs=[2]), "instruction 1 .*inputs that have been computed"),
        (at(I, 1, outputs=[10**6]), "instruction 1 .*outputs of its own"),
        (at(I, 1, outputs=[0]), "instruction 1 .*outputs of its own"),
        (at(I, 1, outputs=[1]), "instruction 1 .*outputs of its own"),
        (at(I, 2, weights=["nothing"]), "expected weight 'nothing', of instruction 2"),
        (at(I, 2, weights=["w"]), "shapes that fit, got cfconv of .1, 2. with weights .1, 2. for .1, 2."),
        (at(I, 2, inputs=[1]), "shapes that fit, got cfconv"),
        (at(I, 3, weights=["b", "w"]), "shapes that fit, got linear"),
        (rename("w"), "shapes that fit, got linear"),
        (rename("k"), "shapes that fit, got multiply_weight"),
        (at(*T, knots=1), "table 't' .* with 2 to 65536 knots, got 1"),
        (at(*T, knots=10**9), "table 't' .* with 2 to 65536 knots"),
        (at(*T, cutoff=0.0), "table 't' .* with a finite cutoff"),
        (at(*T, cutoff=None), "the cutoff of table 't' as a finite number"),
        (at(*T, output=7), "the output of table 't' as one of its arrays"),
        (at(*T, input=7), "table 't' .* with an input of one distance for each edge"),
        (at(*T, input=1), "table 't' .* with an input of one distance for each edge"),
        (at(*T, more=1), "table 0 without an entry 'more'"),
        (array(1, "atom", 1, 2, table=True), "space 'edge', the only ones that multiply_weight has here"),
        (array(1, "edge", 1, 2**20, table=True), "arrays of at most 1048576 numbers for a distance"),
        (at(*T, I, 1, op="embed", inputs=[], weights=["e"]), "shapes that fit, got embed"),
        (at(*T, I, 1, op="cfconv", weights=["t"]), "an instruction that tables have, got cfconv"),
        (lambda h: h["tables"].append(h["tables"][0]), "weights and tables of different names, got 't' twice"),
        (lambda h: h["tables"][0][I].pop(), "table 't' .* with an output of one component that is computed"),
    ],
)
def test_bad_programs_are_refused(change, message):
    header, weights = good()
    _C.Engine(json.dumps(header), weights)
    change(header)
    with pytest.raises(ValueError, match=message):
        _C.Engine(json.dumps(header), weights)


def test_bad_weights_are_refused():
    header, weights = good()
    for change, message in (
        ({"e": np.ones((0, 4))}, "a weight of the model has a bad shape"),
        ({"e": np.ones((2, 3))}, "shapes that fit, got embed"),
        ({"e": np.array([["a"]])}, "weight 'e'"),
    ):
        with pytest.raises(ValueError, match=message):
            _C.Engine(json.dumps(header), weights | change)
    with pytest.raises(ValueError, match="at most 67108864 coefficients in all"):
        wide = np.ones(513)
        table = header["tables"][0]
        table["arrays"], table["knots"] = [["edge", 1, 1], ["edge", 1, 513], ["edge", 1, 513]], 2**16
        header["arrays"][2:4] = [["atom", 1, 513]] * 2
        header["arrays"][0], header["arrays"][1] = ["atom", 1, 513], ["atom", 1, 513, 0, 0, 0]
        _C.Engine(json.dumps(header), weights | {"k": wide, "e": np.ones((2, 513)), "w": np.ones((1, 513))})
