"""Models, one file each. MODELS maps the names used in model files; other properties are given to them as heads."""

from mdgnn.models.lennard_jones import LennardJones
from mdgnn.models.painn import PaiNN
from mdgnn.models.schnet import SchNet
from mdgnn.models.simple_gnn import SimpleGNN
from mdgnn.nn import KINDS, Property, attach_heads, heads_from_header

Model = LennardJones | PaiNN | SchNet | SimpleGNN
MODELS: dict[str, type[Model]] = {
    "LennardJones": LennardJones,
    "PaiNN": PaiNN,
    "SchNet": SchNet,
    "SimpleGNN": SimpleGNN,
}

__all__ = [
    "KINDS",
    "MODELS",
    "LennardJones",
    "Model",
    "PaiNN",
    "Property",
    "SchNet",
    "SimpleGNN",
    "attach_heads",
    "heads_from_header",
]
