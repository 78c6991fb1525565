"""Many systems at once: each as alone, ends of its own, errors by number, and Ctrl-C that keeps what is done."""

import copy
import errno
import os
import signal
from contextlib import contextmanager

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.constraints import FixAtoms, FixedPlane
from ase.md.verlet import VelocityVerlet
from moving_systems import cluster, crystal, mixed, state

import mdgnn
from mdgnn import MDGNNCalculator
from mdgnn.dynamics import (
    NPT,
    NVE,
    InterruptedRelaxationsError,
    Langevin,
    ManyMolecularDynamics,
    MolecularDynamics,
    Reporter,
    UnwrittenRelaxationsError,
    relax,
    relax_as_completed,
    relax_many,
    simulate_many,
)
from mdgnn.threads import set_num_threads


@pytest.fixture(scope="module")
def calculator():
    return MDGNNCalculator("lj")


@pytest.mark.parametrize("ensemble", [NVE(0.2), Langevin(0.2, 0.5), Langevin()])
def test_each_moves_as_alone(calculator, ensemble):
    together, alone = mixed(), mixed()
    many = ManyMolecularDynamics(together, ensemble, calculator, 0.004, rng=3)
    for _ in many.run(25, interval=10):
        pass
    assert (many.n_steps == 25).all() and not many.failed
    for k, atoms in enumerate(alone):
        atoms.calc = calculator
        md = MolecularDynamics(atoms, ensemble, 0.004, np.random.default_rng([3, k]))
        md.advance(25)
        assert np.array_equal(state(atoms), state(together[k]))
        assert atoms.get_potential_energy() == together[k].get_potential_energy()
        assert np.array_equal(atoms.get_forces(), together[k].get_forces())
        assert many.temperatures[k] == md.temperature


def test_replicas_have_temperatures_of_their_own(calculator):
    temperatures = [0.05, 0.4]
    replicas = [cluster(13, seed) for seed in range(8)]
    ladder = [Langevin(temperatures[k % 2], 2.0) for k in range(8)]
    many = ManyMolecularDynamics(replicas, ladder, calculator, rng=1)
    means = np.array([many.temperatures for _ in many.run(1600, interval=10)][60:]).mean(0)
    for k, temperature in enumerate(temperatures):
        assert abs(means[k::2].mean() / temperature - 1) < 0.15  # four standard errors


def test_relaxations_end_each_on_its_own_as_ases_fire(calculator):
    structures = [*mixed(), *(cluster(13, seed) for seed in range(4))]
    before = [state(atoms) for atoms in structures]
    results = relax_many(structures, calculator, fmax=0.02)
    assert all(r.converged and not r.error and r.fmax < 0.02 for r in results)
    assert len({r.steps for r in results}) > 3
    assert all(np.array_equal(state(a), b) for a, b in zip(structures, before, strict=True)), "copies were moved"
    for atoms, result in zip(structures[:2], results, strict=False):
        alone = relax(atoms, calculator, fmax=0.02, optimizer="FIRE")
        assert result.steps == alone.steps and result.energy == pytest.approx(alone.energy, abs=1e-6)
    assert np.array_equal(results[0].atoms.positions, results[3].atoms.positions)


def test_bits_do_not_depend_on_threads_or_company(calculator):
    structures = mixed()
    set_num_threads(3)
    try:
        together = relax_many(structures, calculator, fmax=0.02)
        set_num_threads(1)
        for atoms, result in zip(structures, together, strict=True):
            (alone,) = relax_many([atoms], calculator, fmax=0.02)
            assert np.array_equal(alone.atoms.positions, result.atoms.positions) and alone.steps == result.steps
    finally:
        set_num_threads(None)


@pytest.mark.parametrize("in_flight", [1, 3, 50])
def test_a_stream_has_the_results_of_relaxations_alone(calculator, in_flight):
    """Each structure is asked for when there is a place, and each result is out before the stream has ended."""
    structures, asked = [*mixed(), *(cluster(13, seed) for seed in range(4))], []

    def coming():
        for k, atoms in enumerate(structures):
            asked.append(k)
            yield atoms

    before, results = [state(atoms) for atoms in structures], {}
    for k, result in relax_as_completed(coming(), calculator, fmax=0.02, in_flight=in_flight):
        results[k] = result
        assert len(asked) <= len(results) - 1 + in_flight
    assert sorted(results) == list(range(len(structures)))
    for k, atoms in enumerate(structures):
        (alone,) = relax_many([atoms], calculator, fmax=0.02)
        assert np.array_equal(alone.atoms.positions, results[k].atoms.positions) and alone.steps == results[k].steps
        assert alone.energy == results[k].energy and results[k].converged
        assert np.array_equal(state(atoms), before[k]), "a copy was moved"


