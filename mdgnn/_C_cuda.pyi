Rows = tuple[int, int, int, int]
Matrix = tuple[int, int, int]
Context = tuple[int, int, int]
ForceVirial = tuple[int, Rows, Rows, int]
ScatterAdd = tuple[int, Rows, Rows, Matrix, int, int]

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
