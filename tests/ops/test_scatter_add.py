"""scatter_add and its rows: reference agreement, derivatives, operators, edge cases, bits."""

from importlib import import_module

import pytest
import torch
from kernels import assert_same_bits_for_any_number_of_threads, devices, dtypes
from torch.autograd import gradcheck, gradgradcheck

from mdgnn.ops import Rows, rows_by, scatter_add

reference = import_module("mdgnn.ops.scatter_add").reference
reductions = pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
KINDS = ["sorted-messages", "unsorted-messages", "gather", "unsorted-gather"]


def problem(kind, device="cpu", dtype=torch.float64, n_rows=7, n_values=5, n_edges=40, n_cols=3, seed=0):
    """values, rows and weight; row 2 is empty. Values of "messages" belong to one edge each."""
    generator = torch.Generator().manual_seed(seed)
    receivers = torch.randint(0, n_rows, (n_edges,), generator=generator)
    receivers[receivers == 2] = 1
    senders = torch.randint(0, n_values, (n_edges,), generator=generator)
    if "messages" in kind:
        n_values = n_edges
    values = torch.randn(n_values, n_cols, dtype=dtype, generator=generator)
    weight = torch.randn(n_edges, dtype=dtype, generator=generator)
    if kind.startswith("unsorted"):
        rows = rows_by(receivers.to(device), n_rows, None if "messages" in kind else senders.to(device))
    else:
        receivers = receivers.sort().values
        row_ptr = torch.cat([torch.zeros(1, dtype=torch.int64), torch.bincount(receivers, minlength=n_rows).cumsum(0)])
        rows = Rows(row_ptr.to(device), senders.to(device) if kind == "gather" else None)
    return values.to(device), rows, weight.to(device)


@devices
@dtypes
@reductions
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_cols", [1, 3, 32, 131])
@pytest.mark.parametrize("weighted", [True, False], ids=["weighted", "plain"])
def test_equals_reference(device, dtype, reduce, kind, n_cols, weighted):
    values, rows, weight = problem(kind, device, dtype, n_cols=n_cols)
    weight = weight if weighted else None
    out = scatter_add(values, rows, weight, reduce=reduce)
    expected = reference(values, rows, weight, reduce)
    tolerance = {torch.float64: 1e-14, torch.float32: 1e-6}[dtype]
    torch.testing.assert_close(out, expected, rtol=0, atol=tolerance * float(expected.abs().max()))
    assert torch.equal(out[2], torch.zeros_like(out[2])), "an empty row gives zero"
    assert torch.equal(out, scatter_add(values, rows, weight, reduce=reduce)), "two runs differ"


@pytest.mark.sample("all")
@devices
@reductions
@pytest.mark.parametrize("kind", KINDS)
def test_derivatives(device, reduce, kind):
    values, rows, weight = problem(kind, device)
    inputs = (values.requires_grad_(), weight.requires_grad_())

    def op(v, w):
        return scatter_add(v, rows, w, reduce=reduce)

    assert gradcheck(op, inputs)
    assert gradcheck(lambda v: scatter_add(v, rows, reduce=reduce), values)
    if reduce == "max":
        out = op(*inputs).square().sum()
        (g,) = torch.autograd.grad(out, values, create_graph=True)
        with pytest.raises(RuntimeError, match="max has no second derivative"):
            torch.autograd.grad(g.sum(), values)
        return
    assert gradgradcheck(op, inputs)
    assert gradgradcheck(lambda v: scatter_add(v, rows, reduce=reduce), values)


@devices
def test_given_columns_change_nothing(device):
    values, rows, weight = problem("unsorted-gather", device)
    columns = import_module("mdgnn.ops.csr").transpose(rows, len(values))
    values.requires_grad_(), weight.requires_grad_()
    outs = [scatter_add(values, rows, weight, columns=c).square().sum() for c in (None, columns)]
    for a, b in zip(*(torch.autograd.grad(o, (values, weight)) for o in outs), strict=True):
        assert torch.equal(a, b)
    assert gradgradcheck(lambda v, w: scatter_add(v, rows, w, columns=columns), (values, weight))


@devices
def test_max_sends_its_gradient_to_the_first_maximum(device):
    values = torch.tensor([[1.0], [3.0], [3.0]], device=device, requires_grad=True)
    scatter_add(values, Rows(torch.tensor([0, 3], device=device)), reduce="max").sum().backward()
    assert values.grad.flatten().tolist() == [0, 1, 0]


