"""What authors and callers of ops are told about their mistakes."""

import inspect
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from ase.build import bulk
from declared_results import check_results

import mdgnn
from mdgnn import _C, ops
from mdgnn.ops import OPS, EdgeRows
from mdgnn.ops.csr import Rows
from mdgnn.ops.declaration import Array
from mdgnn.ops.examples import Example

CFCONV = next(op for op in OPS if op.name == "cfconv")


class WithTensor(NamedTuple):
    edges: EdgeRows
    offsets: torch.Tensor


class Quoted(NamedTuple):
    edges: "EdgeRows"


def test_kernels_name_their_arguments():
    """Without signatures stubtest, of `make check`, would compare names of kernels alone."""
    for op in OPS:
        parameters = inspect.signature(getattr(_C, op.name)).parameters
        assert next(iter(parameters)) == "itemsize" and list(parameters)[-1] == "context"
        assert {p.kind for p in parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}
        with pytest.raises(TypeError, match=f"{op.name}: expected the argument {list(parameters)[1]}, got none"):
            getattr(_C, op.name)(itemsize=8)


@pytest.mark.parametrize(
    ("static", "words"),
    [
        (WithTensor, r"WithTensor\.offsets: expected EdgeRows, .* or str, got Tensor"),
        (Quoted, r"Quoted\.edges: expected EdgeRows, .* got .EdgeRows. in quotes"),
    ],
)
def test_a_field_that_no_operator_takes(static, words):
    for devices in (("cpu",), ("cpu", "cuda")):
        with pytest.raises(TypeError, match=words):
            replace(CFCONV, static=static, devices=devices)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"forward": lambda *a: CFCONV.forward(*a)[0]}, "cfconv, forward: expected a list of arrays, got a Tensor"),
        (
            {"forward": lambda *a: [CFCONV.forward(*a)[0][:, :1]]},
            r"forward, array 0: expected \(\(5, 4\), .*got \(\(5, 1\)",
        ),
        ({"forward": lambda *a: [CFCONV.forward(*a)[0].float()]}, "expected .*float64.*, got .*float32"),
        ({"backward": lambda *a: CFCONV.backward(*a)[:2]}, "cfconv, backward: expected 3 arrays, got 2"),
        ({"backward": lambda *a: [CFCONV.backward(*a)[0], None, None]}, "array 1: expected .*, got None"),
        ({"double_backward": lambda *a: CFCONV.double_backward(*a)[1:]}, "double_backward: expected 4 arrays, got 3"),
    ],
)
def test_results_that_are_not_the_declared_ones_are_seen(changed, words):
    """By the laws, before a kernel goes beyond an array."""
    with pytest.raises(AssertionError, match=words):
        check_results(replace(CFCONV, **changed), {})


def test_torch_names_the_op_whose_gradients_are_too_few():
    static, inputs = CFCONV.example(Example())
    given = [x.requires_grad_() for x in inputs]
    (out,) = replace(CFCONV, backward=lambda *a: CFCONV.backward(*a)[:2])(static, *given)
    with pytest.raises(RuntimeError, match="cfconv returned an incorrect number of gradients"):
        out.sum().backward()
    (out,) = replace(CFCONV, double_backward=lambda *a: CFCONV.double_backward(*a)[:2])(static, *given)
    (grad,) = torch.autograd.grad(out.square().sum(), given[0], create_graph=True)
    with pytest.raises(RuntimeError, match="cfconv_backward returned an incorrect number of gradients"):
        grad.square().sum().backward()


