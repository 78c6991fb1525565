"""A sentence for every broken model file that the engine is given."""

import json
import math
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from random_programs import RandomProgram
from safetensors_parts import entry_of, joined, parts
from small_model_files import write_program
from systems import icosahedron, radial

import mdgnn
from mdgnn import Engine, Graph
from mdgnn.locate import ModelFileError


@pytest.fixture(scope="module")
def good():
    """A SimpleGNN in float32 with three knots, as format 2 has it."""
    return Path(__file__).with_name("format_2") / "simple_gnn.safetensors"


def assert_refused(tmp_path, content, message):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=message) as caught:
        Engine.load(path)
    assert str(caught.value).startswith(str(path))


def test_every_truncation_is_refused(good, tmp_path):
    whole = good.read_bytes()
    for length in [*range(0, 20), 100, *range(200, len(whole), 997), len(whole) - 1]:
        assert_refused(tmp_path, whole[:length], "not a complete safetensors file")
    assert_refused(tmp_path, whole + b"\0", "not a complete safetensors file .expected .* bytes of data")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "header that begins with"),
        (b" {}", "header that begins with"),
        (b"{}", "expected 0 bytes of data"),
        (b"{} x", "expected the end at byte 3"),
        (b'{"a": }', "expected a value at byte 6"),
        (b'{"a": 01}', "expected ',' or '}' at byte 7"),
        (b'{"a": 1, "a": 2}', "every key of its JSON once, got 'a' twice"),
        (b'{"a": {"\\u0061": 1, "a": 2}}', "every key of its JSON once, got 'a' twice"),
        (b'{"a": ' + b"[" * 100_000, "nested at most 64 deep"),
        (b'{"a": "\xff"}', "expected UTF-8 at byte 7"),
        (b'{"a": "\xed\xa0\x80"}', "expected UTF-8 at byte 7"),
        (b'{"a": "\xc0\x80"}', "expected UTF-8 at byte 7"),
        (b'{"a": "\\ud800"}', "second half of a pair"),
        (b'{"a": "\\udc00"}', "an escaped character"),
        (b'{"a": "\\u-123"}', "an escaped character"),
        (b'{"a": "\\x"}', "an escape that JSON has"),
        (b'{"a": "\n"}', "a string that ends"),
        (b'{"a": NaN}', "expected a value"),
        (b'{"__metadata__": {"a": 1}}', "metadata of 'a' as a string, got 1"),
        (b'{"a": 1}', "expected tensor 'a' as an object, got 1"),
    ],
)
def test_broken_json_gets_a_sentence(text, message, tmp_path):
    assert_refused(tmp_path, joined(text, b"1234"), f"not a complete safetensors file .*{message}")


def test_wild_lengths_of_the_header(good, tmp_path):
    whole = good.read_bytes()
    for length in (2**64 - 1, 2**63, 100_000_001, len(whole) - 7):
        assert_refused(tmp_path, struct.pack("<Q", length) + whole[8:], "expected a header of at most .* bytes")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data_offsets": [0, 4]}, "offsets 0 and 4"),
        ({"data_offsets": [-8, 8]}, "not below zero, got -8"),
        ({"data_offsets": [8, 0]}, "offsets 8 and 0"),
        ({"data_offsets": [0.0, 8.0]}, "as a whole number of 64 bits, got 0.0"),
        ({"data_offsets": [0]}, "two offsets"),
        ({"data_offsets": [2**62, 2**62 + 8]}, "expected a tensor at byte 0 of its data, the next one is at 46116"),
        ({"data_offsets": [4, 12]}, "expected a tensor at byte 0 of its data, the next one is at 4"),
        ({"shape": [2**33, 2**33]}, "a shape that memory can hold"),
        ({"shape": [2**63]}, "as a whole number of 64 bits"),
        ({"shape": [2**40]}, "expected tensor 'x' of 4398046511104 bytes"),
        ({"shape": [-2]}, "not below zero, got -2"),
        ({"dtype": "F33"}, "a dtype of safetensors, got 'F33'"),
        ({"dtype": 4}, "the dtype of tensor 'x' as a string"),
    ],
)
def test_hostile_tensors_get_a_sentence(change, message, tmp_path):
    tensor = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **change}
    assert_refused(tmp_path, joined({"x": tensor}, bytes(8)), f"not a complete safetensors file .*{message}")


