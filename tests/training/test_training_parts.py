"""Losses, references, schedules and the mean of weights against arithmetic by hand."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ase import Atoms

pytest.importorskip("lightning")

from systems import gnn
from training_runs import clusters, crystals, labelled

from mdgnn import Graph, evaluate
from mdgnn.data import Dataset, Sample, Targets, collate
from mdgnn.potential import stress
from mdgnn.training.losses import Sums, errors_of, loss_of
from mdgnn.training.module import EMA
from mdgnn.training.references import given, isolated, least_squares, summarize
from mdgnn.training.schedules import Progress, last_weight, rate, weight


def samples(dataset):
    return [dataset[k] for k in range(len(dataset))]


def batch(weights=(1.0, 2.0, 0.5)):
    """Three structures: a crystal with all targets, a cluster without stress, a cluster with a hole in its forces."""
    frames = [crystals(1)[0], *clusters(2)]
    graph, t = collate(samples(Dataset(frames, 2.5)))
    forces = t.forces.clone()
    forces[-1] = math.nan
    energy = t.energy.clone()
    energy[1] = math.nan
    return Sample(graph, Targets(energy, forces, t.stress, torch.tensor(weights, dtype=torch.float64), {}, []))


@pytest.mark.parametrize("kind", ["mse", "mae", "huber"])
def test_the_loss_is_that_of_plain_torch(kind):
    graph, t = batch()
    result = evaluate(gnn(), graph, virial=True, create_graph=True)
    errors = errors_of(result, graph, t)
    counts = {name: e.errors.numel() for name, e in errors.items()}
    n = torch.bincount(graph.structure)
    assert counts == {"energy": 2, "forces": 3 * graph.n_atoms - 3, "stress": 9}
    loss = loss_of(errors, {"energy": 3.0, "forces": 5.0, "stress": 7.0}, counts, kind, 0.1)

    plain = {"mse": F.mse_loss, "mae": F.l1_loss, "huber": lambda a, b, reduction: F.huber_loss(a, b, reduction, 0.1)}
    w, expected = t.weight, 0.0
    for s in (0, 2):
        expected = expected + 3 * w[s] * plain[kind](result.energy[s] / n[s], t.energy[s] / n[s], reduction="sum") / 2
    for atom in range(graph.n_atoms - 1):
        term = plain[kind](result.forces[atom], t.forces[atom], reduction="sum")
        expected = expected + 5 * w[graph.structure[atom]] * term / (3 * graph.n_atoms - 3)
    expected = expected + 7 * w[0] * plain[kind](stress(result.virial, graph.cells)[0], t.stress[0], reduction="mean")
    torch.testing.assert_close(loss, expected, rtol=1e-13, atol=0)


def gradient_of_loss(graph, targets):
    """Of energies, forces and stress, for all parameters; each as if it were all there is."""
    model = gnn()
    predicted = evaluate(model, graph, virial=True, create_graph=True)
    weights = {"energy": 1.0, "forces": 2.0, "stress": 3.0}
    loss_of(errors_of(predicted, graph, targets), weights, dict.fromkeys(weights, 10), "mse", 1.0).backward()
    return torch.cat([p.grad.ravel() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("target", ["energy", "forces", "stress"])
def test_targets_that_are_nan_leave_no_trace_in_the_gradient(target):
    """The gradient is that of the same loss without the target: whose error is 0 where it is what is predicted."""
    graph, t = batch()
    targets = {"energy": t.energy, "forces": t.forces, "stress": t.stress}
    without = targets[target].clone()
    without[0] = math.nan  # the first atom's, or the first structure's
    predicted = evaluate(gnn(), graph, virial=True)
    exact = targets[target].clone()
    exact[0] = {
        "energy": predicted.energy,
        "forces": predicted.forces,
        "stress": stress(predicted.virial, graph.cells),
    }[target][0]
    gradients = [
        gradient_of_loss(graph, Targets(*{**targets, target: values}.values(), t.weight, {}, []))
        for values in (without, exact, targets[target])
    ]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-12, atol=1e-12 * float(gradients[1].abs().max()))
    assert float((gradients[0] - gradients[2]).abs().max()) > 1e-3 * float(gradients[2].abs().max())


def test_no_targets_have_no_errors_and_no_loss():
    graph, t = batch()
    assert errors_of(evaluate(gnn(), graph), graph, Targets(None, None, None, t.weight, {}, [])) == {}
    assert float(loss_of({}, {"energy": 1.0}, {}, "mse", 1.0)) == 0


def test_a_prediction_that_is_nan_is_not_taken_for_a_missing_target():
    graph, t = batch()
    result = evaluate(gnn(), graph)
    broken = result._replace(energy=result.energy * math.nan)
    assert errors_of(broken, graph, t)["energy"].errors.isnan().all()


@pytest.mark.parametrize("kind", ["mse", "mae", "huber"])
def test_sums_over_batches_are_the_figures_of_the_whole(kind):
    graph, t = batch()
    result = evaluate(gnn(), graph, virial=True)
    errors = errors_of(result, graph, t)
    sums = Sums(kind, 0.1)
    sums.add({"energy": errors["energy"]})
    sums.add({"forces": errors["forces"]})
    figures = sums.figures()
    (e, w, _), (f, v, _) = errors["energy"], errors["forces"]
    expected = {}
    for name, errors_, weights_ in (("energy", e, w), ("forces", f, v)):
        expected[f"{name}_mae"] = float((weights_ * errors_.abs()).sum() / weights_.sum())
        expected[f"{name}_rmse"] = float(((weights_ * errors_.square()).sum() / weights_.sum()).sqrt())
    assert figures == pytest.approx(expected, rel=1e-13)
    counts = {name: e.errors.numel() for name, e in errors.items()}
    weights = {"energy": 2.0, "forces": 3.0, "stress": 0.0}
    assert sums.loss(weights) == pytest.approx(float(loss_of(errors, weights, counts, kind, 0.1)), rel=1e-13)


def mixtures(energies):
    """Molecules of H and O, whose energies are sums of their atoms'."""
    rng = np.random.default_rng(0)
    for formula in ("H2O", "H4O", "HO3", "H2", "O2", "H", "O"):
        atoms = Atoms(formula)
        atoms.positions = rng.normal(0, 3, (len(atoms), 3))
        atoms = labelled(atoms, None)
        atoms.calc.results = {"energy": sum(energies[s] for s in atoms.symbols), "forces": np.ones((len(atoms), 3)) * 2}
        yield atoms