def test_a_graph_in_place_of_its_edges_is_named():
    """Also where values at the edges are given, and no kernel is called."""
    graph = mdgnn.Graph.from_atoms(bulk("Ar", cubic=True), 4.0)
    n, e = graph.n_atoms, graph.n_edges
    h, v, unit = torch.rand(n, 12), torch.rand(n, 3, 4), torch.rand(e, 3)
    for call in (
        lambda edges: ops.cfconv(h, torch.rand(e, 12), edges),
        lambda edges: ops.painn_message(h, v, torch.rand(e, 12), unit, edges),
        lambda edges: ops.concat_message(torch.rand(e, 6), h, edges),
        lambda edges: ops.add_ends(h, edges),
        lambda edges: ops.force_virial(unit, edges),
    ):
        call(graph.edges)
        for wrong in (graph, graph.edges_by_receiver, None):
            words = rf"expected edges as EdgeRows, such as graph\.edges, got {type(wrong).__name__}"
            with pytest.raises(ValueError, match=words):
                call(wrong)
    with pytest.raises(ValueError, match=r"expected rows as Rows, such as graph\.edges_by_receiver, got EdgeRows"):
        ops.scatter_add(h, graph.edges)


def test_kernels_name_the_argument_that_they_cannot_read():
    x, edges = torch.rand(5, 3, dtype=torch.float64), Example().edges()
    given = {"itemsize": 8, "rows": edges.by_receiver.addresses, "columns": None, "values": x, "weight": None}
    given |= {"reduce": 0, "out": x, "argmax": None, "context": (1, 0, 0)}
    for name, wrong, words in (
        ("rows", edges.by_receiver, "scatter_add: rows: expected a tuple of 6, got Rows"),
        ("values", "x", "scatter_add: values: .*dtype"),
        ("reduce", "sum", "scatter_add: reduce: .*str"),
        ("context", (1, 0), "scatter_add: context: expected a tuple of 3, got tuple"),
    ):
        with pytest.raises((TypeError, AttributeError), match=words):
            _C.scatter_add(**{**given, name: wrong})
    with pytest.raises(TypeError, match="scatter_add: expected no more arguments, got more"):
        _C.scatter_add(**given, more=1)
    with pytest.raises(TypeError, match="scatter_add: expected the argument context, got none"):
        _C.scatter_add(**{name: value for name, value in given.items() if name != "context"})


def scaled(*inputs):
    """The declaration of an op of these arrays."""
    return replace(CFCONV, inputs=inputs, check=None)


def test_an_array_without_axes():
    op, (static, (x, *_)) = scaled(Array("x", "N C"), Array("scale", "")), CFCONV.example(Example())
    op.check_arguments(static, (x, torch.tensor(2.0, dtype=x.dtype)))
    with pytest.raises(ValueError, match=r"expected scale of shape \(\) .*, got \(1,\)"):
        op.check_arguments(static, (x, torch.ones(1, dtype=x.dtype)))


def test_an_array_that_may_be_none_tells_no_size_that_others_need():
    static, (x, *_) = CFCONV.example(Example())
    maybe = Array("weight", "N H", optional=True)
    op = scaled(Array("x", "N C"), maybe)  # of which nothing else depends
    op.check_arguments(static, (x, None))
    op.check_arguments(static, (x, x))
    words = "cfconv, bias: the size H is first that of an array which may be None"
    for optional in (False, True):
        with pytest.raises(ValueError, match=words):
            scaled(Array("x", "N C"), maybe, Array("bias", "H", optional=optional))
    op = scaled(Array("x", "N C"), Array("bias", "H"), maybe)
    with pytest.raises(ValueError, match="expected weight of shape"):
        op.check_arguments(static, (x, x[0, :1], x[:, :2].contiguous()))


def test_edges_without_senders_are_named_where_values_are_given():
    edges = Example().edges()
    without = EdgeRows(Rows(edges.by_receiver.row_ptr))
    x, v, values = torch.rand(edges.n_atoms, 6), torch.rand(edges.n_atoms, 3, 2), torch.rand(edges.n_edges, 6)
    for call in (
        lambda edges: ops.cfconv(x, values, edges),
        lambda edges: ops.painn_message(x, v, values, torch.rand(len(values), 3), edges),
    ):
        call(edges)
        with pytest.raises(ValueError, match=r"expected edges\.by_receiver with senders"):
            call(without)
