"""What atoms do: molecular dynamics in memory and in a folder, in each ensemble and unit; relaxation; basin hopping."""

import itertools
import math
from pathlib import Path

import ase.data
import ase.io
import ase.units
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.optimize import FIRE
from lj_runs import cluster, cluster_with, crystal, exact

from mdgnn import Ensemble
from mdgnn.calculators import FunctionCalculator
from mdgnn.dynamics import (
    NPT,
    NVE,
    Langevin,
    MolecularDynamics,
    basin_hopping,
    displace,
    quench,
    relax,
    simulate,
)
from mdgnn.dynamics.ensembles import ENSEMBLES, make_ensemble
from mdgnn.dynamics.lj_clusters import LJ_MINIMA, lj_cluster, true_lj_energy
from mdgnn.dynamics.molecular_dynamics import drift
from mdgnn.dynamics.units import LJ, METAL

RUNS = [
    (cluster, NVE(0.2), None),
    (cluster, Langevin(0.2, friction=0.3), None),
    (crystal, NPT(0.3, pressure=1.0), 1.5),
]


@pytest.mark.parametrize(("made", "ensemble", "cutoff"), RUNS, ids=[ensemble.name for _, ensemble, _ in RUNS])
def test_in_memory_and_in_a_folder_the_same_bits(tmp_path, made, ensemble, cutoff):
    summary = simulate(made(), exact(cutoff), ensemble, folder=tmp_path / "run", steps=40, interval=4, seed=7)
    log = np.loadtxt("run/log.csv", delimiter=",", skiprows=1)
    atoms = made()
    atoms.calc = exact(cutoff)
    md = MolecularDynamics(atoms, ensemble, rng=7)
    rows = [md.row(), *(md.row() for _ in md.run(40, interval=4))]
    np.testing.assert_array_equal(np.array(rows), log)
    assert md.n_steps == summary["steps"] == 40 and md.time == log[-1, 1] == 40 * 0.005
    header = (tmp_path / "run" / "log.csv").read_text().splitlines()[0]
    assert header.split(",") == md.header() and md.temperature == log[-1, 5]
    names = [name.partition("[")[0] for name in md.header()]
    assert names[:6] == ["step", "time", "total_energy", "potential_energy", "kinetic_energy", "temperature"]
    potential = exact(cutoff).get_potential_energy(atoms)
    kinetic = 0.5 * (atoms.get_momenta() ** 2).sum()  # the mass is 1
    n_free = 3 * len(atoms) - 3 * (ensemble.name != "nve")  # whose centre of mass is held
    energies = [potential + kinetic, potential, kinetic, 2 * kinetic / n_free]
    np.testing.assert_allclose(log[-1, 2:6], energies, rtol=1e-13)
    assert summary["initial_total_energy"] == log[0, 2] != summary["final_total_energy"] == log[-1, 2]
    assert summary["mean_temperature_second_half"] == pytest.approx(log[5:, 5].mean(), rel=1e-14)


@pytest.mark.parametrize(("made", "ensemble", "cutoff"), RUNS, ids=[ensemble.name for _, ensemble, _ in RUNS])
def test_dynamics_in_memory_goes_on_from_its_state(made, ensemble, cutoff):
    def begin():
        atoms = made()
        atoms.calc = exact(cutoff)
        return MolecularDynamics(atoms, ensemble, rng=3)

    whole, first = begin(), begin()
    list(whole.run(20))
    list(first.run(8))
    second = MolecularDynamics(first.atoms, ensemble, rng=first.rng, state=first.state())
    list(second.run(12))
    np.testing.assert_array_equal(second.atoms.positions, whole.atoms.positions)
    np.testing.assert_array_equal(second.atoms.get_momenta(), whole.atoms.get_momenta())


