"""Models, one file each. A name of one of them is short for "mdgnn.models:NAME" in files and configurations."""

from mdgnn.models.lennard_jones import LennardJones
from mdgnn.models.painn import PaiNN
from mdgnn.models.schnet import SchNet
from mdgnn.models.simple_gnn import SimpleGNN

__all__ = ["LennardJones", "PaiNN", "SchNet", "SimpleGNN"]
