"""Models that say more than energies."""

import torch
from systems import gnn, radial

from mdgnn.nn import Property

PROPERTIES = [
    Property("volume", "extensive", [1.5], 2.0),
    Property("gap", "intensive", [-0.25], 0.5),
    Property("charges", "atomic", [0.1], 3.0),
]


def with_heads(architecture, energy=True, properties=PROPERTIES, dtype=torch.float64, **options):
    model = gnn(dtype, **options) if architecture == "SimpleGNN" else radial(architecture, dtype, **options)
    torch.manual_seed(1)
    model.attach_heads(properties, energy)
    return model.requires_grad_(False)
