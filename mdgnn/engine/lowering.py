"""From the graph of operations to the program that the engine runs."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mdgnn.engine.algebra import BINARY, ELEMENTWISE, Algebra, Node
from mdgnn.engine.capture import ROW, Capture, Captured, line_of, run_at_two_sizes, told
from mdgnn.engine.fusion import fuse, reachable
from mdgnn.engine.messages import MESSAGES, CapturedGraph, result_shapes
from mdgnn.engine.operations import apply
from mdgnn.engine.program import Instruction, Program, Readout, Table, content
from mdgnn.engine.unsupported import UnsupportedError
from mdgnn.nn import Property
from mdgnn.ops import RadialTable
from mdgnn.potential import Potential

INSTRUCTIONS = frozenset(
    [*ELEMENTWISE, *BINARY, *MESSAGES, "add_weight", "multiply_weight", "sum_components", "sum_channels", "dot"]
) | {"linear", "embed", "zeros", "copy"}


def trace(model: Potential) -> Program:
    """Write down what a model does.

    Raises
    ------
    UnsupportedError
        If it is no `Potential`, does something that the engine has no instruction for, or has learnt nothing.
    NotImplementedError
        If it lacks its body or its output layer.
    """
    if not isinstance(model, Potential):
        raise UnsupportedError(f"expected a model that derives from mdgnn.Potential, got {type(model).__name__}")
    model.check_complete()
    try:
        if not model.has_energy and not _properties(model):
            raise UnsupportedError("the model has learnt nothing")
        return _traced(model)
    except Exception as error:  # whatever a model's code makes of tensors without numbers
        place = "" if isinstance(error, UnsupportedError) else f" ({told(line_of(error))})"
        raise UnsupportedError(f"the engine cannot run this {type(model).__name__}: {error}{place}") from error


def _traced(model: Potential) -> Program:
    capture, outputs = run_at_two_sizes(lambda capture: _outputs(model, capture), apply)
    algebra = capture.algebra
    shifts, scales, networks = zip(*(_of_elements(algebra, x.node) for x in outputs), strict=True)
    element_of = torch.zeros(121, dtype=torch.int64) if capture.element_of is None else capture.element_of
    n_elements = int(element_of.max()) + 1
    program = Program(model.dtype, model.readout, model.cutoff, element_of=element_of.tolist())
    writer = _Writer(program, program, n_elements, {})
    arrays = writer.arrays_of(fuse(algebra, [algebra.computed(x) for x in networks]))
    scale, shift = ([v.reshape(-1).expand(n_elements).tolist() for v in of_all] for of_all in (scales, shifts))
    readouts = [*zip(arrays, scale, shift, strict=True)]
    if model.has_energy:
        program.energies, program.scale, program.shift = readouts.pop(0)
    else:
        program.scale, program.shift = [1.0] * n_elements, [0.0] * n_elements
    for p, readout in zip(_properties(model), readouts, strict=True):
        program.properties.append(Readout(p.name, p.kind, *readout))
    return program


def _outputs(model: Potential, capture: Capture) -> list[Captured]:
    """The energies of atoms, if it has learnt any, and what its heads say of them."""
    graph: Any = CapturedGraph(capture, model.dtype)
    if _properties(model):
        energies, others = model.energies_and_properties(graph, graph.vectors)
    else:
        energies, others = model.atomic_energies(graph, graph.vectors), {}
    of_atoms: dict[str, Any] = {"energies": energies} if model.has_energy else {}
    of_atoms |= {p.name: others[p.name] for p in _properties(model)}
    for name, x in of_atoms.items():
        if not isinstance(x, Captured) or x.axes != ((ROW,),) or x.node.space != "atom":
            raise UnsupportedError(f"its {name} are not one number for each atom that the structure decides")
    return [*of_atoms.values()]


def _properties(model: Potential) -> Sequence[Property]:
    return [] if model.heads is None else model.heads.properties


def _of_elements(algebra: Algebra, energy: Node) -> tuple[Tensor, Tensor, Node]:
    """Shift, scale and network, where an atom's energy is ``shift + scale * network``."""
    shift, scale = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    if energy.value is not None:
        return shift, scale, energy
    node = _exact(energy)
    if (pair := _known_and_computed(node, "add")) is not None:
        shift, node = pair
    if (pair := _known_and_computed(node, "multiply")) is not None:
        scale, node = pair
    return shift, scale, node


