"""Relaxation and molecular dynamics of atoms with any ASE calculator; what the command line does, from Python.

`relax` finds the minimum below a structure, `basin_hopping` lower ones; `simulate` runs molecular dynamics in a folder,
from where `restart` goes on, and `MolecularDynamics` runs it in memory. `relax_many`, `relax_as_completed`,
`simulate_many` and `ManyMolecularDynamics` move many small systems at once. `NVE`, `Langevin` and `NPT` are the
ensembles.
"""

from mdgnn._internal.folder_lock import InUseError
from mdgnn._internal.run_errors import InterruptedRunError, RunError
from mdgnn.dynamics.basin_hopping import Minimum, basin_hopping, displace, quench
from mdgnn.dynamics.ensembles import NPT, NVE, Langevin
from mdgnn.dynamics.many import ManyMolecularDynamics
from mdgnn.dynamics.many_relaxation import (
    InterruptedRelaxationsError,
    ManyRelaxation,
    UnwrittenRelaxationsError,
    relax_as_completed,
    relax_many,
)
from mdgnn.dynamics.many_simulation import restart_many, simulate_many
from mdgnn.dynamics.molecular_dynamics import MolecularDynamics
from mdgnn.dynamics.relaxation import Relaxation, relax
from mdgnn.dynamics.reporter import Reporter
from mdgnn.dynamics.simulation import restart, simulate
from mdgnn.dynamics.structures import read_structure, read_structures

__all__ = [
    "NPT",
    "NVE",
    "InUseError",
    "InterruptedRelaxationsError",
    "InterruptedRunError",
    "Langevin",
    "ManyMolecularDynamics",
    "ManyRelaxation",
    "Minimum",
    "MolecularDynamics",
    "Relaxation",
    "Reporter",
    "RunError",
    "UnwrittenRelaxationsError",
    "basin_hopping",
    "displace",
    "quench",
    "read_structure",
    "read_structures",
    "relax",
    "relax_as_completed",
    "relax_many",
    "restart",
    "restart_many",
    "simulate",
    "simulate_many",
]
