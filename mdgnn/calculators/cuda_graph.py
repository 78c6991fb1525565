"""A step in memory of fixed size, which CUDA replays as one graph: for few atoms launching kernels would rule."""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mdgnn._internal.warn_user import warn_user
from mdgnn.graph import Graph
from mdgnn.ops import NeighborBuffers, Rows
from mdgnn.potential import Potential, evaluate


class StepResult(NamedTuple):
    """Energies (N,), forces (N, 3) and virials (N, 3, 3) or None in numpy; min_distance is inf without edges."""

    energy: float
    energies: NDArray[Any]
    forces: NDArray[Any]
    virials: NDArray[Any] | None
    min_distance: float


class CapturedStep:
    """Neighbour list, energy and forces of the same atoms at ever new positions.

    On CUDA all of it is captured once and replayed. Edges have room for a fifth more than there were; where they do not
    fit, more room is made and the step is captured again. On a CPU, and where capturing fails (with a warning), the
    same operations run one by one.

    Parameters
    ----------
    model : Potential
        With readout "sum", on the device; it must not change from then on.
    numbers : (N,) int
    pbc : (3,) bool
    device, dtype
        Of the model.
    virials : bool
        Compute them, of atoms, too.
    """

    def __init__(
        self, model: Potential, numbers: Any, pbc: Any, device: torch.device, dtype: torch.dtype, virials: bool = False
    ):
        n = len(numbers)
        self._arguments = model, np.array(numbers), np.array(pbc, dtype=bool), device, dtype, virials
        self.model, self.dtype, self.virials = model, dtype, virials
        self.capacity, self.n_captures = 0, 0
        self._numbers = torch.as_tensor(np.asarray(numbers), dtype=torch.int64, device=device)
        self._pbc = torch.as_tensor(np.asarray(pbc, dtype=bool), device=device)
        self._positions = torch.zeros(n, 3, dtype=torch.float64, device=device)
        self._cell = torch.zeros(3, 3, dtype=torch.float64, device=device)
        self._out = torch.zeros(4 + (4 + 9 * virials) * n, dtype=torch.float64, device=device)
        self._replay: Any = None
        self._make_room(0)

    def __reduce__(self) -> Any:
        return CapturedStep, self._arguments

    def fits(self, numbers: Any, pbc: Any, virials: bool) -> bool:
        """Whether these are the atoms that the step was made for, and it gives virials if they are asked for."""
        _, of_numbers, of_pbc, *_ = self._arguments
        return np.array_equal(of_numbers, numbers) and np.array_equal(of_pbc, pbc) and self.virials >= virials

    def __call__(self, positions: Any, cell: Any) -> StepResult:
        """The result for positions (N, 3) and cell (3, 3), float64.

        Raises
        ------
        ValueError
            For what the neighbour list refuses; the message names the atom.
        """
        self._positions.copy_(torch.from_numpy(np.ascontiguousarray(positions)))
        self._cell.copy_(torch.from_numpy(np.ascontiguousarray(cell)))
        while True:
            self._run()
            out = self._out.to("cpu", copy=True).numpy()
            if out[1] != 0:
                self._buffers.check()
            if out[0] <= self.capacity:
                break
            self._make_room(int(out[0] * 1.2) + 64)
        n = len(self._numbers)
        energies, forces, rest = np.split(out[4:], [n, 4 * n])
        virials = rest.reshape(n, 3, 3) if self.virials else None
        return StepResult(float(out[3]), energies, forces.reshape(n, 3), virials, float(out[2]))

    def _make_room(self, capacity: int) -> None:
        self.capacity, self._replay = capacity, None
        self._buffers = NeighborBuffers(
            len(self._numbers),
            capacity,
            want=("receivers", "vectors", "distances", "reverse"),
            dtype=torch.float64,
            device=self._numbers.device,
        )

    def _run(self) -> None:
        if self._numbers.device.type == "cpu" or self.capacity == 0:
            self._compute()
            return
        if self._replay is None:
            self._replay = self._capture()
        self._replay()

    def _capture(self) -> Any:
        """What runs the step."""
        self.n_captures += 1
        with torch.cuda.device(self._numbers.device):
            here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
            aside.wait_stream(here)
            with torch.cuda.stream(aside):
                for _ in range(2):  # libraries set themselves up in the first calls
                    self._compute()
            here.wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            try:
                # Without a stream torch takes one of the first GPU it saw; other threads may go on with theirs.
                with torch.cuda.graph(graph, stream=aside, capture_error_mode="thread_local"):
                    self._compute()
            except RuntimeError as error:
                torch.cuda.set_stream(here)  # which a failed capture leaves behind
                warn_user(f"the step could not be captured in a CUDA graph, and runs operation by operation ({error})")
                return self._compute
        return graph.replay

    def _compute(self) -> None:
        """Fill `_out`: number of edges, error, min_distance, energy, energies, forces, virials."""
        edges = self._buffers
        edges.update(self._positions, self._cell, self._pbc, self.model.cutoff)
        assert edges.distances is not None
        number = torch.arange(self.capacity, device=self._out.device)
        distances = torch.where(number < edges.n_edges, edges.distances, torch.inf)
        min_distance = torch.cat((distances, distances.new_full((1,), torch.inf))).min()
        graph = self._graph()
        prediction = evaluate(self.model, graph, virial=self.virials, dtype=self.dtype)
        assert prediction.forces is not None
        parts = [
            edges.status[:2].to(torch.float64),
            min_distance[None],
            prediction.energy,
            prediction.energies,
            prediction.forces.reshape(-1),
        ]
        if prediction.virials is not None:
            parts.append(prediction.virials.reshape(-1))
        torch.cat(parts, out=self._out)

    def _graph(self) -> Graph:
        """The edges that are there; behind them a GPU's arrays hold others, which no row has.

        What a Graph would work out for itself waits for the device, or counts those too: a full list is its own
        transpose by `reverse`.
        """
        edges = self._buffers
        row_ptr, given = edges.row_ptr, (edges.vectors, edges.senders, edges.receivers, edges.reverse)
        n = int(row_ptr[-1]) if row_ptr.device.type == "cpu" else self.capacity
        vectors, senders, receivers, reverse = (x[:n] for x in given if x is not None)
        structure = torch.zeros_like(self._numbers)
        graph = Graph(self._numbers, vectors, row_ptr, senders, structure, self._cell[None])
        reverse = reverse.clamp(min=0)  # -1 where edges do not fit: the result is dropped, but must be computed
        graph.edges.by_sender = Rows(row_ptr, senders, reverse)
        graph.edges.to_receivers = Rows(torch.arange(n + 1, device=row_ptr.device), receivers)
        return graph
