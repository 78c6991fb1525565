"""The compiled loop: the bits of ASE's integrators, of one system as of many, and what becomes of one that explodes."""

import threading
import time

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import CalculatorError
from ase.constraints import FixAtoms
from ase.md.langevin import Langevin as AseLangevin
from ase.optimize import FIRE
from moving_systems import cluster, crystal, energy, mixed, moving, state

from mdgnn import MDGNNCalculator
from mdgnn.dynamics import Langevin
from mdgnn.dynamics.compiled import CompiledSystems
from mdgnn.threads import set_num_threads


@pytest.fixture(autouse=True)
def threads_as_before():
    yield
    set_num_threads(None)


@pytest.fixture(scope="module")
def calculator():
    return MDGNNCalculator("lj")


def systems_of(calculator, structures):
    systems = CompiledSystems(calculator)
    for atoms in structures:
        systems.add(atoms)
    return systems


def langevin(atoms, friction, steps):
    """At 2000 K, in the compiled loop."""
    rngs = [np.random.default_rng(7)]
    systems_of(atoms.calc, [atoms]).langevin([0], 0.005, [friction], [units.kB * 2000.0], rngs, steps)


@pytest.mark.parametrize("make", [cluster, crystal])
def test_langevin_is_ases_with_the_same_noise_bit_for_bit(make):
    ours, theirs = make(), make()
    for atoms in (ours, theirs):
        atoms.calc = MDGNNCalculator("lj")
    langevin(ours, 0.5, 230)  # in blocks
    noise = np.random.default_rng(7)
    AseLangevin(theirs, 0.005, temperature_K=2000.0, friction=0.5, fixcm=False, rng=noise).run(230)
    assert np.array_equal(state(ours), state(theirs))


def test_a_free_cluster_under_langevin_agrees_with_ase_while_its_center_rests():
    ours, theirs = cluster(), cluster()
    for atoms in (ours, theirs):
        atoms.calc = MDGNNCalculator("lj")
        Langevin().constrain(atoms)
    center = ours.get_center_of_mass()
    langevin(ours, 0.5, 100)
    noise = np.random.default_rng(7)
    AseLangevin(theirs, 0.005, temperature_K=2000.0, friction=0.5, fixcm=False, rng=noise).run(100)
    assert np.abs(state(ours) - state(theirs)).max() < 1e-9
    assert np.abs(ours.get_center_of_mass() - center).max() < 1e-12


def test_langevin_without_friction_is_nve(calculator):
    cold, free = cluster(), cluster()
    for atoms in (cold, free):
        atoms.calc = calculator
    langevin(cold, 0.0, 100)
    systems_of(calculator, [free]).velocity_verlet([0], 0.005, 100)
    assert np.abs(state(cold) - state(free)).max() < 1e-9


def test_langevin_has_the_temperature_asked_for(calculator):
    structures = [cluster(13, seed) for seed in range(12)]
    systems, which = systems_of(calculator, structures), range(12)
    rngs = [np.random.default_rng([9, k]) for k in which]
    kelvin = 0.2 / 8.617330337217213e-05  # of epsilon / kB
    temperatures = []
    for block in range(80):
        systems.langevin(which, 0.005, [2.0] * 12, [units.kB * kelvin] * 12, rngs, 10)
        if block >= 20:
            temperatures.append(np.mean([atoms.get_temperature() for atoms in structures]) / kelvin)
    assert (
        abs(np.mean(temperatures) - 1) < 0.05
    )  # five standard errors, of some 40 independent samples of 468 degrees of freedom


def test_time_can_be_turned_back(calculator):
    atoms = cluster()
    start, atoms.calc = atoms.positions.copy(), calculator
    systems_of(calculator, [atoms]).velocity_verlet([0], 0.004, 100)
    atoms.set_momenta(-atoms.get_momenta())
    assert np.abs(atoms.positions - start).max() > 0.05
    systems_of(calculator, [atoms]).velocity_verlet([0], 0.004, 100)
    assert np.abs(atoms.positions - start).max() < 1e-6


def relax(systems, which, fmax, steps):
    """Whether they converged, and steps taken."""
    ends = {k: end for k, *end in systems.relaxations(which, fmax, steps)}
    return [list(x) for x in zip(*(ends[k] for k in which), strict=True)]


