from typing import Any

import numpy as np
from numpy.typing import NDArray

# A tensor, or None where it is absent. Names are those of csrc/bindings/ops.cpp and of the structs' fields.
_Array = Any
_Rows = tuple[int, int, int, int, int, int]  # addresses of row_ptr, index, edge; numbers of rows, entries, values
_Table = tuple[_Array, float]  # coefficients, cutoff
_Workspace = tuple[_Array, int]  # memory, number of edges
_Context = tuple[int, int, int]  # threads, device, stream

def cfconv(
    *,
    itemsize: int,
    rows: _Rows,
    columns: _Rows | None,
    x: _Array,
    table: _Table,
    r: _Array,
    workspace: _Workspace,
    out: _Array,
    context: _Context,
) -> None: ...
def cfconv_backward(
    *,
    itemsize: int,
    rows: _Rows,
    columns: _Rows | None,
    x: _Array,
    table: _Table,
    r: _Array,
    workspace: _Workspace,
    grad: _Array,
    out_x: _Array,
    out_r: _Array,
    out_coefficients: _Array,
    context: _Context,
) -> None: ...
def cfconv_double_backward(
    *,
    itemsize: int,
    rows: _Rows,
    columns: _Rows | None,
    x: _Array,
    table: _Table,
    r: _Array,
    workspace: _Workspace,
    grad: _Array,
    grad2_x: _Array,
    grad2_r: _Array,
    out_grad: _Array,
    out_x: _Array,
    out_r: _Array,
    out_coefficients: _Array,
    context: _Context,
) -> None: ...
def concat_message(
    *,
    itemsize: int,
    rows: _Rows,
    columns: _Rows | None,
    edge_part: _Array,
    edge_stride: int,
    ends: _Array,
    envelope: _Array,
    out: _Array,
    context: _Context,
) -> None: ...
def concat_message_backward(
    *,
    itemsize: int,
    rows: _Rows,
    columns: _Rows | None,
    edge_part: _Array,
    edge_stride: int,
    ends: _Array,
    envelope: _Array,
    grad: _Array,
    out_edge_part: _Array,
    out_ends: _Array,
    out_envelope: _Array,
    context: _Context,
) -> None: ...
def concat_message_double_backward(
    *,
    itemsize: int,
    rows: _Rows,
    columns: _Rows | None,
    edge_part: _Array,
    edge_stride: int,
    ends: _Array,
    envelope: _Array,
    grad: _Array,
    grad2_edge_part: _Array,
    grad2_ends: _Array,
    grad2_envelope: _Array,
    out_grad: _Array,
    out_edge_part: _Array,
    out_ends: _Array,
    out_envelope: _Array,
    context: _Context,
) -> None: ...
def concat_message_linear(
    *,
    itemsize: int,
    rows: _Rows,
    columns: _Rows | None,
    features: _Array,
    weight: _Array,
    ends: _Array,
    envelope: _Array,
    silu_grads: _Array,
    out: _Array,
    out_silu_grads: _Array,
    context: _Context,
) -> None: ...
def concat_message_linear_backward(
    *,
    itemsize: int,
    rows: _Rows,
    columns: _Rows | None,
    features: _Array,
    weight: _Array,
    ends: _Array,
    envelope: _Array,
    silu_grads: _Array,
    grad: _Array,
    out_features: _Array,
    out_weight: _Array,
    out_ends: _Array,
    out_envelope: _Array,
    context: _Context,
) -> None: ...
def concat_message_linear_double_backward(
    *,
    itemsize: int,
    rows: _Rows,
    columns: _Rows | None,
    features: _Array,
    weight: _Array,
    ends: _Array,
    envelope: _Array,
    silu_grads: _Array,
    grad: _Array,
    grad2_features: _Array,
    grad2_weight: _Array,
    grad2_ends: _Array,
    grad2_envelope: _Array,
    out_grad: _Array,
    out_features: _Array,
    out_weight: _Array,
    out_ends: _Array,
    out_envelope: _Array,
    context: _Context,
) -> None: ...
def concat_message_table(
    *,
    itemsize: int,
    rows: _Rows,
    columns: _Rows | None,
    ends: _Array,
    table: _Table,
    r: _Array,
    silu_grads: _Array,
    workspace: _Workspace,
    of_edges: _Array,
    out_messages: _Array,
    out_s: _Array,
    out_silu_grads: _Array,
    context: _Context,
) -> None: ...
def concat_message_table_backward(
    *,
    itemsize: int,
    rows: _Rows,
    columns: _Rows | None,
    ends: _Array,
    table: _Table,
    r: _Array,
    silu_grads: _Array,
    workspace: _Workspace,
    of_edges: _Array,
    grad_messages: _Array,
    grad_s: _Array,
    grad_silu_grads: _Array,
    out_ends: _Array,
    out_coefficients: _Array,
    out_r: _Array,
    context: _Context,
) -> None: ...
def concat_message_table_double_backward(
    *,
    itemsize: int,
    rows: _Rows,
    columns: _Rows | None,
    ends: _Array,
    table: _Table,
    r: _Array,
    silu_grads: _Array,
    workspace: _Workspace,
    of_edges: _Array,
    grad_messages: _Array,
    grad_s: _Array,
    grad_silu_grads: _Array,
    grad2_ends: _Array,
    grad2_coefficients: _Array,
    grad2_r: _Array,
    out_grad_messages: _Array,
    out_grad_s: _Array,
    out_grad_silu_grads: _Array,
    out_ends: _Array,
    out_coefficients: _Array,
    out_r: _Array,
    context: _Context,
) -> None: ...
def force_virial(
    *,
    itemsize: int,
    rows: _Rows,
    columns: _Rows | None,
    vectors: _Array,
    gradients: _Array,
    forces: _Array,
    virials: _Array,
    context: _Context,
) -> None: ...
def force_virial_backward(
    *,
    itemsize: int,
    rows: _Rows,
    columns: _Rows | None,
    vectors: _Array,
    grad_forces: _Array,
    grad_virials: _Array,
    out: _Array,
    context: _Context,
) -> None: ...
def painn_message(
    *,
    itemsize: int,
    rows: _Rows,
    columns: _Rows | None,
    x: _Array,
    v: _Array,
    table: _Table,
    r: _Array,
    unit: _Array,
    workspace: _Workspace,
    out_s: _Array,
    out_v: _Array,
    context: _Context,
) -> None: ...
def painn_message_backward(
    *,
    itemsize: int,
    rows: _Rows,
    columns: _Rows | None,
    x: _Array,
    v: _Array,
    table: _Table,
    r: _Array,
    unit: _Array,
    workspace: _Workspace,
    grad_s: _Array,
    grad_v: _Array,
    out_x: _Array,
    out_v: _Array,
    out_coefficients: _Array,
    out_r: _Array,
    out_unit: _Array,
    context: _Context,
) -> None: ...
def painn_message_double_backward(
    *,
    itemsize: int,
    rows: _Rows,
    columns: _Rows | None,
    x: _Array,
    v: _Array,
    table: _Table,
    r: _Array,
    unit: _Array,
    workspace: _Workspace,
    grad_s: _Array,
    grad_v: _Array,
    grad2_x: _Array,
    grad2_v: _Array,
    grad2_coefficients: _Array,
    grad2_r: _Array,
    grad2_unit: _Array,
    out_grad_s: _Array,
    out_grad_v: _Array,
    out_x: _Array,
    out_v: _Array,
    out_coefficients: _Array,
    out_r: _Array,
    out_unit: _Array,
    context: _Context,
) -> None: ...
def scatter_add(
    *,
    itemsize: int,
    rows: _Rows,
    columns: _Rows | None,
    values: _Array,
    weight: _Array,
    reduce: int,
    out: _Array,
    argmax: _Array,
    context: _Context,
) -> None: ...
def scatter_add_backward(
    *,
    itemsize: int,
    rows: _Rows,
    columns: _Rows | None,
    values: _Array,
    weight: _Array,
    reduce: int,
    grad: _Array,
    argmax: _Array,
    out_values: _Array,
    out_weight: _Array,
    context: _Context,
) -> None: ...
def scatter_add_double_backward(
    *,
    itemsize: int,
    rows: _Rows,
    columns: _Rows | None,
    values: _Array,
    weight: _Array,
    reduce: int,
    grad: _Array,
    grad2_values: _Array,
    grad2_weight: _Array,
    out_grad: _Array,
    out_values: _Array,
    out_weight: _Array,
    context: _Context,
) -> None: ...
def edge_basis(
    *,
    itemsize: int,
    vectors: _Array,
    n_edges: int,
    centers: _Array,
    n_basis: int,
    sharpness: float,
    distances: _Array,
    basis: _Array,
    context: _Context,
) -> None: ...
def edge_basis_backward(
    *,
    itemsize: int,
    vectors: _Array,
    n_edges: int,
    centers: _Array,
    n_basis: int,
    sharpness: float,
    grad_distances: _Array,
    grad_basis: _Array,
    out: _Array,
    context: _Context,
) -> None: ...
def edge_basis_double_backward(
    *,
    itemsize: int,
    vectors: _Array,
    n_edges: int,
    centers: _Array,
    n_basis: int,
    sharpness: float,
    grad2: _Array,
    grad_distances: _Array,
    grad_basis: _Array,
    out_distances: _Array,
    out_basis: _Array,
    out: _Array,
    context: _Context,
) -> None: ...
def polar(
    *,
    itemsize: int,
    vectors: _Array,
    n_edges: int,
    lengths: _Array,
    unit: _Array,
    context: _Context,
) -> None: ...
def polar_backward(
    *,
    itemsize: int,
    vectors: _Array,
    n_edges: int,
    grad_lengths: _Array,
    grad_unit: _Array,
    out: _Array,
    context: _Context,
) -> None: ...
def polar_double_backward(
    *,
    itemsize: int,
    vectors: _Array,
    n_edges: int,
    grad2: _Array,
    grad_lengths: _Array,
    grad_unit: _Array,
    out_lengths: _Array,
    out_unit: _Array,
    out: _Array,
    context: _Context,
) -> None: ...
def silu(
    *,
    itemsize: int,
    n: int,
    x: _Array,
    out: _Array,
    context: _Context,
) -> None: ...
def silu_backward(
    *,
    itemsize: int,
    n: int,
    grad: _Array,
    x: _Array,
    out: _Array,
    context: _Context,
) -> None: ...
def silu_double_backward(
    *,
    itemsize: int,
    n: int,
    grad2: _Array,
    grad: _Array,
    x: _Array,
    out: _Array,
    context: _Context,
) -> None: ...
def count_values(rows: tuple[int, int, int, int], n_entries: int) -> int: ...
def counting_sort(index: int, n_edges: int, n_rows: int, row_ptr: int, order: int) -> None: ...

