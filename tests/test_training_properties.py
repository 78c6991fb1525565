"""Training of other scalars than the energy: exact functions of structures, alone, together, with holes in labels."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import write

pytest.importorskip("lightning")

from test_cli import PNG, run, sentence
from training_runs import file_of, labelled, small

import mdgnn
from mdgnn import Graph, MDGNNCalculator
from mdgnn.data import DataError, Dataset, Keys, PropertyKey, collate, read_frames
from mdgnn.training import folder as files
from mdgnn.training.config import ConfigError, parse
from mdgnn.training.folder import read_log
from mdgnn.training.losses import Sums, errors_of, loss_of
from mdgnn.training.properties import Labels, standardize
from mdgnn.training.run import resume, train
from mdgnn.training.watch import Watch

pytestmark = pytest.mark.usefixtures("one_thread_and_no_pictures")

SECTIONS = [
    {"name": "n_h", "kind": "extensive"},
    {"name": "bonds", "kind": "extensive"},
    {"name": "coordination", "kind": "intensive"},
    {"name": "neighbours", "kind": "atomic", "key": "coordination_of"},
]
ALONE = {"energy": 0.0, "forces": 0.0}


def coordination(atoms):
    """(N,) atoms within 1.35: along the edges of the cube, not across its faces."""
    return (atoms.get_all_distances() < 1.35).sum(1) - 1.0


def labels_of(atoms):
    c = coordination(atoms)
    scalars = {"n_h": float((atoms.numbers == 1).sum()), "bonds": c.sum() / 2, "coordination": c.mean()}
    return scalars, {"coordination_of": c}


def molecules(n, seed=0, energies=False):
    """Cubes of hydrogen and carbon of which corners are missing, with what is known of them exactly."""
    rng = np.random.default_rng(seed)
    corners = 1.1 * np.array(np.meshgrid(*[[0, 1]] * 3)).reshape(3, -1).T
    frames = []
    for k in rng.integers(3, 9, n):
        chosen = rng.permutation(8)[:k]
        atoms = Atoms(rng.choice([1, 6], k), corners[chosen] + rng.normal(0, 0.03, (k, 3)))
        scalars, arrays = labels_of(atoms)
        atoms.info.update(scalars)
        for name, values in arrays.items():
            atoms.set_array(name, values)
        frames.append(labelled(atoms) if energies else atoms)
    return frames


def settings(file, sections=SECTIONS, loss=ALONE, architecture="SimpleGNN", **more):
    content = small(file, architecture=architecture).model_dump()
    content["model"] = {k: v for k, v in content["model"].items() if v is not None}
    content["property"] = sections
    content["loss"] = {**content["loss"], **loss}
    for section, values in more.items():
        content[section] = {**content[section], **values}
    return parse(content)


@pytest.fixture(scope="module")
def some(tmp_path_factory):
    """A file of sixteen molecules without energies."""
    return file_of(tmp_path_factory.mktemp("data") / "some.xyz", molecules(16))


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """A run that learns all four from a file without energies: what it leaves, and the data it was tested on."""
    folder = tmp_path_factory.mktemp("learnt")
    data, test = file_of(folder / "train.xyz", molecules(40)), file_of(folder / "test.xyz", molecules(16, seed=1))
    n = torch.get_num_threads()
    config = settings(
        data,
        model={"node_dim": 16, "edge_dim": 12, "basis": [0.7, 2.5, 0.2], "n_knots": 256},
        data={"valid": [test], "batch_size": 8},
        optimizer={"lr": 0.02, "schedule": "onecycle", "ema": 0.9},
        run={"epochs": 30, "validate_epochs": 30},
    )
    summary = train(config, folder / "run")
    torch.set_num_threads(n)
    return folder / "run", summary, test


def test_exact_functions_are_learnt(learnt):
    """Energies are not, and nobody is told any."""
    folder, summary, test = learnt
    figures = summary["errors"]["valid"]
    assert set(figures) == {"n_structures", *(f"{s['name']}_{kind}" for s in SECTIONS for kind in ("mae", "rmse"))}
    spread = {
        s["name"]: p.scale for s, p in zip(SECTIONS, mdgnn.load(folder / files.MODEL).heads.properties, strict=True)
    }
    assert figures["n_h_rmse"] < 0.05
    for name in ("bonds", "coordination", "neighbours"):
        assert figures[f"{name}_rmse"] < 0.25 * spread[name], name
    calc = MDGNNCalculator(folder / files.MODEL, dtype="float64")
    atoms = read_frames([test], need=())[3]
    assert calc.get_property("n_h", atoms) == pytest.approx((atoms.numbers == 1).sum(), abs=0.5)
    assert calc.get_property("neighbours", atoms).shape == (len(atoms),)
    assert calc.implemented_properties == [s["name"] for s in SECTIONS]
    pictures = {path.name for path in folder.glob("*.png")}
    assert pictures == {"learning.png", "parity_valid.png"}, "and no energies of dimers"
    row = read_log(folder / files.LOG)[-1]
    assert row["energy_mae"] == "" and float(row["bonds_rmse"]) == pytest.approx(figures["bonds_rmse"])


def test_the_command_evaluates_as_numpy_does(learnt, tmp_path, monkeypatch):
    folder, _, test = learnt
    monkeypatch.chdir(tmp_path)
    result = run("evaluate", folder / files.MODEL, test, "--property", "neighbours=coordination_of", "--output", "o")
    assert result.exit_code == 0, result.stderr
    assert "bonds" in result.output and "…" not in result.output, "every figure has room in 80 columns"
    assert Path("o/parity.png").read_bytes().startswith(PNG)
    errors = json.loads(Path("o/errors.json").read_text())["errors"]
    frames = read_frames([test], need=())
    calc = MDGNNCalculator(folder / files.MODEL, dtype="float64")
    said = calc.evaluate(list(frames))
    n = np.array([len(a) for a in frames])
    error = {
        "bonds": [s["bonds"] - labels_of(a)[0]["bonds"] for a, s in zip(frames, said, strict=True)] / n,
        "coordination": np.array(
            [s["coordination"] - coordination(a).mean() for a, s in zip(frames, said, strict=True)]
        ),
        "neighbours": np.concatenate([s["neighbours"] - coordination(a) for a, s in zip(frames, said, strict=True)]),
    }
    for name, e in error.items():
        assert errors["all"][f"{name}_mae"] == pytest.approx(np.abs(e).mean(), rel=1e-5), name
        assert errors["all"][f"{name}_rmse"] == pytest.approx(np.sqrt((e**2).mean()), rel=1e-5), name
    of_carbon = error["neighbours"][np.concatenate([a.numbers for a in frames]) == 6]
    assert errors["element C"]["neighbours_mae"] == pytest.approx(np.abs(of_carbon).mean(), rel=1e-5)
    assert "bonds_mae" not in errors["element C"] and "energy_mae" not in errors["all"]
    lines = list(csv.DictReader(Path("o/structures.csv").read_text().splitlines()))
    assert float(lines[2]["predicted_bonds"]) - float(lines[2]["bonds"]) == pytest.approx(
        error["bonds"][2] * n[2], rel=1e-5
    )
    assert lines[0]["energy"] == ""
    assert "learnt no energies" in run("info", folder / files.MODEL).output
    other = ("evaluate", folder / files.MODEL, test, "--output", "p")
    assert "--property neighbours: no structure has" in sentence(run(*other, "--property", "neighbours=charge"))
    assert "(n_h, bonds, coordination, neighbours), got 'gap=x'" in sentence(run(*other, "--property", "gap=x"))
    file_of("bare.xyz", [Atoms("CH", [[0, 0, 0], [1.1, 0, 0]])])
    assert "expected labels to compare with: " in sentence(run("evaluate", folder / files.MODEL, "bare.xyz"))


def test_beside_energies_and_resumed_by_the_bit(tmp_path, monkeypatch):
    """Learning curve, tables, mean of weights and all: an interrupted run ends as one that was not."""
    from mdgnn.training.watch import InterruptedTrainingError

    data = file_of(tmp_path / "data.xyz", molecules(16, energies=True))
    config = settings(data, loss={}, architecture="PaiNN", optimizer={"ema": 0.5})
    summary = train(config, tmp_path / "whole")
    assert {"energy_mae", "forces_rmse", "bonds_mae", "neighbours_mae"} <= set(summary["errors"]["valid"])
    model = mdgnn.load(tmp_path / "whole" / files.MODEL)
    assert model.heads.energy and mdgnn.Engine.load(tmp_path / "whole" / files.MODEL)
    before, steps = Watch._save, []

    def then_stop(self, trainer, best):
        before(self, trainer, best)
        steps.append(trainer.global_step)
        if len(steps) == 2:
            raise InterruptedTrainingError(15, steps[-1], self.folder)

    monkeypatch.setattr(Watch, "_save", then_stop)
    with pytest.raises(InterruptedTrainingError):
        train(config, tmp_path / "parts")
    resume(tmp_path / "parts")
    for name in (files.LOG, files.SUMMARY, files.MODEL):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_starting_from_another_model(some, tmp_path):
    """What it knows of a property stays; frozen, what it says of energies too."""
    first = tmp_path / "first" / files.MODEL
    with_energies = file_of(tmp_path / "data.xyz", molecules(8, energies=True))
    train(settings(with_energies, SECTIONS[:1], {}, run={"epochs": 1}), tmp_path / "first")
    old = mdgnn.load(first)

    bare = file_of(tmp_path / "bare.xyz", [*molecules(2), Atoms("CH", [[0, 0, 0], [1.1, 0, 0]])])

    def go(name, file, **model):
        content = settings(file, SECTIONS[:2], data={"valid": [some], "batch_size": 1}).model_dump()
        content["model"] = {"start": str(first), "dtype": "float64", **model}
        config = parse({**content, "optimizer": {"lr": 1e-30}, "run": {**content["run"], "epochs": 1}})
        train(config, tmp_path / name)
        return mdgnn.load(tmp_path / name / files.MODEL)

    tuned = go("tuned", some)
    assert tuned.heads.properties[0] == old.heads.properties[0] and tuned.heads.properties[1].name == "bonds"
    for a, b in zip(old.heads.networks[0].parameters(), tuned.heads.networks[0].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=0)
    assert not tuned.heads.energy
    # Where a batch has no label, there is nothing to learn at all.
    kept = go("kept", bare, freeze=["atom_embedding.*", "layers.*", "output_mlp.*"])
    assert kept.heads.energy
    graph = Graph.from_atoms(molecules(3, seed=5), 2.5)
    assert torch.equal(mdgnn.evaluate(kept, graph).energy, mdgnn.evaluate(old, graph).energy)
    content = settings(with_energies, SECTIONS[:1], {}).model_dump()
    content["model"] = {"start": str(tmp_path / "tuned" / files.MODEL)}
    with pytest.raises(ConfigError, match=r"tuned/model.safetensors' has learnt no energies"):
        train(parse(content), tmp_path / "refused")


def keys(*sections):
    return Keys(
        properties=tuple(PropertyKey(s["name"], s.get("key", s["name"]), s["kind"] == "atomic") for s in sections)
    )


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
    for z, mean in zip(model.elements, shift, strict=True):
        assert mean == pytest.approx(float(c[known & (graph.atomic_numbers == z)].mean()))
    found = mdgnn.evaluate(model, graph, properties=True).properties["neighbours"]
    assert summary["errors"]["valid"]["neighbours_mae"] == pytest.approx(
        float((found - c)[known].abs().mean()), rel=1e-9
    )


def test_references_and_scales_by_arithmetic():
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 5, (30, 2)).astype(float)
    rest = rng.normal(0, 0.3, 30)
    rest -= counts @ np.linalg.lstsq(counts, rest, rcond=None)[0]
    found = standardize("x", "extensive", Labels(counts @ [2.0, -7.0] + rest, counts))
    assert found.shift == pytest.approx([2, -7]) and found.scale == pytest.approx(
        np.sqrt(((rest / counts.sum(1)) ** 2).mean())
    )
    values = rng.normal(5, 2, 30)
    found = standardize("x", "intensive", Labels(values, counts))
    assert found.shift == pytest.approx([values.mean()]) and found.scale == pytest.approx(values.std())
    kind = np.eye(3)[rng.integers(0, 2, 30)]  # nothing is known of the third element
    found = standardize("x", "atomic", Labels(values, kind))
    means = [values[kind[:, k] == 1].mean() for k in (0, 1)]
    assert found.shift == pytest.approx([*means, values.mean()])
    assert found.scale == pytest.approx(np.sqrt(np.mean((values - kind[:, :2] @ means) ** 2)))
    assert standardize("x", "extensive", Labels(counts @ [1.0, 0.0], counts)).scale > 0.5, "not the size of rounding"
    assert standardize("x", "intensive", Labels(np.zeros(3), counts[:3])).scale == 1


def test_the_loss_is_in_units_of_the_scale():
    frames = molecules(3)
    chosen = keys(*SECTIONS)
    dataset = Dataset(frames, 2.5, keys=chosen)
    graph, targets = collate([dataset[k] for k in range(3)])
    model = mdgnn.SchNet(6, 1, 5, cutoff=2.5, elements=[1, 6]).double()
    properties = [standardize(s["name"], s["kind"], Labels(np.array([0.0, 8.0]), np.ones((2, 2)))) for s in SECTIONS]
    mdgnn.models.attach_heads(model, properties, False)
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
    torch.testing.assert_close(loss_of(errors, weights, counts, "mse", 1.0), expected)
    sums = Sums("mse", 1.0, list(counts))
    sums.add(errors)
    assert sums.loss(weights) == pytest.approx(float(expected.detach()))
    mae = (found.properties["neighbours"] - targets.extra["neighbours"]).abs().mean()
    assert sums.figures()["neighbours_mae"] == pytest.approx(float(mae.detach())), "in its own unit"


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
        ({"name": "HOMO-LUMO", "kind": "intensive"}, r"\[\[property\]\] name: .*match pattern"),
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


def test_labels_that_are_not_there_or_are_wrong(some, tmp_path):
    words = (
        r"\[\[property\]\] gap: expected numbers under 'homo_lumo', but no structure of the training set has any "
        r"\(in the first there are: bonds, coordination, coordination_of, n_h\)"
    )
    with pytest.raises(ConfigError, match=words):
        train(settings(some, [{"name": "gap", "kind": "intensive", "key": "homo_lumo"}]), tmp_path / "run")
    with pytest.raises(DataError, match=r"expected a number for each of \d atoms as bonds, got shape \(1,\)|\(\)"):
        train(settings(some, [{"name": "bonds", "kind": "atomic"}]), tmp_path / "run")
    with pytest.raises(DataError, match=r"expected one number as coordination_of, got shape"):
        train(settings(some, [{"name": "coordination_of", "kind": "extensive"}]), tmp_path / "run")
    with pytest.raises(DataError, match=r"no energy \(there are: "):
        train(settings(some, loss={"energy": 1.0}), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"readout = 'mean'.*\[\[property\]\] with kind = 'intensive'"):
        train(settings(some, model={"readout": "mean"}), tmp_path / "run")
    content = settings(some).model_dump()
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
