"""Labels of other scalars than the energy: holes in them, references, losses, and what is refused."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

pytest.importorskip("lightning")

from command_line import run
from property_runs import SECTIONS, keys, molecules, settings
from training_runs import file_of, small

import mdgnn
from mdgnn.data import DataError, Dataset, collate, read_frames
from mdgnn.data.labels import LabelError, find
from mdgnn.training import folder as files
from mdgnn.training.config import ConfigError, parse
from mdgnn.training.losses import Sums, errors_of, loss_of
from mdgnn.training.properties import Labels, standardize
from mdgnn.training.run import train

pytestmark = pytest.mark.usefixtures("one_thread_and_no_pictures")


def with_holes():
    """One structure without any label, one with NaN, one whose atoms have some; a lone atom."""
    frames = [*molecules(4), Atoms("H")]
    del frames[0].info["bonds"], frames[0].arrays["coordination_of"]
    frames[1].info["bonds"] = math.nan
    frames[2].arrays["coordination_of"][1:] = math.nan
    frames[4].info["bonds"] = 0.0
    return frames


def test_missing_labels_and_nan_do_not_count(tmp_path):
    path = tmp_path / "holes.extxyz"
    write(path, with_holes())
    chosen = keys(SECTIONS[1], SECTIONS[3])
    frames = read_frames([path], chosen, need=())
    dataset = Dataset(frames, 2.5, keys=chosen)
    graph, targets = collate([dataset[k] for k in range(5)])
    assert targets.extra["bonds"].isnan().tolist() == [True, True, False, False, False]
    known = ~targets.extra["neighbours"].isnan()
    n = [int(known[graph.structure == s].sum()) for s in range(5)]
    assert n == [0, len(frames[1]), 1, len(frames[3]), 0]
    for order in ((0, 4), (4, 0)):  # shapes alone would not tell whether they are of atoms
        batch = collate([dataset[k] for k in order])
        assert batch.targets.extra["neighbours"].shape == (len(frames[0]) + 1,)

    config = settings(str(path), [SECTIONS[1], SECTIONS[3]], data={"valid": [str(path)]}, run={"epochs": 1})
    summary = train(config, tmp_path / "run")
    model = mdgnn.load(tmp_path / "run" / files.MODEL)
    shift = model.heads.properties[1].shift
    c = targets.extra["neighbours"]
    for z, mean in zip(model.elements.numbers, shift, strict=True):
        assert mean == pytest.approx(float(c[known & (graph.atomic_numbers == z)].mean()), rel=1e-12)
    found = mdgnn.evaluate(model, graph, properties=True).properties["neighbours"]
    assert summary["errors"]["valid"]["neighbours_mae"] == pytest.approx(
        float((found - c)[known].abs().mean()), rel=1e-9
    )


def test_a_number_that_is_missing_twice_is_no_contradiction():
    atoms = Atoms("Ar2", [[0, 0, 0], [1, 0, 0]])
    atoms.set_array("charges", np.array([0.5, np.nan]))
    atoms.calc = SinglePointCalculator(atoms, charges=atoms.arrays["charges"])
    np.testing.assert_array_equal(find(atoms, "charges"), [0.5, np.nan])
    atoms.info["name"], atoms.calc.results["name"] = "a", "b"
    atoms.calc.results["charges"][0] = 0.25
    for name in ("charges", "name"):
        with pytest.raises(LabelError, match=f"{name} stands there twice, with different values"):
            find(atoms, name)


def test_a_run_that_learns_no_energies_does_not_look_at_any(tmp_path):
    """Energies in Hartree or of NaN made frames bad, and those with one structure, but not one label, duplicates."""
    frames = molecules(8)
    frames += [atoms.copy() for atoms in frames[:2]]
    frames[8].info["bonds"] += 1.0
    frames[9].info["bonds"] = math.nan
    for atoms in frames:
        results = {"energy": -37.8 * (atoms.numbers == 6).sum() - 0.5, "forces": np.full((len(atoms), 3), math.nan)}
        atoms.calc = SinglePointCalculator(atoms, **results)
    frames[5].calc.results["energy"] = math.nan
    path = file_of(tmp_path / "data.xyz", frames)

    def go(loss, **data):
        config = settings(path, SECTIONS[:2], loss, model={"units": "metal"}, data=data, run={"epochs": 1})
        return train(config, tmp_path / "run", force=True)

    figures = go({"energy": 0.0, "forces": 0.0})["errors"]["valid"]
    assert {"bonds_mae", "n_h_mae"} < set(figures) and "energy_mae" not in figures
    for loss, needed in (({"energy": 0.0, "forces": 0.0}, {"need": ["energy"]}), ({"forces": 0.0}, {})):
        with pytest.raises(DataError, match="frame 5: the energy is not finite"):
            go(loss, **needed)
    found = run("evaluate", tmp_path / "run" / files.MODEL, path, "--output", tmp_path / "o")
    assert found.exit_code == 0, found.stderr
    write(tmp_path / "same.extxyz", [*frames[:1], *frames[:1]])
    with pytest.raises(DataError, match="frame 1: a duplicate of"):
        read_frames([tmp_path / "same.extxyz"], replace(keys(SECTIONS[1]), energy="", forces=""), need=())


def test_references_and_scales_by_arithmetic():
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 5, (30, 2)).astype(float)
    rest = rng.normal(0, 0.3, 30)
    rest -= counts @ np.linalg.lstsq(counts, rest, rcond=None)[0]
    found = standardize("x", "extensive", Labels(counts @ [2.0, -7.0] + rest, counts))
    size = np.sqrt(((rest / counts.sum(1)) ** 2).mean())
    assert found.shift == pytest.approx([2, -7], rel=1e-12) and found.scale == pytest.approx(size, rel=1e-12)
    values = rng.normal(5, 2, 30)
    found = standardize("x", "intensive", Labels(values, counts))
    assert found.shift == pytest.approx([values.mean()], rel=1e-12)
    assert found.scale == pytest.approx(values.std(), rel=1e-12)
    kind = np.eye(3)[rng.integers(0, 2, 30)]  # nothing is known of the third element
    found = standardize("x", "atomic", Labels(values, kind))
    means = [values[kind[:, k] == 1].mean() for k in (0, 1)]
    assert found.shift == pytest.approx([*means, values.mean()], rel=1e-12)
    assert found.scale == pytest.approx(np.sqrt(np.mean((values - kind[:, :2] @ means) ** 2)), rel=1e-12)
    assert standardize("x", "extensive", Labels(counts @ [1.0, 0.0], counts)).scale > 0.5, "not the size of rounding"
    assert standardize("x", "intensive", Labels(np.zeros(3), counts[:3])).scale == 1


@pytest.mark.parametrize("k", [10, 1000])
def test_a_scale_is_the_spread_however_large_structures_and_offsets_are(k):
    """What is left per atom was compared with all of a structure: 1000 atoms at -34,000 eV got a scale of 3e7."""
    rng = np.random.default_rng(0)
    counts, spread = np.full((50, 1), 1.0), rng.normal(0, 0.005, 50)
    one, many = (standardize("x", "extensive", Labels(m * (spread - 34000), m * counts)) for m in (1, k))
    assert one.scale == pytest.approx(spread.std(), rel=1e-6)
    assert many.scale == pytest.approx(one.scale, rel=1e-6) and many.shift == pytest.approx(one.shift, rel=1e-12)
    counts = rng.integers(1, 5, (30, 2)).astype(float)
    exact = [standardize("x", "extensive", Labels(m * counts[:, 0], m * counts)).scale for m in (1, k)]
    assert exact[1] == pytest.approx(exact[0]), "where nothing is left"
    values = rng.normal(-1e6, 5e-4, 50)
    assert standardize("x", "intensive", Labels(values, counts)).scale == pytest.approx(values.std(), rel=1e-6)


def test_the_loss_is_in_units_of_the_scale():
    frames = molecules(3)
    chosen = keys(*SECTIONS)
    dataset = Dataset(frames, 2.5, keys=chosen)
    graph, targets = collate([dataset[k] for k in range(3)])
    model = mdgnn.SchNet(6, 1, 5, cutoff=2.5, elements=[1, 6]).double()
    properties = [standardize(s["name"], s["kind"], Labels(np.array([0.0, 8.0]), np.ones((2, 2)))) for s in SECTIONS]
    model.attach_heads(properties, False)
    found = mdgnn.evaluate(model, graph, forces=False, properties=True)
    errors = errors_of(found, graph, targets, properties)
    counts = {name: e.errors.numel() for name, e in errors.items()}
    assert counts == {"n_h": 3, "bonds": 3, "coordination": 3, "neighbours": graph.n_atoms}
    n = torch.bincount(graph.structure)
    expected = 0.0
    for p in properties:
        error = (found.properties[p.name] - targets.extra[p.name]) / (n if p.kind == "extensive" else 1) / p.scale
        expected = expected + 2.0 * error.square().mean()
    weights = dict.fromkeys(counts, 2.0)
    torch.testing.assert_close(loss_of(errors, weights, counts, "mse", 1.0), expected, rtol=1e-13, atol=0)
    sums = Sums("mse", 1.0, list(counts))
    sums.add(errors)
    assert sums.loss(weights) == pytest.approx(float(expected.detach()), rel=1e-13)
    mae = (found.properties["neighbours"] - targets.extra["neighbours"]).abs().mean()
    assert sums.figures()["neighbours_mae"] == pytest.approx(float(mae.detach()), rel=1e-13), "in its own unit"


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"name": "gap"}, r"\[\[property\]\] needs a key 'kind'"),
        ({"name": "gap", "kind": "mean"}, r"\[\[property\]\] kind: .*'extensive', 'intensive' or 'atomic', got 'mean'"),
        (
            {"name": "gap", "kind": "atomic", "wieght": 2},
            r"\[\[property\]\] has no key 'wieght'; did you mean 'weight'\?",
        ),
        ({"name": "energies", "kind": "atomic"}, "choose another name, with key = 'energies' if the files have it so"),
        ({"name": "HOMO-LUMO", "kind": "intensive"}, r"\[\[property\]\] expected letters, digits and .* 'HOMO-LUMO'"),
        ({"name": "valid", "kind": "intensive"}, r"\[\[property\]\] 'valid' means something else already: choose "),
        ({"name": "magmom", "kind": "atomic"}, r"'magmom' is a number of a structure in ASE: .*key = 'magmom' if"),
        ({"name": "gap", "kind": "intensive", "weight": 0}, r"\[\[property\]\] gap has no weight in the end"),
        ({"name": "n_h", "kind": "intensive"}, r"\[\[property\]\] name = 'n_h' stands there twice"),
    ],
)
def test_sections_that_are_wrong(section, words):
    with pytest.raises(ConfigError, match=words) as caught:
        settings("data.xyz", [SECTIONS[0], section])
    assert "\n" not in str(caught.value)


def test_a_table_is_not_a_list_of_them():
    content = settings("data.xyz").model_dump()
    with pytest.raises(ConfigError, match=r"^\[\[property\]\]: .*, got "):
        parse({**content, "property": SECTIONS[0]})
    assert "property" not in small("data.xyz").content() and "property" in settings("data.xyz").content()
    assert parse(json.loads(json.dumps(settings("data.xyz").content()))) == settings("data.xyz")


def test_labels_that_are_not_there_or_are_wrong(property_data, tmp_path):
    words = (
        r"\[\[property\]\] gap: expected numbers under 'homo_lumo', but no structure of the training set has any "
        r"\(in the first there are: bonds, coordination, coordination_of, n_h\)"
    )
    with pytest.raises(ConfigError, match=words):
        train(settings(property_data, [{"name": "gap", "kind": "intensive", "key": "homo_lumo"}]), tmp_path / "run")
    with pytest.raises(DataError, match=r"expected a number for each of \d atoms as bonds, got shape \(\)"):
        train(settings(property_data, [{"name": "bonds", "kind": "atomic"}]), tmp_path / "run")
    with pytest.raises(DataError, match=r"expected one number as coordination_of, got shape \(8,\)"):
        train(settings(property_data, [{"name": "coordination_of", "kind": "extensive"}]), tmp_path / "run")
    with pytest.raises(DataError, match=r"no energy \(there are: "):
        train(settings(property_data, loss={"energy": 1.0}), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"readout = 'mean'.*\[\[property\]\] with kind = 'intensive'"):
        train(settings(property_data, model={"readout": "mean"}), tmp_path / "run")
    content = settings(property_data).model_dump()
    mdgnn.save(mdgnn.LennardJones(cutoff=2.5), tmp_path / "lj.safetensors")
    content["model"] = {"start": str(tmp_path / "lj.safetensors")}
    with pytest.raises(ConfigError, match="LennardJones has no features"):
        train(parse(content), tmp_path / "run")
    infinite = molecules(2)
    infinite[1].info["bonds"] = math.inf
    path = file_of(tmp_path / "inf.xyz", infinite)
    with pytest.raises(DataError, match="frame 1: the bonds is not finite"):
        read_frames([path], keys(SECTIONS[1]), need=())
    assert not (tmp_path / "run").exists()