_Reals = NDArray[np.floating]

def neighbors(
    quantities: str,
    positions: _Reals,
    cells: _Reals,
    pbc: NDArray[np.bool_],
    first: NDArray[np.int64],
    *,
    cutoff: float,
    n_threads: int,
    self_interaction: bool = False,
    half: bool = False,
    index_bytes: int = 8,
    shift_bytes: int = 8,
) -> tuple[NDArray[Any], ...]: ...
def neighbors_by_pair(
    quantities: str,
    positions: _Reals,
    cell: _Reals,
    pbc: NDArray[np.bool_],
    kinds: NDArray[np.int32],
    table: NDArray[np.float64],
    *,
    cutoff: float,
    n_threads: int,
    self_interaction: bool = False,
) -> tuple[NDArray[Any], ...]: ...
def edges_within(
    positions: _Reals,
    cell: _Reals,
    pbc: NDArray[np.bool_],
    row_ptr: NDArray[np.int64],
    senders: NDArray[np.int64],
    shifts: NDArray[np.int32],
    *,
    cutoff: float,
    n_threads: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int32], _Reals, _Reals]: ...

class Engine:
    # A program as JSON (csrc/engine/reader.hpp), and its weights by name.
    def __init__(self, program: str, weights: dict[str, Any], n_threads: int = 1) -> None: ...
    @staticmethod
    def load(path: bytes, n_threads: int = 1) -> Engine: ...
    @staticmethod
    def load_content(content: bytes, path: bytes, n_threads: int = 1) -> Engine: ...
    @property
    def readout(self) -> str: ...
    @property
    def cutoff(self) -> float: ...
    @property
    def dtype(self) -> str: ...
    @property
    def has_energy(self) -> bool: ...
    @property
    def properties(self) -> list[tuple[str, str]]: ...  # name and kind of each
    def program(self) -> tuple[str, dict[str, Any]]: ...  # what __init__ takes
    def tables(self) -> dict[str, Any]: ...  # coefficients that were made from the weights, by name
    def run(
        self,
        numbers: Any,
        row_ptr: Any,
        senders: Any,
        columns: tuple[int, int, int, int],
        vectors: Any,
        share: int,
        forces: bool,
        virials: bool,
        n_threads: int,
        exchange: Any = None,
        properties: Any = None,
    ) -> tuple[Any, Any, Any]: ...
    # energies, None of a model that has learnt none, forces and virials; properties, None or (P, N), are written
    # columns and share are addresses, taken on trust; an array that exchange gets is the engine's, for that call