def test_a_relaxation_in_memory():
    atoms = cluster()
    atoms.set_constraint(FixAtoms([0]))
    before = atoms.copy()
    relaxed = relax(atoms, exact(), fmax=1e-4)
    assert relaxed.converged and relaxed.fmax < 1e-4 and relaxed.energy < relaxed.initial_energy and relaxed.steps > 1
    assert atoms == before and atoms.calc is None, "the caller's atoms are as they were"
    np.testing.assert_array_equal(relaxed.atoms.positions[0], atoms.positions[0])
    assert relaxed.energy == pytest.approx(LJ_MINIMA[13], abs=1e-6) == true_lj_energy(relaxed.atoms)
    forces = exact().get_forces(relaxed.atoms)[1:]
    assert relaxed.fmax == pytest.approx(np.linalg.norm(forces, axis=1).max(), rel=1e-9), "of the atoms that are free"
    assert not relax(atoms, exact(), fmax=1e-4, steps=1).converged and not list(Path().iterdir())


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (lambda: relax(cluster()), "expected a calculator, or atoms with one, got none"),
        (lambda: simulate(cluster(), folder=Path("o")), "expected a calculator, or atoms with one, got none"),
        (lambda: MolecularDynamics(cluster(), NVE()), "expected atoms with a calculator, got none"),
        (lambda: relax(cluster(), exact(), optimizer="Newton"), "expected an optimizer out of BFGS, .*, got 'Newton'"),
        (lambda: relax(cluster(), exact(), fmax=0), "expected a positive fmax, got 0"),
        (lambda: simulate(cluster(), exact(), NVE(-1), folder=Path("o")), "a temperature of at least 0, got -1"),
        (lambda: simulate(cluster(), exact(), timestep=math.nan, folder=Path("o")), "finite timestep above 0, got nan"),
        (lambda: simulate(cluster(), exact(), NPT(0.1), folder=Path("o")), "the structure is periodic along none"),
        (lambda: make_ensemble("nvt"), "expected an ensemble out of nve, langevin, npt, got 'nvt'"),
        (lambda: make_ensemble("nve", friction=1.0), "a friction goes with the ensemble langevin, not with nve"),
        (lambda: make_ensemble("langevin", pressure=1.0), "a pressure goes with the ensemble npt, not with langevin"),
    ],
)
def test_what_cannot_be_is_a_sentence_before_anything_is_written(work, words):
    with pytest.raises(ValueError, match=words):
        work()
    assert not list(Path().iterdir())


def test_every_ensemble_has_its_equations_and_symbols():
    for ensemble in ENSEMBLES.values():
        assert ".. math::" in ensemble.__doc__ and "symbol" in ensemble.__doc__ and "References" in ensemble.__doc__
        assert all(name in ensemble.__doc__ for name in ensemble.parameters())


def test_quench_by_scipy_and_by_ase():
    energies = []
    for optimizer in (None, lambda atoms: FIRE(atoms, logfile=None)):
        atoms = cluster()
        atoms.calc = exact()
        minimum = quench(atoms, fmax=1e-4, optimizer=optimizer)
        assert minimum.converged and np.abs(atoms.get_forces()).max() <= 1e-4
        energies.append(minimum.energy)
        assert not quench(cluster_with(exact()), fmax=1e-9, steps=2, optimizer=optimizer).converged
    assert energies == pytest.approx([LJ_MINIMA[13]] * 2, abs=1e-6)


def test_basin_hopping_samples_minima_as_metropolis_does():
    """Two minima, at -1 and 1, and each move changes with even odds: the upper one has its Boltzmann share."""
    gap, temperature, rng = 0.7, 0.5, np.random.default_rng(0)

    def minimize(x):
        side = np.sign(x)
        return (gap if side[0, 0] > 0 else 0.0), side

    here = []

    def move(x):
        here.append(x[0, 0] > 0)
        return x * rng.choice([-1.0, 1.0])

    walk = basin_hopping(minimize, -np.ones((1, 1)), rng, move, temperature)
    list(itertools.islice(walk, 20_000))
    ratio = np.mean(here) / (1 - np.mean(here))
    assert ratio == pytest.approx(math.exp(-gap / temperature), rel=0.1)