def advance(systems, how):
    which = range(len(systems.structures))
    if how == "nve":
        return systems.velocity_verlet(which, 0.004, 60)
    if how == "langevin":
        rngs = [np.random.default_rng([1, len(atoms)]) for atoms in systems.structures]
        n = len(which)
        return systems.langevin(which, 0.004, [0.5] * n, [units.kB * 2000.0] * n, rngs, 60)
    return relax(systems, which, 0.02, 60)


@pytest.mark.parametrize("how", ["nve", "langevin", "fire"])
@pytest.mark.parametrize("n_threads", [1, 2, 5])
def test_bits_are_those_of_a_system_alone_for_any_threads_batch_and_order(calculator, how, n_threads, monkeypatch):
    monkeypatch.setattr("mdgnn.dynamics.compiled.WORTH_A_THREAD", 0)  # noise is drawn on all threads
    alone = mixed()
    set_num_threads(1)
    for atoms in alone:
        advance(systems_of(calculator, [atoms]), how)
    set_num_threads(n_threads)
    together = mixed()
    advance(systems_of(calculator, together[::-1]), how)
    for a, b in zip(alone, together, strict=True):
        assert np.array_equal(state(a), state(b))
    assert np.array_equal(state(together[0]), state(together[3])), "one system twice"


@pytest.mark.parametrize("broken", [0, 1])
def test_a_generator_that_fails_on_any_thread_ends_the_run(calculator, broken, monkeypatch):
    class Broken:
        def standard_normal(self, n):
            raise RuntimeError("out of entropy")

    monkeypatch.setattr("mdgnn.dynamics.compiled.WORTH_A_THREAD", 0)
    set_num_threads(2)
    structures = [cluster(), cluster()]
    before = [state(atoms) for atoms in structures]
    rngs = [np.random.default_rng(1), np.random.default_rng(2)]
    rngs[broken] = Broken()
    with pytest.raises(RuntimeError, match="out of entropy"):
        systems_of(calculator, structures).langevin([0, 1], 0.004, [0.5] * 2, [units.kB * 2000.0] * 2, rngs, 10)
    assert np.array_equal(before, [state(atoms) for atoms in structures])


@pytest.mark.parametrize("how", ["nve", "fire"])
def test_calls_in_pieces_are_one_call(calculator, how):
    whole, pieces = cluster(), cluster()
    a, b = systems_of(calculator, [whole]), systems_of(calculator, [pieces])
    for systems, parts in ((a, [50]), (b, [1, 29, 20])):
        for n in parts:
            systems.velocity_verlet([0], 0.004, n) if how == "nve" else relax(systems, [0], 1e-9, n)
    assert np.array_equal(state(whole), state(pieces))


def test_a_large_system_has_the_same_bits_for_any_threads(calculator):
    results = []
    for n_threads in (1, 4):
        set_num_threads(n_threads)
        atoms = moving(bulk("Ar", "fcc", a=1.6, cubic=True) * 4)
        systems_of(calculator, [atoms]).velocity_verlet([0], 0.004, 20)
        results.append(state(atoms))
    assert np.array_equal(*results)


@pytest.mark.parametrize("held", [False, True])
def test_fire_takes_ases_steps_to_the_minimum(calculator, held):
    ours, theirs = cluster(38), cluster(38)
    for atoms in (ours, theirs):
        atoms.positions += np.random.default_rng(4).normal(0, 0.05, atoms.positions.shape)
        if held:
            atoms.set_constraint(FixAtoms([2]))
    theirs.calc = MDGNNCalculator("lj")
    optimizer = FIRE(theirs, logfile=None)
    optimizer.run(fmax=0.01, steps=500)
    converged, steps = relax(systems_of(calculator, [ours]), [0], 0.01, 500)
    assert converged == [True] and steps == [optimizer.nsteps]
    assert np.abs(ours.positions - theirs.positions).max() < 1e-6
    ours.calc = MDGNNCalculator("lj", backend="torch")
    assert np.linalg.norm(ours.get_forces(), axis=1).max() < 0.0101


def test_systems_converge_each_on_its_own(calculator):
    structures = [cluster(13, seed) for seed in range(6)]
    systems = systems_of(calculator, structures)
    converged, steps = relax(systems, range(6), 0.01, 500)
    assert all(converged) and len(set(steps)) > 2
    before = structures[0].positions.copy()
    assert relax(systems, range(6), 0.01, 500) == [[True] * 6, [0] * 6]
    assert np.array_equal(structures[0].positions, before)


