from typing import Any

Rows = tuple[int, int, int, int]
Matrix = tuple[int, int, int]
Context = tuple[int, int, int]
ForceVirial = tuple[int, Rows, Rows, int]
ScatterAdd = tuple[int, Rows, Rows, Matrix, int, int]
ConcatMessage = tuple[int, Rows, Rows, Matrix, int, Matrix, int]

def force_virial(op: ForceVirial, gradients: int, forces: int, virials: int, where: Context) -> None: ...
def force_virial_backward(op: ForceVirial, grad_forces: int, grad_virials: int, out: int, where: Context) -> None: ...
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
def table_workspace(itemsize: int, n_edges: int, n_intervals: int, width: int) -> int: ...
