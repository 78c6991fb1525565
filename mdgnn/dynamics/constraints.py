"""ASE's constraints as records of JSON, from which they come back as they were.

What ASE has of its own, `todict`, forgets lengths and angles that a constraint took from the first structure it met,
and directions come back normalised once more. A restart from that is another run; so a record has the constraint's own
variables too.
"""

import json
from collections.abc import Sequence
from typing import Any

from ase import Atoms
from ase.constraints import FixAtoms, FixCartesian, FixCom, FixInternals, dict2constraint
from ase.io.jsonio import encode, mydecode

OF_THERMOSTAT = "of_thermostat"  # marks one that a run has put there itself, and that its results do not have
OF_A_STEP = ("constraint_forces",)  # variables that are made anew whenever they are needed
# Those whose lengths, angles or directions are not quite the same after ASE's `todict`.
TAKEN_ANEW = ("FixBondLengths", "FixLinearTriatomic", "FixInternals", "FixedLine", "FixedPlane", "FixedMode")


def to_records(constraints: Sequence[Any], whole: bool = True) -> list[dict[str, Any]]:
    """Plain records: name and arguments, as ASE reads them, and if they are whole the constraint's own variables.

    Raises
    ------
    ValueError
        For a constraint that is none of ASE's, which no file can hold.
    """
    return [_to_record(constraint, whole) for constraint in constraints]


def _to_record(constraint: Any, whole: bool) -> dict[str, Any]:
    entry = getattr(constraint, "todict", lambda: None)()
    if entry is None or entry.get("name") != type(constraint).__name__:
        raise ValueError(f"expected constraints of ASE's own, which files can hold, got {type(constraint).__name__}")
    arguments = dict(entry["kwargs"])
    if getattr(constraint, "bondlengths", None) is not None and entry["name"] == "FixBondLengths":
        arguments["bondlengths"] = constraint.bondlengths
    if isinstance(constraint, FixInternals) and constraint.initialized:  # None stood for the value of the start
        values = iter(constraint.constraints)
        for kind in ("bonds", "angles_deg", "dihedrals_deg", "bondcombos"):
            arguments[kind] = [[next(values).targetvalue, datum[1]] for datum in arguments[kind]]
    record = {"name": entry["name"], "kwargs": arguments}
    if whole and not isinstance(constraint, FixInternals):  # whose variables are objects, made of its arguments
        own = {name: value for name, value in vars(constraint).items() if name not in OF_A_STEP}
        record["state"] = {name: value for name, value in own.items() if not isinstance(value, Atoms)}
    plain: dict[str, Any] = json.loads(encode(record))
    return plain


def from_records(records: Any) -> list[Any]:
    """The constraints of such records.

    Raises
    ------
    ValueError, TypeError, KeyError
        If they are not records.
    """
    constraints = []
    for record in mydecode(json.dumps(records)):
        constraint = dict2constraint({"name": record["name"], "kwargs": record["kwargs"]})
        vars(constraint).update(record.get("state", {}))
        constraints.append(constraint)
    return constraints


def fixed_center_of_mass() -> FixCom:
    """A centre of mass at rest, as a thermostat of an open system needs it."""
    constraint = FixCom()
    setattr(constraint, OF_THERMOSTAT, True)
    return constraint


def of_user(constraints: Sequence[Any]) -> list[Any]:
    """Those that the run has not put there itself."""
    return [constraint for constraint in constraints if not getattr(constraint, OF_THERMOSTAT, False)]


def in_extended_xyz(constraints: Sequence[Any]) -> bool:
    """Whether ASE's column move_mask holds them all."""
    return all(type(constraint) in (FixAtoms, FixCartesian) for constraint in constraints)


def check_dynamics(atoms: Atoms) -> None:
    """Raise a ValueError for a constraint that dynamics cannot have."""
    for constraint in atoms.constraints:
        name = type(constraint).__name__
        try:
            constraint.get_removed_dof(atoms)
        except (NotImplementedError, AttributeError):
            raise ValueError(
                f"expected constraints that molecular dynamics can have, got {name}, which does not say "
                "how many degrees of freedom it takes: relax with it, and take it off for md"
            ) from None


def inexact(records: Sequence[dict[str, Any]]) -> list[str]:
    """Names of those that a checkpoint of format 1 has not all of, so that a run does not go on bit for bit."""
    return [record["name"] for record in records if record["name"] in TAKEN_ANEW]