def test_a_hop_that_does_not_count_is_not_gone_on_from():
    rng, seen = np.random.default_rng(0), []

    def minimize(x):
        return (math.inf if x[0, 0] > 2 else 0.0), x

    def move(x):
        seen.append(x[0, 0])
        return x + 1

    walk = basin_hopping(minimize, np.zeros((1, 1)), rng, move, 1.0, accept=lambda before, after: after[0, 0] != 2)
    energies = [energy for energy, _ in itertools.islice(walk, 5)]
    assert energies == [0.0, 0.0, math.inf, math.inf, math.inf] and seen == [0.0, 1.0, 1.0, 1.0]


def test_basin_hopping_finds_the_bipyramid_of_seven():
    atoms = Atoms("Ar7", lj_cluster("7", np.random.default_rng(5)).positions, calculator=exact())

    def minimize(positions):
        atoms.positions = positions
        return quench(atoms).energy, atoms.positions.copy()

    rng = np.random.default_rng(0)
    walk = basin_hopping(minimize, atoms.positions.copy(), rng, displace(0.35, rng), 0.8)
    assert min(energy for energy, _ in itertools.islice(walk, 30)) == pytest.approx(-16.505384, abs=1e-5)


def test_an_ensemble_works_in_the_units_of_its_models():
    pair = Ensemble(["lj", "lj"])
    summary = simulate(cluster(), pair, Langevin(), folder=Path("run"), steps=2)
    assert summary["units"]["energy"] == "epsilon" and summary["settings"]["temperature"] == 0.2
    assert summary["settings"]["timestep"] == 0.005
    assert MolecularDynamics(cluster_with(pair), NVE(0.2)).units is LJ
    assert relax(cluster(), pair, steps=1).summary["units"] == {"energy": "epsilon", "length": "sigma"}
    water = Ensemble(["water", "water"])
    assert relax(molecule("H2O"), water, steps=1).summary["units"] == {"energy": "eV", "length": "Angstrom"}


def test_wrong_steps_in_memory_and_numpys_whole_numbers():
    md = MolecularDynamics(cluster_with(exact()), NVE(0.2))
    for wrong in ({"steps": -1}, {"steps": 4, "interval": 0}):
        with pytest.raises(ValueError, match="to be a whole number of at least"):
            list(md.run(**wrong))
    numbers = {name: np.int64(2) for name in ("steps", "seed", "interval", "checkpoint_interval")}
    assert simulate(cluster(), exact(), folder=Path("run"), **numbers)["steps"] == 2
    assert relax(cluster(), exact(), folder=Path("relaxed"), steps=np.int64(3)).steps == 3


def test_masses_are_one_in_reduced_units_in_memory_and_in_a_folder():
    """The velocities that were drawn have the temperature that was asked for, and belong to these masses."""
    atoms = cluster_with(exact())
    assert atoms.get_masses()[0] == pytest.approx(39.948, abs=1e-3)
    MolecularDynamics(atoms, Langevin(0.2), rng=1)
    np.testing.assert_array_equal(atoms.get_masses(), 1)
    simulate(cluster(), exact(), Langevin(0.2), folder="run", steps=0, seed=1)
    final = ase.io.read("run/final.xyz")
    np.testing.assert_array_equal(final.get_masses(), 1)
    np.testing.assert_allclose(final.get_velocities(), atoms.get_velocities(), atol=1e-7)


@pytest.mark.parametrize(("symbol", "temperature"), [("Ar", 0.2), ("Cu", 300.0)], ids=["lj", "metal"])
def test_velocities_have_the_temperature_that_was_asked_for(symbol, temperature):
    """Each component has the variance kT/m, in the units of the model; within five standard errors."""
    n = 4000
    atoms = Atoms(
        numbers=np.full(n, ase.data.atomic_numbers[symbol]), positions=10.0 * np.argwhere(np.ones((20, 20, 10)))
    )
    atoms.calc = exact(1.5) if symbol == "Ar" else FunctionCalculator(lambda x: (0.0, np.zeros_like(x)))
    md = MolecularDynamics(atoms, NVE(temperature), rng=5)
    variance = {"Ar": 0.2, "Cu": ase.units.kB * 300 / ase.data.atomic_masses[29]}[symbol]
    assert atoms.get_velocities().var(axis=0) == pytest.approx(variance, rel=5 * math.sqrt(2 / n))
    assert md.temperature == pytest.approx(temperature, rel=5 * math.sqrt(2 / (3 * n)))


