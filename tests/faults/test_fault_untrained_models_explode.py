"""Untrained models were 1e12 times as far from dense data as these differ: messages were summed as they come."""

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.lj import LennardJones as Truth
from ase.calculators.singlepoint import SinglePointCalculator

pytest.importorskip("lightning")

import mdgnn
from mdgnn import Engine, Graph, evaluate
from mdgnn.data import Dataset, Keys
from mdgnn.training.build import build
from mdgnn.training.config import options_of, parse
from mdgnn.training.data import Limits, sums_over
from mdgnn.training.losses import Sums
from mdgnn.training.references import least_squares, summarize
from mdgnn.training.run import seed_everything

CUTOFF = 5.0
TRAINED = ["PaiNN", "SchNet", "SimpleGNN"]
_kept = {}


def width(architecture):
    """The option that says how many features an atom has."""
    return next(name for name in options_of(architecture) if name in ("n_features", "node_dim"))


def features_of(model, graph):
    return model.atomic_features(graph, graph.vectors.to(model.dtype), model.elements.types(graph.atomic_numbers))


def crystals(n_neighbours, elements=("Ar",), n=8):
    """Displaced fcc crystals with about so many neighbours within the cutoff; by Lennard-Jones."""
    rng = np.random.default_rng(0)
    a = (4 * (4 / 3) * np.pi * CUTOFF**3 / n_neighbours) ** (1 / 3)
    frames = []
    for _ in range(n):
        atoms = bulk("Ar", "fcc", a=a * rng.uniform(0.95, 1.05), cubic=True)
        atoms.positions += rng.normal(0, 0.03 * a, atoms.positions.shape)
        atoms.symbols = rng.choice(elements, len(atoms))
        sigma = a / 2 ** (2 / 3)
        atoms.calc = Truth(sigma=sigma, epsilon=0.1, rc=2.5 * sigma, smooth=True)
        energy = atoms.get_potential_energy() - float(atoms.numbers.sum())
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=atoms.get_forces())
        frames.append(atoms)
    return frames


def data_of(n_neighbours, elements):
    """The data set, what compositions leave of its energies per atom, and the size of forces."""
    key = n_neighbours, elements
    if key not in _kept:
        dataset = Dataset(crystals(n_neighbours, elements), CUTOFF)
        summary = summarize([dataset[k] for k in range(len(dataset))], dataset.elements)
        rest = (summary.energies - summary.counts @ least_squares(summary)) / summary.counts.sum(1)
        _kept[key] = dataset, np.sqrt((rest**2).mean()), summary.rms_force, summary.mean_neighbours
    return _kept[key]


def new(dataset, architecture, features, seed=0, **options):
    model = {"architecture": architecture, "cutoff": CUTOFF, width(architecture): features, **options}
    seed_everything(seed)
    made, _ = build(parse({"model": model, "data": {"train": "none"}}), dataset, Keys())
    return made.requires_grad_(False)


@pytest.mark.parametrize(
    ("features", "elements"),
    [(8, ("Ar",)), (8, ("H", "C", "Au")), (64, ("Ar",)), (64, ("H", "C", "Au")), (256, ("H", "C", "Au"))],
    ids=["8, argon", "8, three", "64, argon", "64, three", "256, three"],
)
@pytest.mark.parametrize("architecture", TRAINED)
def test_new_models_are_as_far_off_as_labels_differ(architecture, features, elements):
    """From 5 to 1,000 neighbours; within a factor of 4, and features that do not grow with the density."""
    sizes = []
    for n in (5, 60, 1000):
        dataset, spread, force, found = data_of(n, elements)
        assert 0.5 * n < found < 1.5 * n
        model = new(dataset, architecture, features)
        figures = sums_over(model, dataset, Limits(), Sums(names=["energy", "forces"])).figures()
        assert figures["energy_rmse"] < 4 * spread and figures["forces_rmse"] < 2 * force, n
        graph = dataset[0].graph
        state = features_of(model, graph)
        sizes.append(float(state.square().mean().sqrt()))
    assert max(sizes) < 10, "1e9 and more"


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        *(("PaiNN", {"basis": basis, "envelope": "polynomial"}) for basis in ("bessel", "gaussian", "exponential")),
        *(("SchNet", {"basis": basis, "envelope": "polynomial"}) for basis in ("bessel", "gaussian", "exponential")),
        ("PaiNN", {"n_interactions": 6}),
        ("SchNet", {"n_interactions": 6}),
        ("SimpleGNN", {"n_layers": 6, "envelope": "cosine", "basis": "exponential"}),
        ("PaiNN", {"repulsion": 0.5}),
    ],
)
def test_so_are_those_with_other_options(architecture, options):
    dataset, spread, force, _ = data_of(1000, ("Ar",))
    for seed in (1, 2):
        model = new(dataset, architecture, 8, seed, **options)
        figures = sums_over(model, dataset, Limits(), Sums(names=["energy", "forces"])).figures()
        assert figures["energy_rmse"] < 4 * spread and figures["forces_rmse"] < 2 * force


