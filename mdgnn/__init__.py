"""mdgnn: molecular dynamics and relaxation with graph-neural-network potentials, driven from ASE.

Importing the package loads neither torch nor ase; the first use of a name does.
"""

from typing import TYPE_CHECKING

import mdgnn.threads  # noqa: F401  (a child by fork is to know that it is one)
from mdgnn._internal.lazy_names import lazy_names

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mdgnn import ops
    from mdgnn.calculators import Ensemble, MDGNNCalculator
    from mdgnn.engine import Engine
    from mdgnn.graph import Graph
    from mdgnn.model_config import ModelConfig, takes_options_of
    from mdgnn.model_file import load, save
    from mdgnn.models import LennardJones, PaiNN, SchNet, SimpleGNN
    from mdgnn.neighbors import NeighborList, first_neighbors, neighbor_list, primitive_neighbor_list
    from mdgnn.potential import Potential, evaluate
    from mdgnn.threads import get_num_threads, set_num_threads

_HOME = {
    "Engine": "mdgnn.engine",
    "Ensemble": "mdgnn.calculators",
    "Graph": "mdgnn.graph",
    "LennardJones": "mdgnn.models",
    "MDGNNCalculator": "mdgnn.calculators",
    "ModelConfig": "mdgnn.model_config",
    "NeighborList": "mdgnn.neighbors",
    "PaiNN": "mdgnn.models",
    "Potential": "mdgnn.potential",
    "SchNet": "mdgnn.models",
    "SimpleGNN": "mdgnn.models",
    "evaluate": "mdgnn.potential",
    "get_num_threads": "mdgnn.threads",
    "load": "mdgnn.model_file",
    "first_neighbors": "mdgnn.neighbors",
    "neighbor_list": "mdgnn.neighbors",
    "ops": "mdgnn.ops",
    "primitive_neighbor_list": "mdgnn.neighbors",
    "save": "mdgnn.model_file",
    "set_num_threads": "mdgnn.threads",
    "takes_options_of": "mdgnn.model_config",
}

__all__ = [
    "Engine",
    "Ensemble",
    "Graph",
    "LennardJones",
    "MDGNNCalculator",
    "ModelConfig",
    "NeighborList",
    "PaiNN",
    "Potential",
    "SchNet",
    "SimpleGNN",
    "evaluate",
    "first_neighbors",
    "get_num_threads",
    "load",
    "neighbor_list",
    "ops",
    "primitive_neighbor_list",
    "save",
    "set_num_threads",
    "takes_options_of",
]


__getattr__, __dir__ = lazy_names("mdgnn", _HOME)
