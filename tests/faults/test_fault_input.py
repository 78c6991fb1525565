"""Input that is something else: cells that nobody means, other units, placeholders, and two numbers for one thing."""

from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc111, graphene, molecule, nanotube
from ase.calculators.singlepoint import SinglePointCalculator
from ase.cluster import Icosahedron
from ase.data import covalent_radii
from command_line import run

import mdgnn
from mdgnn.data import DataError, read_frames
from mdgnn.data.density import check_density
from mdgnn.data.labels import Keys, LabelError
from mdgnn.data.targets import targets_of
from mdgnn.dynamics.system import make_system

PDB = """CRYST1{cell} P 1           1
HETATM    1  O   HOH A   1       0.000   0.000   0.119  1.00  0.00           O
HETATM    2  H   HOH A   1       0.000   0.763  -0.477  1.00  0.00           H
HETATM    3  H   HOH A   1       0.000  -0.763  -0.477  1.00  0.00           H
END
"""
ONE = "    1.000    1.000    1.000  90.00  90.00  90.00"
NONE = "    0.000    0.000    0.000  90.00  90.00  90.00"
RIGHT = "   12.000   12.000   12.000  90.00  90.00  90.00"


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mdgnn.dynamics.simulation.draw_run", lambda *_: None)
    monkeypatch.setattr("mdgnn.dynamics.relaxation._plot", lambda *_: None)


@pytest.fixture(scope="module")
def metal(tmp_path_factory):
    """A model in eV and Angstrom, untrained."""
    path = tmp_path_factory.mktemp("model") / "metal"
    mdgnn.save(mdgnn.SimpleGNN(elements=[1, 6, 8, 29]), path)
    return str(path)


def in_cell(atoms, cell, pbc=True):
    atoms = atoms.copy()
    atoms.cell, atoms.pbc = np.asarray(cell), pbc
    return atoms


def shrunk(atoms, volume):
    """Of this volume an atom."""
    atoms = atoms.copy()
    atoms.set_cell(atoms.cell * (volume * len(atoms) / atoms.get_volume()) ** (1 / 3), scale_atoms=True)
    return atoms


@pytest.mark.parametrize("command", ["relax", "md"])
@pytest.mark.parametrize(("cell", "words"), [(ONE, "no matter is so dense"), (NONE, "set pbc to False")])
def test_the_cell_of_a_pdb_file_that_nobody_meant(command, cell, words):
    Path("m.pdb").write_text(PDB.format(cell=cell))
    refused = run(command, "m.pdb", "--model", "water", "--output", "out")
    assert refused.exit_code == 1 and words in refused.stderr and not Path("out").exists(), refused.output
    if cell == ONE:
        assert (
            "3 atoms in a periodic cell of 1 Angstrom^3, 29.9 g/cm^3" in refused.stderr and "CRYST1" in refused.stderr
        )
    lines = PDB.format(cell=cell).splitlines(keepends=True)
    for text in ("".join(lines[1:]), PDB.format(cell=RIGHT)):  # as the sentence says
        Path("m.pdb").write_text(text)
        done = run(
            command,
            "m.pdb",
            "--model",
            "water",
            "--steps",
            1,
            "--output",
            "out",
            "--force",
            *["--fmax", 99][: 2 * (command == "relax")],
        )
        assert done.exit_code == 0 and done.stderr == "", done.output


@pytest.mark.parametrize("name", ["H2", "H2O", "N2", "CO", "CH4", "LiH", "Li2", "HF", "C6H6", "C60", "SiH4", "Na2"])
@pytest.mark.parametrize("length", [0.5, 1.0])
def test_no_molecule_is_in_a_cell_of_one_angstrom(name, length):
    with pytest.raises(LabelError, match=r"g/cm\^3.*CRYST1"):
        check_density(in_cell(molecule(name), [length] * 3))
    assert check_density(in_cell(molecule(name), [length] * 3, False)) == "", "not periodic"
    assert check_density(in_cell(molecule(name), [25] * 3)) == ""


