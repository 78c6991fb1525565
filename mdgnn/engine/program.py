"""A program: what the engine runs, as data. `csrc/engine` reads the same JSON and weights from a model file."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, count
from typing import Any

import torch
from torch import Tensor

from mdgnn.model_header import OF_PROGRAM

VERSIONS = 2, 3  # the second of programs that have properties


@dataclass(frozen=True)
class Instruction:
    """One operation on arrays.

    Attributes
    ----------
    op : str
    inputs, outputs : list of int
        Numbers of arrays.
    weights : list of str
        Names of weights, or of the table that a message interpolates.
    numbers : list of float
    """

    op: str
    inputs: list[int]
    outputs: list[int]
    weights: list[str] = field(default_factory=list)
    numbers: list[float] = field(default_factory=list)


@dataclass
class Table:
    """A function of distance, which the engine tabulates when it is made: a program of its own on edges.

    Attributes
    ----------
    name : str
    knots : int
    cutoff : float
    arrays, instructions
        As of `Program`.
    input, output : int
        The arrays of the distances, (1, 1), and of the values, (1, C).
    """

    name: str
    knots: int
    cutoff: float
    arrays: list[tuple[Any, ...]]
    instructions: list[Instruction]
    input: int
    output: int


@dataclass
class Readout:
    """A property beside the energy: of an atom ``shift + scale * array``, with scale and shift of its element.

    Attributes
    ----------
    name : str
    kind : "extensive", "intensive" or "atomic"
        As of `mdgnn.nn.Property`.
    array : int
        (1, 1) of atoms.
    scale, shift : list of float
        Of each element.
    """

    name: str
    kind: str
    array: int
    scale: list[float]
    shift: list[float]


@dataclass
class Program:
    """Arrays, instructions and weights.

    Attributes
    ----------
    dtype : torch.dtype
    readout : "sum" or "mean"
    cutoff : float
    arrays : list of (space, components, channels)
        Space is "atom" or "edge": an array has a row for each. Parts of others are (space, components, channels, base,
        first component, first channel).
    instructions : list of Instruction
    tables : list of Table
    energies : int or None
        The array (1, 1) of atoms that holds the network's energies; None of a model that has learnt none.
    scale, shift : list of float
        Of each element: an atom's energy is ``scale * network + shift``.
    element_of : list of int
        An element by atomic number; -1 where the model knows none.
    weights : dict of Tensor
        By name, in the program's dtype; those of tables may be float64.
    properties : list of Readout
    """

    dtype: torch.dtype
    readout: str
    cutoff: float
    arrays: list[tuple[Any, ...]] = field(default_factory=list)
    instructions: list[Instruction] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    energies: int | None = None
    scale: list[float] = field(default_factory=list)
    shift: list[float] = field(default_factory=list)
    element_of: list[int] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)
    properties: list[Readout] = field(default_factory=list)

    def entry(self) -> dict[str, Any]:
        """What JSON says of it: everything but the weights."""
        entry = {
            "version": VERSIONS[bool(self.properties)],
            "dtype": str(self.dtype).removeprefix("torch."),
            "readout": self.readout,
            "cutoff": None if self.cutoff == math.inf else self.cutoff,
            "arrays": [list(a) for a in self.arrays],
            "instructions": [asdict(i) for i in self.instructions],
            "tables": [asdict(t) for t in self.tables],
            "energies": self.energies,
            "scale": self.scale,
            "shift": self.shift,
            "element_of": self.element_of,
        }
        return entry | {"properties": [asdict(p) for p in self.properties]} if self.properties else entry

    def to_json(self) -> str:
        return json.dumps(self.entry(), allow_nan=False)

    @classmethod
    def from_json(cls, text: str, weights: Mapping[str, Tensor]) -> "Program":
        """What `to_json` wrote."""
        entry = json.loads(text)
        if entry.pop("version") not in VERSIONS:
            raise ValueError(f"expected a program of version {' or '.join(map(str, VERSIONS))}")
        entry["dtype"] = getattr(torch, entry["dtype"])
        entry["cutoff"] = math.inf if entry["cutoff"] is None else entry["cutoff"]
        entry["arrays"] = [tuple(a) for a in entry["arrays"]]
        entry["instructions"] = [Instruction(**i) for i in entry["instructions"]]
        entry["tables"] = [_table(t) for t in entry["tables"]]
        entry["properties"] = [Readout(**p) for p in entry.get("properties", [])]
        return cls(**entry, weights=dict(weights))

    def stored(self, state: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What a model file holds: the header's entry, and the weights that are not in the model's state.

        Weights that equal a tensor of the state have its name.
        """
        names, own = names_of(list(self.weights.values()), state)
        new = dict(zip(self.weights, names, strict=True))
        entry = self.entry()
        for instruction in chain(entry["instructions"], *(t["instructions"] for t in entry["tables"])):
            instruction["weights"] = [new.get(name, name) for name in instruction["weights"]]
        return entry, own


def names_of(weights: Sequence[Tensor], state: Mapping[str, Tensor]) -> tuple[list[str], dict[str, Tensor]]:
    """Names of weights in a file, and those that are not in the state. Equal ones share a name."""
    there = {content(tensor): name for name, tensor in state.items()}
    own: dict[str, Tensor] = {}
    names = []
    free = (name for k in count() if (name := f"{OF_PROGRAM}{k}") not in state)
    for weight in weights:
        key = content(weight)
        if key not in there:
            there[key] = next(free)
            own[there[key]] = weight
        names.append(there[key])
    return names, own


def content(tensor: Tensor) -> tuple[torch.dtype, torch.Size, bytes]:
    """What equal tensors have in common."""
    return tensor.dtype, tensor.shape, tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def _table(entry: dict[str, Any]) -> Table:
    arrays, instructions = [tuple(a) for a in entry["arrays"]], [Instruction(**i) for i in entry["instructions"]]
    return Table(**{**entry, "arrays": arrays, "instructions": instructions})
