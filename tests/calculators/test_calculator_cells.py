"""What ASE does with cells and fixed atoms: filters, finite differences, barostats, and a list with a skin."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.fd import calculate_numerical_stress
from ase.constraints import FixAtoms
from ase.filters import ExpCellFilter, FrechetCellFilter
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.nose_hoover_chain import MTKNPT, IsotropicMTKNPT
from ase.md.nptberendsen import NPTBerendsen
from ase.optimize import BFGS, FIRE
from ase.units import kB
from scipy.optimize import minimize_scalar
from systems import crystal, gnn, icosahedron, triclinic

from mdgnn import LennardJones, MDGNNCalculator

CUTOFF = 2.5
pytestmark = pytest.mark.usefixtures("one_thread")


def lattice_energy(a):
    """Energy of an atom of an fcc crystal in the potential times its envelope, summed over the lattice directly."""
    n = np.stack(np.meshgrid(*[np.arange(-6, 7)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    n = n[(n.sum(axis=1) % 2 == 0) & n.any(axis=1)]  # fcc: points of a cubic lattice with an even sum, a/2 apart
    r = np.linalg.norm(n, axis=1) * a / 2
    x = r[r < CUTOFF] / CUTOFF
    r = r[r < CUTOFF]
    return 0.5 * np.sum(4 * (r**-12 - r**-6) * (1 - 28 * x**6 + 48 * x**7 - 21 * x**8))


def strained(a=1.6, noise=0.02, repeat=2):
    """An fcc crystal out of shape in cell and positions."""
    atoms = bulk("Ar", "fcc", a=a, cubic=True) * repeat
    rng = np.random.default_rng(0)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(0, 0.02, (3, 3))), scale_atoms=True)
    atoms.positions += rng.normal(0, noise, atoms.positions.shape)
    return atoms


@pytest.mark.parametrize("filter_", [FrechetCellFilter, ExpCellFilter])
@pytest.mark.filterwarnings("ignore:Use FrechetCellFilter:DeprecationWarning")
def test_a_crystal_relaxes_to_the_lattice_constant_of_the_lattice_sum(filter_):
    minimum = minimize_scalar(lattice_energy, bounds=(1.4, 1.7), method="bounded", options={"xatol": 1e-10})
    atoms = strained(repeat=1)
    atoms.calc = MDGNNCalculator(LennardJones(cutoff=CUTOFF), dtype="float64")
    assert BFGS(filter_(atoms), logfile=None, alpha=300.0).run(fmax=1e-4, steps=400)
    assert np.abs(atoms.get_stress()).max() < 1e-4
    assert atoms.get_potential_energy() / 4 == pytest.approx(minimum.fun, abs=1e-7)
    assert atoms.get_volume() ** (1 / 3) == pytest.approx(minimum.x, abs=1e-4)


@pytest.mark.parametrize("backend", ["engine", "torch"])
def test_a_learned_crystal_relaxes_to_no_stress_where_its_energy_is_least(backend):
    calc = MDGNNCalculator("lj", dtype="float64", backend=backend)
    atoms = strained(1.55, repeat=1)
    atoms.calc = calc
    assert BFGS(FrechetCellFilter(atoms), logfile=None, alpha=300.0).run(fmax=1e-4, steps=400)
    assert np.abs(atoms.get_stress()).max() < 1e-4

    def energy(a):
        return calc.compute(bulk("Ar", "fcc", a=a))["energy"]

    least = minimize_scalar(energy, bounds=(1.45, 1.65), method="bounded", options={"xatol": 1e-8})
    assert atoms.get_potential_energy() / 4 == pytest.approx(least.fun, abs=1e-4)


@pytest.mark.parametrize("backend", ["engine", "torch"])
def test_fixed_atoms_stay_and_the_others_relax(backend):
    atoms = icosahedron(2, 0.08)
    start = atoms.positions.copy()
    atoms.set_constraint(FixAtoms([0, 5]))
    atoms.calc = MDGNNCalculator("lj", dtype="float64", backend=backend)
    assert FIRE(atoms, logfile=None).run(fmax=1e-3, steps=1000)
    np.testing.assert_array_equal(atoms.positions[[0, 5]], start[[0, 5]])
    assert np.abs(atoms.positions - start).max(axis=1)[[1, 2, 3, 4]].min() > 1e-3
    free = atoms.get_forces(apply_constraint=False)
    assert np.abs(np.delete(free, [0, 5], axis=0)).max() < 1e-3 < np.abs(free[[0, 5]]).max()


def slab():
    """Two layers, periodic in two skewed directions, in a box with a volume."""
    atoms = crystal(0.04)[:16]
    atoms.cell[1, 0] = 0.3
    atoms.cell[2] += [0.1, -0.2, 4.0]
    atoms.pbc = (True, True, False)
    return atoms


STRESSED = {
    "triclinic": triclinic(True, n=8, seed=3),
    "left-handed": triclinic(True, n=8, seed=3, left_handed=True),
    "slab": slab(),
    "wire": triclinic((False, True, False), n=8, seed=3),
    "two-of-three": triclinic((True, False, True), n=8, seed=3),
    "self-images": Atoms("Ar", cell=[[1.3, 0.2, 0], [0, 1.2, 0.1], [0.3, 0, 1.4]], pbc=True),
}


@pytest.mark.parametrize("backend", ["engine", "torch"])
@pytest.mark.parametrize("name", STRESSED)
def test_stress_is_the_finite_difference_that_ase_takes(name, backend):
    atoms = STRESSED[name].copy()
    calc = atoms.calc = MDGNNCalculator(gnn(), dtype="float64", backend=backend)
    stress = atoms.get_stress()
    numerical = calculate_numerical_stress(atoms, eps=1e-5)
    assert np.abs(numerical).max() > 1e-4
    np.testing.assert_allclose(stress, numerical, rtol=0, atol=1e-6 * np.abs(numerical).max())
    assert (calc.engine is None) == (backend == "torch")


def barostats(atoms):
    """ASE's dynamics that change the cell at every step."""
    rng = np.random.default_rng(0)
    common = {"timestep": 0.005, "temperature_K": 0.5 / kB}
    return {
        "isotropic": lambda: IsotropicMTKNPT(atoms, pressure_au=1.0, tdamp=0.5, pdamp=2.0, **common),
        "flexible": lambda: MTKNPT(atoms, pressure_au=1.0, tdamp=0.5, pdamp=2.0, **common),
        "berendsen": lambda: NPTBerendsen(
            atoms, pressure_au=1.0, taut=0.5, taup=1.0, compressibility_au=0.02, **common
        ),
        "langevin": lambda: LangevinBAOAB(
            atoms, externalstress=-1.0, T_tau=0.5, P_tau=2.0, P_mass=100.0, rng=rng, **common
        ),
    }


