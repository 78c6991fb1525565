"""The ASE calculator of a model.

A model file goes to the engine and the results come back in numpy: for that torch is not imported. What needs torch
stands in `mdgnn.calculators.by_torch`, which `MDGNNCalculator._torch_model` imports when it is first needed.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, Union

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculatorError, PropertyNotImplementedError, all_changes
from numpy.typing import NDArray

from mdgnn._internal.needs_torch import NeedsTorchError
from mdgnn._internal.torch_context import torch_context
from mdgnn._internal.warn_user import warn_user
from mdgnn.calculators.caching_calculator import OF_ENERGY, CachingCalculator, same
from mdgnn.calculators.checks import (
    COINCIDENT,
    check_atoms,
    check_distances,
    check_distances_of_batch,
    raise_for_results,
    volume_of,
)
from mdgnn.calculators.results import energy_results, results_of_engine
from mdgnn.engine import Engine, UnsupportedError
from mdgnn.model_header import StoredModel
from mdgnn.neighbors import Edges, NeighborList, neighbors_of_batch

if TYPE_CHECKING:
    import torch

    from mdgnn.calculators.by_torch import TorchModel
    from mdgnn.potential import Potential

BATCH = 20_000  # atoms that are treated together, at most, but for one structure
DTYPES = ("float32", "float64")
PARAMETERS = ("model", "device", "dtype", "skin", "backend", "too_close")


class MDGNNCalculator(CachingCalculator):
    """Energy, forces, stress and stresses of atoms of a model for ASE, and the other properties that it has learnt.

    The result depends on the atoms alone: not on earlier calls, on when the neighbour list was rebuilt, on the number
    of threads, or on what torch has been set to around it. The Atoms are never changed, and no global setting is. One
    calculator serves one thread at a time; any number of them may be made and used in any number of threads.

    Parameters
    ----------
    model : str, Path or torch module
        The name of a shipped model ("lj", "water", "acac"), a model file, or a model; a module is copied.
    device : str, optional
        "cpu" (default) or "cuda".
    dtype : "float32" or "float64"
        Precision of the network. Distances are differenced and energies summed in float64 either way.
    skin : float
        Extra reach of the neighbour list (Angstrom, or sigma for reduced units), so that it need not be searched at
        every step. To search costs less than to keep such a list up to date, so there is none unless asked for, and
        never where steps are captured.
    backend : "auto", "engine" or "torch"
        What computes: `mdgnn.Engine`, or the model itself with torch's autograd. "auto": the engine on the CPU, or with
        a warning torch where the engine cannot run a network; the calculator's `backend` and its repr say which it is.
        On CUDA, "auto" captures whole steps, neighbour list included, in a CUDA graph; "torch" does not, and lists on
        the CPU.
    too_close : "warn", "raise" or "ignore"
        What to do when two atoms are closer than any were in the model's training data (its `min_distance`).

    Raises
    ------
    UnsupportedError
        If the backend is "engine" and the engine cannot run the model.
    NotImplementedError
        If the model lacks its body or its output layer.
    TypeError
        For a parameter that is none of these.

    Notes
    -----
    `set` changes parameters: ``calc.set(dtype="float64")``.

    Units are eV, Angstrom and eV/Angstrom^3. For a model in reduced Lennard-Jones units, epsilon is 1 eV and sigma is
    1 Angstrom numerically, and the mass is 1, so that ASE's internal unit of time is tau. The stresses (N, 6) of atoms
    are their shares of the stress, which is their sum: half of what a pair contributes belongs to either atom.

    Other properties are results under their names, `others`: ``calc.get_property("gap", atoms)``, which is a number, or
    (N,) of an atomic property; once one has been asked for, all are in ``calc.results`` from then on. The engine gives
    them in the same pass as the energy. A model that has not learnt energies has these alone.
    """

    implemented_properties = list(OF_ENERGY)  # noqa: RUF012  (ASE declares it so)

    def __init__(
        self,
        model: Union[str, Path, "Potential"],
        device: str | None = None,
        dtype: str = "float32",
        skin: float = 0.0,
        backend: str = "auto",
        too_close: str = "warn",
        **unknown: Any,
    ):
        _check_names(unknown)
        self._numbers: NDArray[Any] | None = None  # that the model is known to know
        super().__init__()  # type: ignore[no-untyped-call]
        if dtype not in DTYPES:
            raise ValueError(f"expected dtype 'float32' or 'float64', got {dtype!r}")
        if backend not in ("auto", "engine", "torch"):
            raise ValueError(f"expected backend 'auto', 'engine' or 'torch', got {backend!r}")
        device = "cpu" if device in (None, "cpu") else str(_by_torch(f"device {device!r}").device_of(device))
        if backend == "engine" and not device.startswith("cpu"):
            raise ValueError(f"expected device 'cpu' for the engine, got {device!r}")
        name = str(model) if isinstance(model, (str, Path)) else type(model).__name__
        values = (name, device, dtype, skin, backend, too_close)
        self._settings: dict[str, Any] = dict(zip(PARAMETERS, values, strict=True))
        self.parameters.update(self._settings)  # which ASE writes to files
        self._torch: TorchModel | None = None
        self._given = _own(model)
        self.engine: Engine | None = None
        if isinstance(self._given, StoredModel) and self._runs_by_program(self._given):
            self.info, self._executor = self._given.info(), "engine"
            self._check()
            self.engine = Engine.from_content(self._given.content, self._given.path)
        else:
            model = self._torch_model().model
            self.info = self._torch_model().info()
            self._check()
            self._executor = choose_executor(backend, device.partition(":")[0], self._has_energy, model.has_weights)
            if self._executor == "engine":
                self.engine = self._make_engine(model, required=backend == "engine")
        self.neighbors = NeighborList(self.info.cutoff, skin)
        self.too_close = too_close
        self._were_close = False

    def _runs_by_program(self, stored: StoredModel) -> bool:
        """Whether the engine runs what is in the file: not a model in another precision, or on another device."""
        device, dtype, backend = (self._settings[name] for name in ("device", "dtype", "backend"))
        return stored.precision == dtype and backend != "torch" and bool(device == "cpu")

    def _check(self) -> None:
        """Learn what the model predicts; raise a ValueError for one without energies of atoms."""
        if self.info.readout != "sum":
            raise ValueError("expected a model with readout 'sum': a mean over atoms is not an energy")
        self._has_energy = self.info.has_energy
        self.others = tuple(p.name for p in self.info.properties)
        self.implemented_properties = [*(OF_ENERGY if self._has_energy else ()), *self.others]

    def _torch_model(self) -> "TorchModel":
        """The model as a module, which is made when it is first needed."""
        if self._torch is None:
            device, dtype, backend = (self._settings[name] for name in ("device", "dtype", "backend"))
            what = "the torch module of a model"
            if isinstance(self._given, StoredModel) and self.engine is None:
                of_file = self._given.precision
                there = "no program" if of_file is None else f"a program in {of_file}"
                what = f"backend {backend!r} in {dtype} of a file with {there} for the engine, {self._given.path},"
            elif self.engine is not None and not self._engine_has_others:
                what = "a model with properties that the program of its file has not"
            self._torch = _by_torch(what).TorchModel(self._given, device, dtype, backend)
        return self._torch

    @property
    def model(self) -> "Potential":
        """The calculator's own, which `set` changes; of a file it is loaded, with torch, when it is first asked for."""
        return self._torch_model().model

    @property
    def units(self) -> str:
        """The model's: "metal" or "lj"."""
        return self.info.units

    def digests(self) -> Iterator[str]:
        """SHA-256 of the model's class, configuration and weights, as its file says, then as its class says, which has
        the options that an older file lacks. Equal models share one. The second needs torch."""
        yield self.info.digest()
        with suppress(NeedsTorchError):
            model = self._torch_model()
            yield model.digest_of_class()

    @property
    def skin(self) -> float:
        """Extra reach of the neighbour list."""
        return self.neighbors.skin

    @property
    def device(self) -> "torch.device":
        """Where the model is."""
        import torch

        return torch.device(self._settings["device"])

    @property
    def dtype(self) -> "torch.dtype":
        """Precision of the network."""
        import torch

        dtype: torch.dtype = getattr(torch, self._settings["dtype"])
        return dtype

    @property
    def backend(self) -> str:
        """What computes: "engine" or "torch"."""
        return "torch" if self.engine is None else "engine"

    @property
    def too_close(self) -> str:
        """What to do when two atoms are closer than any were in the training data: "warn", "raise" or "ignore"."""
        return self._too_close

    @too_close.setter
    def too_close(self, what: str) -> None:
        if what not in ("warn", "raise", "ignore"):
            raise ValueError(f"expected too_close 'warn', 'raise' or 'ignore', got {what!r}")
        self._too_close = self.parameters["too_close"] = self._settings["too_close"] = what

    def __repr__(self) -> str:
        device, dtype = self._settings["device"], self._settings["dtype"]
        return f"<MDGNNCalculator: {self.info.name} on {device}, {dtype}, backend {self.backend}>"

    def set(self, **changes: Any) -> dict[str, Any]:
        """Change parameters of the calculator, which forgets its results.

        Returns
        -------
        dict
            Those that are not what they were.

        Raises
        ------
        TypeError
            For a name that is no parameter; there are model, device, dtype, skin, backend and too_close.
        ValueError, UnsupportedError
            As the class; the calculator is then what it was.
        """
        _check_names(changes)
        if not changes:  # as ASE calls it before there are any
            return {}
        before = self._settings
        changed = {name: value for name, value in changes.items() if name == "model" or value != before[name]}
        if changed and changed.keys() <= {"skin", "too_close"}:  # what computes stays
            neighbors = NeighborList(self.info.cutoff, changed.get("skin", before["skin"]))
            self.too_close = changed.get("too_close", before["too_close"])
            self.neighbors, self._were_close = neighbors, False
            self.parameters["skin"] = before["skin"] = changed.get("skin", before["skin"])
            self.atoms, self.results = None, {}
        elif changed:
            # The model is not read once more: its file may be another by now.
            other = MDGNNCalculator(**{**before, "model": self._given, **changed})
            if "model" not in changed:
                other.parameters["model"] = other._settings["model"] = before["model"]
            self.__dict__.update(other.__dict__)
        return changed

    def _make_engine(self, model: "Potential", required: bool) -> Engine | None:
        try:
            return Engine(model)
        except UnsupportedError as error:
            if required:
                raise
            warn_user(
                "computed by torch, which for small structures takes several times as long: "
                f"{error}; backend='torch' is silent about it"
            )
            self._executor = "torch"
            return None

    def calculate(
        self, atoms: Atoms | None = None, properties: Any = ("energy",), system_changes: Any = all_changes
    ) -> None:
        """Fill `results`; called by ASE. Stress, stresses and other properties are among them where they are asked for,
        and from then on.

        Raises
        ------
        ValueError
            No atoms, an unknown element, a position that is not finite, two atoms at one place, a periodic axis
            without a cell vector. The message names the atom.
        CalculatorError
            The model returned a number that is not finite; or, with ``too_close="raise"``, atoms are too close.
        PropertyNotImplementedError
            Stress was asked for without a cell volume, or what follows from energies of a model that has learnt none.
        """
        self.check_asked(name for name in properties if name in OF_ENERGY)
        atoms = self.given(atoms)
        stress, others = self.wants_stress(atoms, properties), self.wants_others(properties)
        results = self.compute(atoms, stress=stress, others=others)
        self.atoms, self.results = atoms, results

    def compute(self, atoms: Atoms, stress: bool = False, others: bool = False) -> dict[str, Any]:
        """The results for these atoms; nothing is kept. Raises as `calculate`."""
        if stress:
            self.check_asked(["stress"])
        others = others or not self._has_energy
        numbers = atoms.arrays["numbers"]
        if self._numbers is None or not same(self._numbers, numbers):
            check_atoms(atoms, self.info)
            self._numbers = numbers.copy()
        try:
            if self._executor == "torch":
                return self._by_torch(atoms, self._has_energy, stress, others)
            if self._executor == "engine":
                results = self._by_engine(atoms, stress, others and self._engine_has_others)
            else:
                results = energy_results(*self._by_captured_step(atoms, stress), atoms)
            if others and not self._engine_has_others:
                results |= self._by_torch(atoms, False, False, True)
            if others or not math.isfinite(results["energy"]) or not math.isfinite(results["forces"].sum()):
                raise_for_results(results)
            return results
        except ValueError:
            check_atoms(atoms, self.info)  # which may say more
            raise

    @property
    def _engine_has_others(self) -> bool:
        """Whether the engine gives the other properties: it has none of a file of before there were any in programs."""
        return self.engine is not None and self.engine.properties.keys() >= set(self.others)

    def evaluate(self, structures: Atoms | Sequence[Atoms], stress: bool = False) -> list[dict[str, Any]]:
        """Results of many structures, in batches: for data sets and replicas.

        Parameters
        ----------
        structures : ase.Atoms or a sequence of them
            They may differ in everything.
        stress : bool
            Also the stress; every structure then needs a cell with a volume.

        Returns
        -------
        list of dict
            energy, free_energy, energies (N,), forces (N, 3), on request stress (6,) and stresses (N, 6), and the
            model's other properties, of each.

        Raises
        ------
        ValueError, CalculatorError, PropertyNotImplementedError
            As `calculate`, with the number of the structure.

        Warns
        -----
        UserWarning
            With ``too_close="warn"``, about the first structure of a batch with atoms that are too close.
        """
        if stress:
            self.check_asked(["stress"])
        results: list[dict[str, Any]] = []
        batch: list[Atoms] = []
        n_atoms = 0
        for number, atoms in enumerate([structures] if isinstance(structures, Atoms) else structures):
            try:
                check_atoms(atoms, self.info)
                if stress:
                    volume_of(atoms)
            except (ValueError, PropertyNotImplementedError) as error:
                raise type(error)(f"structure {number}: {error}") from None
            if batch and n_atoms + len(atoms) > BATCH:
                results += self._evaluate_batch(batch, len(results), stress)
                batch, n_atoms = [], 0
            batch.append(atoms)
            n_atoms += len(atoms)
        return results + self._evaluate_batch(batch, len(results), stress) if batch else results

    def _evaluate_batch(self, batch: list[Atoms], first: int, stress: bool) -> list[dict[str, Any]]:
        edges = neighbors_of_batch(batch, self.info.cutoff)
        if sentence := check_distances_of_batch(edges, batch, self.info.min_distance, first):
            if self.too_close == "raise":
                raise CalculatorError(sentence)
            if self.too_close == "warn":
                warn_user(sentence)
        if self.engine is None:
            results = self._torch_model().results_of_batch(batch, edges, self._has_energy, stress)
        else:
            results = self._batch_by_engine(self.engine, batch, edges, stress)
            if not self._engine_has_others:
                others = self._torch_model().results_of_batch(batch, edges, False, False)
                results = [one | more for one, more in zip(results, others, strict=True)]
        for k, one in enumerate(results):
            try:
                raise_for_results(one)
            except CalculatorError as error:
                raise CalculatorError(f"structure {first + k}: {error}") from None
        return results

    def _batch_by_engine(self, engine: Engine, batch: list[Atoms], edges: Edges, stress: bool) -> list[dict[str, Any]]:
        ends = np.cumsum([len(atoms) for atoms in batch])
        numbers = np.concatenate([atoms.arrays["numbers"] for atoms in batch])
        *of_energy, others = engine.run_with_properties(numbers, edges, virials=stress)
        parts = ([None] * len(batch) if x is None else np.split(x, ends[:-1]) for x in (*of_energy, *others.values()))
        return [
            results_of_engine(
                energies, forces, virials, dict(zip(others, values, strict=True)), engine.properties, atoms
            )
            for energies, forces, virials, *values, atoms in zip(*parts, batch, strict=True)
        ]

    def _by_torch(self, atoms: Atoms, energy: bool, stress: bool, others: bool) -> dict[str, Any]:
        """Results of one structure: of the energy, with stress, and of other properties, as asked for."""
        edges = self._edges(atoms)
        self._tell(check_distances(edges, self.info.min_distance))
        return self._torch_model().results(atoms, edges, energy, stress, others)

    def _tell(self, sentence: str) -> None:
        """Of atoms that are too close: once, until they are not."""
        if sentence and self.too_close == "raise":
            raise CalculatorError(sentence)
        if sentence and self.too_close == "warn" and not self._were_close:
            warn_user(sentence)
        self._were_close = bool(sentence)

    def _by_engine(self, atoms: Atoms, stress: bool, others: bool) -> dict[str, Any]:
        """Results of one structure: of the energy, if the model has learnt it, with stress, and of other properties."""
        engine = self.engine
        assert engine is not None
        edges = self._edges(atoms, brief=True)
        self._tell(check_distances(edges, self.info.min_distance))
        if not others:
            energies, forces, virials = engine.run(atoms.numbers, edges, virials=stress)
            return energy_results(float(energies.sum()), energies, forces, virials, atoms)
        energies, forces, virials, values = engine.run_with_properties(atoms.numbers, edges, virials=stress)
        return results_of_engine(energies, forces, virials, values, engine.properties, atoms)

    def _edges(self, atoms: Atoms, brief: bool = False) -> Edges:
        return self.neighbors.update(atoms.positions, atoms.cell.array, atoms.pbc, brief=brief)

    def _by_captured_step(self, atoms: Atoms, with_virials: bool) -> tuple[float, Any, Any, Any]:
        """The energy, and energies, forces and, on request, virials of atoms, on a GPU."""
        energy, energies, forces, virials, min_distance = self._torch_model().captured_step(atoms, with_virials)
        shortest = self.info.min_distance
        close = min_distance < (COINCIDENT if self.too_close == "ignore" else max(shortest, COINCIDENT))
        self._tell(check_distances(self._edges(atoms), shortest) if close else "")
        return energy, energies, forces, virials if with_virials else None