def test_what_cannot_be_moved_ends_with_an_error_in_a_stream(calculator):
    plane, coincident = cluster(), cluster()
    plane.set_constraint(FixedPlane(0, (0, 0, 1)))
    coincident.positions[0] = coincident.positions[1]
    two = Atoms("ArNe", [[0, 0, 0], [0, 0, 1.1]])
    structures = [two, cluster(13, 1), plane, coincident, cluster(13, 2), two]
    results = dict(relax_as_completed(iter(structures), calculator, fmax=0.02, in_flight=1))
    assert sorted(results) == list(range(6)) and [k for k in sorted(results) if results[k].converged] == [1, 4]
    for k, words in ((0, "a single species"), (2, "got FixedPlane"), (3, "coincide"), (5, "a single species")):
        assert words in results[k].error and np.isnan(results[k].energy) and not results[k].steps
    assert list(relax_as_completed([], calculator)) == []
    with pytest.raises(ValueError, match="in_flight to be a whole number of at least 1, got 0"):
        relax_as_completed([], calculator, in_flight=0)
    with pytest.raises(ValueError, match="positive fmax"):
        relax_as_completed([], calculator, fmax=-1)


def test_relaxations_that_are_given_up_or_fail(calculator):
    bad = cluster(13, 4)
    bad.positions[0] = bad.positions[1]
    results = relax_many([cluster(13, 1), bad, cluster(13, 2)], calculator, fmax=1e-3, steps=7)
    assert [r.steps for r in results] == [7, 0, 7] and not any(r.converged for r in results)
    assert "atoms 0 and 1 coincide" in results[1].error and np.isnan(results[1].energy) and not results[0].error
    assert relax_many([], calculator) == []


def test_dynamics_names_what_fails_and_goes_on(calculator):
    bad = cluster(13, 4)
    bad.positions[0] = bad.positions[1]
    many = ManyMolecularDynamics([cluster(13, 1), bad], NVE(), calculator)
    many.advance(12)
    assert list(many.failed) == [1] and many.n_steps.tolist() == [12, 0]
    none = ManyMolecularDynamics([], Langevin(), calculator)
    none.advance(3)
    assert none.temperatures == []


def fresh(atoms, **parameters):
    """The same atoms with a calculator that has seen nothing yet."""
    other = atoms.copy()
    other.calc = MDGNNCalculator("lj", **parameters)
    return other


def test_energies_are_those_of_the_structures_as_they_are(calculator):
    many = ManyMolecularDynamics([crystal(1), crystal(2)], NVE(), calculator, 0.004)
    many.advance(0)
    for change in (
        lambda atoms: None,
        lambda atoms: atoms.set_cell(atoms.cell * 1.02, scale_atoms=True),
        lambda atoms: atoms.set_cell(atoms.cell * 1.02),
        lambda atoms: atoms.set_pbc([True, False, True]),
        lambda atoms: atoms.set_masses(np.full(len(atoms), 3.0)),
        lambda atoms: atoms.set_constraint(FixAtoms([0, 1])),
    ):
        alone = [fresh(atoms) for atoms in many.structures]
        for atoms, other in zip(many.structures, alone, strict=True):
            change(atoms)
            change(other)
            assert atoms.get_potential_energy() == other.get_potential_energy()
            VelocityVerlet(other, 0.004).run(12)
        many.advance(12)
        for atoms, other in zip(many.structures, alone, strict=True):
            assert np.array_equal(state(atoms), state(other))
            assert atoms.get_potential_energy() == other.get_potential_energy()
    assert many.n_steps.tolist() == [72, 72]
    with pytest.raises(ValueError, match="whole number of at least 0, got -3"):
        many.advance(-3)


def test_changes_that_cannot_be_are_refused(calculator):
    many = ManyMolecularDynamics([cluster(13, 1), cluster(13, 2)], NVE(), calculator, 0.004)
    many.advance(2)
    many.structures[1].set_constraint(FixedPlane(0, (0, 0, 1)))
    with pytest.raises(ValueError, match="system 1: expected no constraints but FixAtoms or FixCom, got FixedPlane"):
        many.advance(2)
    many.structures[1].set_constraint()
    many.structures[1].numbers[0] = 10
    with pytest.raises(ValueError, match="system 1: this model takes a single species"):
        many.advance(2)
    many.structures[1].numbers[0] = 18
    many.advance(2)
    assert many.n_steps.tolist() == [4, 4]