def test_overlaps_and_holes(tmp_path):
    def tensors(*places):
        return {f"t{k}": {"dtype": "U8", "shape": [b - a], "data_offsets": [a, b]} for k, (a, b) in enumerate(places)}

    for places in (((0, 6), (4, 8)), ((0, 3), (5, 8)), ((0, 8), (0, 8)), ((0, 4),), ((0, 8), (8, 12))):
        assert_refused(tmp_path, joined(tensors(*places), bytes(8)), "not a complete safetensors file")
    assert_refused(tmp_path, joined(tensors((0, 8), (8, 8)), bytes(8)), "not an mdgnn model")


def change_program(**changes):
    def change(entry):
        entry["program"].update(changes)

    return change


def share_slopes(entry):
    """Two messages write what the backward of the first needs."""
    first, second = (i for i in entry["program"]["instructions"] if i["code"] == "concat_message_table")
    second["outputs"][2] = first["outputs"][2]


def change_instruction(number, **changes):
    def change(entry):
        entry["program"]["instructions"][number].update(changes)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda e: e.update(format_version=1),
            "has model format 1, the engine reads formats 2 and 3; mdgnn.save writes a loaded model in format 3",
        ),
        (lambda e: e.update(format_version=4), "has model format 4, the engine reads formats 2 and 3$"),
        (
            lambda e: e.update(format_version=3),
            "program of version 1, this mdgnn reads versions 2 and 3 in format 3$",
        ),
        (lambda e: e.update(format_version="2"), 'broken mdgnn header .expected the format_version as a whole .*"2"'),
        (lambda e: e.pop("format_version"), "broken mdgnn header .*an entry 'format_version'"),
        (lambda e: e.pop("program"), "holds no program"),
        (lambda e: e.update(program=7), "does not fit .expected the program as an object, got 7"),
        (change_program(version=2), "has a program of version 2, this mdgnn reads version 1 in format 2$"),
        (lambda e: e["program"].pop("cutoff"), "does not fit .expected the program with an entry 'cutoff'"),
        (change_program(more=1), "expected the program without an entry 'more'"),
        (change_program(dtype="float16"), "expected dtype 'float32' or 'float64', got 'float16'"),
        (change_program(dtype="float64"), "expected tensor 'atom_embedding.weight' as F64, got F32"),
        (change_program(readout="max"), "expected readout 'sum' or 'mean', got 'max'"),
        (change_program(cutoff=-1), "positive cutoff"),
        (change_program(cutoff="far"), 'the cutoff as a finite number, got "far"'),
        (change_program(cutoff=1e-320), "positive cutoff, above 1e-24"),
        (change_program(values=[[1, 8, -1]]), "expected array 0 as four numbers"),
        (change_program(values=[[1, 2**40, -1, 0]]), "array 0 of the model's program has a bad shape"),
        (change_program(values=[[1, 8, -1, 0]] * 5000), "the arrays with at most 4096 entries, got 5000"),
        (change_program(energies=-1), "the energies as the number of an array, got -1"),
        (change_program(energies=2**31), "the energies as the number of an array, got 2147483648"),
        (change_program(shift=[]), "expected a scale and a shift per element"),
        (change_program(element_of=[0.5]), "an entry of the elements as a whole number of 64 bits, got 0.5"),
        (change_program(element_of=[7]), "expected elements with a scale and a shift"),
        (change_instruction(0, code="nonsense"), "instruction 0 .*got 'nonsense'"),
        (change_instruction(0, inputs=[-1]), "the inputs of instruction 0 as the number of an array, got -1"),
        (change_instruction(0, inputs=[10**12]), "the inputs of instruction 0 as the number of an array"),
        (change_instruction(3, inputs=[0.5]), "the inputs of instruction 3 as a whole number"),
        (change_instruction(3, inputs=[99]), "instruction 3 of the model's program: expected inputs that have been"),
        (share_slopes, "of the model's program: expected outputs of its own"),
        (change_instruction(0, weights=["nothing"]), "tensor 'nothing' in the file, a weight of instruction 0"),
        (change_instruction(3, weights=["atom_embedding.weight"]), "expected shapes that fit, got linear of"),
        (change_instruction(3, weights=[3]), "a weight of instruction 3 as a string, got 3"),
        (change_instruction(3, constant=None), "the constant of instruction 3 as a finite number, got null"),
    ],
)
def test_broken_programs_get_a_sentence(change, message, good, tmp_path):
    header, data = parts(good)
    entry = entry_of(header)
    change(entry)
    header["__metadata__"]["mdgnn"] = json.dumps(entry)
    assert_refused(tmp_path, joined(header, data), message)


