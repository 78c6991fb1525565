"""Units by magnitude: what is suspicious in eV and Angstrom, and what is not."""

import ase.io
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
