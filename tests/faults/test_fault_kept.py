"""What the user stored stays: tags, arrays, information and constraints, in all outputs and through a restart."""

import inspect
import json
from pathlib import Path

import ase.constraints
import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import (
    ExternalForce,
    FixAtoms,
    FixBondLengths,
    FixCartesian,
    FixCartesianParametricRelations,
    FixCom,
    FixedLine,
    FixedMode,
    FixedPlane,
    FixInternals,
    FixLinearTriatomic,
    FixParametricRelations,
    FixScaled,
    FixScaledParametricRelations,
    FixSubsetCom,
    FixSymmetry,
    Hookean,
    MirrorForce,
    MirrorTorque,
)
from ase.constraints.constraint import FixConstraint, IndexedConstraint
from ase.io.jsonio import encode
from command_line import run

import mdgnn
from mdgnn.data.labels import targets_of
from mdgnn.dynamics import NVE, Langevin, checkpoint, read_structure, restart
from mdgnn.dynamics import relax as relax_by
from mdgnn.dynamics import simulate as simulate_by
from mdgnn.dynamics.lj_clusters import lj_cluster

N = 13
COLD = NVE(temperature=0.1)


def _relations(kind):
    """All atoms move along x together, and else stay where the start has them; of fractions, in its cell."""
    start = cluster()
    places = start.get_scaled_positions(wrap=False) if kind is FixScaledParametricRelations else start.positions
    return kind(list(range(N)), np.tile([[1.0], [0.0], [0.0]], (N, 1)), places.ravel(), ["x"])


MADE = {
    FixAtoms: lambda: FixAtoms([0, 3]),
    FixBondLengths: lambda: FixBondLengths([[0, 1], [1, 2]]),
    FixCartesian: lambda: FixCartesian([0, 2], (True, False, True)),
    FixScaled: lambda: FixScaled([1, 2], (True, False, False)),
    FixCom: FixCom,
    FixSubsetCom: lambda: FixSubsetCom([0, 1, 2]),
    FixedPlane: lambda: FixedPlane([0, 1], (1, 2, 3)),
    FixedLine: lambda: FixedLine([0, 4], (0.3, 1, -2)),
    FixedMode: lambda: FixedMode(np.random.default_rng(5).standard_normal((N, 3))),
    FixLinearTriatomic: lambda: FixLinearTriatomic([(1, 0, 2)]),
    FixInternals: lambda: FixInternals(bonds=[[None, [3, 4]]], angles_deg=[[None, [5, 6, 7]]]),
    Hookean: lambda: Hookean(0, 1, 5.0, 1.05),
    ExternalForce: lambda: ExternalForce(2, 3, 0.1),
    MirrorForce: lambda: MirrorForce(0, 1),
    MirrorTorque: lambda: MirrorTorque(3, 4, 5, 6),
    FixParametricRelations: lambda: _relations(FixParametricRelations),
    FixScaledParametricRelations: lambda: _relations(FixScaledParametricRelations),
    FixCartesianParametricRelations: lambda: _relations(FixCartesianParametricRelations),
}
NOT_IN_DYNAMICS = (  # ASE does not say how many degrees of freedom they take
    MirrorForce,
    MirrorTorque,
    FixParametricRelations,
    FixScaledParametricRelations,
    FixCartesianParametricRelations,
)


def classes():
    kinds = {c for _, c in inspect.getmembers(ase.constraints, inspect.isclass) if issubclass(c, FixConstraint)}
    return kinds - {FixConstraint, IndexedConstraint}