@pytest.mark.parametrize("ensemble", [NVE(0.2), Langevin(0.2, 0.5)])
def test_atoms_put_into_the_place_of_others_move_as_alone(calculator, ensemble):
    """One that failed and others, with generators as given or as left."""
    together = mixed()
    together[1].positions[0] = together[1].positions[1]
    many = ManyMolecularDynamics(together, ensemble, calculator, 0.004, rng=3)
    many.advance(10)
    assert list(many.failed) == [1]
    warm = Langevin(0.4, 2.0) if isinstance(ensemble, Langevin) else NVE(0.4)
    for k, new, kind, rng in (
        (1, crystal(7), None, 11),
        (0, cluster(19, 2), warm, 12),
        (-1, cluster(13, 5), None, None),
    ):
        alone = new.copy()
        alone.calc = MDGNNCalculator("lj")
        generator = copy.deepcopy(many.rngs[k]) if rng is None else np.random.default_rng(rng)
        old = many.structures[k]
        there = state(old)
        assert many.replace(k, new, kind, copy.deepcopy(generator) if rng else None) is old
        md = MolecularDynamics(alone, kind or ensemble, 0.004, generator)
        assert np.array_equal(state(new), state(alone)), "velocities"
        others = [atoms for atoms in many.structures if atoms is not new]
        before = [state(atoms) for atoms in others]
        many.advance(15, [range(6)[k]])
        md.advance(15)
        assert all(np.array_equal(state(atoms), b) for atoms, b in zip(others, before, strict=True))
        many.advance(15)
        md.advance(15)
        assert np.array_equal(state(new), state(alone)) and many.n_steps[k] == 30
        assert new.get_potential_energy() == alone.get_potential_energy()
        assert np.array_equal(state(old), there), "what was there has moved"
        if range(6)[k] != 1:
            assert old.get_potential_energy() == fresh(old).get_potential_energy()
    assert not many.failed


def test_what_cannot_take_a_place_changes_nothing(calculator):
    many = ManyMolecularDynamics([cluster(13, 1), cluster(13, 2)], NVE(0.2), calculator, 0.004)
    many.advance(5)
    first, plane = many.structures[0], cluster()
    plane.set_constraint(FixedPlane(0, (0, 0, 1)))
    for atoms, ensemble, words in (
        (many.structures[1], None, "expected other atoms for place 0, got those of place 1: copy them"),
        (cluster(), Langevin(), "expected an ensemble of the others' kind, nve, got langevin"),
        (plane, None, "no constraints but FixAtoms or FixCom"),
        (Atoms("ArNe", [[0, 0, 0], [0, 0, 1.1]]), None, "a single species"),
    ):
        with pytest.raises(ValueError, match=words):
            many.replace(0, atoms, ensemble)
    with pytest.raises(ValueError, match="expected random numbers of its own for place 0, got those of place 1"):
        many.replace(0, cluster(), rng=many.rngs[1])
    with pytest.raises(IndexError):
        many.replace(2, cluster())
    assert many.structures[0] is first and many.n_steps.tolist() == [5, 5]


def test_atoms_that_are_not_fresh_go_on_as_they_are(calculator):
    whole, parts = [cluster(13, 1), cluster(38, 2)], [cluster(13, 1), cluster(38, 2)]
    rngs = [np.random.default_rng(k) for k in range(2)]
    ManyMolecularDynamics(whole, Langevin(0.3), calculator, 0.004, rng=copy.deepcopy(rngs)).advance(30)
    ManyMolecularDynamics(parts, Langevin(0.3), calculator, 0.004, rng=rngs).advance(10)
    ManyMolecularDynamics(parts, Langevin(0.3), calculator, 0.004, rng=rngs, fresh=False).advance(20)
    assert all(np.array_equal(state(a), state(b)) for a, b in zip(whole, parts, strict=True))