def existing():
    """Structures as they are, or as calculations have found them, with the volume of an atom in Angstrom^3."""
    yield "iron", bulk("Fe")
    yield "copper, one atom", bulk("Cu")
    yield "diamond", bulk("C", "diamond", 3.567)
    yield "hydrogen at 150 GPa", shrunk(bulk("H", "hcp", a=2, c=3.2), 2.0)
    yield "hydrogen, one atom, at 400 GPa", shrunk(bulk("H", "sc", a=1), 1.2)
    yield "carbon at 1 TPa", shrunk(bulk("C", "diamond", 3.567), 3.0)
    yield "iron at 1.4 TPa", shrunk(bulk("Fe", "hcp", a=2.5, c=4), 5.1)
    yield "gold at 0.6 TPa", shrunk(bulk("Au"), 10.0)
    yield "sodium at 200 GPa", shrunk(bulk("Na"), 7.8)
    yield "salt", bulk("NaCl", "rocksalt", 5.64)
    yield "graphene", graphene(vacuum=5)
    yield "tube", nanotube(4, 4, length=1)
    slab = fcc111("Cu", (2, 2, 3), vacuum=6)
    add_adsorbate(slab, "H", 1.0)
    yield "slab", slab
    ice = molecule("H2O")
    yield "a molecule that reaches out of its cell", in_cell(ice, [4.0, 4.0, 4.0])
    yield "an atom in a box", Atoms("Au", cell=[20] * 3, pbc=True)
    yield "a free atom", Atoms("Au")


@pytest.mark.parametrize(("name", "atoms"), [pytest.param(n, a, id=n) for n, a in existing()])
def test_what_exists_is_taken_without_a_word(name, atoms):
    assert check_density(atoms) == ""


@pytest.mark.parametrize(
    ("atoms", "volume"),
    [
        (bulk("C", "diamond", 3.567), 1.66),
        (bulk("H", "bcc", a=1), 0.62),
        (bulk("H", "bcc", a=1), 0.32),
        (bulk("Fe"), 3.5),
        (bulk("Au"), 9.0),
    ],
    ids=["diamond at 5 TPa, measured", "hydrogen, r_s = 1", "hydrogen, r_s = 0.8", "iron at 5 TPa", "gold at 1 TPa"],
)
def test_matter_at_terapascals_is_doubted_and_not_refused(atoms, volume):
    assert "pressures of TPa" in check_density(shrunk(atoms, volume))


@pytest.mark.parametrize("seed", range(10))
def test_random_starts_are_not_refused(seed):
    """Atoms anywhere in a cell of usual density, some on top of others, also through the boundary."""
    rng = np.random.default_rng(seed)
    for n in (1, 2, 3, 5, 30):
        for symbol, volume in (("C", 8.0), ("Si", 18.0), ("H", 10.0), ("O", 9.0)):
            length = (n * volume) ** (1 / 3)
            check_density(Atoms(f"{symbol}{n}", length * rng.random((n, 3)), cell=[length] * 3, pbc=True))


def test_half_an_angstrom_apart_is_no_reason(metal):
    for atoms in (
        Atoms("C2", [[0, 0, 0], [0.5, 0, 0]]),
        Atoms("C3", [[0, 0, 0], [0.5, 0, 0], [0, 3.0, 0]]),
        Atoms("H4", [[0, 0, 0], [0.5, 0, 0], [0, 3.0, 0], [0, 3.5, 0]]),
    ):
        assert check_density(atoms) == ""
    close = Atoms("C2", [[0.2, 0, 0], [4.7, 0, 0]], cell=[5, 5, 5], pbc=True)
    assert "atom 0 and an image of atom 1 are 0.5 Angstrom apart" in check_density(close)
    ase.io.write("close.xyz", close)
    done = run("md", "close.xyz", "--model", metal, "--steps", 1, "--timestep", 0.01, "--output", "out")
    assert done.exit_code == 0 and "are the cell and pbc right?" in done.stderr, done.output


@pytest.mark.parametrize("name", ["H2O", "C6H6", "CH3CH2OH"])
def test_positions_in_nm_or_fractions_are_refused(metal, name):
    atoms = molecule(name)
    atoms.positions *= 0.1
    ase.io.write("nm.xyz", atoms)
    refused = run("relax", "nm.xyz", "--model", metal, "--output", "out")
    assert refused.exit_code == 1 and "positions in nm or in fractions of the cell look so" in refused.stderr
    crystal = bulk("Cu", cubic=True)
    crystal.positions, crystal.cell = crystal.positions * 0.1, crystal.cell * 0.1
    ase.io.write("cell.xyz", crystal)
    refused = run("relax", "cell.xyz", "--model", metal, "--output", "out")
    assert refused.exit_code == 1 and "is it in nm?" in refused.stderr and not Path("out").exists()


def test_atoms_out_of_each_others_reach_are_said(metal):
    atoms = molecule("H2O")
    atoms.positions *= 100  # pm
    ase.io.write("pm.xyz", atoms)
    done = run("relax", "pm.xyz", "--model", metal, "--output", "out")
    assert done.exit_code == 0 and "no two atoms are within the model's cutoff" in done.stderr, done.output
    ase.io.write("one.xyz", Atoms("O"))
    assert run("relax", "one.xyz", "--model", metal, "--output", "one").stderr == ""