class Systems:
    # Structures that move on an engine; see csrc/dynamics/system.hpp. Units are the model's, with ASE's unit of time.
    def __init__(self, engine: Engine, cutoff: float, skin: float, min_distance: float) -> None: ...
    def put(
        self,
        k: int,
        atomic_numbers: Any,
        masses: Any,
        cell: Any,
        pbc: Any,
        condition: float,
        fixed: Any,
        fixed_center_of_mass: bool,
    ) -> None: ...  # system k; one more, where k is their number
    def set(self, k: int, positions: Any, momenta: Any) -> bool: ...  # whether positions are new
    # positions, momenta, steps since they were set; whether energies and forces are known there, and these
    def get(self, k: int) -> tuple[Any, Any, int, bool, Any, Any]: ...
    def states(self, which: Any) -> tuple[Any, Any, Any, Any]: ...  # failed, converged, n_steps, closest
    def find_forces(self, which: Any, n_threads: int) -> None: ...
    def velocity_verlet(self, which: Any, timestep: float, n_steps: int, n_threads: int) -> None: ...
    def langevin(
        self, which: Any, timestep: float, friction: Any, temperature: Any, noise: Any, n_steps: int, n_threads: int
    ) -> None: ...
    def relax(self, which: Any, fmax: float, n_steps: Any, n_threads: int) -> None: ...
