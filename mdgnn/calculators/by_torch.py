"""A calculator's model as a torch module, for what the engine does not do: other backends, devices and precisions, and
models that are given as modules. This file, and not the calculator's, imports torch."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from ase import Atoms

from mdgnn._internal.torch_context import full_precision, torch_context
from mdgnn.calculators.checks import raise_for_results
from mdgnn.calculators.cuda_graph import CapturedStep, StepResult
from mdgnn.calculators.results import results_of
from mdgnn.graph import Graph
from mdgnn.model_file import EngineOnly, digests_of, info_of, load_for_inference
from mdgnn.model_header import ModelInfo, StoredModel
from mdgnn.neighbors import Edges
from mdgnn.potential import Potential, evaluate

DTYPES = {"float32": torch.float32, "float64": torch.float64}


class TorchModel:
    """A model on a device, in a precision.

    Parameters
    ----------
    given : Potential or StoredModel
        A module is not changed.
    device : str
        As of `device_of`.
    dtype : "float32" or "float64"
    backend : "auto", "engine" or "torch"
        For what is said of a file whose module is not imported.

    Attributes
    ----------
    model : Potential
        The calculator's own.
    """

    def __init__(self, given: Potential | StoredModel, device: str, dtype: str, backend: str):
        self.device, self.dtype = torch.device(device), DTYPES[dtype]
        with torch_context():
            loaded = load_for_inference(given) if isinstance(given, StoredModel) else given
            if isinstance(loaded, EngineOnly):
                loaded.check(backend, self.device, self.dtype)
            same_kind = loaded.dtype == self.dtype and self.device.type == "cpu"
            own = loaded if same_kind else copy.deepcopy(loaded).to(self.device, self.dtype)
            self.model: Potential = own.eval().requires_grad_(False)
        self.step: CapturedStep | None = None

    def info(self) -> ModelInfo:
        """What else must be known of the model."""
        return info_of(self.model)

    def digest_of_class(self) -> str:
        """As of `digests_of`."""
        return digests_of(self.model)[-1]

    def results(self, atoms: Atoms, edges: Edges, forces: bool, stress: bool, others: bool) -> dict[str, Any]:
        """Results of one structure: those of the energy with `forces`, stress, and other properties."""
        with torch_context(), full_precision():
            graph = Graph.from_edges(atoms.numbers, edges, atoms.cell.array).to(self.device)
            (results,) = self._results(graph, [atoms], forces, stress, others)
        raise_for_results(results)
        return results

    def results_of_batch(
        self, batch: Sequence[Atoms], edges: Edges, forces: bool, stress: bool
    ) -> list[dict[str, Any]]:
        """All results of many structures with the edges of `neighbors_of_batch`, those of the energy with `forces`."""
        with torch_context(), full_precision():
            return self._results(Graph.from_edges_of_batch(batch, edges).to(self.device), batch, forces, stress, True)

    def _results(
        self, graph: Graph, structures: Sequence[Atoms], forces: bool, stress: bool, others: bool
    ) -> list[dict[str, Any]]:
        prediction = evaluate(self.model, graph, forces=forces, virial=stress, dtype=self.dtype, properties=others)
        heads = self.model.heads
        return results_of(prediction, structures, [] if heads is None else heads.properties)

    def captured_step(self, atoms: Atoms, virials: bool) -> StepResult:
        """On a GPU from the neighbour list on: what is captured stays while the atoms do."""
        with torch_context(), full_precision():
            if self.step is None or not self.step.fits(atoms.numbers, atoms.pbc, virials):
                self.step = CapturedStep(self.model, atoms.numbers, atoms.pbc, self.device, self.dtype, virials=virials)
            return self.step(atoms.positions, atoms.cell.array)


def device_of(name: str | None) -> torch.device:
    """Of this name, by default the CPU; raise a ValueError for a device that torch does not know or does not have."""
    try:
        device = torch.device(name or "cpu")
    except RuntimeError:
        raise ValueError(f"expected a device such as cpu, cuda or cuda:1, got {name!r}") from None
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"expected a device such as cpu, cuda or cuda:1, got {name!r}, for which there are no kernels")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name!r} was asked for, but torch sees no CUDA device")
    if device.type == "cuda" and (device.index or 0) >= (n := torch.cuda.device_count()):
        raise ValueError(f"device {name!r} was asked for, but torch sees {n} CUDA devices, which count from 0")
    return device