def _exact(node: Node) -> Node:
    """Energies are in float64."""
    return node.inputs[0] if node.op == "convert" else node


def _known_and_computed(node: Node, op: str) -> tuple[Tensor, Node] | None:
    """Of a sum or a product with a number, one for all or one for each element; finite, as JSON has no others."""
    known: Tensor | None = None
    others = node.inputs
    if node.op == op and len(node.inputs) == 2:
        x, y = sorted(node.inputs, key=lambda z: z.op != "embed")
        known, others = (x.weights[0], (y,)) if x.op == "embed" else (None, others)
    elif node.op == {"add": "add_constant", "multiply": "scale"}[op]:
        known = torch.tensor(node.numbers, dtype=torch.float64)
    if known is None or not bool(torch.isfinite(known).all()):
        return None
    return known.double(), _exact(others[0])


class _Writer:
    """Writes a graph into lists of arrays and instructions.

    Parameters
    ----------
    program : Program
        Gets the weights and tables.
    of : Program or Table
        Gets the arrays and instructions.
    n_elements : int
    names : dict
        Of weights, by content.
    exact : bool
        Weights that the program's dtype cannot hold are sums of two that it can.
    """

    def __init__(
        self, program: Program, of: Program | Table, n_elements: int, names: dict[Any, str], exact: bool = False
    ):
        self.program, self.arrays, self.instructions = program, of.arrays, of.instructions
        self.n_elements, self.names, self.exact = n_elements, names, exact
        self.numbers: dict[Any, int] = {}
        self.tables: dict[int, str] = {}

    def arrays_of(self, roots: Sequence[Node]) -> list[int]:
        """The arrays that hold these nodes, and all that they are made of; for one call."""
        for node in reachable(*roots):
            if node.op not in ("cat", "output", "slice") and id(node) not in self.numbers:
                self.write(node)
        return [self.number(root) for root in roots]

    def whole(self, root: Node) -> int:
        """The array of one node, which is no part of another."""
        (number,) = self.arrays_of([root])
        if len(self.arrays[number]) > 3:
            self.instructions.append(Instruction("copy", [number], [self.new(root)]))
            number = len(self.arrays) - 1
        return number

    def number(self, node: Node) -> int:
        """Of the array of a node; parts and columns side by side get theirs where they are taken."""
        if id(node) not in self.numbers:
            if node.op == "output":
                return self.numbers[id(node.inputs[0]), int(node.numbers[0])]
            if node.op == "slice":
                place = [self.number(node.inputs[0]), *(int(n) for n in node.numbers)]
                self.numbers[id(node)] = self.new(node, *place)
            elif node.op == "cat":
                weights = torch.eye(node.channels, dtype=torch.float64).split([x.channels for x in node.inputs], dim=1)
                self.add("linear", node, [self.number(x) for x in node.inputs], weights)
            else:
                raise UnsupportedError(f"it has no instruction for {node.op} ({told(node.line)})")
        return self.numbers[id(node)]

    def new(self, node: Node, *place: int) -> int:
        self.arrays.append((node.space, *node.shape, *place))
        return len(self.arrays) - 1

    def write(self, node: Node) -> None:
        if node.op in MESSAGES:
            self.message(node)
        elif node.space == "edge" and not self.exact:
            if node.op not in ("edge_lengths", "edge_directions", "edge_vectors"):
                raise UnsupportedError(f"it has no instruction for {node.op} of edges ({told(node.line)})")
        elif node.op in INSTRUCTIONS:
            weights = [w.expand(self.n_elements, -1) for w in node.weights] if node.op == "embed" else node.weights
            self.add(node.op, node, [self.number(x) for x in node.inputs], weights)
        elif node.op not in ("atomic_numbers", "element"):
            what = "a change of precision" if node.op == "convert" else node.op
            raise UnsupportedError(f"it has no instruction for {what} ({told(node.line)})")

    def add(self, op: str, node: Node, inputs: list[int], weights: Sequence[Tensor]) -> None:
        rest = [self.rest(w) for w in weights] if self.exact else []
        if not any(bool(w.any()) for w in rest):
            self.numbers[id(node)] = self.instruction(op, node, inputs, weights, node.numbers)
            return
        # A weight is its rounded value and the rest, each of which takes part on its own.
        rounded = self.instruction(op, node, inputs, weights, node.numbers)
        if op == "add_weight":
            self.numbers[id(node)] = self.instruction(op, node, [rounded], rest, ())
        else:
            more = self.instruction(op, node, inputs, rest, ())
            self.numbers[id(node)] = self.instruction("add", node, [rounded, more], (), ())

    def instruction(
        self, op: str, node: Node, inputs: list[int], weights: Sequence[Tensor], numbers: Sequence[float]
    ) -> int:
        """The array of its output."""
        out = self.new(node)
        self.instructions.append(Instruction(op, inputs, [out], [self.weight(w) for w in weights], list(numbers)))
        return out

    def rest(self, values: Tensor) -> Tensor:
        """What the program's dtype cannot hold of a weight."""
        values = values.detach().cpu().double()
        return values - values.to(self.program.dtype).double()

    def weight(self, values: Tensor) -> str:
        """The name of a weight; equal ones have one."""
        values = values.detach().to("cpu", self.program.dtype).contiguous()
        name = self.names.setdefault(content(values), f"weight.{len(self.names)}")
        self.program.weights.setdefault(name, values.clone())
        return name

    def message(self, node: Node) -> None:
        inputs = []
        for x in node.inputs:
            number = self.number(x)
            if len(self.arrays[number]) > 3:  # a part of another
                inputs.append(self.new(x))
                self.instructions.append(Instruction("copy", [number], inputs[-1:]))
            else:
                inputs.append(number)
        outputs = []
        for k, shape in enumerate(result_shapes(MESSAGES[node.op], [x.shape for x in node.inputs])):
            self.arrays.append(("atom", *shape))
            self.numbers[id(node), k] = len(self.arrays) - 1
            outputs.append(len(self.arrays) - 1)
        self.instructions.append(Instruction(node.op, inputs, outputs, [self.table(node)]))

    def table(self, node: Node) -> str:
        """The name of a message's table: of the network that makes it or, where that cannot be captured, of itself."""
        table, program = node.table, self.program
        if table.cutoff != program.cutoff:
            raise UnsupportedError(
                f"it takes tables up to the model's cutoff, {program.cutoff}, not {table.cutoff} ({told(node.line)})"
            )
        if id(table) not in self.tables:
            made = _table_of(program, table, self.names)
            self.tables[id(table)] = self.weight(table.coefficients) if made is None else made.name
        return self.tables[id(table)]