@pytest.mark.parametrize("explosion", ["coincident", "not finite", "momentum"])
def test_one_that_explodes_is_named_and_harms_no_other(calculator, explosion):
    alone, structures = cluster(13, 2), [cluster(13, 1), cluster(13, 9), cluster(13, 2)]
    systems_of(calculator, [alone]).velocity_verlet([0], 0.004, 40)
    bad = structures[1]
    if explosion == "coincident":
        bad.positions[3] = bad.positions[4]
    elif explosion == "not finite":
        bad.positions[3, 0] = np.nan
    else:
        momenta = bad.get_momenta()
        momenta[3] = np.inf
        bad.set_momenta(momenta)
    systems = systems_of(calculator, structures)
    steps = systems.velocity_verlet(range(3), 0.004, 40)
    assert list(systems.failed) == [1] and isinstance(systems.failed[1], (ValueError, CalculatorError))
    assert steps[0] == steps[2] == 40 and steps[1] < 40
    assert np.array_equal(state(structures[2]), state(alone))
    structures[1].positions[:] = cluster(13, 9).positions  # a new start
    structures[1].set_momenta(cluster(13, 9).get_momenta())
    assert systems.velocity_verlet(range(3), 0.004, 40).tolist() == [40] * 3 and not systems.failed


def test_atoms_that_are_too_close_are_warned_of_or_refused():
    close = Atoms("Ar2", [[0, 0, 0], [0.5, 0, 0]])
    for what in ("raise", "ignore", "warn"):
        atoms = close.copy()
        atoms.set_masses([1.0, 1.0])
        calculator = MDGNNCalculator("lj", too_close=what)
        systems = systems_of(calculator, [atoms])
        if what == "warn":
            with pytest.warns(UserWarning, match=r"came as close as 0\.5, closer than any in the model's training"):
                systems.find_forces([0])
        else:
            systems.find_forces([0])
        assert (0 in systems.failed) == (what == "raise")


def test_no_systems_and_no_steps(calculator):
    systems = systems_of(calculator, [])
    assert len(systems.velocity_verlet([], 0.004, 10)) == len(list(systems.relaxations([], 0.1, 9))) == 0
    atoms = cluster()
    before = state(atoms)
    assert systems_of(calculator, [atoms]).velocity_verlet([0], 0.004, 0).tolist() == [0]
    assert np.array_equal(state(atoms), before)


def test_what_the_loop_has_is_of_the_atoms_as_they_are(calculator):
    atoms = crystal()
    systems = systems_of(calculator, [atoms])
    assert systems.results(0, atoms) is None
    systems.find_forces([0])
    assert systems.results(0, atoms)["energy"] == systems.results(0, atoms.copy())["energy"] == energy(atoms)
    for change in (
        lambda other: other.positions.__iadd__(0.01),
        lambda other: other.set_cell(other.cell * 1.1),
        lambda other: other.set_pbc(False),
        lambda other: other.set_atomic_numbers([10] * len(other)),
    ):
        other = atoms.copy()
        change(other)
        assert systems.results(0, other) is None


def test_python_goes_on_while_others_wait_for_the_loop(calculator):
    """Else it stands still for a slice of time; and for good, where the loop's results are made of Python objects."""
    systems = systems_of(calculator, [cluster()])
    compiled = systems._systems
    systems.find_forces([0])
    begin = time.perf_counter()
    compiled.velocity_verlet([0], 1e-5, 500, 1)
    steps = int(500 * 1.5 / (time.perf_counter() - begin))
    positions = systems.structures[0].positions
    for wait in (
        lambda: compiled.get(0),
        lambda: compiled.set(0, positions, np.zeros_like(positions)),
        lambda: compiled.states(np.array([0])),
    ):
        loop = threading.Thread(target=lambda: compiled.velocity_verlet([0], 1e-5, steps, 1))
        loop.start()
        time.sleep(0.1)
        waits = threading.Thread(target=wait)
        begin = time.perf_counter()
        waits.start()
        time.sleep(0.05)
        assert time.perf_counter() - begin < 0.5 and loop.is_alive()
        loop.join()
        waits.join()
