"""Runs in a folder: with any ASE calculator, interrupted, continued with the same one alone; what records say."""

import itertools
import math
import os
import signal
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones as PairCalculator
from lj_runs import cluster, cluster_with, crystal, exact

import mdgnn.dynamics
from mdgnn import Ensemble, LennardJones, MDGNNCalculator, PaiNN
from mdgnn.calculators import FunctionCalculator
from mdgnn.dynamics import (
    NVE,
    InterruptedRunError,
    Langevin,
    MolecularDynamics,
    RunError,
    checkpoint,
    relax,
    restart,
    run_folder,
    simulate,
)
from mdgnn.dynamics.lj_clusters import LJ_MINIMA


def test_any_ase_calculator_runs_and_goes_on_with_it():
    atoms = bulk("Cu", cubic=True) * 2
    whole = simulate(atoms, EMT(), Langevin(300), folder=Path("whole"), steps=20, interval=2)
    assert whole["units"]["time"] == "fs" and whole["settings"]["model"] == "EMT" and whole["model_sha256"] == ""
    simulate(atoms, EMT(), Langevin(300), folder=Path("parts"), steps=9, interval=2)
    with pytest.raises(ValueError, match="expected the calculator of this run, EMT, which no file holds, got none"):
        restart(Path("parts"), steps=20)
    restart(Path("parts"), steps=20, calculator=EMT())
    logs = [np.loadtxt(f"{name}/log.csv", delimiter=",", skiprows=1) for name in ("whole", "parts")]
    np.testing.assert_allclose(*logs, rtol=1e-9)  # EMT's last bits depend on when its neighbour list was made
    for name, steps in (("ours", 20), ("half", 9)):
        simulate(crystal(), exact(1.5), folder=Path(name), steps=steps, interval=2)
    restart(Path("half"), steps=20, calculator=exact(1.5))
    for name in ("log.csv", "trajectory.xyz", "final.xyz"):
        assert Path("half", name).read_bytes() == Path("ours", name).read_bytes()
    water = molecule("H2O")
    water.calc = EMT()
    relaxed = relax(water, fmax=0.02, folder=Path("water"))
    assert relaxed.converged and relaxed.summary["units"] == {"energy": "eV", "length": "Angstrom"}
    assert relaxed.energy == pytest.approx(ase.io.read("water/final.xyz").get_potential_energy())


def test_a_folder_in_which_something_is_and_an_interrupted_run():
    Path("run").mkdir()
    Path("run/mine").write_text("precious")
    with pytest.raises(RunError, match="the output folder run is not empty"):
        simulate(cluster(), exact(), folder=Path("run"))
    with pytest.raises(InterruptedRunError, match="after step 20 of 50; go on: ") as caught:
        simulate(cluster(), interrupted_at(20), folder=Path("new"), steps=50)
    assert caught.value.signum == signal.SIGINT
    with pytest.raises(RunError, match="dtype is float64 in the run to continue, not float32"):
        restart(Path("new"), calculator=exact(), expected={"dtype": "float32"})
    assert restart(Path("new"), calculator=exact())["steps_in_this_session"] == 30


def interrupted_at(evaluation):
    """A calculator during whose evaluation of this number Ctrl-C is pressed."""
    calculator, calculate, calls = exact(), MDGNNCalculator.calculate, itertools.count()

    def interrupted(*arguments, **options):
        if next(calls) == evaluation:
            os.kill(os.getpid(), signal.SIGINT)
        calculate(calculator, *arguments, **options)

    calculator.calculate = interrupted
    return calculator


def test_what_is_said_after_an_interruption_can_be_done():
    """Of a calculator from Python too; folders are given as text."""
    with pytest.raises(InterruptedRunError) as caught:
        simulate(cluster(), interrupted_at(20), folder="it's", steps=50)
    advice = str(caught.value).partition("; go on: ")[2].replace("calculator=...", "calculator=exact()")
    summary = eval(advice, {"mdgnn": mdgnn, "exact": exact})
    assert summary["steps"] == 50 and summary["steps_in_this_session"] == 30
    with pytest.raises(InterruptedRunError) as caught:
        relax(cluster(), interrupted_at(5), folder="relaxed", fmax=1e-4)
    advice = str(caught.value).partition("; go on from the last frame: ")[2]
    assert eval(advice, {"mdgnn": mdgnn, "ase": ase, "calculator": exact()}).converged