def test_broken_entries_get_a_sentence(good, tmp_path):
    header, data = parts(good)
    text = header["__metadata__"]["mdgnn"]
    for changed, message in (
        (text[:-1], "broken mdgnn header .expected ',' or '}' at byte"),
        ("[]", "broken mdgnn header .expected the header as an object"),
        (text.replace('"cutoff": 2.5', '"cutoff": 1e999'), "the cutoff as a finite number, got 1e999"),
        (text.replace('"energies"', '"scale"'), "every key of its JSON once, got 'scale' twice"),
    ):
        header["__metadata__"]["mdgnn"] = changed
        assert_refused(tmp_path, joined(header, data), message)
    del header["__metadata__"]
    assert_refused(tmp_path, joined(header, data), "not an mdgnn model: it has no mdgnn header")


def test_broken_programs_of_version_2_get_a_sentence(tmp_path):
    """What they say of themselves is read as Python's are: see test_engine_programs."""
    text, weights = RandomProgram(0).arguments()
    path = write_program(tmp_path / "m.safetensors", text, weights)
    Engine.load(path)
    name = next(iter(weights))
    for change, message in (
        (lambda p, w: p.update(tables=None), "does not fit .expected the tables as an array, got null"),
        (
            lambda p, w: p.update(version=1),
            "program of version 1, this mdgnn reads versions 2 and 3 in format 3$",
        ),
        (lambda p, w: w.pop(name), f"expected tensor '{name}' in the file, a weight of"),
        (lambda p, w: w.update({name: w[name].astype(np.float32)}), f"expected tensor '{name}' as F64, got F32"),
        (lambda p, w: w.update({name: w[name] * math.nan}), f"expected finite numbers in tensor '{name}'"),
    ):
        program, changed = json.loads(text), dict(weights)
        change(program, changed)
        write_program(path, json.dumps(program), changed)
        if program["version"] == 1:
            path.write_bytes(path.read_bytes().replace(b'format_version\\": 2', b'format_version\\": 3'))
        with pytest.raises(ModelFileError, match=message):
            Engine.load(path)


def test_weights_that_are_not_finite(good, tmp_path):
    header, data = parts(good)
    begin, _ = header["output_mlp.2.bias"]["data_offsets"]
    for x in (math.nan, math.inf, -math.inf):
        changed = data[:begin] + struct.pack("<f", x) + data[begin + 4 :]
        assert_refused(tmp_path, joined(header, changed), "expected finite numbers in tensor 'output_mlp.2.bias'")


@pytest.mark.parametrize("name", ["SchNet", "PaiNN"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finite_weights_of_a_filter_that_is_not(name, dtype, tmp_path):
    """The file is refused by the layer's name; such tables gave energies that are no numbers, in silence."""
    path, model = tmp_path / "m.safetensors", radial(name, dtype, n_knots=5)
    mdgnn.save(model, path)
    header, data = parts(path)
    program = entry_of(header)["program"]
    table = program["tables"][1]
    (message,) = (k for k, i in enumerate(program["instructions"]) if i["weights"] == [table["name"]])
    changed = [name for i in table["instructions"] if i["op"] == "linear" for name in i["weights"]]
    changed = [name for name in changed if name.startswith("filters.networks.1.") and name.endswith("weight")]
    for tensor in changed:
        begin, end = header[tensor]["data_offsets"]
        n_bytes = torch.finfo(dtype).bits // 8
        largest = np.full((end - begin) // n_bytes, torch.finfo(dtype).max, f"<f{n_bytes}").tobytes()
        assert changed and len(largest) == end - begin
        data = data[:begin] + largest + data[end:]
    where = f"table 'table.1' of weights '{changed[0]}'.*, which (?:painn_message|cfconv), instruction {message}, takes"
    assert_refused(
        tmp_path, joined(header, data), rf"holds weights that make no finite table \(expected finite numbers in {where}"
    )


def test_changed_files_are_refused_or_run(good, tmp_path):
    """A few of the many of `make fuzz-files`."""
    whole, rng = good.read_bytes(), np.random.default_rng(0)
    path, graph, n_ran = tmp_path / "m.safetensors", Graph.from_atoms(icosahedron(2), 2.5), 0
    for _ in range(400):
        changed = bytearray(whole)
        for at in rng.integers(0, len(whole) if rng.random() < 0.3 else 6000, rng.integers(1, 4)):
            changed[at] ^= 1 << rng.integers(8)
        path.write_bytes(changed)
        try:
            Engine.load(path).evaluate(graph, virial=True)
            n_ran += 1
        except ModelFileError as error:
            assert str(path) in str(error)
        except ValueError as error:
            assert "does not know the atomic number" in str(error)
    assert 0 < n_ran < 300