@devices
def test_nan_is_not_hidden_by_max(device):
    values = torch.tensor([[1.0], [float("nan")], [3.0]], device=device)
    assert scatter_add(values, Rows(torch.tensor([0, 3], device=device)), reduce="max").isnan().all()


@devices
def test_max_needs_no_edges_of_its_columns(device):
    """Columns of a sum without weights may lack them; two values meet in one row, and one value in two rows."""
    rows = Rows(torch.tensor([0, 2, 4], device=device), torch.tensor([1, 0, 0, 1], device=device))
    columns = Rows(torch.tensor([0, 2, 4], device=device), torch.tensor([0, 1, 0, 1], device=device))
    values = torch.tensor([[1.0, 2.0], [3.0, 1.0]], device=device, requires_grad=True)
    scatter_add(values, rows, columns=columns, reduce="max").sum().backward()
    assert values.grad.tolist() == [[0, 2], [2, 0]]


@devices
@reductions
@pytest.mark.parametrize(("n_rows", "n_values", "n_cols"), [(0, 0, 4), (3, 0, 4), (3, 2, 0), (1, 1, 1)])
def test_empty_input(device, reduce, n_rows, n_values, n_cols):
    none = torch.empty(0, dtype=torch.int64, device=device)
    values = torch.randn(n_values, n_cols, device=device, requires_grad=True)
    rows = Rows(torch.zeros(n_rows + 1, dtype=torch.int64, device=device), none)
    out = scatter_add(values, rows, reduce=reduce)
    assert out.shape == (n_rows, n_cols) and not out.any()
    out.sum().backward()
    assert not values.grad.any()


@dtypes
@pytest.mark.parametrize("indexed", [True, False], ids=["gathered", "rows of edges"])
@pytest.mark.parametrize("n_cols", [*range(1, 36), 63, 64, 65, 100, 129])
def test_rows_are_summed_edge_by_edge(n_cols, indexed, dtype):
    """Bit for bit, for any number of features: pieces of a row that overlap count once, and long rows go on."""
    counts = torch.tensor([0, 1, 15, 16, 17, 0, 33, 70])
    row_ptr, n_edges = torch.nn.functional.pad(counts.cumsum(0), (1, 0)), int(counts.sum())
    index = torch.randint(20, (n_edges,)) if indexed else torch.arange(n_edges)
    values, weight = torch.randn(20 if indexed else n_edges, n_cols, dtype=dtype), torch.rand(n_edges, dtype=dtype)
    expected = torch.zeros(len(counts), n_cols, dtype=dtype)
    receivers = torch.repeat_interleave(torch.arange(len(counts)), counts)
    for k in range(n_edges):
        expected[receivers[k]] += weight[k] * values[index[k]]
    rows = Rows(row_ptr, index if indexed else None)
    assert torch.equal(scatter_add(values, rows, weight), expected)
    mean = scatter_add(values, rows, weight, reduce="mean")
    assert torch.equal(mean, (1 / counts.clamp(min=1).to(dtype))[:, None] * expected)

    grad, by_column = torch.randn_like(expected), torch.zeros_like(values)
    order = torch.argsort(index, stable=True)
    for k in order.tolist():
        by_column[index[k]] += weight[k] * grad[receivers[k]]
    leaf = values.clone().requires_grad_()
    scatter_add(leaf, rows, weight).backward(grad)
    assert torch.equal(leaf.grad, by_column)


@reductions
@pytest.mark.parametrize("kind", KINDS)
@dtypes
def test_bits_do_not_depend_on_threads(kind, reduce, dtype):
    values, rows, weight = problem(kind, dtype=dtype, n_rows=2000, n_values=2000, n_edges=40000, n_cols=33)
    values.requires_grad_(), weight.requires_grad_()

    def run():
        out = scatter_add(values, rows, weight, reduce=reduce)
        return out, *torch.autograd.grad(out.square().sum(), (values, weight))

    assert_same_bits_for_any_number_of_threads(run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": torch.zeros(3)}, r"values of shape \(M, F\)"),
        ({"values": torch.zeros(3, 2, dtype=torch.float16)}, "float32 or float64"),
        ({"weight": torch.zeros(2)}, r"weight of shape \(3,\)"),
        ({"weight": torch.zeros(3, dtype=torch.float64)}, "torch.float32"),
        ({"rows": Rows(torch.tensor([0, 3], dtype=torch.int32))}, r"rows.row_ptr as \(n,\) int64"),
        ({"rows": Rows(torch.tensor([0, 3]), torch.zeros(3))}, r"rows.index as \(n,\) int64"),
        ({"rows": Rows(torch.tensor([0, 3]), None, torch.arange(3))}, "rows.edge together with a rows.index"),
        ({"reduce": "median"}, "sum, mean, max"),
    ],
)
def test_bad_input_gets_a_sentence(change, message):
    given = {"values": torch.zeros(3, 2), "rows": Rows(torch.tensor([0, 3])), **change}
    with pytest.raises(ValueError, match=message):
        scatter_add(**given)