def test_of_a_folder_in_which_something_is_the_advice_is_python_too():
    Path("file").write_text("precious")
    for name in (".", "file"):
        with pytest.raises(RunError, match="folder="):
            relax(cluster(), exact(), folder=name)
    assert relax(cluster(), exact(), folder=".", force=True).converged and Path("file").read_text() == "precious"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"interval": 0}, "expected interval to be a whole number of at least 1, got 0"),
        ({"interval": -3}, "expected interval to be a whole number of at least 1, got -3"),
        ({"checkpoint_interval": 0}, "expected checkpoint_interval to be a whole number of at least 1, got 0"),
        ({"steps": -1}, "expected steps to be a whole number of at least 0, got -1"),
        ({"steps": 2.5}, "expected steps to be a whole number of at least 0, got 2.5"),
        ({"seed": -1}, "expected seed to be a whole number of at least 0, got -1"),
        ({"rng": np.random.Generator(np.random.MT19937(0))}, "expected random numbers of PCG64"),
        ({"rng": np.random.Generator(np.random.PCG64DXSM(0))}, "expected random numbers of PCG64"),
    ],
)
def test_an_earlier_run_outlives_a_wrong_parameter(wrong, words):
    simulate(cluster(), exact(), folder=Path("run"), steps=2)
    before = {path: path.read_bytes() for path in Path("run").iterdir()}
    with pytest.raises(ValueError, match=words):
        simulate(cluster(), exact(), folder=Path("run"), force=True, **wrong)
    if "steps" in wrong:
        with pytest.raises(ValueError, match=words):
            relax(cluster(), exact(), folder=Path("run"), force=True, **wrong)
        with pytest.raises(ValueError, match=words):
            restart(Path("run"), calculator=exact(), **wrong)
    assert {path: path.read_bytes() for path in Path("run").iterdir()} == before


def argon():
    atoms = cluster()
    atoms.positions *= 3
    return atoms


def potential(seed):
    torch.manual_seed(seed)
    return PaiNN(8, cutoff=4.0, elements=[18])


def painn(seed):
    return MDGNNCalculator(potential(seed))


def committee(*seeds):
    return Ensemble([potential(seed) for seed in seeds])


class Shifted(EMT):
    """Another class, of the same results."""


@pytest.mark.parametrize(
    ("atoms", "calculator", "other", "words"),
    [
        (bulk("Cu", cubic=True), EMT, Shifted, "has the calculator EMT, not Shifted"),
        (bulk("Cu", cubic=True), EMT, exact, "has the calculator EMT, not MDGNNCalculator"),
        (argon(), lambda: painn(0), lambda: MDGNNCalculator("lj"), "units is metal .*, not lj"),
        (cluster(), exact, lambda: MDGNNCalculator(LennardJones()), "dtype is float64 .*, not float32"),
        (cluster(), lambda: MDGNNCalculator("lj"), lambda: Ensemble(["lj", "lj"]), "MDGNNCalculator, not Ensemble"),
        (argon(), lambda: painn(0), lambda: painn(1), "MDGNNCalculator has other weights or parameters than"),
        (argon(), lambda: committee(0, 1), lambda: committee(0, 2), "Ensemble has other weights or parameters than"),
        (cluster(), exact, lambda: exact(2.5), "MDGNNCalculator has other weights or parameters than"),
        (
            argon(),
            lambda: PairCalculator(sigma=3.4),
            lambda: PairCalculator(sigma=3.3),
            "has other weights or parameters than",
        ),
    ],
)
def test_a_run_does_not_go_on_with_another_calculator(atoms, calculator, other, words):
    simulate(atoms, calculator(), folder=Path("run"), steps=2)
    before = {path: path.read_bytes() for path in Path("run").iterdir()}
    with pytest.raises(RunError, match=words):
        restart(Path("run"), steps=4, calculator=other())
    assert {path: path.read_bytes() for path in Path("run").iterdir()} == before
    assert restart(Path("run"), steps=4, calculator=calculator())["steps"] == 4


@pytest.mark.parametrize(
    ("calculator", "other"), [(exact, lambda: exact(2.5)), (lambda: committee(0, 1), lambda: committee(0, 2))]
)
def test_a_run_goes_on_whose_record_has_a_list_of_digests(calculator, other):
    """As they were written before; the calculator must share one of them."""
    atoms = cluster() if calculator is exact else argon()
    simulate(atoms, calculator(), folder=Path("run"), steps=2)
    path = Path("run") / run_folder.CHECKPOINT
    state = checkpoint.load(path)
    digest = state.settings["calculator_sha256"]
    state.settings["calculator_sha256"] = ["0" * 64, digest]
    checkpoint.save(path, state)
    with pytest.raises(RunError, match="has other weights or parameters than"):
        restart(Path("run"), steps=4, calculator=other())
    assert restart(Path("run"), steps=4, calculator=calculator())["steps"] == 4
    assert restart(Path("run"), steps=6, calculator=calculator())["steps"] == 6


class Odd:
    """ASE refuses to encode it."""

    def todict(self):
        return [self]