def cluster():
    """Thirteen atoms out of equilibrium, of which 0 is in the middle between 1 and 2; in a cell, not periodic."""
    atoms = lj_cluster(str(N), np.random.default_rng(0))
    atoms.rattle(0.02, seed=4)
    far = np.linalg.norm(atoms.positions + atoms.positions[1], axis=1).argmin()
    order = [0, 1, int(far), *(k for k in range(N) if k not in (0, 1, int(far)))]
    atoms = atoms[order]
    atoms.positions[0] = atoms.positions[1:3].mean(axis=0)
    atoms.cell = [9.0, 10.0, 11.0]
    return atoms


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "exact.safetensors"
    mdgnn.save(mdgnn.LennardJones(), path)
    return str(path)


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mdgnn.dynamics.simulation.draw_run", lambda *_: None)
    monkeypatch.setattr("mdgnn.dynamics.relaxation._plot", lambda *_: None)


def simulate(atoms, model, folder, ensemble=COLD, **others):
    given = {"steps": 24, "interval": 3, "checkpoint_interval": 5, "seed": 2, "dtype": "float64"} | others
    return simulate_by(atoms, model, ensemble, folder=Path(folder), **given)


def relax(atoms, model, folder, **others):
    return relax_by(atoms, model, folder=Path(folder), **{"dtype": "float64"} | others)


def assert_same_run(a, b):
    for name in ("trajectory.xyz", "log.csv", "final.xyz"):
        assert (Path(a) / name).read_bytes() == (Path(b) / name).read_bytes(), name
    with np.load(f"{a}/checkpoint.npz") as first, np.load(f"{b}/checkpoint.npz") as second:
        assert sorted(first) == sorted(second)
        for name in first:
            assert first[name].tobytes() == second[name].tobytes(), name


def test_every_class_of_constraints_is_tried():
    assert classes() == {*MADE, FixSymmetry}