def test_argon_of_a_pdb_file_by_the_model_that_is_taken_unasked():
    """Reduced units have thresholds of their own: it relaxed 13 atoms in a cell of one sigma^3."""
    atoms = Atoms("Ar13", Icosahedron("Ar", 2, 1.54).positions + 5)
    ase.io.write("ar13.pdb", atoms)
    text = Path("ar13.pdb").read_text()
    Path("ar13.pdb").write_text("CRYST1    1.000    1.000    1.000  90.00  90.00  90.00 P 1\n" + text)
    refused = run("relax", "ar13.pdb", "--output", "out")
    assert refused.exit_code == 1 and not Path("out").exists(), refused.output
    assert "13 atoms in a periodic cell of 1 sigma^3: no matter is so dense" in refused.stderr
    for dense in (1.2, 2.0):  # neighbours 0.89 sigma apart, and 0.75: under pressures that somebody may want
        ase.io.write("x.xyz", bulk("Ar", "fcc", a=(4 / dense) ** (1 / 3), cubic=True))
        assert run("relax", "x.xyz", "--steps", 1, "--fmax", 1e9, "--output", f"dense{dense}").exit_code == 0


@pytest.mark.parametrize(("cell", "pbc"), [((1, 1, 20), (True, True, False)), ((1, 1, 1000), True)])
def test_periods_of_an_angstrom_in_cells_that_are_long_or_open(cell, pbc):
    atoms = molecule("CH3CH2OH", cell=cell, pbc=pbc)
    with pytest.raises(LabelError, match=r"a period of 1 Angstrom, with which atom \d and an image of atom"):
        check_density(atoms)
    check_density(Atoms("C", cell=(20, 20, 1.28), pbc=(False, False, True)))  # a chain that there may be


def test_reduced_units_have_no_such_thresholds(tmp_path):
    """A Lennard-Jones crystal has 0.9 sigma^3 an atom, which argon in Angstrom never has."""
    mdgnn.save(mdgnn.LennardJones(cutoff=2.5), tmp_path / "lj")
    crystal = bulk("Ar", "fcc", a=1.55, cubic=True)
    ase.io.write("x.xyz", crystal)
    done = run("relax", "x.xyz", "--model", "lj", "--output", "out", "--fmax", 99)
    assert done.exit_code == 0 and done.stderr == "", done.output
    with pytest.raises(LabelError, match="no matter"):
        check_density(crystal)
    crystal.info["energy"] = -1.0
    ase.io.write("x.xyz", crystal)
    assert len(read_frames(["x.xyz"], need=("energy",))) == 1, "particles, of which may be meant that they are reduced"


@pytest.mark.parametrize(
    ("masses", "momenta", "words"),
    [
        ([1, 0, 16], None, "positive masses, got 0.0 for atom 1"),
        ([1, 1, np.nan], None, "positive masses, got nan for atom 2"),
        (None, [[0, 0, 0], [0, np.inf, 0], [0, 0, 0]], "finite momenta, got .* for atom 1"),
    ],
)
def test_masses_and_momenta_that_cannot_be(metal, masses, momenta, words):
    atoms = molecule("H2O")
    if masses is not None:
        atoms.set_masses(masses)
    if momenta is not None:
        atoms.set_momenta(momenta)
    with pytest.raises(ValueError, match=words):
        make_system(atoms, metal, "cpu", "float32")


def frame(atoms, k=0, energy=-10.0, forces=True, **info):
    """With labels, and other ones in `info`."""
    rng = np.random.default_rng(k)
    atoms = atoms.copy()
    atoms.rattle(0.05, seed=k)
    results = {"energy": energy, "forces": rng.normal(0, 1, (len(atoms), 3)) * forces}
    if "stress" in info:
        results["stress"] = info.pop("stress")
    atoms.calc = SinglePointCalculator(atoms, **results)
    atoms.info |= info
    return atoms


def test_frames_of_data_in_cells_that_nobody_meant(tmp_path):
    frames = [frame(in_cell(molecule("H2O"), [1.0] * 3), k) for k in range(3)]
    ase.io.write("x.xyz", frames)
    with pytest.raises(DataError, match=r"suspicious: 3 atoms in a periodic cell of 1 Angstrom\^3, 29.9 g/cm\^3"):
        read_frames(["x.xyz"])
    assert len(read_frames(["x.xyz"], units="any")) == 3
    summary = run("dataset", "summary", "x.xyz")
    assert summary.exit_code == 0 and "29.9 g/cm^3" in summary.output