def test_the_calculator_may_be_changed():
    calculator = MDGNNCalculator("lj")
    many = ManyMolecularDynamics([cluster(13, 1), cluster(13, 2)], NVE(), calculator, 0.004)
    many.advance(5)
    single = many.structures[0].get_potential_energy()
    calculator.set(dtype="float64")
    alone = [fresh(atoms, dtype="float64") for atoms in many.structures]
    many.structures[0].calc.reset()
    assert many.structures[0].get_potential_energy() == alone[0].get_potential_energy() != single
    many.advance(5)
    for atoms, other in zip(many.structures, alone, strict=True):
        VelocityVerlet(other, 0.004).run(5)
        assert np.array_equal(state(atoms), state(other))
    calculator.too_close = "raise"
    close = many.structures[1]
    close.positions[0] = close.positions[1] + [0.5, 0, 0]
    many.advance(5)
    assert list(many.failed) == [1] and "close" in str(many.failed[1])
    calculator.set(backend="torch")
    with pytest.raises(ValueError, match="runs on the engine: the calculator's backend is 'torch'"):
        many.advance(1)


def test_copies_go_on_by_themselves(calculator):
    many = ManyMolecularDynamics([cluster(13, 1), cluster(13, 2)], Langevin(0.3), calculator, 0.004)
    many.advance(5)
    atoms = copy.deepcopy(many.structures[0])
    assert type(atoms.calc) is MDGNNCalculator and atoms.calc is not calculator
    assert atoms.get_potential_energy() == many.structures[0].get_potential_energy()
    other = copy.deepcopy(many)
    before = state(many.structures[1])
    other.advance(5)
    assert np.array_equal(state(many.structures[1]), before)
    many.advance(5)
    for a, b in zip(many.structures, other.structures, strict=True):
        assert np.array_equal(state(a), state(b)) and a.get_potential_energy() == b.get_potential_energy()


def test_steps_count_that_were_taken_before_ctrl_c(calculator, monkeypatch):
    many = ManyMolecularDynamics([cluster(13, 1), cluster(13, 2)], NVE(), calculator, 0.004)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("mdgnn.dynamics.compiled._next_block", interrupt)
    with pytest.raises(KeyboardInterrupt):
        many.advance(10)
    assert many.n_steps.tolist() == [1, 1]


def test_a_seed_may_be_numpys_and_no_atoms_come_twice(calculator):
    a, b = (ManyMolecularDynamics([cluster()], Langevin(0.3), calculator, rng=seed) for seed in (3, np.int64(3)))
    for many in (a, b):
        many.advance(3)
    assert np.array_equal(state(a.structures[0]), state(b.structures[0]))
    with pytest.raises(ValueError, match="expected rng to be a whole number of at least 0, got -1"):
        ManyMolecularDynamics([cluster()], NVE(), calculator, rng=-1)
    atoms = cluster()
    with pytest.raises(ValueError, match="the same Atoms for 0 and 2: copy them"):
        ManyMolecularDynamics([atoms, cluster(), atoms], NVE(), calculator)


class Interrupts(Reporter):
    """Sends a signal after the first relaxation."""

    @contextmanager
    def progress(self, label, total):
        yield lambda step, text: os.kill(os.getpid(), signal.SIGINT) if step == 1 else None


def test_ctrl_c_keeps_what_is_done(calculator):
    structures = [Atoms("Ar", [[0.0, 0, 0]]), *(cluster(13, seed) for seed in range(3))]
    with pytest.raises(InterruptedRelaxationsError, match=r"stopped after 1 of 4 relaxations") as error:
        relax_many(structures, calculator, fmax=1e-7, steps=100_000, reporter=Interrupts())
    assert error.value.signum == signal.SIGINT
    results = error.value.relaxations
    assert [r.converged for r in results] == [True, False, False, False] and all(r.fmax > 1e-7 for r in results[1:])


