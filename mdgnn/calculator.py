"""The ASE calculator."""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, CalculatorError, PropertyNotImplementedError, all_changes
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray

from mdgnn.engine import Engine, UnsupportedError
from mdgnn.graph import Graph
from mdgnn.model_file import load
from mdgnn.models import Model
from mdgnn.neighbors import Edges, NeighborList
from mdgnn.potential import evaluate

COINCIDENT = 1e-8  # closer atoms are at one place: images differ by rounding
STATE = ("positions", "numbers", "cell", "pbc")
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
    backend : "auto", "engine" or "torch"
        What computes: `mdgnn.Engine`, or the model itself with torch's autograd. "auto": the engine on the CPU for
        models that it can run.

    Raises
    ------
    UnsupportedError
        If the backend is "engine" and the engine cannot run the model.

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

    def __init__(
        self,
        model: str | Path | Model,
        device: str | None = None,
        dtype: str = "float32",
        skin: float = 0.0,
        backend: str = "auto",
    ):
        self._state: tuple[NDArray[Any], ...] | None = None  # of the atoms that the results belong to
        self._numbers: NDArray[Any] | None = None  # that the model is known to know
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
        self.engine = self._make_engine(backend)
        self._stress_wanted = False

    def _make_engine(self, backend: str) -> Engine | None:
        if backend not in ("auto", "engine", "torch"):
            raise ValueError(f"expected backend 'auto', 'engine' or 'torch', got {backend!r}")
        if backend == "engine" and self.device.type != "cpu":
            raise ValueError(f"expected device 'cpu' for the engine, got {str(self.device)!r}")
        if backend == "torch" or self.device.type != "cpu":
            return None
        try:
            return Engine(self.model)
        except UnsupportedError:
            if backend == "engine":
                raise
            return None

    @property
    def atoms(self) -> Atoms | None:
        """Those that the results belong to: numbers, positions, cell and periodicity."""
        if self._state is None:
            return None
        positions, numbers, cell, pbc = self._state
        return Atoms(numbers=numbers, positions=positions, cell=cell, pbc=pbc)

    @atoms.setter
    def atoms(self, atoms: Atoms | None) -> None:
        self._state = None if atoms is None else tuple(x.copy() for x in _state(atoms))

    def check_state(self, atoms: Atoms, tol: float = 0.0) -> list[str]:
        """What differs from the atoms that the results belong to; anything else about atoms changes no result."""
        if self._state is None:
            return list(all_changes)
        both = zip(STATE, self._state, _state(atoms), strict=True)
        return [name for name, before, now in both if not _same(before, now)]

    def get_property(self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True) -> Any:
        """As ASE's, at a tenth of its cost: a result for these atoms, computed unless it is there already."""
        if name not in self.implemented_properties:
            raise PropertyNotImplementedError(f"expected one of {self.implemented_properties}, got {name!r}")
        if atoms is None:
            atoms = self.atoms
            if atoms is None:
                raise ValueError("expected atoms, got none, and none have been computed before")
        elif self._state is None or not all(map(_same, self._state, _state(atoms))):
            self.reset()  # type: ignore[no-untyped-call]
        if name not in self.results:
            if not allow_calculation:
                return None
            self.calculate(atoms, [name])
        result = self.results[name]
        return result.copy() if isinstance(result, np.ndarray) else result

    def calculate(
        self, atoms: Atoms | None = None, properties: Any = ("energy",), system_changes: Any = all_changes
    ) -> None:
        """Fill `results`; called by ASE. Stress is among them where it is asked for, and from then on.

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
        if atoms is None:
            atoms = self.atoms
            assert atoms is not None
        numbers = atoms.arrays["numbers"]
        if self._numbers is None or not _same(self._numbers, numbers):
            check_atoms(atoms, self.model)
            self._numbers = numbers.copy()
        with_stress = "stress" in properties or self._stress_wanted
        volume = abs(np.linalg.det(atoms.cell.array)) if with_stress else 0.0
        if "stress" in properties and not volume > 0:
            raise PropertyNotImplementedError("stress needs a cell with a positive volume; this one has none")
        self._stress_wanted = with_stress
        try:
            edges = self.neighbors.update(atoms.positions, atoms.cell.array, atoms.pbc)
        except ValueError:
            check_atoms(atoms, self.model)  # which may say more
            raise
        check_distances(edges)
        energy, energies, forces, virial = self._evaluate(atoms, edges, volume > 0)
        results: dict[str, Any] = {"energy": energy, "free_energy": energy, "energies": energies, "forces": forces}
        if virial is not None:
            results["stress"] = full_3x3_to_voigt_6_stress(-virial / volume)
        if not math.isfinite(energy) or not math.isfinite(forces.sum()):
            raise_for_results(results)
        self.atoms, self.results = atoms, results

    def _evaluate(self, atoms: Atoms, edges: Edges, with_virial: bool) -> tuple[float, Any, Any, Any]:
        """The energy, energies and forces of atoms, and the virial."""
        if self.engine is not None:
            energies, forces, virials = self.engine.run(atoms.numbers, edges, virials=with_virial)
            return float(energies.sum()), energies, forces, virials.sum(axis=0) if with_virial else None
        graph = Graph.from_edges(atoms.numbers, edges, atoms.cell.array).to(self.device)
        found = evaluate(self.model, graph, virial=with_virial, dtype=self.dtype)
        assert found.forces is not None
        virial = None if found.virial is None else found.virial[0].cpu().numpy()
        return float(found.energy[0]), found.energies.cpu().numpy(), found.forces.cpu().numpy(), virial


def _state(atoms: Atoms) -> tuple[NDArray[Any], ...]:
    """What results depend on, in the order of `STATE`."""
    return atoms.arrays["positions"], atoms.arrays["numbers"], atoms.cell.array, atoms.pbc


def _same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    return a.shape == b.shape and bool((a == b).all())


def check_atoms(atoms: Atoms, model: Model) -> None:
    """Raise a ValueError that names the first atom a model cannot treat."""
    if len(atoms) == 0:
        raise ValueError("expected at least one atom, got an empty Atoms object")
    if not np.isfinite(atoms.positions).all():
        bad = np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1))
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


def raise_for_results(results: dict[str, Any]) -> None:
    """Raise a CalculatorError that says which result is not finite: nothing must go on from there."""
    for name, value in results.items():
        if not np.isfinite(value).all():
            where = ""
            if name in ("energies", "forces"):
                rows = np.isfinite(np.reshape(value, (len(value), -1))).all(axis=1)
                where = f" for atom {int(np.flatnonzero(~rows)[0])}"
            raise CalculatorError(f"the model returned {name} that are not finite{where}; atoms may be too close")