CRYSTAL = bulk("Cu", cubic=True)
STRESS = np.array([[0.011, 0.002, -0.001], [0.002, -0.02, 0.003], [-0.001, 0.003, 0.005]])
VIRIAL = -STRESS * CRYSTAL.get_volume()


def voigt(s):
    return np.array([s[0, 0], s[1, 1], s[2, 2], s[1, 2], s[0, 2], s[0, 1]])


@pytest.mark.parametrize(
    "virial", [VIRIAL, VIRIAL.round(6), VIRIAL * 160.2 / 160.21766, VIRIAL.ravel(), voigt(VIRIAL)], ids=repr
)
@pytest.mark.parametrize("name", ["virial", "virials"])
def test_a_stress_and_a_virial_that_agree_are_taken(name, virial):
    atoms = frame(CRYSTAL, stress=voigt(STRESS), **{name: virial})
    np.testing.assert_array_equal(targets_of(atoms).stress[0], STRESS)


@pytest.mark.parametrize("name", ["virial", "virials"])
@pytest.mark.parametrize("factor", [-1.0, 160.2, 1.02, 0.0])
def test_a_stress_and_a_virial_that_contradict_each_other_are_refused(name, factor):
    atoms = frame(CRYSTAL, stress=voigt(STRESS), **{name: factor * VIRIAL})
    with pytest.raises(LabelError, match=f"stress and {name} contradict each other: xx of stress is 0.011 by the one"):
        targets_of(atoms)
    chosen = targets_of(atoms, Keys(stress=name)).stress[0]
    np.testing.assert_allclose(chosen, factor * STRESS, atol=1e-15)
    del atoms.info[name]
    np.testing.assert_array_equal(targets_of(atoms).stress[0], STRESS)


def test_one_virial_under_two_names_and_a_stress_in_two_shapes():
    with pytest.raises(LabelError, match="virial and virials contradict"):
        targets_of(frame(CRYSTAL, virial=VIRIAL, virials=2 * VIRIAL))
    np.testing.assert_allclose(targets_of(frame(CRYSTAL, virial=VIRIAL, virials=VIRIAL)).stress[0], STRESS, atol=1e-15)
    atoms = frame(CRYSTAL, stress=voigt(STRESS))
    atoms.info["energy"] = np.array([-11.0])  # beside -10 in the calculator
    with pytest.raises(LabelError, match="energy stands there twice"):
        targets_of(atoms)


def test_contradictions_in_files_name_the_frame():
    frames = [frame(CRYSTAL, k, -10.0 - k, stress=voigt(STRESS), virial=VIRIAL * (1 + k)) for k in range(2)]
    ase.io.write("x.xyz", frames)
    with pytest.raises(DataError, match=r"x.xyz, frame 1: stress and virial contradict each other"):
        read_frames(["x.xyz"], need=("stress",))
    assert len(read_frames(["x.xyz"], bad="skip")) == 1


def test_zeros_that_stand_for_nothing_are_suspicious():
    """A writer that fills in an energy or a stress; forces tell that there was a calculation."""
    for name, frames in {
        "stress": [frame(CRYSTAL, k, -10.0 - k, stress=np.zeros(6)) for k in range(3)],
        "energy": [frame(CRYSTAL, k, 0.0) for k in range(3)],
    }.items():
        ase.io.write("x.xyz", frames)
        with pytest.raises(DataError, match=f"suspicious: the {name} is 0 in every frame of this file"):
            read_frames(["x.xyz"])
        keys = Keys(**{name: ""})
        assert len(read_frames(["x.xyz"], keys, need=("forces",))) == 3, "as the sentence says"
        assert len(read_frames(["x.xyz"], units="any")) == 3


def test_zeros_that_are_meant_are_taken():
    for frames in (
        [frame(CRYSTAL, k, -10.0 - k, stress=voigt(STRESS) * k) for k in range(3)],
        [frame(CRYSTAL, k, float(k)) for k in range(3)],
        [frame(CRYSTAL, 0, 0.0)],
        [frame(CRYSTAL, k, 0.0, forces=False) for k in range(3)],
    ):
        ase.io.write("x.xyz", frames)
        assert len(read_frames(["x.xyz"])) == len(frames)


@pytest.mark.parametrize("symbols", ["HH", "CC", "CH", "OH", "OO", "SiSi", "CuCu", "AuAu"])
def test_atoms_touch_far_below_any_bond(symbols):
    """Through the boundary, at 0.7 of the sum of covalent radii, which searches for structures keep."""
    pair = Atoms(symbols)
    least = 0.7 * covalent_radii[pair.numbers].sum()
    pair.positions, pair.cell, pair.pbc = [[0.1, 0, 0], [10.1 - least, 0, 0]], [10] * 3, True
    assert check_density(pair) == ""