class Springs(Calculator):
    """Of another package."""

    implemented_properties = ("energy", "forces")

    def calculate(self, *args):
        super().calculate(*args)
        x = self.atoms.positions
        self.results = {"energy": 0.5 * float((x**2).sum()), "forces": -x}


CYCLE = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize("parameters", [None, [], {"a": Odd()}, {"a": CYCLE}, {1: 2, "a": 3}, {"a": np.int64(3)}])
def test_parameters_of_foreign_calculators_end_no_run(parameters):
    def calculator():
        made = Springs()
        made.parameters = parameters
        return made

    assert relax(argon(), calculator(), steps=2).steps == 2
    simulate(argon(), calculator(), folder=Path("run"), steps=2)
    assert restart(Path("run"), calculator=calculator(), steps=4)["steps"] == 4


def test_options_may_be_numbers_of_numpy():
    def calculator(n_features):
        torch.manual_seed(0)
        return MDGNNCalculator(PaiNN(n_features, cutoff=np.float32(4.0), elements=[18]))

    assert type(calculator(np.int64(8)).model.config.n_features) is int
    simulate(argon(), calculator(np.int64(8)), folder=Path("run"), steps=2)
    assert restart(Path("run"), calculator=calculator(8), steps=4)["steps"] == 4


@pytest.mark.parametrize(
    ("calculator", "precision"),
    [
        (exact, {"device": "cpu", "dtype": "float64"}),
        (lambda: MDGNNCalculator("lj"), {"device": "cpu", "dtype": "float32"}),
        (lambda: Ensemble(["lj", "lj"], dtype="float64"), {"device": "cpu", "dtype": "float64"}),
        (lambda: FunctionCalculator(lambda x: ((x**2).sum(), 2 * x)), {}),
    ],
)
def test_records_have_device_and_dtype_of_the_calculator(calculator, precision):
    """Where nothing is known of them, nothing is said."""
    for settings in (
        relax(cluster(), calculator(), steps=1).summary["settings"],
        simulate(cluster(), calculator(), folder=Path("run"), steps=1)["settings"],
        restart(Path("run"), calculator=calculator(), steps=2)["settings"],
    ):
        assert {name: settings[name] for name in ("device", "dtype") if name in settings} == precision


@pytest.mark.parametrize("calculator", [lambda: painn(0), lambda: committee(0, 1)])
def test_atoms_out_of_reach_of_every_model_are_said(calculator):
    atoms = cluster(3)
    atoms.positions *= 100
    with pytest.warns(UserWarning, match="no two atoms are within the model's cutoff of 4 Angstrom"):
        relax(atoms, calculator(), steps=0)


def pair_function(positions):
    """Lennard-Jones in reduced units, as a user writes it."""
    away = positions[:, None] - positions[None]
    squares = np.square(away).sum(-1) + np.diag(np.full(len(positions), np.inf))
    sixth = squares**-3.0
    slope = 4 * (6 * sixth - 12 * sixth**2) / squares
    return 2 * (sixth**2 - sixth).sum(), (slope[..., None] * away).sum(1)


def test_a_function_says_its_units():
    """It moves as the model of the same potential, and its records say so; unless told it is in eV and Angstrom."""
    function = lambda units: FunctionCalculator(pair_function, units)  # noqa: E731
    for ensemble in (NVE(0.2), Langevin(0.2)):
        runs = [
            simulate(cluster(), calculator, ensemble, folder=Path(name), steps=10, seed=3)
            for name, calculator in (("function", function("lj")), ("model", exact(math.inf)))
        ]
        ends = [ase.io.read(f"{name}/final.xyz") for name in ("function", "model")]
        np.testing.assert_allclose(ends[0].positions, ends[1].positions, atol=1e-7)
        assert [run["settings"]["units"] for run in runs] == ["lj", "lj"] and runs[0]["units"] == runs[1]["units"]
        for name in ("function", "model"):
            for path in Path(name).iterdir():
                path.unlink()
            Path(name).rmdir()
    minima = [relax(cluster(), calculator) for calculator in (function("lj"), exact(math.inf))]
    assert minima[0].energy == pytest.approx(LJ_MINIMA[13]) == minima[1].energy
    assert minima[0].summary["units"] == {"energy": "epsilon", "length": "sigma"}
    assert MolecularDynamics(cluster_with(FunctionCalculator(pair_function)), NVE(300)).units.name == "metal"
    with pytest.raises(RunError, match="units is lj in the run to continue, not metal"):
        simulate(cluster(), function("lj"), folder=Path("run"), steps=1)
        restart(Path("run"), steps=2, calculator=function("metal"))
    for wrong in ("real", None):
        with pytest.raises(ValueError, match="expected units 'metal' or 'lj', got"):
            function(wrong)
    with pytest.raises(TypeError, match="no parameter 'unit'; there is units"):
        function("lj").set(unit="metal")