def test_references_are_found_exactly():
    energies = {"H": -13.587, "O": -2041.839}
    dataset = Dataset(list(mixtures(energies)), 2.0)
    summary = summarize(samples(dataset), dataset.elements)
    np.testing.assert_allclose(least_squares(summary), [-13.587, -2041.839], rtol=1e-13)
    np.testing.assert_allclose(isolated(summary, "it"), [-13.587, -2041.839], rtol=0)
    np.testing.assert_array_equal(given(energies, [1, 8]), [-13.587, -2041.839])
    assert summary.rms_force == pytest.approx(2, rel=1e-14) and summary.counts.sum() == dataset.n_atoms.sum()
    received = torch.cat([graph.row_ptr.diff() for graph, _ in samples(dataset)]).double()
    mean = float((received**2).sum() / received.sum())
    assert summary.mean_neighbours == pytest.approx(mean, rel=1e-14), "the mean over edges"
    assert summary.neighbours @ dataset.n_atoms == pytest.approx(dataset.n_edges.sum(), rel=1e-14)


def one_more(summary, counts, energy):
    """With a lone atom; an element with several lone atoms silently had the last one's energy."""
    lone = labelled(Atoms("H"), None)
    assert summarize([Dataset([lone], 2.0)[0]], [1, 8]).lone.all()
    crystal = labelled(Atoms("H", cell=[1, 1, 1], pbc=True), None)
    assert not summarize([Dataset([crystal], 2.0)[0]], [1, 8]).lone.any(), "it has neighbours: itself"
    return summary._replace(
        counts=np.vstack([summary.counts, [1, 0], counts]),
        energies=np.append(summary.energies, [-1.0, energy]),
        lone=np.append(summary.lone, [True, True]),
    )


def test_references_that_are_missing_are_named():
    summary = summarize(samples(Dataset(list(mixtures({"H": -1.0, "O": -2.0}))[:5], 2.0)), [1, 8])
    with pytest.raises(ValueError, match="the training set has no lone atom of H, O"):
        isolated(summary, "the training set")
    other = one_more(summary, [1, 0], -1.25)
    with pytest.raises(ValueError, match=r"it has lone atoms of H with different energies, -1.0 and -1.25"):
        isolated(other, "it")
    with pytest.raises(ValueError, match="no energy of O"):
        given({"H": -1.0, "C": 0.0}, [1, 8])
    with pytest.raises(ValueError, match="'Hx' is not a chemical symbol"):
        given({"Hx": -1.0}, [1])
    with pytest.raises(ValueError, match="no structure of the training set has one"):
        least_squares(summary._replace(energies=summary.energies * np.nan))
    with pytest.raises(ValueError, match="got none"):
        summarize([], [1])