@pytest.mark.parametrize("architecture", TRAINED)
@pytest.mark.parametrize("decides", ["energy", "forces"])
def test_whatever_a_new_model_says_too_much_of_decides(architecture, decides):
    """The last Linear is made smaller until the median over structures is that of the labels, for both or below."""
    frames = crystals(60)
    rng = np.random.default_rng(1)
    for atoms in frames:
        atoms.calc.results["energy"] += (10.0 if decides == "forces" else 0.0) * len(atoms) * rng.normal()
        atoms.calc.results["forces"] *= 1e3 if decides == "energy" else 1.0
    dataset = Dataset(frames, CUTOFF)
    model = new(dataset, architecture, 8, scale=1e3, dtype="float64")
    found = [evaluate(model, dataset[k].graph) for k in range(len(dataset))]
    labels = [dataset[k].targets for k in range(len(dataset))]
    size = [np.median([float(one.forces.square().mean().sqrt()) for one in some]) for some in (labels, found)]
    energies = np.array([[float(one.energy) for one in some] for some in (labels, found)]) / dataset.n_atoms
    off = np.median(np.abs(energies - np.median(energies, axis=1, keepdims=True)), axis=1)
    assert size[1] == pytest.approx(size[0], rel=1e-6) if decides == "forces" else size[1] < size[0]
    assert off[1] == pytest.approx(off[0], rel=1e-3) if decides == "energy" else off[1] < off[0]
    assert np.median(energies[1] - energies[0]) == pytest.approx(0, abs=1e-6 * np.abs(energies).max())


def test_dense_structures_among_many_thin_ones_decide():
    """The mean over atoms would be that of dimers, and boxes would explode."""
    dimers = []
    for k in range(60):
        atoms = crystals(5, n=1)[0][:2]
        atoms.pbc = False
        atoms.positions[1] = atoms.positions[0] + [3.0 + 0.02 * k, 0, 0]
        atoms.calc = SinglePointCalculator(atoms, energy=-36.0 - 0.01 / (k + 1), forces=np.zeros((2, 3)))
        dimers.append(atoms)
    dataset = Dataset(dimers + crystals(1000, n=1), CUTOFF)
    model = new(dataset, "PaiNN", 8)
    assert model.config.mean_neighbours > 800 > 20 * dataset.n_edges.sum() / dataset.n_atoms.sum()
    graph = dataset[60].graph
    assert float(features_of(model, graph).abs().max()) < 100


