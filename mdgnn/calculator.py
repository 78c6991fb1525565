"""The ASE calculator."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, CalculatorError, PropertyNotImplementedError, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from mdgnn.graph import Graph
from mdgnn.model_file import load
from mdgnn.models import Model
from mdgnn.neighbors import Edges, NeighborList
from mdgnn.potential import evaluate, stress

COINCIDENT = 1e-8  # closer atoms are at one place: images differ by rounding
DTYPES = {"float32": torch.float32, "float64": torch.float64}


class MDGNNCalculator(Calculator):
    """Energy, forces and stress of a model for ASE.

    The result depends on the atoms alone: not on earlier calls, on when the neighbour list was rebuilt, or on the
    number of threads. The Atoms are never changed, and no global setting is.

    Parameters
    ----------
    model : str, Path or torch module
        The name of a shipped model ("lj", "water"), a model file, or a model; a module is copied.
    device : str, optional
        "cpu" (default) or "cuda". The neighbour list is built on the CPU.
    dtype : "float32" or "float64"
        Precision of the network. Distances are differenced and energies summed in float64 either way.
    skin : float
        Extra reach of the neighbour list (Angstrom, or sigma for reduced units), so that it need not be searched at
        every step. To search costs less than to keep such a list up to date, so there is none unless asked for.

    Notes
    -----
    Units are eV, Angstrom and eV/Angstrom^3. For a model in reduced Lennard-Jones units, epsilon is 1 eV and sigma is
    1 Angstrom numerically, and the mass is 1, so that ASE's internal unit of time is tau.
    """

    implemented_properties = [  # noqa: RUF012  (ASE declares it so)
        "energy",
        "free_energy",
        "energies",
        "forces",
        "stress",
    ]

    def __init__(self, model: str | Path | Model, device: str | None = None, dtype: str = "float32", skin: float = 0.0):
        super().__init__()  # type: ignore[no-untyped-call]
        if dtype not in DTYPES:
            raise ValueError(f"expected dtype 'float32' or 'float64', got {dtype!r}")
        loaded = load(model) if isinstance(model, (str, Path)) else copy.deepcopy(model)
        if loaded.readout != "sum":
            raise ValueError("expected a model with readout 'sum': a mean over atoms is not an energy")
        self.device = torch.device(device or "cpu")
        self.dtype = DTYPES[dtype]
        self.model = loaded.to(self.device, self.dtype).eval().requires_grad_(False)
        self.neighbors = NeighborList(self.model.cutoff, skin)

    def calculate(
        self, atoms: Atoms | None = None, properties: Any = ("energy",), system_changes: Any = all_changes
    ) -> None:
        """Fill `results`; called by ASE.

        Raises
        ------
        ValueError
            No atoms, an unknown element, a position that is not finite, two atoms at one place, a periodic axis
            without a cell vector. The message names the atom.
        CalculatorError
            The model returned a number that is not finite.
        PropertyNotImplementedError
            Stress was asked for without a cell volume.
        """
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        if atoms is None:
            atoms = self.atoms
        assert atoms is not None
        check_atoms(atoms, self.model)
        volume = abs(np.linalg.det(atoms.cell.array))
        if "stress" in properties and not volume > 0:
            raise PropertyNotImplementedError("stress needs a cell with a positive volume; this one has none")
        edges = self.neighbors.update(atoms.positions, atoms.cell.array, atoms.pbc)
        check_distances(edges)
        graph = Graph.from_edges(atoms.numbers, edges, atoms.cell.array).to(self.device)
        wanted = evaluate(self.model, graph, virial=volume > 0, dtype=self.dtype)
        assert wanted.forces is not None
        results: dict[str, Any] = {
            "energy": float(wanted.energy[0]),
            "free_energy": float(wanted.energy[0]),
            "energies": wanted.energies.cpu().numpy(),
            "forces": wanted.forces.cpu().numpy(),
        }
        if wanted.virial is not None:
            results["stress"] = full_3x3_to_voigt_6_stress(stress(wanted.virial, graph.cells)[0].cpu().numpy())
        check_results(results)
        self.results = results


def check_atoms(atoms: Atoms, model: Model) -> None:
    """Raise a ValueError that names the first atom a model cannot treat."""
    if len(atoms) == 0:
        raise ValueError("expected at least one atom, got an empty Atoms object")
    bad = np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1))
    if len(bad):
        raise ValueError(f"expected finite positions, got {atoms.positions[bad[0]].tolist()} for atom {bad[0]}")
    if not np.isfinite(atoms.cell.array).all():
        raise ValueError(f"expected a finite cell, got {atoms.cell.array.tolist()}")
    for axis in np.flatnonzero(atoms.pbc):
        if not atoms.cell.array[axis].any():
            raise ValueError(f"expected a cell vector on periodic axis {axis}, got a zero vector")
    numbers, symbols = atoms.numbers, atoms.symbols
    if model.elements == "any":
        other = np.flatnonzero(numbers != numbers[0])
        if len(other):
            raise ValueError(
                "this model takes a single species as its particle, "
                f"got {symbols[0]} for atom 0 and {symbols[other[0]]} for atom {other[0]}"
            )
        return
    known: Any = range(model.config["n_elements"] + 1) if model.elements is None else model.elements
    unknown = np.flatnonzero(~np.isin(numbers, list(known)))
    if len(unknown):
        names = ", ".join(Atoms(numbers=list(known)).get_chemical_symbols())
        raise ValueError(
            f"the model knows the elements {names}; atom {unknown[0]} is {symbols[unknown[0]]} "
            f"(atomic number {numbers[unknown[0]]})"
        )


def check_distances(edges: Edges) -> None:
    """Raise a ValueError that names two atoms at one place."""
    if len(edges.distances) and edges.distances.min() < COINCIDENT:
        e = int(edges.distances.argmin())
        raise ValueError(
            f"expected atoms at different places, but atoms {edges.receivers[e]} and {edges.senders[e]} coincide"
        )


def check_results(results: dict[str, Any]) -> None:
    """Raise a CalculatorError when a result is not finite: nothing must go on from there."""
    for name, value in results.items():
        if not np.all(np.isfinite(value)):
            where = ""
            if name in ("energies", "forces"):
                rows = np.isfinite(np.reshape(value, (len(value), -1))).all(axis=1)
                where = f" for atom {int(np.flatnonzero(~rows)[0])}"
            raise CalculatorError(f"the model returned {name} that are not finite{where}; atoms may be too close")
