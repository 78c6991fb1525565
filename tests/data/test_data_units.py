"""Units by magnitude: what is suspicious in eV and Angstrom, and what is not."""

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from labelled import labelled, molecules

from mdgnn.data import DataError, read_frames
from mdgnn.data.checks import binding_energy

HARTREE, KCAL, KJ, BOHR = 1 / 27.211386, 23.060548, 96.485332, 1.8897261


@pytest.mark.parametrize(
    ("energy", "force", "words"),
    [
        (HARTREE, HARTREE / BOHR, "looks like Hartree"),
        (HARTREE, 1, "looks like Hartree"),
        (KCAL, KCAL, "kcal/mol"),
        (KJ, KJ, "kJ/mol"),
        (1, KCAL, "the forces of this file"),
        (-1, 1, "far above free atoms"),
        (1, 1, ""),
    ],
)
def test_units_by_magnitude(tmp_path, energy, force, words):
    """Energies of all electrons, forces as at 300 K."""
    frames = molecules(5)
    for frame in frames:
        frame.calc.results["energy"] = -1.003 * energy * binding_energy(frame.numbers) / HARTREE
        frame.calc.results["forces"] *= force
    path = tmp_path / "x.xyz"
    ase.io.write(path, frames)
    if not words:
        assert len(read_frames([path])) == 5
        return
    with pytest.raises(DataError, match="5 bad frames.*suspicious") as raised:
        read_frames([path])
    assert words in str(raised.value)
    for units in ("lj", "any"):
        assert len(read_frames([path], units=units)) == 5
    with pytest.raises(DataError, match="5 bad frames"):
        read_frames([path], bad="skip")  # nothing would be left


@pytest.mark.parametrize(("stress", "length", "words"), [(1, 1, ""), (160.2, 1, "the stresses"), (1, 0.1, "nm")])
def test_units_of_stress_and_length(tmp_path, stress, length, words):
    """GPa for eV/Angstrom^3 and nm for Angstrom were not seen."""
    frames = []
    for k in range(4):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.05, seed=k)
        atoms.set_cell(atoms.cell * length, scale_atoms=True)
        frames.append(labelled(atoms, -14.0, seed=k, stress=True))
        frames[-1].calc.results["stress"] = stress * np.array([0.02, 0.02, 0.02, 0, 0, 0])
    ase.io.write(tmp_path / "x.xyz", frames)
    if not words:
        assert len(read_frames([tmp_path / "x.xyz"])) == 4
        return
    with pytest.raises(DataError, match=f"4 bad frames.*suspicious: .*{words}"):
        read_frames([tmp_path / "x.xyz"])


def test_a_few_energies_that_look_like_hartree_are_chance(tmp_path):
    frames = molecules(5)
    for frame in frames[:2]:
        frame.calc.results["energy"] = -binding_energy(frame.numbers)
    ase.io.write(tmp_path / "x.xyz", frames)
    assert len(read_frames([tmp_path / "x.xyz"])) == 5


def test_energies_per_atom_where_totals_belong(tmp_path):
    def frames(per_atom):
        for size in (1, 2):
            for k in range(3):
                atoms = bulk("Cu", cubic=True) * (size, 1, 1)
                atoms.rattle(0.05, seed=k)
                n = 1 if per_atom else len(atoms)
                yield labelled(atoms, (-3.5 + 0.01 * k) * n)

    ase.io.write(tmp_path / "total.xyz", list(frames(False)))
    ase.io.write(tmp_path / "per_atom.xyz", list(frames(True)))
    assert len(read_frames([tmp_path / "total.xyz"])) == 6
    with pytest.raises(DataError, match="6 bad frames.*Cu has the energy -3.49 with 4 atoms and -3.49 with 8"):
        read_frames([tmp_path / "per_atom.xyz"])
