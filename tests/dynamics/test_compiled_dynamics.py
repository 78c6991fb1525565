"""What `MolecularDynamics` and `simulate` make of the compiled loop: when it moves atoms, and what they show of it."""

import copy
import os
import pickle
import signal
from contextlib import contextmanager

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms, FixCom, FixedPlane
from ase.md.langevin import Langevin as AseLangevin
from ase.md.verlet import VelocityVerlet
from moving_systems import cluster, crystal, energy, moving, state

from mdgnn import MDGNNCalculator
from mdgnn.calculators import FunctionCalculator
from mdgnn.dynamics import (
    NVE,
    InterruptedRunError,
    Langevin,
    MolecularDynamics,
    Reporter,
    checkpoint,
    restart,
    simulate,
)
from mdgnn.dynamics.compiled import CompiledSystems


@pytest.fixture(scope="module")
def calculator():
    return MDGNNCalculator("lj")


def meeting():
    """Two clusters whose atoms come within the cutoff of each other, in a periodic cell that is skewed."""
    atoms = cluster(13, 1)
    other = cluster(13, 2)
    other.positions += [8.0, 0.5, 0.0]
    for part, speed in ((atoms, 4.0), (other, -4.0)):
        part.set_momenta(part.get_momenta() + np.array([speed, 0.0, 0.0]))
    atoms += other
    atoms.set_cell([[19.0, 0, 0], [3.0, 15.0, 0], [-2.0, 1.0, 15.0]])
    atoms.pbc = True
    return atoms


@pytest.mark.parametrize("make", [cluster, crystal, meeting])
@pytest.mark.parametrize("held", [False, True])
def test_nve_is_ases_velocity_verlet_bit_for_bit(calculator, make, held):
    ours, theirs = make(), make()
    for atoms in (ours, theirs):
        atoms.calc = MDGNNCalculator("lj")
        if held:
            atoms.set_constraint(FixAtoms([0, 5]))
    md = MolecularDynamics(ours, NVE(), timestep=0.004)
    assert md.is_compiled
    start = ours.positions.copy()
    md.advance(150)
    VelocityVerlet(theirs, 0.004).run(150)
    assert np.array_equal(state(ours), state(theirs)) and np.abs(ours.positions - start).max() > 0.05
    assert np.array_equal(ours.get_forces(), theirs.get_forces())
    assert ours.get_potential_energy() == theirs.get_potential_energy()
    assert not held or np.array_equal(ours.positions[[0, 5]], start[[0, 5]])


def test_energy_is_conserved_as_the_square_of_the_timestep(calculator):
    scatter = []
    for timestep, steps in ((0.004, 500), (0.002, 1000)):
        atoms = cluster()
        atoms.calc = calculator
        md = MolecularDynamics(atoms, NVE(), timestep)
        scatter.append(np.std([atoms.get_total_energy() for _ in md.run(steps, interval=5)]))
    assert 3 < scatter[0] / scatter[1] < 5


def test_a_failure_is_the_calculators_own_sentence():
    atoms = cluster()
    atoms.calc = MDGNNCalculator("lj")
    atoms.positions[3] = atoms.positions[4]
    md = MolecularDynamics(atoms, NVE(), 0.004)
    with pytest.raises(ValueError, match="atoms 3 and 4 coincide"):
        md.advance(3)


def test_what_is_not_compiled_is_done_by_ase_or_refused(calculator):
    plane = cluster()
    plane.set_constraint(FixedPlane(0, (0, 0, 1)))
    with pytest.raises(ValueError, match="no constraints but FixAtoms or FixCom, got FixedPlane"):
        CompiledSystems(calculator).add(plane)
    both = cluster()
    both.set_constraint([FixCom(), FixAtoms([0])])
    for atoms in (plane, both):
        atoms.calc = calculator
        assert not MolecularDynamics(atoms, NVE()).is_compiled
    two = Atoms("ArNe", [[0, 0, 0], [0, 0, 1.1]])
    two.calc = calculator
    with pytest.raises(ValueError, match="this model takes a single species as its particle"):
        MolecularDynamics(two, NVE()).step()
    with pytest.raises(ValueError, match="runs on the engine: the calculator's backend is 'torch'"):
        CompiledSystems(MDGNNCalculator("lj", backend="torch"))
    with pytest.raises(ValueError, match="the calculator is FunctionCalculator"):
        CompiledSystems(FunctionCalculator(lambda *_: 0.0))


