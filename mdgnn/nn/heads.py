"""What a network says beside the energy: a readout of the atoms' features for each property.

    a_i = shift(element of i) + scale * MLP(h_i)

An extensive property of a structure is the sum of its atoms' a_i, as the energy is; an intensive one, such as a gap, is
their mean; an atomic one, such as a charge, is a_i itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from mdgnn.graph import Graph, mean_per_structure, sum_per_structure
from mdgnn.nn.elements import Elements
from mdgnn.nn.mlp import MLP
from mdgnn.properties import Property


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
        return {p.name: of_structures(p.kind, values[p.name], graph) for p in self.properties}

    @property
    def header(self) -> dict[str, Any]:
        """What a model file says of them."""
        return {"energy": self.energy, "properties": [asdict(p) for p in self.properties]}


def of_structures(kind: str, values: Tensor, graph: Graph) -> Tensor:
    """a_i (N,) of a property of this kind -> (S,), or (N,) of an atomic one, in float64."""
    if kind != "atomic":
        values = sum_per_structure(values, graph) if kind == "extensive" else mean_per_structure(values, graph)
    return values.to(torch.float64)