def test_a_full_disk_at_the_end_loses_no_relaxation(calculator, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr("mdgnn.dynamics.many_relaxation.replace_file", full)
    with pytest.raises(UnwrittenRelaxationsError, match="No space left on device: 'out/log.csv'") as error:
        relax_many([cluster(13, seed) for seed in range(2)], calculator, folder="out")
    alone = relax_many([cluster(13, 1)], calculator)[0]
    assert len(error.value.relaxations) == 2 and error.value.relaxations[1].energy == alone.energy


@pytest.mark.parametrize("given", ["lj", "calculator"])
def test_what_is_said_after_ctrl_c_goes_on_as_it_was_asked_for(calculator, given):
    structures = [Atoms("Ar", [[0.0, 0, 0]]), cluster()]
    with pytest.raises(InterruptedRelaxationsError, match="stopped after 1 of 2") as error:
        relax_many(
            structures,
            "lj" if given == "lj" else calculator,
            fmax=0.0123456789,
            steps=2000,
            folder="out",
            reporter=Interrupts(),
        )
    advice = str(error.value).partition("; go on: ")[2]
    if given == "lj":
        expected = ["--model", "lj", "--dtype", "float32", "--fmax", "0.0123456789", "--steps", "2000"]
        assert advice.split() == ["mdgnn", "relax", "out/final.xyz", "--index", ":", *expected]
    else:
        results = eval(advice, {"mdgnn": mdgnn, "ase": ase, "calculator": calculator})
        assert all(r.converged and r.fmax <= 0.0123456789 for r in results)


def moves(structures, calculator, name):
    if name == "relax_many":
        relax_many(structures, calculator, steps=1)
    elif name == "simulate_many":
        simulate_many(structures, calculator, folder="out", steps=1)
    else:
        ManyMolecularDynamics(structures, NVE(), calculator)


@pytest.mark.parametrize("name", ["relax_many", "simulate_many", "ManyMolecularDynamics"])
def test_structures_are_checked_as_one_that_moves_alone(calculator, name):
    dense, momenta, masses = crystal(), cluster(), Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    dense.set_cell(dense.cell * 0.1, scale_atoms=True)
    momenta.arrays["momenta"][3, 1] = np.nan
    in_nm = masses.copy()
    in_nm.positions *= 0.1
    masses.set_masses([16, -1, 1])
    water = MDGNNCalculator("water")
    for wrong, model, words in (
        (dense, calculator, r"no matter is so dense; is the file in reduced units"),
        (momenta, calculator, "expected finite momenta, got .* for atom 3"),
        (masses, water, "expected positive masses, got -1.0 for atom 1"),
        (in_nm, water, "positions in nm or in fractions of the cell look so"),
    ):
        with pytest.raises(ValueError, match=f"structure 1: .*{words}"):
            moves([cluster() if model is calculator else Atoms("OH2", masses.positions), wrong], model, name)


def test_structures_out_of_reach_of_the_model_are_said_once():
    far = [Atoms("OH2", [[0, 0, 0], [0, 0, 10 + k], [0, 0, 30]]) for k in range(3)]
    with pytest.warns(UserWarning, match="structure 0, the first of 3: no two atoms are within the model's cutoff"):
        relax_many(far, "water", steps=0)


def test_settings_of_many_runs_are_those_of_all(calculator):
    structures = [cluster(7), cluster(13)]
    settings = simulate_many(structures, calculator, folder="out", steps=2)["settings"]
    assert "structure" not in settings and "index" not in settings and settings["ensemble"] == "nve"
    source = {"structure": "many.xyz", "index": ":"}
    settings = simulate_many(structures, calculator, folder="out", steps=2, source=source, force=True)["settings"]
    assert settings["structure"] == "many.xyz" and settings["index"] == ":"


def test_errors_say_which_structure(calculator):
    plane, held = cluster(), cluster()
    plane.set_constraint(FixedPlane(0, (0, 0, 1)))
    held.set_constraint(FixAtoms([0]))
    with pytest.raises(ValueError, match="structure 1: expected no constraints but FixAtoms or FixCom"):
        relax_many([held, plane], calculator)
    with pytest.raises(ValueError, match="structure 1: this model takes a single species"):
        ManyMolecularDynamics([cluster(), Atoms("ArNe", [[0, 0, 0], [0, 0, 1]])], NVE(), calculator)
    with pytest.raises(ValueError, match="all nve or all langevin for many systems, got npt"):
        ManyMolecularDynamics([crystal()], NPT(), calculator)
    with pytest.raises(ValueError, match="got langevin, nve"):
        ManyMolecularDynamics([crystal(), crystal()], [NVE(), Langevin()], calculator)
    with pytest.raises(ValueError, match="random numbers for each of 1 structures, got 1 and 2"):
        ManyMolecularDynamics([crystal()], NVE(), calculator, rng=[np.random.default_rng(k) for k in (1, 2)])
    with pytest.raises(ValueError, match="expected random numbers of its own for place 1, got those of place 0"):
        ManyMolecularDynamics([crystal(), crystal()], NVE(), calculator, rng=[np.random.default_rng(0)] * 2)
    with pytest.raises(ValueError, match="runs on the engine, for many systems at once: the calculator's backend"):
        relax_many([cluster()], MDGNNCalculator("lj", backend="torch"))
    with pytest.raises(ValueError, match="positive fmax"):
        relax_many([cluster()], calculator, fmax=0)
