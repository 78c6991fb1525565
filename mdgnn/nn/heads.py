"""What a network says beside the energy: a readout of the atoms' features for each property.

    a_i = shift(element of i) + scale * MLP(h_i)

An extensive property of a structure is the sum of its atoms' a_i, as the energy is; an intensive one, such as a gap, is
their mean; an atomic one, such as a charge, is a_i itself.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mdgnn.graph import Graph, mean_per_structure, sum_per_structure
from mdgnn.nn.elements import Elements
from mdgnn.nn.mlp import MLP

KINDS = ("extensive", "intensive", "atomic")
TAKEN = frozenset(  # names that mean something else
    [
        # results of our calculators, and of ASE's, which are written to files in shapes and types of their own
        *("energy", "free_energy", "energies", "forces", "stress", "stresses", "energy_std", "forces_std"),
        *("natoms", "nbands", "nkpts", "nspins", "kpoint_weights", "ibz_kpoints", "eigenvalues", "occupations"),
        *("dipole", "polarization", "dielectric_tensor", "born_effective_charges"),
        # labels of frames, columns of tables and what a run shows
        *("virial", "virials", "numbers", "positions", "weight", "config_type", "structure", "n_atoms", "n_structures"),
        *("epoch", "step", "lr", "train", "valid"),
    ]
)
ATOMIC_IN_ASE, OF_STRUCTURES_IN_ASE = ("charges", "magmoms"), ("magmom", "fermi_level")


@dataclass(frozen=True)
class Property:
    """What is predicted, in units of its own.

    Attributes
    ----------
    name : str
        Letters, digits and underscores; none of `TAKEN`, and none that begins or ends like the columns of tables.
    kind : "extensive", "intensive" or "atomic"
    shift : list of float
        In the order of the model's elements, or one for all: a_i of a network that says nothing.
    scale : float
        The size of what the network has to say; errors in losses are in this unit.

    Raises
    ------
    ValueError
    """

    name: str
    kind: str
    shift: list[float]
    scale: float

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"expected a property {', '.join(KINDS)}, got the kind {self.kind!r} of {self.name!r}")
        if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", self.name):
            raise ValueError(f"expected letters, digits and underscores as the name of a property, got {self.name!r}")
        if self.name in TAKEN or self.name.startswith("predicted_") or self.name.endswith(("_mae", "_rmse")):
            raise ValueError(f"{self.name!r} means something else already: choose another name")
        atomic = self.kind == "atomic"
        if self.name in (OF_STRUCTURES_IN_ASE if atomic else ATOMIC_IN_ASE):
            of = "a structure" if atomic else "each atom"
            raise ValueError(f"{self.name!r} is a number of {of} in ASE: choose another name")
        if not (0 < self.scale < math.inf and all(math.isfinite(x) for x in self.shift)):
            raise ValueError(f"expected finite shifts and a positive scale of {self.name!r}, got {self}")


class Heads(nn.Module):
    """The readouts of a model.

    Parameters
    ----------
    properties : sequence of Property
    n_features : int
        Of an atom.
    elements : Elements
        The model's.
    energy : bool
        Whether the model has learnt energies too: otherwise nobody should ask it for energies or forces.

    Raises
    ------
    ValueError
        If two properties have one name, or the number of shifts does not fit the elements.
    """

    def __init__(self, properties: Sequence[Property], n_features: int, elements: Elements, energy: bool):
        super().__init__()
        names = [p.name for p in properties]
        if len(set(names)) < len(names):
            raise ValueError(f"expected properties of different names, got {', '.join(names)}")
        self.properties, self.energy = list(properties), energy
        self.networks = nn.ModuleList(MLP(n_features, max(1, n_features // 2), 1) for _ in properties)
        self.elements = nn.ModuleList(
            Elements(elements.known, elements.n_elements, p.shift, p.scale) for p in properties
        )

    def forward(self, types: Tensor, features: Tensor) -> dict[str, Tensor]:
        """(N,) types, (N, F) features -> a_i by name, (N,) float64."""
        heads: Any = zip(self.properties, self.networks, self.elements, strict=True)
        return {p.name: elements.energies(types, network(features).squeeze(1)) for p, network, elements in heads}

    def reduce(self, values: Mapping[str, Tensor], graph: Graph) -> dict[str, Tensor]:
        """What `forward` returns -> of structures (S,), or of atoms (N,), as each property is; float64 by name."""
        reduced = {}
        for p in self.properties:
            a = values[p.name]
            if p.kind != "atomic":
                a = sum_per_structure(a, graph) if p.kind == "extensive" else mean_per_structure(a, graph)
            reduced[p.name] = a.to(torch.float64)
        return reduced

    @property
    def header(self) -> dict[str, Any]:
        """What a model file says of them."""
        return {"energy": self.energy, "properties": [asdict(p) for p in self.properties]}
