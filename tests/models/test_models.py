"""Every model under the laws."""

import laws
import pytest
import torch
from kernels import dtypes
from systems import SYSTEMS, crystal, gnn, icosahedron, radial

import mdgnn
from mdgnn import LennardJones, SimpleGNN

MODELS = {
    "gnn-polynomial": lambda dtype: gnn(dtype),
    "gnn-cosine": lambda dtype: gnn(dtype, envelope="cosine"),
    "gnn-mean": lambda dtype: gnn(dtype, aggregation="mean"),
    "gnn-exponential": lambda dtype: gnn(dtype, basis="exponential", basis_start=0.4),
    "gnn-exponential-direct": lambda dtype: gnn(dtype, basis="exponential", filters="direct"),
    "gnn-shift-scale": lambda dtype: gnn(dtype, shift=-2.0, scale=3.0),
    "lj-smooth": lambda dtype: LennardJones(cutoff=2.5),
    "gnn-repulsion": lambda dtype: gnn(dtype, repulsion=0.8),
    "schnet-table": lambda dtype: radial("SchNet", dtype),
    "schnet-direct": lambda dtype: radial("SchNet", dtype, filters="direct"),
    "schnet-bessel-cosine": lambda dtype: radial("SchNet", dtype, basis="bessel", envelope="cosine"),
    "schnet-exponential": lambda dtype: radial("SchNet", dtype, basis="exponential", basis_start=0.4),
    "schnet-repulsion": lambda dtype: radial("SchNet", dtype, repulsion=0.8),
    "schnet-repulsion-direct": lambda dtype: radial("SchNet", dtype, repulsion=0.8, filters="direct"),
    "painn-table": lambda dtype: radial("PaiNN", dtype),
    "painn-repulsion": lambda dtype: radial("PaiNN", dtype, repulsion=0.8),
    "painn-direct": lambda dtype: radial("PaiNN", dtype, filters="direct"),
    "painn-gaussian-cosine": lambda dtype: radial("PaiNN", dtype, basis="gaussian", envelope="cosine"),
    "painn-exponential": lambda dtype: radial("PaiNN", dtype, basis="exponential"),
    "painn-shift-scale": lambda dtype: radial("PaiNN", dtype, shift=-2.0, scale=3.0),
}
JUMPING = {  # an atom that crosses the cutoff changes the energy by a step
    "gnn-lecture": lambda dtype: gnn(dtype, envelope=None),
    "lj-cut": lambda dtype: LennardJones(cutoff=2.5, mode="cut"),
    "lj-shifted": lambda dtype: LennardJones(cutoff=2.5, mode="shifted"),
}
everything = pytest.mark.parametrize("model", [*MODELS, *JUMPING])
smooth = pytest.mark.parametrize("model", list(MODELS))
systems = pytest.mark.parametrize("system", list(SYSTEMS))


def make(name, dtype=torch.float64):
    return {**MODELS, **JUMPING}[name](dtype)


def structure(model, system):
    """By symmetry PaiNN's vectors vanish on the slab, where rounding decides of their directions."""
    return rattled(system) if model.startswith("painn") else SYSTEMS[system]


def rattled(system):
    """The slab, whose forces are small by symmetry, without it."""
    atoms = SYSTEMS[system].copy()
    if system == "slab":
        atoms.rattle(0.05, seed=0)
    return atoms


@everything
@systems
@dtypes
def test_symmetries(model, system, dtype):
    atoms = rattled(system) if dtype == torch.float32 else structure(model, system)
    model = make(model, dtype)
    laws.assert_rotation(model, atoms)
    laws.assert_rotation(model, atoms, improper=True)
    laws.assert_translation(model, atoms)
    laws.assert_permutation(model, atoms)
    laws.assert_no_net_force(model, atoms)


@everything
@pytest.mark.parametrize("system", ["cluster", "crystal", "slab", "atom-and-dimer"])
def test_extensivity(model, system):
    laws.assert_extensivity(make(model), structure(model, system))


@everything
def test_batch_equals_singles(model):
    laws.assert_batch_equals_singles(make(model), [structure(model, system) for system in SYSTEMS])


@smooth
@systems
def test_forces_are_minus_gradient(model, system):
    laws.assert_forces_are_minus_gradient(make(model), SYSTEMS[system])


@smooth
@pytest.mark.parametrize("system", ["crystal", "slab", "triclinic", "left-handed"])
def test_stress_is_strain_derivative(model, system):
    laws.assert_stress_is_strain_derivative(make(model), SYSTEMS[system])


@pytest.mark.parametrize("system", ["cluster", "dimer", "isolated-atom", "atom-and-dimer"])
def test_symmetries_of_max(system):
    """Where no two messages are equally large: ties make the derivative depend on the order of atoms."""
    model, atoms = gnn(aggregation="max"), SYSTEMS[system]
    laws.assert_rotation(model, atoms)
    laws.assert_translation(model, atoms)
    laws.assert_permutation(model, atoms)
    laws.assert_bitwise_repeatable(model, icosahedron(4, 0.05))


@smooth
def test_smooth_at_the_cutoff(model):
    laws.assert_smooth_at_the_cutoff(make(model))


@pytest.mark.parametrize("model", list(JUMPING))
def test_without_an_envelope_the_energy_jumps(model):
    jump = "the force jumps by" if model == "lj-shifted" else "a step of .* at the cutoff"
    with pytest.raises(AssertionError, match=jump):
        laws.assert_smooth_at_the_cutoff(make(model))


@everything
@dtypes
def test_bitwise_repeatable_for_any_number_of_threads(model, dtype):
    for atoms in (icosahedron(2, 0.05), icosahedron(3, 0.05), icosahedron(4, 0.05), crystal() * (3, 3, 2)):
        laws.assert_bitwise_repeatable(make(model, dtype), atoms)


@dtypes
@pytest.mark.parametrize("shells", [2, 3, 4, 6])
def test_shipped_model_is_bitwise_repeatable(dtype, shells):
    for seed in range(3):
        laws.assert_bitwise_repeatable(mdgnn.load("lj").to(dtype), icosahedron(shells, 0.05, seed))


@dtypes
@pytest.mark.parametrize("n", [2, 3, 5, 7, 9, 17, 38, 63, 65, 100])
def test_any_number_of_atoms_is_bitwise_repeatable(dtype, n):
    """BLAS gives small products other bits with two threads, unless the number of rows suits it."""
    for width in (8, 32, 33):
        torch.manual_seed(0)
        model = SimpleGNN(1, width, 16, 2, elements="any", envelope="cosine").to(dtype)
        laws.assert_bitwise_repeatable(model, icosahedron(4, 0.05)[:n])


@pytest.mark.parametrize("model", ["gnn-polynomial", "lj-smooth", "schnet-table", "painn-table"])
def test_nve_drift_is_second_order(model):
    laws.assert_nve_drift_is_second_order(make(model), icosahedron(2))