@pytest.mark.parametrize("backend", ["engine", "torch"])
@pytest.mark.parametrize("name", ["isotropic", "flexible", "berendsen", "langevin"])
def test_a_list_with_a_skin_changes_no_bit_under_ases_barostats(name, backend):
    ends = []
    for skin in (0.0, 0.4):
        atoms = strained(1.62, noise=0.05)
        atoms.set_masses(np.ones(32))
        atoms.set_velocities(np.random.default_rng(1).normal(0, 0.8, (32, 3)))
        atoms.calc = MDGNNCalculator("lj", skin=skin, backend=backend)
        volume = atoms.get_volume()
        md = barostats(atoms)[name]()
        cells = []
        for _ in range(80):
            md.step()
            cells.append(atoms.cell.array.copy())
        assert all((a != b).any() for a, b in zip(cells[1:], cells, strict=False)), "the cell changes at every step"
        assert abs(atoms.get_volume() / volume - 1) > 0.002
        ends.append((atoms.positions, atoms.cell.array, atoms.get_momenta(), atoms.get_forces(), atoms.get_stress()))
        rebuilds = atoms.calc.neighbors.n_rebuilds
        assert rebuilds > 79 if skin == 0 else 1 <= rebuilds < 30
    for a, b in zip(*ends, strict=True):
        np.testing.assert_array_equal(a, b)
