"""The engine: energies, forces and other properties of a model in one call of compiled code, without autograd.

From a file to numpy it needs no torch, which is imported where a model, a graph or a program is given or asked for.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mdgnn import _C
from mdgnn._internal.lazy_names import lazy_names
from mdgnn._internal.torch_context import torch_context
from mdgnn.engine.unsupported import UnsupportedError
from mdgnn.locate import ModelFileError, locate
from mdgnn.neighbors import Edges
from mdgnn.threads import get_num_threads

if TYPE_CHECKING:
    import torch

    from mdgnn.engine.lowering import trace
    from mdgnn.engine.program import Program
    from mdgnn.graph import Graph
    from mdgnn.potential import Potential, Prediction

__all__ = ["Engine", "UnsupportedError", "trace"]


__getattr__, __dir__ = lazy_names("mdgnn.engine", {"trace": "mdgnn.engine.lowering"})


class Engine:
    """A model for inference on the CPU.

    Equal to `mdgnn.evaluate` to rounding; the same bits for any number of threads. The weights are those of the moment
    when the engine is made.

    Parameters
    ----------
    model : Potential
        Made of operations that the engine has (see `mdgnn.engine.trace`).

    Attributes
    ----------
    readout, cutoff
        As of the model.
    precision : str
        Name of the network's dtype.
    has_energy : bool
        As of the model: one that has learnt other properties alone has no energies and forces.
    properties : dict of str
        Kind ("extensive", "intensive", "atomic") by name of what it predicts beside the energy.

    Raises
    ------
    UnsupportedError
        If it is not.
    NotImplementedError
        If it lacks its body or its output layer.
    """

    @torch_context()
    def __init__(self, model: "Potential"):
        from mdgnn.engine.lowering import trace

        self._set(_compile(trace(model)))

    @classmethod
    def load(cls, name_or_path: str | Path) -> "Engine":
        """From the program in a model file, read by compiled code; the same bits as of the model in it.

        Parameters
        ----------
        name_or_path : str or Path
            A model that ships with the package, such as ``"lj"``, or a file written by `mdgnn.save`.

        Raises
        ------
        FileNotFoundError
            If there is neither such a model nor such a file.
        ModelFileError
            If the file is truncated, foreign, of another version, holds no program or one that does not fit.
        """
        path = os.fsencode(locate(name_or_path))
        try:
            return cls._of(_C.Engine.load(path, get_num_threads()))
        except (ValueError, RuntimeError) as error:
            raise ModelFileError(str(error)) from None

    @classmethod
    def from_content(cls, content: bytes, path: Path) -> "Engine":
        """As `load`, from what was read of a file earlier: by now another may be at its path, which errors name.

        Raises
        ------
        ModelFileError
            As `load`.
        """
        try:
            return cls._of(_C.Engine.load_content(content, os.fsencode(path), get_num_threads()))
        except (ValueError, RuntimeError) as error:
            raise ModelFileError(str(error)) from None

    @classmethod
    def _of(cls, compiled: Any) -> "Engine":
        engine = cls.__new__(cls)
        engine._set(compiled)
        return engine

    def _set(self, compiled: Any) -> None:
        self._engine = compiled
        self.readout, self.cutoff = compiled.readout, compiled.cutoff
        self.precision: str = compiled.dtype
        self.has_energy: bool = compiled.has_energy
        self.properties: dict[str, str] = dict(compiled.properties)

    @property
    def dtype(self) -> "torch.dtype":
        """Of the network."""
        import torch

        dtype: torch.dtype = getattr(torch, self.precision)
        return dtype

    @property
    def program(self) -> "Program":
        """What it runs."""
        import torch

        from mdgnn.engine.program import Program

        text, weights = self._engine.program()
        return Program.from_json(text, {name: torch.from_numpy(w) for name, w in weights.items()})

    def __reduce__(self) -> Any:
        return _restored, self._engine.program()

    def run(self, numbers: Any, edges: Edges, *, virials: bool = False) -> tuple[Any, Any, Any]:
        """Energies (N,), forces (N, 3) and, on request, virials (N, 3, 3) of atoms, in numpy.

        They are those of one structure, or of several where the readout is "sum".

        Parameters
        ----------
        numbers : (N,) int64
            Atomic numbers.
        edges : Edges
            From `mdgnn.NeighborList` or `mdgnn.neighbors.neighbors_of_batch`.

        Raises
        ------
        ValueError
            For an atom whose element the model does not know, or for a model that has learnt no energies.
        """
        return self._run(numbers, edges, True, virials, None)

    def run_with_properties(
        self, numbers: Any, edges: Edges, *, virials: bool = False
    ) -> tuple[Any, Any, Any, dict[str, Any]]:
        """As `run`, and by name what `properties` are of atoms, (N,): of a structure they are the sum, of an extensive
        one, or the mean, of an intensive one.

        Energies and forces are None of a model that has learnt none.
        """
        values = np.empty((len(self.properties), len(numbers)))
        result = self._run(numbers, edges, self.has_energy, virials, values)
        return *result, dict(zip(self.properties, values, strict=True))

    def _run(self, numbers: Any, edges: Edges, forces: bool, virials: bool, properties: Any) -> tuple[Any, Any, Any]:
        share = None if self.readout == "sum" else np.full(len(numbers), 1 / max(len(numbers), 1))
        place = 0 if share is None else share.ctypes.data
        of_edges = edges.row_ptr, edges.senders, (0, 0, 0, 0), edges.vectors
        result: tuple[Any, Any, Any] = self._engine.run(
            numbers, *of_edges, place, forces, virials, get_num_threads(), properties=properties
        )
        return result

    @torch_context()
    def evaluate(
        self, graph: "Graph", *, forces: bool = True, virial: bool = False, properties: bool = False
    ) -> "Prediction":
        """Energies, and on request forces, virial and other properties, of all structures of a graph on the CPU.

        Energies are no numbers (NaN) of a model that has learnt none.

        Raises
        ------
        ValueError
            For an atom whose element the model does not know; for forces of a model that has learnt no energies.
        """
        import torch

        from mdgnn.nn.heads import of_structures
        from mdgnn.ops.csr import address
        from mdgnn.potential import Prediction, total_energy, total_virial

        share = None
        if self.readout != "sum":
            share = 1.0 / graph.structure.bincount(minlength=graph.n_structures).to(torch.float64)[graph.structure]
        columns = graph.edges.by_sender.addresses[:4] if forces or virial else (0, 0, 0, 0)
        edges = (graph.row_ptr.numpy(), graph.senders.numpy(), columns, graph.vectors.detach().numpy(), address(share))
        others = np.empty((len(self.properties), graph.n_atoms)) if properties else None
        result = self._engine.run(
            graph.atomic_numbers.numpy(), *edges, forces or virial, virial, get_num_threads(), properties=others
        )
        energies, by_atom, virials = (None if x is None else torch.from_numpy(x) for x in result)
        if energies is None:
            energies = torch.full((graph.n_atoms,), torch.nan, dtype=torch.float64)
        energy = total_energy(self, energies, graph)  # type: ignore[arg-type]
        total = None if virials is None else total_virial(virials, graph)
        reduced = None
        if others is not None:
            of_atoms = zip(self.properties.items(), torch.from_numpy(others), strict=True)
            reduced = {name: of_structures(kind, values, graph) for (name, kind), values in of_atoms}
        return Prediction(energy, energies, by_atom if forces else None, total, virials, reduced)


def _restored(text: str, weights: dict[str, Any]) -> Engine:
    return Engine._of(_C.Engine(text, weights, get_num_threads()))


def _compile(program: "Program") -> Any:
    weights = {name: w.numpy() for name, w in program.weights.items()}
    try:
        return _C.Engine(program.to_json(), weights, get_num_threads())
    except ValueError as error:
        raise UnsupportedError(f"the engine cannot run this model: {error}") from error
