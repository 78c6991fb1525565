"""Weights: of structures, in losses and in what is found out about the data; of properties, over the epochs."""

import math

import numpy as np
import pytest
import torch

pytest.importorskip("lightning")

from property_runs import ALONE, SECTIONS, keys, molecules, settings
from training_runs import clusters, file_of, small

import mdgnn
from mdgnn.data import Dataset, collate
from mdgnn.nn import Property
from mdgnn.training.build import build
from mdgnn.training.config import ConfigError
from mdgnn.training.losses import Sums, errors_of, loss_of
from mdgnn.training.module import Training
from mdgnn.training.references import isolated, least_squares, summarize
from mdgnn.training.run import train

pytestmark = pytest.mark.usefixtures("one_thread_and_no_pictures")


def untrained(architecture="SchNet"):
    torch.manual_seed(0)
    model = getattr(mdgnn, architecture)(6, 1, 5, cutoff=2.5, elements=[1, 6]).double()
    model.attach_heads([Property(s["name"], s["kind"], [0.5], 2.0) for s in SECTIONS], True)
    return model


@pytest.mark.parametrize("kind", ["mse", "mae", "huber"])
def test_structures_weigh_in_losses_and_validation_of_properties(kind):
    """By arithmetic, one structure at a time; only energies' losses were tested."""
    frames, weights = molecules(4), [0.0, 3.0, 1.0, 0.5]
    for atoms, w in zip(frames, weights, strict=True):
        atoms.info["weight"] = w
    dataset, model = Dataset(frames, 2.5, keys=keys(*SECTIONS)), untrained()

    def errors(*chosen):
        graph, targets = collate([dataset[k] for k in chosen])
        return errors_of(mdgnn.evaluate(model, graph, properties=True), graph, targets, model.heads.properties)

    together, alone = errors(0, 1, 2, 3), [errors(k) for k in range(4)]
    for name in ("n_h", "bonds", "coordination", "neighbours"):
        n = together[name].errors.numel()
        plain = [float(loss_of({name: one[name]._replace(weight=torch.ones(1))}, {name: 2.0}, {name: n}, kind, 0.1))
                 for one in alone]  # fmt: skip
        assert min(plain) > 1e-9
        expected = pytest.approx(float(np.dot(weights, plain)), rel=1e-12)
        assert float(loss_of({name: together[name]}, {name: 2.0}, {name: n}, kind, 0.1)) == expected
        sums = Sums(kind, 0.1, [name])
        sums.add(together)
        assert sums.loss({name: 2.0}) == expected
        e = [one[name].errors.detach().numpy() for one in alone]
        w = np.repeat(weights, [len(x) for x in e])
        mae, square = np.average(np.abs(np.hstack(e)), weights=w), np.average(np.square(np.hstack(e)), weights=w)
        assert sums.figures() == pytest.approx({f"{name}_mae": mae, f"{name}_rmse": np.sqrt(square)}, rel=1e-12)
        weightless = Sums(kind, 0.1, [name])
        weightless.add(alone[0])
        assert weightless.figures() == {} and weightless.loss({name: 2.0}) == 0


def test_a_structure_of_weight_three_is_three_structures():
    """In reference energies and the scale of forces; close contacts with little weight would rule both otherwise."""
    frames = clusters(6)
    for k, atoms in enumerate(frames):
        atoms.info["weight"] = [1, 3, 2, 1, 1, 2][k]
    repeated = [atoms.copy() for atoms in frames for _ in range(atoms.info["weight"])]
    for copy, atoms in zip(repeated, [a for a in frames for _ in range(a.info["weight"])], strict=True):
        copy.calc = atoms.calc
        copy.info["weight"] = 1

    def seen(structures):
        dataset = Dataset(structures, 2.5)
        return summarize((dataset[k] for k in range(len(dataset))), [18])

    weighted, plain = seen(frames), seen(repeated)
    np.testing.assert_allclose(least_squares(weighted), least_squares(plain), rtol=1e-9)
    assert weighted.rms_force == pytest.approx(plain.rms_force, rel=1e-12)