def test_the_loop_follows_what_is_changed_between_calls():
    ours, theirs = cluster(), cluster()
    ours.calc, theirs.calc = MDGNNCalculator("lj"), MDGNNCalculator("lj")
    md, ase = MolecularDynamics(ours, NVE(), 0.004), VelocityVerlet(theirs, 0.004)
    for change in (
        lambda atoms: atoms.calc.set(dtype="float64"),
        lambda atoms: atoms.set_positions(atoms.positions * 1.01),
        lambda atoms: atoms.set_masses(np.full(13, 2.0)),
        lambda atoms: (atoms.set_cell([9.0] * 3), atoms.set_pbc(True)),
        lambda atoms: atoms.set_constraint(FixAtoms([1])),
    ):
        for atoms in (ours, theirs):
            change(atoms)
        md.advance(20)
        ase.run(20)
        assert np.array_equal(state(ours), state(theirs))


def test_no_results_are_handed_out_before_there_are_any():
    at_the_origin = moving(Atoms("Ar", [[0.0, 0.0, 0.0]]))
    for atoms in (cluster(), at_the_origin):
        atoms.calc = MDGNNCalculator("lj")
        md = MolecularDynamics(atoms, NVE(), 0.004)
        for move in (0.0, 0.02):
            atoms.positions[0] += move
            md.advance(0)
            assert atoms.get_potential_energy() == energy(atoms)
            md.advance(3)
            assert atoms.get_potential_energy() == energy(atoms)
        with pytest.raises(ValueError, match="expected steps to be a whole number of at least 0, got -1"):
            md.advance(-1)
    assert energy(cluster()) < -10


def interrupt(*_):
    raise KeyboardInterrupt


def test_steps_count_that_were_taken_before_an_error(monkeypatch):
    atoms, twin = cluster(), cluster()
    for each in (atoms, twin):
        each.calc = MDGNNCalculator("lj")
    md, whole = MolecularDynamics(atoms, NVE(), 0.004), MolecularDynamics(twin, NVE(), 0.004)
    with monkeypatch.context() as patch:
        patch.setattr("mdgnn.dynamics.compiled._next_block", interrupt)
        with pytest.raises(KeyboardInterrupt):
            md.advance(10)
    assert 0 < md.n_steps < 10
    whole.advance(md.n_steps)
    assert np.array_equal(state(atoms), state(twin)), "as many steps as it counts"
    atoms.positions[3] = atoms.positions[4]
    before = md.n_steps
    with pytest.raises(ValueError, match="coincide"):
        md.advance(3)
    assert md.n_steps == before


def test_another_calculator_or_constraint_makes_ases_integrator_take_the_steps():
    for change in (
        lambda atoms: setattr(atoms, "calc", LennardJones(rc=3.0, smooth=True)),
        lambda atoms: atoms.calc.set(backend="torch"),
        lambda atoms: atoms.set_constraint(FixedPlane(0, (0, 0, 1))),
    ):
        ours, theirs = cluster(), cluster()
        ours.calc, theirs.calc = MDGNNCalculator("lj"), MDGNNCalculator("lj")
        md, ase = MolecularDynamics(ours, NVE(), 0.004), VelocityVerlet(theirs, 0.004)
        was_compiled = md.is_compiled
        for _ in range(2):
            md.advance(5)
            ase.run(5)
            assert np.array_equal(state(ours), state(theirs))
            change(ours), change(theirs)
        assert was_compiled and not md.is_compiled


