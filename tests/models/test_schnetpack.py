"""SchNet and PaiNN against schnetpack's, with the same weights.

Runs where schnetpack 2.1 is installed; only its networks are imported (``pip install --no-deps schnetpack`` suffices).
The package itself also loads data sets and training, and does not import under torch 2.13: an empty one stands in.
"""

import sys
from importlib.util import find_spec
from types import ModuleType

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from kernels import dtypes

import mdgnn
from mdgnn import Graph, evaluate

SPEC = find_spec("schnetpack")
if SPEC is None:
    pytest.skip("schnetpack is not installed", allow_module_level=True)
if "schnetpack" not in sys.modules:
    package = ModuleType("schnetpack")
    package.__path__ = list(SPEC.submodule_search_locations)
    sys.modules["schnetpack"] = package
schnetpack = pytest.importorskip("schnetpack.representation")
parts = pytest.importorskip("schnetpack.nn")

BASES = {"gaussian": parts.GaussianRBF, "bessel": parts.BesselRBF}
CUTOFF = 5.0


def ethanol():
    return molecule("CH3CH2OH")


def salt():
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    atoms.rattle(0.1, seed=0)
    return atoms


def skewed():
    rng = np.random.default_rng(0)
    cell = [[4.0, 0.3, -0.2], [1.1, 3.8, 0.2], [-0.8, 0.5, 4.2]]
    return Atoms("CHONCHOHHH", scaled_positions=rng.random((10, 3)), cell=cell, pbc=(True, True, False))


def water_and_atom():
    return molecule("H2O") + Atoms("C", [[0, 30, 0]])


SYSTEMS = [ethanol, salt, skewed, water_and_atom]


class Reference(torch.nn.Module):
    """schnetpack's representation, and the two layers of its Atomwise."""

    def __init__(self, architecture, basis, n_features, n_interactions):
        super().__init__()
        activation = {"SchNet": parts.shifted_softplus, "PaiNN": torch.nn.functional.silu}[architecture]
        self.representation = getattr(schnetpack, architecture)(
            n_features, n_interactions, BASES[basis](20, CUTOFF), parts.CosineCutoff(CUTOFF), activation=activation
        )
        self.outnet = parts.build_mlp(n_features, 1, activation=activation)

    def energy_and_forces(self, atoms, dtype):
        i, j, offsets = mdgnn.neighbor_list("ijS", atoms, CUTOFF)
        positions = torch.tensor(atoms.positions, requires_grad=True)
        vectors = positions[j] - positions[i] + torch.tensor(offsets @ atoms.cell.array)
        inputs = {
            "_atomic_numbers": torch.tensor(atoms.numbers, dtype=torch.int64),
            "_Rij": vectors.to(dtype),
            "_idx_i": torch.tensor(i),
            "_idx_j": torch.tensor(j),
        }
        energies = self.outnet(self.representation(inputs)["scalar_representation"]).squeeze(-1)
        (gradient,) = torch.autograd.grad(energies.sum(), positions)
        return energies.detach().double(), -gradient


def randomize(model):
    """Weights as drawn, random biases: zeros would hide a bias that is left out."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.uniform_(-0.5, 0.5)


def linear(source, target):
    """Names of one Linear layer in schnetpack's state, and in ours."""
    return {f"{source}.{kind}": f"{target}.{kind}" for kind in ("weight", "bias")}


def mlp(source, target):
    return {**linear(f"{source}.0", f"{target}.0"), **linear(f"{source}.1", f"{target}.2")}


def copied(reference, elements):
    """Our state with schnetpack's weights."""
    theirs, ours = dict(reference.state_dict()), {}
    bases = {"offsets": "centers", "freqs": "frequencies"}
    embedding = theirs.pop("representation.embedding.weight")
    ours["embedding.weight"] = torch.cat([torch.zeros_like(embedding[:1]), embedding[elements]])
    names = mlp("outnet", "output_mlp")
    for k in range(len(reference.representation.interactions)):
        block = f"representation.interactions.{k}"
        names |= {f"{block}.in2f.weight": f"interactions.{k}.project.weight"}
        names |= mlp(f"{block}.f2out", f"interactions.{k}.update")
        names |= mlp(f"{block}.filter_network", f"filters.networks.{k}")
        names |= mlp(f"{block}.interatomic_context_net", f"layers.{k}.message_mlp")
        mixing = f"representation.mixing.{k}"
        names |= mlp(f"{mixing}.intraatomic_context_net", f"layers.{k}.update_mlp")
        names |= {f"{mixing}.mu_channel_mix.weight": f"layers.{k}.mix.weight"}
    names |= {f"representation.radial_basis.{a}": f"filters.basis.{b}" for a, b in bases.items()}
    for kind in ("weight", "bias"):  # PaiNN's one layer makes the filters of all
        joint = theirs.pop(f"representation.filter_net.{kind}", None)
        if joint is not None:
            split = joint.chunk(len(reference.representation.interactions))
            ours |= {f"filters.networks.{k}.{kind}": part for k, part in enumerate(split)}
    ours |= {names[name]: value for name, value in theirs.items() if name in names}
    left = set(theirs) - set(names)
    assert left <= {"representation.cutoff_fn.cutoff", "representation.cutoff", "representation.radial_basis.widths"}
    return ours


@dtypes
@pytest.mark.parametrize("system", SYSTEMS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("basis", list(BASES))
@pytest.mark.parametrize("architecture", ["SchNet", "PaiNN"])
def test_equals_schnetpack(architecture, basis, system, dtype):
    """Energies to 1e-10 of sum |e_i|, forces to 1e-10 of the largest; 1e-5 in float32."""
    torch.manual_seed(0)
    atoms, elements = system(), [1, 6, 7, 8, 11, 17]
    reference = Reference(architecture, basis, 32, 3)
    randomize(reference)
    ours = getattr(mdgnn, architecture)(32, 3, 20, cutoff=CUTOFF, basis=basis, elements=elements, filters="direct")
    ours.load_state_dict(copied(reference, elements))
    energies, forces = reference.to(dtype).energy_and_forces(atoms, dtype)
    prediction = evaluate(ours.to(dtype), Graph.from_atoms(atoms, CUTOFF))
    scale, largest = float(energies.abs().sum()), float(forces.abs().max())
    errors = (
        float((prediction.energies - energies).abs().max()) / scale,
        float((prediction.forces - forces).abs().max()) / largest,
    )
    print(f"{architecture} {basis} {atoms.symbols} {dtype}: energies {errors[0]:.1e}, forces {errors[1]:.1e}")
    tolerance = {torch.float64: 1e-10, torch.float32: 1e-5}[dtype]
    assert max(errors) <= tolerance