def test_the_weight_of_a_property_has_a_course():
    config = settings("data.xyz", [{**SECTIONS[1], "weight": [[1, 0], [3, 4]]}, SECTIONS[0]])
    module = Training(untrained(), config)
    assert [module.weights_at(epoch)["bonds"] for epoch in range(5)] == [0, 0, 2, 4, 4]
    assert module.weights_at(0)["n_h"] == 1 and module.last_weights()["bonds"] == 4
    dataset = Dataset(molecules(3), 2.5, keys=keys(*SECTIONS[:2]))
    batch = collate([dataset[k] for k in range(3)])
    losses = []
    for epoch in range(5):
        module.weights = module.weights_at(epoch)
        losses.append(float(module.training_step(batch, 0).detach()))
    assert losses[1] == losses[0] and losses[4] == losses[3]
    assert losses[3] - losses[0] == pytest.approx(2 * (losses[2] - losses[0]), rel=1e-11)
    assert losses[2] > losses[0] + 1e-3


@pytest.mark.parametrize("loss", [{}, {"forces": 0.0}, ALONE], ids=["energies and forces", "energies", "alone"])
def test_structures_without_a_weight_are_not_seen_before_training_either(loss):
    """One of weight 0 moved the shift and scale of everything."""
    good, bad = molecules(8, energies=True), molecules(2, seed=1, energies=True)
    for atoms in bad:
        atoms.info |= {"weight": 0.0, "bonds": 1e6, "coordination": -1e6}
        atoms.arrays["coordination_of"] = np.full(len(atoms), 1e6)
        atoms.calc.results = {"energy": 1e6, "forces": np.full((len(atoms), 3), 1e6)}
    models, without = [], loss.get("forces") == 0
    for frames in (good, [*good, *bad]):
        for atoms in frames if without else ():  # the scale is then that of what references leave
            atoms.calc.results.pop("forces", None)
        config = settings("data.xyz", loss=loss)
        dataset = Dataset(frames, 2.5, keys=keys(*SECTIONS))
        models.append(build(config, dataset, dataset.keys)[0])
    a, b = models
    assert a.heads.properties == b.heads.properties
    assert torch.equal(a.elements.shift, b.elements.shift) and torch.equal(a.elements.scale, b.elements.scale)


def test_lone_atoms_without_a_weight_are_references_still():
    frames = clusters(4)
    for atoms in frames[1:]:
        atoms.info["weight"] = 0.0
    lone = frames[3][:1]
    lone.info["weight"], lone.info["energy"] = 0.0, -7.5
    dataset = Dataset([*frames[:3], lone], 2.5)
    summary = summarize([dataset[k] for k in range(4)], [18])
    assert isolated(summary, "it").tolist() == [-7.5]
    assert least_squares(summary)[0] == pytest.approx(frames[0].calc.results["energy"] / len(frames[0]), rel=1e-13)


def test_what_cannot_be_learnt_or_judged_is_told(data, tmp_path, capsys):
    """All labels of weight 0 were no labels to learn from; none to validate on went without a word."""
    frames = molecules(8)
    for atoms in frames:
        atoms.info["weight"] = 0.0
    path = file_of(tmp_path / "none.xyz", frames)
    with pytest.raises(ConfigError, match=r"n_h: .* no structure of the training set has any"):
        train(settings(path, SECTIONS[:1]), tmp_path / "run")
    valid = molecules(4, seed=2)
    for atoms in valid:
        atoms.info["bonds"] = math.nan
    config = settings(file_of(tmp_path / "train.xyz", molecules(8)), SECTIONS[:2],
                      data={"valid": [file_of(tmp_path / "valid.xyz", valid)]}, run={"epochs": 1})  # fmt: skip
    train(config, tmp_path / "run")
    told = "mdgnn: no structure of the validation set has any bonds: how it is learnt remains unknown"
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("mdgnn: no")] == [told]
    train(small(data, "run.epochs=1"), tmp_path / "other")
    assert "no structure" not in capsys.readouterr().err