def test_the_integrator_is_ases_and_says_how_steps_are_taken():
    ours, theirs = crystal(), crystal()
    for atoms in (ours, theirs):
        atoms.calc = MDGNNCalculator("lj")
    md = MolecularDynamics(ours, Langevin(None, 0.5), 0.004, rng=5)
    kelvin = md.ensemble.temperature * md.units.kelvin
    ase = AseLangevin(theirs, 0.004, temperature_K=kelvin, friction=0.5, fixcm=False, rng=np.random.default_rng(5))
    for change in (
        lambda integrator: None,
        lambda integrator: integrator.set_temperature(temperature_K=900.0),
        lambda integrator: integrator.set_timestep(0.003),
        lambda integrator: integrator.set_friction(2.0),
    ):
        change(md.integrator), change(ase)
        assert md.is_compiled
        md.advance(10)
        ase.run(10)
        assert np.array_equal(state(ours), state(theirs))
    seen = []
    md.integrator.attach(lambda: seen.append(md.integrator.nsteps), interval=2)
    md.integrator.run(4)
    assert seen == [0, 2, 4] and md.integrator.nsteps == 4
    md.integrator.set_friction(np.full((len(ours), 1), 2.0))  # of each atom
    ase.set_friction(2.0)
    ase.run(4)
    assert not md.is_compiled
    md.advance(10)
    ase.run(10)
    assert np.array_equal(state(ours), state(theirs))


def pickled(thing):
    return pickle.loads(pickle.dumps(thing))


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_a_copy_goes_on_by_itself(copied):
    atoms = cluster()
    atoms.calc = MDGNNCalculator("lj")
    md = MolecularDynamics(atoms, Langevin(0.3), 0.004, rng=1)
    md.advance(20)
    other = copied(md)
    assert other.is_compiled and other.n_steps == 20
    before = state(atoms)
    other.advance(20)
    assert np.array_equal(state(atoms), before), "the copy moved the original"
    md.advance(20)
    assert np.array_equal(state(atoms), state(other.atoms)) and md.n_steps == other.n_steps == 40


class Interrupts(Reporter):
    """Sends a signal after some steps."""

    @contextmanager
    def progress(self, label, total):
        yield lambda step, text: os.kill(os.getpid(), signal.SIGTERM) if step >= 20 else None


@pytest.mark.parametrize("ensemble", [NVE(0.3), Langevin(0.3)])
def test_a_compiled_run_stops_in_good_order_and_goes_on_as_if_it_never_had(tmp_path, monkeypatch, ensemble):
    monkeypatch.setattr("mdgnn.dynamics.simulation.draw_run", lambda *_: [])
    settings = {"steps": 60, "interval": 7, "checkpoint_interval": 25}
    simulate(cluster(), "lj", ensemble, folder=tmp_path / "whole", **settings)
    with pytest.raises(InterruptedRunError, match=r"stopped after step \d+ of 60") as error:
        simulate(cluster(), "lj", ensemble, folder=tmp_path / "part", **settings, reporter=Interrupts())
    assert error.value.signum == signal.SIGTERM
    assert 20 <= checkpoint.load(tmp_path / "part" / "checkpoint.npz").step < 60
    restart(tmp_path / "part")
    for name in ("trajectory.xyz", "log.csv", "final.xyz"):
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_run_in_a_folder_is_that_of_ases_integrator(tmp_path, monkeypatch):
    monkeypatch.setattr("mdgnn.dynamics.simulation.draw_run", lambda *_: [])
    simulate(cluster(), "lj", Langevin(0.3), folder=tmp_path / "compiled", steps=30, seed=2)
    monkeypatch.setattr("mdgnn.dynamics.compiled.is_for", lambda _: False)
    simulate(cluster(), "lj", Langevin(0.3), folder=tmp_path / "ase", steps=30, seed=2)
    ours, theirs = (np.loadtxt(tmp_path / name / "log.csv", delimiter=",", skiprows=1) for name in ("compiled", "ase"))
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)
