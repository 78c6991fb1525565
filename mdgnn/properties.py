"""Properties that a model may predict beside the energy: their names, kinds and units."""

import math
import re
from dataclasses import dataclass

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