def _table_of(program: Program, table: RadialTable, names: dict[Any, str]) -> Table | None:
    """A program of the table's function; None where it has none, or what the engine has no instructions for."""
    function: Any = table.function
    if function is None or not _agrees(table):
        return None

    def run(capture: Capture) -> list[Captured]:
        values = function(_distances(capture))
        if not isinstance(values, Captured) or values.node.shape != (1, table.coefficients.shape[2]):
            raise UnsupportedError("a function of distance without its values")
        return [values]

    made = Table(f"table.{len(program.tables)}", len(table.coefficients) + 1, table.cutoff, [], [], 0, 0)
    before = dict(program.weights)
    try:
        capture, (values,) = run_at_two_sizes(run, apply)
        (root,) = fuse(capture.algebra, [capture.algebra.computed(values.node)], exact=True)
        (distances,) = (node for node in reachable(root) if node.op == "distances")
        writer = _Writer(program, made, 1, names, exact=True)
        made.input = writer.numbers[id(distances)] = writer.new(distances)
        made.output = writer.whole(root)
    except Exception:  # as of `trace`
        program.weights = before
        return None
    program.tables.append(made)
    return made


def _distances(capture: Capture) -> Captured:
    node = capture.algebra.node("distances", (), (1, 1), space="edge")
    return capture.tensor(node, ((ROW,),), torch.float64)


def _agrees(table: RadialTable) -> bool:
    """Whether a table is still that of its function, at some of its knots."""
    knots = torch.arange(0, len(table.coefficients), max(1, len(table.coefficients) // 7))
    r = knots.to(torch.float64) * (table.cutoff / len(table.coefficients))
    expected = table.coefficients[knots, 0].detach().double()
    with torch.no_grad():
        values = table.function(r)  # type: ignore[misc]
    tolerance = 1e-5 if table.coefficients.dtype == torch.float32 else 1e-10
    return values.shape == expected.shape and bool(
        ((values - expected).abs() <= tolerance * expected.abs().max().clamp(min=1e-30)).all()
    )
