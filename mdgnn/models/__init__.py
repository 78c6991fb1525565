"""Models, one file each. MODELS maps the names used in model files."""

from mdgnn.models.lennard_jones import LennardJones
from mdgnn.models.simple_gnn import SimpleGNN

MODELS: dict[str, type[LennardJones] | type[SimpleGNN]] = {"LennardJones": LennardJones, "SimpleGNN": SimpleGNN}

__all__ = ["MODELS", "LennardJones", "SimpleGNN"]