def test_where_compositions_do_not_tell_elements_apart_references_are_the_smallest():
    """Of H2O alone, with -4: x (2, 1) with 5 x = -4."""
    one = summarize(samples(Dataset(list(mixtures({"H": -1.0, "O": -2.0}))[:1], 2.0)), [1, 8])
    assert least_squares(one) == pytest.approx([-1.6, -0.8], rel=1e-14)


def test_learning_rates():
    assert [rate("constant", k, 100, 0) for k in (0, 99)] == [1, 1]
    assert [rate("plateau", k, 100, 4) for k in range(5)] == [0.25, 0.5, 0.75, 1, 1]
    assert [rate("constant", k, 100, 2) for k in range(4)] == [0.5, 1, 1, 1]
    assert [rate("cosine", k, 100, 4) for k in range(4)] == [0.25, 0.5, 0.75, 1], "it rises first"
    for warmup in (0, 10):
        falling = [rate("cosine", k, 100, warmup) for k in range(warmup, 101)]
        np.testing.assert_allclose(falling, (1 + np.cos(np.pi * np.linspace(0, 1, 101 - warmup))) / 2, atol=1e-15)
    assert [rate("onecycle", k, 101, 0) for k in range(101)] == [rate("onecycle", k, 101, 30) for k in range(101)]


@pytest.mark.parametrize("top", [30, 7])
def test_one_cycle_is_that_of_torch(top):
    """Which rises to the step pct_start * n - 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1.0)
    course, theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, 101, pct_start=(top + 1) / 101), []
    for _ in range(100):
        theirs.append(course.get_last_lr()[0])
        optimizer.step()
        course.step()
    np.testing.assert_allclose([rate("onecycle", k, 101, top) for k in range(101)], [*theirs, 1e-4 / 25], rtol=1e-12)


def test_weights_along_the_epochs():
    points = [(10, 100.0), (0, 1.0), (20, 50.0)]
    assert [weight(points, e) for e in (0, 5, 10, 15, 20, 99)] == [1, 50.5, 100, 75, 50, 50]
    assert weight(3, 7) == 3 and last_weight(points) == 50 and last_weight(2.5) == 2.5


def test_plateau_and_waiting():
    progress, drops = Progress(), []
    for loss in (5, 4, 4, 4, 4, 4, 3, 3, 3, 3, math.nan):
        progress.see(loss, patience=2)
        drops.append(progress.drops)
    assert drops == [0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2] and progress.best == 3 and progress.waited == 4


def test_the_mean_of_weights_follows_its_law():
    torch.manual_seed(0)
    weights = [torch.rand(3, dtype=torch.float64) for _ in range(6)]
    from torch.optim.swa_utils import AveragedModel

    model = torch.nn.Linear(3, 1, bias=False, dtype=torch.float64)
    averaged, expected = AveragedModel(model, multi_avg_fn=EMA(0.3)), None
    for n, w in enumerate(weights):
        with torch.no_grad():
            model.weight.copy_(w[None])
        averaged.update_parameters(model)
        d = min(0.3, (1 + n) / (10 + n))
        expected = w if n == 0 else d * expected + (1 - d) * w
        torch.testing.assert_close(averaged.module.weight[0], expected, rtol=1e-14, atol=0)


def test_kept_tables_follow_the_mean():
    """What is evaluated with the mean is evaluated with its present weights."""
    from systems import radial
    from torch.optim.swa_utils import AveragedModel

    model = radial("SchNet")
    averaged = AveragedModel(model, multi_avg_fn=EMA(0.5)).requires_grad_(False)
    graph = Graph.from_atoms(clusters(1), 2.5)
    averaged.update_parameters(model)
    before = evaluate(averaged.module, graph).energy
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1.5)
    averaged.update_parameters(model)
    after = evaluate(averaged.module, graph).energy
    fresh = radial("SchNet")
    fresh.load_state_dict(averaged.module.state_dict())
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, evaluate(fresh, graph).energy, rtol=0, atol=0)
