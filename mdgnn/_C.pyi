from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = tuple[int, int, int, int]
Matrix = tuple[int, int, int]
Context = tuple[int, int, int]
ScatterAdd = tuple[int, Rows, Rows, Matrix, int, int]
ConcatMessage = tuple[int, Rows, Rows, Matrix, int, Matrix, int]

def concat_message(op: ConcatMessage, out: Matrix, where: Context) -> None: ...
def concat_message_backward(
    op: ConcatMessage, grad: Matrix, grad_edge: Matrix, grad_ends: Matrix, grad_weight: int, where: Context
) -> None: ...
def concat_message_double_backward(
    op: ConcatMessage,
    grad: Matrix,
    grad2: tuple[Matrix, Matrix, int],
    out_grad: Matrix,
    out_edge: Matrix,
    out_ends: Matrix,
    out_weight: int,
    where: Context,
) -> None: ...

EdgeBasis = tuple[int, int, int, int, int, float]

def edge_basis(op: EdgeBasis, distances: int, basis: int, n_threads: int) -> None: ...
def edge_basis_backward(
    op: EdgeBasis, grad_distances: int, grad_basis: int, grad_vectors: int, n_threads: int
) -> None: ...
def edge_basis_double_backward(
    op: EdgeBasis,
    grad2: int,
    grad_distances: int,
    grad_basis: int,
    out_distances: int,
    out_basis: int,
    out_vectors: int,
    n_threads: int,
) -> None: ...

Polar = tuple[int, int, int]
Pair = tuple[int, int]

def polar(op: Polar, out: Pair, n_threads: int) -> None: ...
def polar_backward(op: Polar, grad: Pair, out: int, n_threads: int) -> None: ...
def polar_double_backward(op: Polar, grad2: int, grad: Pair, out_grad: Pair, out: int, n_threads: int) -> None: ...

ForceVirial = tuple[int, Rows, Rows, int]

def force_virial(op: ForceVirial, gradients: int, forces: int, virials: int, where: Context) -> None: ...
def force_virial_backward(op: ForceVirial, grad_forces: int, grad_virials: int, out: int, where: Context) -> None: ...
def count_values(rows: Rows, n_entries: int) -> int: ...
def counting_sort(index: int, n_edges: int, n_rows: int, row_ptr: int, order: int) -> None: ...

Reals = NDArray[np.floating]
NeighborOptions = tuple[float, bool, bool, int]

def neighbors(
    quantities: str,
    positions: Reals,
    cells: Reals,
    pbc: NDArray[np.bool_],
    first: NDArray[np.int64],
    options: NeighborOptions,
    widths: tuple[int, int],
) -> tuple[NDArray[Any], ...]: ...
def neighbors_by_pair(
    quantities: str,
    positions: Reals,
    cell: Reals,
    pbc: NDArray[np.bool_],
    options: NeighborOptions,
    kinds: NDArray[np.int32],
    table: NDArray[np.float64],
) -> tuple[NDArray[Any], ...]: ...
def edges_within(
    positions: Reals,
    cell: Reals,
    pbc: NDArray[np.bool_],
    cutoff: float,
    row_ptr: NDArray[np.int64],
    senders: NDArray[np.int64],
    shifts: NDArray[np.int32],
    n_threads: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int32], Reals, Reals]: ...
def scatter_add(op: ScatterAdd, out: Matrix, argmax: int, where: Context) -> None: ...
def scatter_add_backward(
    op: ScatterAdd, grad: Matrix, argmax: int, grad_values: Matrix, grad_weight: int, where: Context
) -> None: ...
def scatter_add_double_backward(
    op: ScatterAdd,
    grad: Matrix,
    grad2_values: Matrix,
    grad2_weight: int,
    out_grad: Matrix,
    out_values: Matrix,
    out_weight: int,
    where: Context,
) -> None: ...
def silu(itemsize: int, n: int, x: int, y: int, n_threads: int) -> None: ...
def silu_backward(itemsize: int, n: int, grad: int, x: int, out: int, n_threads: int) -> None: ...
def silu_double_backward(itemsize: int, n: int, a: int, grad: int, x: int, out: int, n_threads: int) -> None: ...
def cfconv(op: tuple[Any, ...], out: Matrix, where: Context) -> None: ...
def cfconv_backward(
    op: tuple[Any, ...], grad: Matrix, grad_x: Matrix, grad_r: int, grad_coefficients: int, where: Context
) -> None: ...
def cfconv_double_backward(
    op: tuple[Any, ...],
    grad: Matrix,
    grad2_x: Matrix,
    grad2_r: int,
    out_grad: Matrix,
    out_x: Matrix,
    out_r: int,
    out_coefficients: int,
    where: Context,
) -> None: ...
def painn_message(op: tuple[Any, ...], out: tuple[Matrix, Matrix], where: Context) -> None: ...
def painn_message_backward(
    op: tuple[Any, ...], grad: tuple[Matrix, Matrix], out: tuple[Matrix, Matrix, int, int, int], where: Context
) -> None: ...
def painn_message_double_backward(
    op: tuple[Any, ...],
    grad: tuple[Matrix, Matrix],
    grad2: tuple[Matrix, Matrix, int, int, int],
    out_grad: tuple[Matrix, Matrix],
    out: tuple[Matrix, Matrix, int, int, int],
    where: Context,
) -> None: ...
def concat_message_table(op: tuple[Any, ...], out: tuple[Matrix, int, int], where: Context) -> None: ...
def concat_message_table_backward(
    op: tuple[Any, ...], grad: tuple[Matrix, int, int], out: tuple[Matrix, int, int], where: Context
) -> None: ...
def concat_message_table_double_backward(
    op: tuple[Any, ...],
    grad: tuple[Matrix, int, int],
    grad2: tuple[Matrix, int, int],
    out_grad: tuple[Matrix, int, int],
    out: tuple[Matrix, int, int],
    where: Context,
) -> None: ...

class Engine:
    # A program as JSON (csrc/engine/reader.hpp), and its weights by name.
    def __init__(self, program: str, weights: dict[str, Any], n_threads: int = 1) -> None: ...
    @staticmethod
    def load(path: bytes, n_threads: int = 1) -> Engine: ...
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
    ) -> tuple[Any, Any, Any]: ...
    # columns and share are addresses, taken on trust; an array that exchange gets is the engine's, for that call