def _by_torch(why: str) -> ModuleType:
    """The module that imports torch. Raises a NeedsTorchError that says what for, where there is none."""
    try:
        from mdgnn.calculators import by_torch
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise NeedsTorchError(f"{why} needs torch, which is not installed: pip install torch") from None
    return by_torch


def _own(model: Union[str, Path, StoredModel, "Potential"]) -> Union[StoredModel, "Potential"]:
    """The file as it is now, or a copy of the module."""
    if isinstance(model, (str, Path)):
        return StoredModel.read(model)
    if isinstance(model, StoredModel):
        return model
    with torch_context():
        return copy.deepcopy(model)


def choose_executor(
    backend: str, device: str, has_energy: bool, network: bool
) -> Literal["engine", "captured step", "torch"]:
    """What computes, where the engine can run the model.

    Parameters
    ----------
    backend : "auto", "engine" or "torch"
    device : "cpu" or "cuda"
    has_energy : bool
        The model has learnt energies.
    network : bool
        It has weights; a formula without them gains nothing from the engine.
    """
    if backend != "auto":
        return "engine" if backend == "engine" else "torch"
    if device == "cuda":
        return "captured step" if has_energy else "torch"
    return "engine" if network else "torch"


def _check_names(parameters: Any) -> None:
    """Raise a TypeError for the first of these that MDGNNCalculator does not have."""
    for name in parameters:
        if name not in PARAMETERS:
            raise TypeError(f"MDGNNCalculator has no parameter {name!r}; there are {', '.join(PARAMETERS)}")