@pytest.mark.parametrize("kind", MADE, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("ensemble", [COLD, Langevin(temperature=0.1)], ids=["nve", "langevin"])
def test_a_restart_with_any_constraint_has_the_same_bits_or_the_run_is_refused(model, kind, ensemble):
    atoms = cluster()
    atoms.set_constraint(MADE[kind]())
    if kind in NOT_IN_DYNAMICS:
        with pytest.raises(ValueError, match=f"got {kind.__name__}, which does not say how many"):
            simulate(atoms, model, "whole", ensemble=ensemble)
        assert not Path("whole").exists()
        return
    simulate(atoms, model, "whole", ensemble)
    simulate(atoms, model, "parts", ensemble, steps=7)
    restart(Path("parts"), steps=16)
    restart(Path("parts"), steps=24)
    assert_same_run("whole", "parts")


def test_two_constraints_at_once_and_one_on_a_periodic_crystal(model, tmp_path):
    mdgnn.save(mdgnn.LennardJones(cutoff=2.5), tmp_path / "periodic")
    atoms = bulk("Ar", "fcc", a=1.6, cubic=True).repeat(3)
    atoms.rattle(0.02, seed=1)
    atoms.set_constraint([FixAtoms([5]), FixBondLengths([[0, 1], [1, 2], [2, 3]])])
    for name, steps in (("whole", 20), ("parts", 9)):
        simulate(atoms, str(tmp_path / "periodic"), name, steps=steps)
    restart(Path("parts"), steps=20)
    assert_same_run("whole", "parts")


def test_symmetry_is_not_for_dynamics_and_says_so(model):
    atoms = cluster()
    symmetry = FixSymmetry.__new__(FixSymmetry)  # which needs spglib to be made
    vars(symmetry).update(atoms=atoms.copy(), symprec=0.01, do_adjust_positions=True, do_adjust_cell=True)
    vars(symmetry).update(verbose=False, rotations=[np.eye(3)], translations=[np.zeros(3)], symm_map=[np.arange(N)])
    atoms.set_constraint(symmetry)
    with pytest.raises(ValueError, match="got FixSymmetry, which does not say how many degrees of freedom"):
        simulate(atoms, model, "run")
    relax(atoms, model, "relaxed")
    (entry,) = ase.io.read("relaxed/final.xyz").info["ase_constraints"]
    assert entry["name"] == "FixSymmetry" and len(entry["kwargs"]["atoms"]["numbers"]["__ndarray__"][2]) == N


@pytest.mark.parametrize("kind", MADE, ids=lambda kind: kind.__name__)
def test_a_relaxation_goes_on_from_its_files_with_the_constraint(model, kind):
    atoms = cluster()
    atoms.set_constraint(MADE[kind]())
    relax(atoms, model, "first", steps=3)
    for name in ("trajectory.xyz", "final.xyz"):
        there = read_structure(f"first/{name}", np.random.default_rng(0))
        assert "ase_constraints" not in there.info
        if kind is FixCartesian:  # ASE's column makes one for each atom
            masks = {int(c.index[0]): c.mask.tolist() for c in there.constraints if c.mask.any()}
            assert masks == {0: [True, False, True], 2: [True, False, True]}
        else:
            assert_arguments(there.constraints, kind, with_values=True)
    if kind in (FixAtoms, FixCartesian):
        assert not Path("first/final.traj").exists()
    else:
        assert_arguments(ase.io.read("first/final.traj").constraints, kind)


def assert_arguments(constraints, kind, with_values=False):
    """One of this kind, with its arguments; in extended XYZ internal coordinates have the values of the start."""
    (constraint,) = constraints
    assert type(constraint) is kind
    expected, actual = MADE[kind]().todict(), constraint.todict()
    if kind is FixInternals and with_values:
        for name, value in (("bonds", cluster().get_distance(3, 4)), ("angles_deg", cluster().get_angle(5, 6, 7))):
            assert actual["kwargs"][name][0][0] == pytest.approx(value, rel=1e-9)
            expected["kwargs"][name][0][0] = actual["kwargs"][name][0][0]
    assert encode(actual) == encode(expected)


def test_bond_lengths_are_held_over_relaxations_that_follow_each_other(model):
    atoms = cluster()
    atoms.set_constraint(FixBondLengths([[3, 4], [5, 6]]))
    length = atoms.get_distance(3, 4)
    relax(atoms, model, "first", steps=2)
    done = run("relax", "first/trajectory.xyz", "--model", model, "--dtype", "float64", "--output", "second")
    assert done.exit_code == 0, done.output
    final = ase.io.read("second/final.traj")
    assert final.get_distance(3, 4) == pytest.approx(length, abs=1e-9)
    free = relax(cluster(), model, "free")
    assert json.loads(Path("second/summary.json").read_text())["final_energy"] > free.energy + 1e-4


def rich():
    """A structure with all that a user may store."""
    atoms = cluster()
    atoms.set_tags(np.arange(N) % 3)
    atoms.set_initial_charges(np.linspace(-1, 1, N))
    atoms.set_initial_magnetic_moments(np.linspace(0, 2, N))
    atoms.set_array("site", np.array([f"site{k}" for k in range(N)]))
    atoms.set_array("layer", np.arange(N).astype(np.uint8))
    atoms.set_array("cell", np.arange(N) * 0.5)
    atoms.set_array("field", np.random.default_rng(0).standard_normal((N, 3)))
    atoms.info = {"name": "a cluster", "charge": -1, "spin": 0.5, "ids": np.array([1, 2]), "path": {"a": [1, {"b": 2}]}}
    return atoms


def assert_rich(atoms):
    expected = rich()
    assert set(expected.arrays) <= set(atoms.arrays)
    for name in set(expected.arrays) - {"positions"}:
        if expected.arrays[name].dtype.kind == "f":
            np.testing.assert_allclose(atoms.arrays[name], expected.arrays[name], atol=1e-8)
        else:
            assert atoms.arrays[name].tolist() == expected.arrays[name].tolist(), name
    assert {k: np.asarray(v).tolist() for k, v in atoms.info.items()} == {
        k: np.asarray(v).tolist() for k, v in expected.info.items()
    }


@pytest.mark.parametrize("command", ["relax", "md"])
def test_tags_arrays_and_information_of_a_file_are_in_every_frame(model, command):
    atoms = rich()
    atoms.arrays["layer"] = atoms.arrays["layer"].astype(int)
    ase.io.write("in.xyz", atoms)
    done = run(
        command,
        "in.xyz",
        "--model",
        model,
        "--steps",
        30,
        "--output",
        "out",
        *["--fmax", 1][: 2 * (command == "relax")],
    )
    assert done.exit_code == 0 and done.stderr == "", done.output
    for frame in (*ase.io.read("out/trajectory.xyz", index=":"), ase.io.read("out/final.xyz")):
        assert_rich(frame)


def test_they_go_through_a_restart(model):
    for name, steps in (("whole", 20), ("parts", 7)):
        simulate(rich(), model, name, steps=steps)
    restart(Path("parts"), steps=20)
    assert_same_run("whole", "parts")
    assert_rich(ase.io.read("parts/final.xyz"))


def test_a_run_without_masses_has_none_after_a_restart(tmp_path):
    """In units of eV the masses are ASE's, which are no column; a checkpoint has them."""
    mdgnn.save(mdgnn.SimpleGNN(elements=[1, 8]), tmp_path / "metal")
    atoms = Atoms("OH2", [[0, 0, 0], [0.97, 0, 0], [-0.24, 0.94, 0]])
    for name, steps in (("whole", 12), ("parts", 5)):
        simulate(atoms, str(tmp_path / "metal"), name, NVE(temperature=30), steps=steps)
    restart(Path("parts"), steps=12)
    assert_same_run("whole", "parts")
    assert "masses" not in ase.io.read("parts/final.xyz").arrays


@pytest.mark.parametrize("work", ["relax", "md"])
def test_labels_of_another_calculation_do_not_contradict_the_results(model, work):
    atoms = rich()
    atoms.info |= {"energy": 5.0, "REF_energy": 7.0, "virial": np.eye(3), "free_energy": 5.0}
    atoms.arrays["forces"] = np.ones((N, 3))
    atoms.arrays["dft_forces"] = np.ones((N, 3))
    atoms.arrays["velocities"] = np.ones((N, 3))
    atoms.calc = SinglePointCalculator(atoms, energy=3.0, forces=np.ones((N, 3)), stress=np.ones(6), dipole=np.ones(3))
    ase.io.write("in.json", atoms)
    with pytest.warns(UserWarning, match="of another calculation"):
        result = relax(atoms, model, "out", steps=2) if work == "relax" else simulate(atoms, model, "out")
    frame = ase.io.read("out/final.xyz")
    assert_rich(frame)
    assert set(frame.calc.results) == {"energy", "forces"}
    if work == "relax":
        assert frame.get_potential_energy() == pytest.approx(result.energy, abs=1e-8)
    assert targets_of(frame).stress is None, "a virial of the start is none of the end"
    assert atoms.info["energy"] == 5.0 and "forces" in atoms.arrays, "the caller's atoms are as they were"


def test_what_is_left_out_is_said(model):
    atoms = rich()
    atoms.info |= {"REF_energy": 7.0, "made by": object(), 3: "three"}
    atoms.arrays["tensor"] = np.ones((N, 2, 2))
    atoms.arrays["wave"] = np.ones(N) * 1j
    atoms.arrays["residue"] = np.array(["a b"] * N)
    with pytest.warns(UserWarning, match="not in the output") as told:
        simulate(atoms, model, "out", steps=3)
    assert all(warning.filename == __file__ for warning in told), "at the user's line"
    assert {str(warning.message) for warning in told} == {
        "not in the output, as it is of another calculation: REF_energy",
        "not in the output, as extended XYZ cannot hold it: tensor, wave, residue, made by, 3",
    }
    assert_rich(ase.io.read("out/final.xyz"))


def test_momenta_of_a_file_are_those_that_its_constraints_allow(model):
    atoms = cluster()
    atoms.set_momenta(np.ones((N, 3)))
    atoms.set_constraint(FixAtoms([2]))
    ase.io.write("in.traj", atoms)
    assert np.any(ase.io.read("in.traj").get_momenta()[2])
    structure = read_structure("in.traj", np.random.default_rng(0))
    assert structure.get_momenta()[2].tolist() == [0, 0, 0] and structure.get_momenta()[3].tolist() == [1, 1, 1]


def test_results_that_the_run_has_none_of_are_said(model):
    """Charges in a column are results to ASE's reader, of the atoms where they were."""
    atoms = cluster()
    atoms.calc = SinglePointCalculator(atoms, energy=1.0, forces=np.zeros((N, 3)), charges=np.ones(N))
    ase.io.write("in.xyz", atoms)
    done = run("relax", "in.xyz", "--model", model, "--output", "out")
    assert (
        done.exit_code == 0 and done.stderr == "mdgnn: not in the output, as it is of another calculation: charges\n"
    ), done.output
    assert set(ase.io.read("out/final.xyz").calc.results) == {"energy", "forces"}


def test_constraints_of_a_file_that_was_read_by_ase_alone_are_not_claimed(model):
    """Only `read_structure` knows the entry; who gives atoms gives their constraints with them."""
    atoms = cluster()
    atoms.set_constraint(FixCom())
    relax(atoms, model, "first", steps=1)
    again = ase.io.read("first/final.xyz")
    assert again.info["ase_constraints"] and not again.constraints
    with pytest.warns(UserWarning, match="of another calculation: ase_constraints"):
        relax(again, model, "second", steps=1)
    assert "ase_constraints" not in ase.io.read("second/final.xyz").info


def test_the_rest_of_a_thermostat_is_no_constraint_of_the_user(model):
    """It is kept for the restart, which is bit for bit, and is in no frame; one of the user's is."""
    simulate(cluster(), model, "whole", Langevin(), steps=20)
    simulate(cluster(), model, "part", Langevin(), steps=10)
    restart(Path("part"), steps=20)
    for name in ("trajectory.xyz", "log.csv", "final.xyz"):
        assert Path("part", name).read_bytes() == Path("whole", name).read_bytes()
    assert not Path("whole/final.traj").exists() and b"FixCom" not in Path("whole/trajectory.xyz").read_bytes()
    atoms = cluster()
    atoms.set_constraint(FixCom())
    simulate(atoms, model, "own", Langevin(), steps=20)
    assert b"FixCom" in Path("own/trajectory.xyz").read_bytes()


def test_a_cif_with_a_space_group_and_occupancies_runs(tmp_path):
    mdgnn.save(mdgnn.LennardJones(cutoff=2.5), tmp_path / "periodic")
    ase.io.write("x.cif", bulk("Ar", "fcc", a=1.6, cubic=True))
    done = run("md", "x.cif", "--model", tmp_path / "periodic", "--steps", 10, "--output", "out")
    assert done.exit_code == 0 and done.stderr == "", done.output
    final = ase.io.read("out/final.xyz")
    assert final.info["spacegroup"] == "P 1" and final.info["occupancy"]["0"] == {"Ar": 1.0}
    assert run("md", "--restart", "out", "--steps", 20).exit_code == 0


def test_a_frame_has_the_models_energy_and_the_log_the_one_that_is_conserved(model):
    """A spring adds to energy and forces: in a frame both are without it, in the log the energy is with it."""
    atoms = cluster()
    plain = mdgnn.MDGNNCalculator(model, dtype="float64").get_potential_energy(atoms)
    spring = Hookean(3, 4, 50.0, 0.9)
    added = spring.adjust_potential_energy(atoms)
    assert added > 0.1
    atoms.set_constraint(spring)
    summary = simulate(atoms, model, "out", NVE(temperature=0.0), steps=3)
    first = ase.io.read("out/trajectory.xyz", index=0)
    assert first.get_potential_energy(apply_constraint=False) == pytest.approx(plain, abs=1e-8)
    assert summary["initial_total_energy"] == pytest.approx(plain + added, abs=1e-9)


def test_a_constraint_of_ones_own_is_refused_before_anything_is_written(model):
    class Mine(FixAtoms):
        pass

    atoms = cluster()
    atoms.set_constraint(Mine([0]))
    for work in (
        lambda: simulate(atoms, model, "out"),
        lambda: relax(atoms, model, "out"),
    ):
        with pytest.raises(ValueError, match="constraints of ASE's own, which files can hold, got Mine"):
            work()
        assert not Path("out").exists()


def _old_checkpoint(path, atoms):
    """As format 1 was written."""
    with np.load(path) as content:
        arrays = {name: content[name] for name in checkpoint.ARRAYS}
        record = json.loads(str(content["record"]))
    del record["arrays"], record["info"]
    record |= {"format_version": 1, "constraints": encode([c.todict() for c in atoms.constraints])}
    np.savez(path, **arrays, record=np.array(json.dumps(record)))


def test_a_checkpoint_of_format_1_goes_on(model):
    for name, steps in (("whole", 20), ("parts", 7)):
        simulate(cluster(), model, name, steps=steps)
    _old_checkpoint(Path("parts/checkpoint.npz"), cluster())
    done = run("md", "--restart", "parts", "--steps", 20)
    assert done.exit_code == 0 and done.stderr == "", done.output
    for name in ("trajectory.xyz", "log.csv"):
        assert Path("whole", name).read_bytes() == Path("parts", name).read_bytes()


def test_a_checkpoint_of_format_1_with_bond_lengths_says_that_it_is_not_exact(model):
    atoms = cluster()
    atoms.set_constraint(FixBondLengths([[0, 1]]))
    simulate(atoms, model, "run", steps=7)
    _old_checkpoint(Path("run/checkpoint.npz"), atoms)
    done = run("md", "--restart", "run", "--steps", 20)
    assert done.exit_code == 0 and "FixBondLengths" in done.stderr and "not bit for bit" in done.stderr
    assert ase.io.read("run/final.traj").get_distance(0, 1) == pytest.approx(atoms.get_distance(0, 1), abs=1e-9)


def test_a_checkpoint_of_a_later_format_is_refused(model):
    simulate(cluster(), model, "run", steps=3)
    with np.load("run/checkpoint.npz") as content:
        arrays = dict(content)
    record = json.loads(str(arrays.pop("record"))) | {"format_version": 3}
    np.savez("run/checkpoint.npz", **arrays, record=np.array(json.dumps(record)))
    done = run("md", "--restart", "run")
    assert done.exit_code == 1 and "format 3, this mdgnn reads formats 1 to 2" in done.stderr


def test_a_frame_that_cannot_be_split_whole_is_said():
    """Labels that stand twice, in what a file of ASE's has beside its results, and what extended XYZ cannot hold."""
    atoms = cluster()
    atoms.calc = SinglePointCalculator(atoms, energy=1.5, forces=np.zeros((N, 3)))
    atoms.info["energy"] = 1.5
    ase.io.write("x.traj", [atoms, atoms * (1, 1, 2)])
    assert run("dataset", "split", "x.traj", "--fractions", 1, 0, 0, "--output", "s").exit_code == 0
    assert ase.io.read("s-train.xyz", index=0).get_potential_energy() == 1.5
    atoms.info["energy"] = 2.5
    ase.io.write("y.traj", [atoms])
    done = run("dataset", "split", "y.traj", "--fractions", 1, 0, 0, "--output", "t")
    assert done.exit_code == 1 and "energy stands there twice" in done.stderr and not Path("t-train.xyz").exists()