@pytest.mark.parametrize(("symbol", "friction"), [("Ar", 0.8), ("Cu", 0.02)], ids=["lj", "metal"])
def test_friction_slows_free_atoms_by_its_exponential(symbol, friction):
    """The mean velocity falls as exp(-gamma t), t in tau or fs; within five standard errors sqrt(kT / m N)."""
    n, speed = 400, 20.0
    atoms = Atoms(numbers=np.full(n, ase.data.atomic_numbers[symbol]), cell=[50.0 * n, 50, 50], pbc=True)
    atoms.positions[:, 0] = 50.0 * np.arange(n)
    if symbol == "Ar":
        atoms.calc = exact(1.5)
        atoms.set_masses(np.ones(n))
    else:
        atoms.calc = EMT()  # of copper too far apart for it
    thermal = math.sqrt(0.2 if symbol == "Ar" else ase.units.kB * 300 / atoms.get_masses()[0])
    atoms.set_velocities(np.full((n, 3), speed * thermal))
    md = MolecularDynamics(atoms, Langevin(friction=friction), timestep=0.1 / friction, rng=3)
    list(md.run(10))
    assert md.time == pytest.approx(1 / friction)
    mean = atoms.get_velocities().mean(axis=0) / thermal
    assert mean == pytest.approx(speed * math.exp(-1), abs=5 / math.sqrt(n))


def test_defaults_are_those_that_docstrings_tell():
    """Relaxation times of NPT are a hundred and a thousand default time steps."""
    assert Langevin().with_defaults(LJ) == Langevin(0.2, 0.5) and NPT().with_defaults(LJ) == NPT(0.2, 0.0)
    assert Langevin().with_defaults(METAL) == Langevin(300, 0.01) and NPT().with_defaults(METAL) == NPT(300, 0.0)
    assert (LJ.default_timestep, METAL.default_timestep) == (0.005, 1.0)
    for units in (LJ, METAL):
        steps = [time / units.default_timestep for time in (units.thermostat_time, units.barostat_time)]
        assert steps == pytest.approx([100, 1000])


def test_drift_is_the_trend_over_the_run_and_scatter_is_about_it():
    """Of 4 atoms whose energy rises by 0.08 in all, and alternates by 0.4 about that."""
    time = np.linspace(3.0, 7.0, 1001)
    log = np.stack([np.arange(1001), time, 5 + 0.02 * (time - 3) + 0.4 * (-1.0) ** np.arange(1001)], axis=1)
    drifts = drift(log, 4)
    assert drifts["energy_drift_per_atom"] == pytest.approx(0.02, abs=1e-3)
    assert drifts["energy_fluctuation_per_atom"] == pytest.approx(0.1, rel=1e-3)
    assert drift(log[::1000], 4) == {"energy_drift_per_atom": pytest.approx(0.02), "energy_fluctuation_per_atom": 0.0}


def test_momenta_of_other_masses_are_not_taken_for_those_of_mass_one():
    def moving(mass):
        atoms = cluster_with(exact())
        atoms.set_masses(np.full(len(atoms), mass))
        atoms.set_velocities(np.random.default_rng(2).normal(0, 0.1, (13, 3)))
        return atoms

    for work in (
        lambda: MolecularDynamics(moving(2), NVE()),
        lambda: simulate(moving(2), ensemble=NVE(), folder="run"),
    ):
        with pytest.raises(
            ValueError, match="expected a mass of 1, .* got 2 for atom 0, which has a momentum: set mass"
        ):
            work()
    assert not list(Path().iterdir())
    assert (MolecularDynamics(moving(1), NVE()).atoms.get_momenta() == moving(1).get_momenta()).all()
    assert MolecularDynamics(moving(2), NVE(0.2)).atoms.get_masses().max() == 1