@pytest.mark.parametrize("filters", ["table", "direct"])
@pytest.mark.parametrize("architecture", TRAINED)
def test_sums_are_divided_by_the_root(architecture, filters):
    """What the first layer adds to the state of an atom is that of weights divided by it, where there are no others."""
    graph = Graph.from_atoms(crystals(60, n=1), CUTOFF)
    options = {width(architecture): 8, "cutoff": CUTOFF, "filters": filters, "elements": "any", "envelope": "cosine"}
    models = []
    for n in (1.0, 49.0):
        torch.manual_seed(0)
        models.append(getattr(mdgnn, architecture)(**options, mean_neighbours=n).double().requires_grad_(False))
    if architecture == "SimpleGNN":
        parts = [layer.message_mlp[2] for layer in models[0].layers]
    elif architecture == "SchNet":
        parts = [network[2] for network in models[0].filters.networks]
    else:
        parts = list(models[0].filters.networks)
    for linear in parts:
        linear.weight /= 7
        linear.bias /= 7
    found = [evaluate(model, graph, virial=True) for model in models]
    for one, other in zip(found[0][:4], found[1][:4], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)
    if filters == "table":
        ours = Engine(models[1]).evaluate(graph)
        torch.testing.assert_close(ours.energy, found[1].energy, rtol=1e-13, atol=0)
        torch.testing.assert_close(ours.forces, found[1].forces, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("architecture", TRAINED)
def test_one_is_the_network_of_before_to_the_bit(architecture):
    graph = Graph.from_atoms(crystals(60, n=1), CUTOFF)
    found = []
    for options in ({}, {"mean_neighbours": 1.0}):
        torch.manual_seed(0)
        model = getattr(mdgnn, architecture)(**{width(architecture): 8}, cutoff=CUTOFF, elements="any", **options)
        assert model.config.mean_neighbours == 1.0
        found.append(evaluate(model, graph))
    assert torch.equal(found[0].energy, found[1].energy) and torch.equal(found[0].forces, found[1].forces)
    for name in ("lj", "acac"):
        assert mdgnn.load(name).config.mean_neighbours == 1.0, "files of before have no such option"


@pytest.mark.parametrize("architecture", TRAINED)
def test_the_number_that_is_found_may_be_given(architecture):
    """Whoever wrote it down had a network that begins with any size."""
    dataset, _, _, number = data_of(60, ("Ar",))
    left_out, given = (new(dataset, architecture, 8, **options) for options in ({}, {"mean_neighbours": number}))
    assert left_out.config == given.config
    for (name, a), b in zip(left_out.named_parameters(), given.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_one_stays_and_nothing_else_is_made_to_fit():
    """So recipes of before give the models of before."""
    dataset, *_ = data_of(60, ("Ar",))
    model = new(dataset, "SchNet", 8, mean_neighbours=1.0)
    seed_everything(0)
    plain = mdgnn.SchNet(8, cutoff=CUTOFF, elements=[18])
    for (name, a), b in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert model.config.mean_neighbours == 1.0
    fitted = new(dataset, "SchNet", 8)
    changed = [
        n for (n, a), b in zip(fitted.named_parameters(), plain.parameters(), strict=True) if not torch.equal(a, b)
    ]
    assert set(changed) <= {"output_mlp.2.weight", "output_mlp.2.bias"}


def test_it_is_in_the_file(tmp_path):
    dataset, *_ = data_of(60, ("Ar",))
    for architecture in TRAINED:
        model = new(dataset, architecture, 8)
        mdgnn.save(model, tmp_path / "model.safetensors")
        again = mdgnn.load(tmp_path / "model.safetensors")
        assert again.config.mean_neighbours == model.config.mean_neighbours > 50
        graph = dataset[0].graph
        assert torch.equal(evaluate(again, graph).forces, evaluate(model, graph).forces)


def test_what_is_refused():
    for n in (0, -1.0, float("inf"), True, "many"):
        with pytest.raises(ValueError, match=f"expected mean_neighbours as a positive number, got {n!r}"):
            mdgnn.PaiNN(8, mean_neighbours=n)
    with pytest.raises(ValueError, match="with the aggregation 'sum' alone, got 9.0 with 'mean'"):
        mdgnn.SimpleGNN(aggregation="mean", mean_neighbours=9.0)
    dataset, *_ = data_of(60, ("Ar",))
    assert new(dataset, "SimpleGNN", 8, aggregation="mean").config.mean_neighbours == 1.0