def test_a_device_without_kernels_is_named():
    rows = Rows(torch.tensor([0, 3], device="meta"))
    with pytest.raises(RuntimeError, match="on a CPU or a CUDA device, got meta"):
        scatter_add(torch.zeros(3, 2, device="meta"), rows)


@pytest.mark.parametrize(
    ("row_ptr", "receivers", "message"),
    [
        ([0, 2, 4], [0, 1, 0, 99], "expected receivers below 2 in columns, got 99"),
        ([0, 2, 4], [0, 1, 0, -1], "rows.index of at least 0"),
        ([0, 2, 9], [0, 1, 0, 1], "to rise from 0 to the number of entries"),
    ],
)
def test_columns_whose_numbers_do_not_fit_are_refused_on_a_cpu(row_ptr, receivers, message):
    """Before the backward reads beyond arrays with them. A GPU is not stopped to look, as the documentation says."""
    rows = Rows(torch.tensor([0, 2, 4]), torch.tensor([0, 1, 0, 1]))
    columns = Rows(torch.tensor(row_ptr), None if receivers is None else torch.tensor(receivers))
    values = torch.zeros(2, 3, requires_grad=True)
    with pytest.raises(ValueError, match=message):
        scatter_add(values, rows, columns=columns).sum().backward()


@devices
@pytest.mark.parametrize(
    ("row_ptr", "receivers", "message"),
    [
        ([0, 2, 5], [0, 1, 0, 1, 1], "receivers of all 4 entries, got 5"),
        ([0, 4], [0, 1, 0, 1], "row for each of the 2 values, got 1"),
        ([0, 2, 4], None, "receivers of all 4 entries, got no index"),
    ],
)
def test_columns_of_other_sizes_are_refused(row_ptr, receivers, message, device):
    rows = Rows(torch.tensor([0, 2, 4], device=device), torch.tensor([0, 1, 0, 1], device=device))
    columns = Rows(*(None if t is None else torch.tensor(t, device=device) for t in (row_ptr, receivers)))
    values = torch.zeros(2, 3, requires_grad=True, device=device)
    with pytest.raises(ValueError, match=message):
        scatter_add(values, rows, columns=columns).sum().backward()


@devices
def test_rows_by_is_a_stable_sort_and_names_bad_indices(device):
    receivers = torch.tensor([3, 0, 3, 1, 0], device=device)
    rows = rows_by(receivers, 4)
    assert rows.row_ptr.tolist() == [0, 2, 3, 3, 5] and rows.index.tolist() == [1, 4, 3, 0, 2]
    for bad in (4, -1):
        with pytest.raises(IndexError, match="index < 4"):
            rows_by(torch.tensor([0, bad], device=device), 4)


@pytest.mark.parametrize("needed", ["grad", "values", "weight"])
def test_kernels_make_what_is_needed_alone(needed, monkeypatch):
    module, asked = import_module("mdgnn.ops.scatter_add"), []

    class Kernels:
        def scatter_add_double_backward(self, **arguments):
            asked.append({name[4:] for name in arguments if name.startswith("out_") and arguments[name] is not None})

    values, rows, weight = problem("gather")
    grad = torch.zeros(rows.n_rows, values.shape[1], dtype=values.dtype)
    monkeypatch.setattr(module, "kernels_for", lambda tensor: (Kernels(), (1, 0, 0)))
    flags = [needed == name for name in ("grad", "values", "weight")]
    module.double_backward(module.Static(rows, None, "sum"), (values, weight), (grad,), (values, weight), flags)
    assert asked == [{needed}]
