"""What every op promises, whatever it computes: the tests go through the declarations."""

import ast
import re
from pathlib import Path

import pytest
import torch
from declared_results import check_results
from kernels import (
    ExampleOfRows,
    assert_close,
    assert_same_bits_for_any_number_of_threads,
    assert_same_bits_in_any_order_of_threads,
    devices,
    differentiable,
    dtypes,
    everything,
    on_cuda,
    outputs,
    problem_of,
)
from torch.autograd import gradcheck, gradgradcheck

import mdgnn.ops
from mdgnn.ops import OPS, EdgeRows, Rows
from mdgnn.ops.declaration import FLOATS, as_tuple, table_of_ops
from mdgnn.ops.examples import Example
from mdgnn.ops.static import flatten, symbols

ROOT = Path(__file__).parents[2]
VARIANTS = [
    pytest.param(op, options, id="-".join([op.name, *(f"{name}={value}" for name, value in options.items())]))
    for op in OPS
    for options in op.options
]
variants = pytest.mark.parametrize(("op", "options"), VARIANTS)
CHECKED = set()  # variants whose results are the declared ones, before any other test of theirs
with_kernels = pytest.mark.parametrize(("op", "options"), [v for v in VARIANTS if "cuda" in v.values[0].devices])
every = pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)


@pytest.fixture(autouse=True)
def kernels_of_small_arrays(monkeypatch):
    """silu leaves small arrays to torch."""
    monkeypatch.setitem(mdgnn.ops.silu.__globals__, "_TORCH_SPLITS", 0)


def problem(op, options=None, **example):
    """Static arguments, and inputs of which the differentiable ones ask for gradients."""
    options = options or op.options[0]
    if (variant := (op.name, *options.items())) not in CHECKED:
        check_results(op, options)
        CHECKED.add(variant)
    return problem_of(op, Example(options=options, **example))


@devices
@dtypes
@variants
@pytest.mark.parametrize("width", [1, 4, 37])
def test_equals_its_reference_with_all_derivatives(op, options, device, dtype, width):
    static, inputs = problem(op, options, width=width, dtype=dtype, device=device)
    ours, expected = (everything(op, static, inputs, f) for f in (op.function, op.reference))
    assert_close(ours, expected, {torch.float64: 1e-13, torch.float32: 1e-5}[dtype])


@on_cuda
@dtypes
@with_kernels
@pytest.mark.parametrize("width", [1, 4, 37])
def test_equals_the_cpus_with_all_derivatives(op, options, device, dtype, width):
    both = []
    for where in (device, "cpu"):
        static, inputs = problem(op, options, n_atoms=40, n_edges=300, width=width, dtype=dtype, device=where)
        both.append([None if t is None else t.cpu() for t in everything(op, static, inputs)])
    assert_close(*both, {torch.float64: 1e-13, torch.float32: 2e-5}[dtype])


@on_cuda
@dtypes
@with_kernels
@pytest.mark.parametrize("width", [4, 18])
def test_rows_that_end_with_a_warp_or_beside_it(op, options, device, dtype, width):
    """And lists of 0, 1 and 31 edges more than warps hold."""
    tolerance = {torch.float64: 1e-13, torch.float32: 2e-5}[dtype]
    for lengths in ([1], [32], [0, 64, 1, 0, 31, 32, 33], [2, 63, 65, 30, 31, 1, 31]):
        both = []
        for where in (device, "cpu"):
            example = ExampleOfRows(lengths, width=width, dtype=dtype, device=where, options=options)
            both.append([None if t is None else t.cpu() for t in everything(op, *problem_of(op, example))])
        assert_close(*both, tolerance, cancelled=tolerance if len(lengths) == 1 else 0)


@devices
@variants
def test_derivatives_are_those_of_finite_differences(op, options, device):
    static, inputs = problem(op, options, n_atoms=3, n_edges=5, width=2, device=device)
    given = differentiable(inputs)

    def function(*changed):
        rest = iter(changed)
        return tuple(outputs(op, static, [next(rest) if x is not None and x.requires_grad else x for x in inputs]))

    assert gradcheck(function, given)
    if op.max_derivatives(static) >= 2:
        assert gradgradcheck(function, given)


@devices
@variants
def test_each_input_alone_gets_the_same_bits(op, options, device):
    """So a calculator, whose weights have no gradient, gives the forces of a model in training."""
    static, inputs = problem(op, options, device=device)
    n = sum(x is not None and x.requires_grad for x in inputs)
    results = outputs(op, static, inputs)
    together = torch.autograd.grad(sum(t.square().sum() for t in results), differentiable(inputs))
    for k in range(n):
        alone, count = [], 0
        for x in inputs:
            mine = x is not None and x.requires_grad
            alone.append(None if x is None else x.detach().requires_grad_(mine and count == k))
            count += mine
        (grad,) = torch.autograd.grad(sum(t.square().sum() for t in outputs(op, static, alone)), differentiable(alone))
        assert torch.equal(grad, together[k])


@variants
def test_a_pass_over_the_graph_computes_what_it_is_asked_for(op, options, monkeypatch):
    """Forces of a model in training: not the gradients of its weights, which have them too."""
    static, inputs = problem(op, options)
    needed, backward = [], op.backward

    def recorded(static, grads, inputs, saved, needs_grad):
        needed.append(list(needs_grad))
        return backward(static, grads, inputs, saved, needs_grad)

    monkeypatch.setitem(op.__dict__, "backward", recorded)
    for k in [k for k, x in enumerate(inputs) if x is not None and x.requires_grad]:
        for leaf in (True, False):
            given = list(inputs) if leaf else [x if x is None or not x.requires_grad else x * 1 for x in inputs]
            loss = sum(t.square().sum() for t in outputs(op, static, given))
            torch.autograd.grad(loss, given[k], create_graph=leaf)
            assert needed.pop() == [m == k for m in range(len(inputs))]
    loss = sum(t.square().sum() for t in outputs(op, static, inputs))
    loss.backward()
    assert needed.pop() == [x is not None and x.requires_grad for x in inputs]


@devices
@variants
def test_each_output_alone_has_derivatives(op, options, device):
    """Of results that nothing is made of, the gradients are absent or zero."""
    static, inputs = problem(op, options, device=device)
    for k in range(len(outputs(op, static, inputs))):
        both = []
        for function in (op.function, op.reference):
            out = outputs(op, static, inputs, function)[k]
            loss = (out**3).sum()  # squares of directions sum to a constant
            first = torch.autograd.grad(loss, differentiable(inputs), allow_unused=True)
            both.append(
                [torch.zeros_like(x) if g is None else g for g, x in zip(first, differentiable(inputs), strict=True)]
            )
        assert_close(*both, 1e-13)


@devices
@variants
def test_second_derivatives_of_each_output_by_each_input_alone(op, options, device):
    """Of the gradient's two arguments, too, each alone: kernels are told what needs no derivative, and skip it."""
    static, inputs = problem(op, options, device=device)
    if op.max_derivatives(static) < 2:
        return  # test_third_derivative_is_refused
    for k in [k for k, x in enumerate(inputs) if x is not None and x.requires_grad]:
        alone = [None if x is None else x.detach().requires_grad_(m == k) for m, x in enumerate(inputs)]
        n_outputs = len(outputs(op, static, alone))
        for m in range(n_outputs):
            ours, expected = (second_derivatives(op, static, alone, k, m, f) for f in (op.function, op.reference))
            assert_close(ours, expected, 1e-12)


@variants
def test_derivatives_that_nobody_needs_are_not_returned(op, options):
    """What is needed has the same bits alone."""
    static, inputs = problem(op, options)
    inputs = [None if x is None else x.detach() for x in inputs]
    needs = [x is not None and a.differentiable for x, a in zip(inputs, op.inputs, strict=True)]
    results = op.forward(static, inputs, needs)
    grads, saved = results[: len(op.outputs)], results[len(op.outputs) :]
    grad2 = [x if n else None for x, n in zip(inputs, needs, strict=True)]
    calls = [(lambda flags: op.backward(static, grads, inputs, saved, flags), needs)]
    if op.max_derivatives(static) >= 2:
        present = [g is not None for g in grads]
        calls.append((lambda flags: op.double_backward(static, grad2, grads, inputs, flags), [*present, *needs]))
    for call, needed in calls:
        together = call(needed)
        for k in [k for k, needed_of_k in enumerate(needed) if needed_of_k]:
            alone = call([m == k for m in range(len(needed))])
            assert [m for m, t in enumerate(alone) if t is not None] == [k]
            assert torch.equal(alone[k], together[k])


def second_derivatives(op, static, inputs, k, m, function):
    """By input k and by what multiplies output m, together and each alone; zeros where there are none."""
    out, x = outputs(op, static, inputs, function)[m], inputs[k]
    generator = torch.Generator().manual_seed(k)
    v, w = (torch.randn(t.shape, dtype=t.dtype, generator=generator).to(t.device) for t in (out, x))
    v.requires_grad_()
    zeros = [torch.zeros_like(t) for t in (v, x, v, x)]
    if not out.requires_grad:
        return zeros
    (first,) = torch.autograd.grad((out * v).sum(), x, create_graph=True, allow_unused=True)
    if first is None:
        return zeros
    computed = [
        torch.autograd.grad((first * w).sum(), of, retain_graph=True, allow_unused=True) for of in ((v, x), (v,), (x,))
    ]
    return [z if g is None else g for z, g in zip(zeros, [g for part in computed for g in part], strict=True)]


@devices
@variants
def test_third_derivative_is_refused(op, options, device):
    static, inputs = problem(op, options, device=device)
    if op.max_derivatives(static) < 2:
        first = torch.autograd.grad(
            sum(t.square().sum() for t in outputs(op, static, inputs)), differentiable(inputs), create_graph=True
        )
        with pytest.raises(RuntimeError, match=f"{op.name}: .*no second derivative"):
            torch.autograd.grad(first[0].square().sum(), differentiable(inputs)[0])
        return
    if device not in op.devices:
        return  # the reference runs, which has all derivatives
    x = differentiable(inputs)
    first = torch.autograd.grad(sum((t**3).sum() for t in outputs(op, static, inputs)), x, create_graph=True)
    second = torch.autograd.grad(sum((t**3).sum() for t in first), x, create_graph=True, allow_unused=True)
    with pytest.raises(RuntimeError, match=f"{op.name}: third derivatives are not implemented"):
        torch.autograd.grad(sum((t**3).sum() for t in second if t is not None), x, allow_unused=True)


@devices
@variants
def test_operators_pass_opcheck_and_have_the_bits_of_the_eager_path(op, options, device):
    if not op.has_operators:
        assert not hasattr(torch.ops.mdgnn, op.name)
        return
    static, inputs = problem(op, options, device=device)
    flat = flatten(static)
    operators = [getattr(torch.ops.mdgnn, f"{op.name}{end}") for end in ("", "_backward", "_double_backward")]
    torch.library.opcheck(operators[0].default, (*inputs, *flat))
    results = as_tuple(operators[0](*inputs, *flat))
    saved = results[len(op.outputs) :]
    assert not any(t.requires_grad for t in saved)
    there = [o.present is None or o.present(static, inputs) for o in op.outputs]
    seen = [t for t, present in zip(results, there, strict=False) if present]
    for ours, eager in zip(seen, outputs(op, static, inputs), strict=True):
        assert torch.equal(ours, eager)
    grads = [torch.ones_like(t) if p else None for t, p in zip(results, there, strict=False)]
    needs_grad = [x is not None and a.differentiable for x, a in zip(inputs, op.inputs, strict=True)]
    if op.max_derivatives(static) >= 2:  # opcheck differentiates
        torch.library.opcheck(operators[1].default, (*grads, *saved, *inputs, *flat, needs_grad))
        grad2 = [torch.ones_like(x) if n else None for x, n in zip(inputs, needs_grad, strict=True)]
        given = (*grad2, *grads, *inputs, *flat, [g is not None for g in grads] + needs_grad)
        torch.library.opcheck(operators[2].default, given, test_utils=("test_schema", "test_faketensor"))

    def derivatives(results):
        first = torch.autograd.grad(sum(t.square().sum() for t in results), differentiable(inputs), create_graph=True)
        if op.max_derivatives(static) < 2:
            return first
        loss = sum(t.square().sum() for t in first)
        return *first, *torch.autograd.grad(loss, differentiable(inputs), allow_unused=True)

    for a, b in zip(derivatives(seen), derivatives(outputs(op, static, inputs)), strict=True):
        assert torch.equal(torch.zeros_like(b) if a is None else a, b)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own
@variants
def test_compiles_whole(op, options):
    """Also with rows that nothing has looked at."""
    static, inputs = problem(op, options)

    def loss(*given):
        rest = iter(given)
        used = [next(rest) if x is not None and x.requires_grad else x for x in inputs]
        return sum(t.square().sum() for t in as_tuple(op.function(*op.arguments(static, *used))) if t is not None)

    given = differentiable(inputs)
    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    results = (compiled(*given), *torch.autograd.grad(compiled(*given), given))
    assert_close(results, (loss(*given), *torch.autograd.grad(loss(*given), given)), 1e-13)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own
def test_compiled_code_refuses_edges_that_are_not_there():
    """Tracing sees shapes alone, and kernels follow what indices say."""

    def gather(values, row_ptr, index):
        return mdgnn.ops.scatter_add(values, mdgnn.ops.Rows(row_ptr, index))

    torch._dynamo.reset()
    compiled = torch.compile(gather, fullgraph=True, backend="aot_eager")
    values, row_ptr, index = torch.rand(3, 2), torch.tensor([0, 2, 4]), torch.tensor([0, 1, 2, 0])
    assert torch.equal(compiled(values, row_ptr, index), gather(values, row_ptr, index))
    with pytest.raises(ValueError, match="expected 10000001 values for these rows, got 3"):
        compiled(values, row_ptr, index + 9_999_998 * (index == 2))
    with pytest.raises(ValueError, match="to rise from 0 to the number of entries"):
        compiled(values, row_ptr + torch.tensor([0, 0, 10_000_000]), index)


@devices
@variants
@pytest.mark.parametrize(("n_atoms", "n_edges", "width"), [(0, 0, 4), (3, 0, 4), (1, 0, 1), (1, 2, 1), (3, 5, 0)])
def test_empty_input(op, options, device, n_atoms, n_edges, width):
    static, inputs = problem(op, options, n_atoms=n_atoms, n_edges=n_edges, width=width, device=device)
    ours, expected = (everything(op, static, inputs, f) for f in (op.function, op.reference))
    for a, b in zip(ours, expected, strict=True):
        assert a is None or a.shape == (a if b is None else b).shape
    assert_close(ours, expected, 1e-13, cancelled=1e-14 if n_atoms == 1 else 0)  # forces of an atom on itself


SUMS = [v for v in VARIANTS if v.values[0].outputs[0].shape[0] in "NR" and v.values[0].name != "force_virial"]


def test_sums_of_what_atoms_receive():
    """Of force_virial atoms get of what they send, too."""
    messages = {"concat_message", "concat_message_linear", "concat_message_table"}
    names = {*messages, "cfconv", "painn_message", "scatter_add"}
    assert names <= {v.values[0].name for v in SUMS}, "else the test below says nothing of them"


@pytest.mark.parametrize(("op", "options"), SUMS)
def test_atoms_that_receive_nothing_get_zero(op, options):
    for out in outputs(op, *problem(op, options)):
        assert not out[1].any() and out.any()


@devices
@variants
def test_other_strides(op, options, device):
    static, inputs = problem(op, options, device=device)
    strided = [
        None if x is None else torch.stack([x.detach()] * 2, -1)[..., 0].requires_grad_(x.requires_grad) for x in inputs
    ]
    assert not any(x.is_contiguous() for x in strided if x is not None)
    for a, b in zip(everything(op, static, strided), everything(op, static, inputs), strict=True):
        assert (a is None and b is None) or torch.equal(a, b)


@dtypes
@variants
def test_bits_do_not_depend_on_threads(op, options, dtype):
    static, inputs = problem(op, options, n_atoms=700, n_edges=12_000, width=33, dtype=dtype)
    assert_same_bits_for_any_number_of_threads(lambda: [t for t in everything(op, static, inputs) if t is not None])


@pytest.mark.sample("none")
@devices
@dtypes
@variants
def test_two_runs_have_the_same_bits(op, options, dtype, device):
    static, inputs = problem(op, options, n_atoms=700, n_edges=12_000, width=33, dtype=dtype, device=device)
    for a, b in zip(everything(op, static, inputs), everything(op, static, inputs), strict=True):
        assert (a is None and b is None) or torch.equal(a, b)


@on_cuda
@dtypes
@with_kernels
def test_bits_do_not_depend_on_the_order_of_threads(op, options, device, dtype):
    """Several blocks, and rows and features of more than a warp, so that there is an order."""
    static, inputs = problem(op, options, n_atoms=80, n_edges=700, width=33, dtype=dtype, device=device)
    assert_same_bits_in_any_order_of_threads(lambda: [t for t in everything(op, static, inputs) if t is not None])


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_half_precision_and_integers_are_refused(op, dtype):
    static, inputs = problem(op)
    changed = [None if x is None else x.detach().to(dtype) for x in inputs]
    if op.name == "silu" and dtype.is_floating_point:  # torch's does
        (out,) = outputs(op, static, changed)
        assert torch.equal(out, torch.nn.functional.silu(changed[0]))
        return
    with pytest.raises(ValueError, match=f"expected {op.inputs[0].name} in float32 or float64, got {dtype}"):
        outputs(op, static, changed)


WRONG = {
    "shape": lambda x: x.detach()[..., None],
    "last axis": lambda x: (
        torch.cat([x.detach()] * 3)[: 2 * len(x) + 1] if x.ndim == 1 else x.detach().repeat_interleave(2, -1)[..., 1:]
    ),
    "dtype": lambda x: x.detach().to(next(d for d in FLOATS if d != x.dtype)),
    "no tensor": lambda x: 1.0,
}


def own_symbols(op, array):
    """Those of an array whose sizes the graph does not give."""
    return set(re.findall("[A-Z]", array.shape)) - set(symbols(op.static))


def wrong_arguments():
    """(op, options, k, what): all that is a mistake in input k. The first gives the dtype; of silu it may be anything
    else."""
    for variant in VARIANTS:
        op, options = variant.values
        for k, (array, x) in enumerate(zip(op.inputs, problem(op, options)[1], strict=True)):
            for what in WRONG if x is not None and array.shape != "..." else ():
                if not own_symbols(op, array) if what == "last axis" else k > 0 or what == "shape":
                    yield pytest.param(op, options, k, what, id=f"{variant.id}-{array.name}-{what}")


DERIVATIVES = {k: v for k, v in WRONG.items() if k != "no tensor"} | {"fewer rows": lambda x: x.detach()[:-1]}


@variants
@pytest.mark.parametrize("what", DERIVATIVES)
def test_operators_of_derivatives_refuse_each_wrong_array(op, options, what):
    """Called by themselves they read beyond arrays. One that is not read may be anything."""
    if not op.has_operators:
        return
    static, inputs = problem(op, options)
    results = [None if t is None else t.detach() for t in op.forward(static, inputs, [True] * len(inputs))]
    n_outputs, like = len(op.outputs), next(x for x in inputs if x is not None)
    grads, saved = results[:n_outputs], [like.new_empty(0) if t is None else t for t in results[n_outputs:]]
    of_inputs, of_grads = (list(zip(*pair, strict=True)) for pair in ((op.inputs, inputs), (op.outputs, grads)))
    calls = {"_backward": [*of_grads, *zip(op.saved, saved, strict=True), *of_inputs]}
    if op.max_derivatives(static) >= 2:
        calls["_double_backward"] = [*of_inputs, *of_grads, *of_inputs]
    n_refused = 0
    for suffix, arguments in calls.items():
        given = [None if t is None else t.detach() for _, t in arguments]
        flags = [t is not None for t in given[-len(inputs) :]]
        flags = flags if suffix == "_backward" else [g is not None for g in grads] + flags
        call = lambda arrays: as_tuple(  # noqa: E731
            getattr(torch.ops.mdgnn, op.name + suffix)(*arrays, *flatten(static), flags)  # noqa: B023
        )
        expected = call(given)
        for k, (array, tensor) in enumerate(arguments):
            of_any_dtype = op.name == "force_virial" and array is op.inputs[0] and what == "dtype"
            of_any_size = array.shape.startswith("G") and suffix == "_backward" and what == "fewer rows"
            if tensor is None or of_any_dtype or of_any_size or (array in op.saved and not tensor.numel()):
                continue
            try:
                changed = call([DERIVATIVES[what](t) if m == k else t for m, t in enumerate(given)])
            except (ValueError, IndexError) as error:
                assert re.search(r"expected ", str(error)) and "\n" not in str(error)
                n_refused += 1
            else:
                for a, b in zip(changed, expected, strict=True):
                    assert torch.equal(a, b) or not (a.any() or b.any()), (suffix, array.name)
    assert n_refused


@every
def test_a_graph_of_another_kind_is_named(op):
    static, inputs = problem(op)
    for name, kind in op.static.__annotations__.items():
        optional, kind = kind == Rows | None, Rows if kind == Rows | None else kind
        if kind not in (EdgeRows, Rows):
            continue
        other = Rows(torch.tensor([0, 1])) if kind is EdgeRows else EdgeRows(Rows(torch.tensor([0, 1])))
        for wrong in (other, 3) if optional else (other, 3, None):
            words = rf"expected {name} as {kind.__name__}, such as graph\.edges.*, got {type(wrong).__name__}"
            with pytest.raises(ValueError, match=words):
                op.check_arguments(static._replace(**{name: wrong}), inputs)


@pytest.mark.parametrize(("op", "options", "k", "what"), list(wrong_arguments()))
def test_each_wrong_argument_is_named(op, options, k, what):
    static, inputs = problem(op, options)
    changed = [x if m != k else WRONG[what](x) for m, x in enumerate(inputs)]
    with pytest.raises(ValueError, match=rf"expected {op.inputs[k].name} of shape \(.*got ") as error:
        op.check_arguments(static, changed)
    assert "\n" not in str(error.value)
    if op.has_operators and what != "no tensor":  # which torch refuses
        with pytest.raises(ValueError, match=re.escape(str(error.value))):
            getattr(torch.ops.mdgnn, op.name)(*changed, *flatten(static))


@on_cuda
@with_kernels
def test_each_wrong_argument_gets_the_sentence_of_the_cpu(op, options, device):
    """All that shapes, dtypes and kinds say is checked on every device; what indices hold, on a CPU alone."""
    sentences = {}
    for where in (device, "cpu"):
        static, inputs = problem(op, options, device=where)
        for k, what in ((k, what) for k, x in enumerate(inputs) if x is not None for what in WRONG):
            changed = [x if m != k else WRONG[what](x) for m, x in enumerate(inputs)]
            try:
                op.check_arguments(static, changed)
                said = ""
            except ValueError as error:
                said = str(error).replace("cuda:0", "cpu")
            sentences.setdefault((k, what), []).append(said)
    assert all(a == b for a, b in sentences.values()) and any(a for a, _ in sentences.values())


def test_every_input_of_every_op_is_given_wrong():
    given = {(p.values[0].name, p.values[0].inputs[p.values[2]].name) for p in wrong_arguments()}
    assert given == {(op.name, array.name) for op in OPS for array in op.inputs if array.shape != "..."}


def shared_sizes():
    """(op, options, k): input k has a symbol that an earlier one has given its size."""
    for variant in VARIANTS:
        op, options = variant.values
        own = [own_symbols(op, array) for array in op.inputs]
        for k, x in enumerate(problem(op, options)[1]):
            if x is not None and own[k] & set().union(*own[:k]):
                yield pytest.param(op, options, k, id=f"{variant.id}-{op.inputs[k].name}")


@pytest.mark.parametrize(("op", "options", "k"), list(shared_sizes()))
def test_sizes_that_disagree_are_refused(op, options, k):
    """Of a symbol that two arrays have, the second is refused."""
    static, inputs = problem(op, options)
    changed = [x if m != k else x.detach().repeat_interleave(2, -1) for m, x in enumerate(inputs)]
    with pytest.raises(ValueError, match=rf"expected {op.inputs[k].name} of shape \("):
        op.check_arguments(static, changed)


def test_every_op_is_declared():
    """A folder of kernels that autograd calls has a declaration of its name, and a file of that name."""
    # Rows of graphs, what the kernels of messages share, and what has as many arrays as a network has weights.
    without = {"csr", "radial_filter", "adam", "simple_gnn"}
    folders = {p.name for p in (ROOT / "csrc" / "ops").iterdir() if p.is_dir()} - without
    declared = {op.name for op in OPS}
    assert folders <= declared, "each folder of csrc/ops has its declaration among OPS in mdgnn/ops/__init__.py"
    assert declared - folders == {"concat_message_table"}, "whose kernels stand beside those of concat_message"
    of_files = {p.stem for p in (ROOT / "mdgnn" / "ops").glob("*.py") if declares(p)}
    assert of_files == declared, "each declaration is among OPS in mdgnn/ops/__init__.py"


@every
def test_each_device_of_an_op_has_its_kernels(op):
    for device, stub in (("cpu", "_C.pyi"), ("cuda", "_C_cuda.pyi")):
        there = re.findall(r"^def (\w+)\(", (ROOT / "mdgnn" / stub).read_text(), re.M)
        names = [op.name, f"{op.name}_backward"]  # force_virial's are each other's derivatives
        assert all(name in there for name in names) == (device in op.devices), f"{op.name}: devices are {op.devices}"


def declares(path):
    """Whether a file makes an Op."""
    calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
    return any(isinstance(c.func, ast.Name) and c.func.id == "Op" for c in calls)


def test_the_table_of_the_documentation_has_a_row_for_every_op():
    rows = table_of_ops(OPS).splitlines()[2:]
    assert [re.match(r"\| `(\w+)` \|", row)[1] for row in rows] == [op.name for op in OPS]
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 7 for row in rows), "seven bars, others are escaped"
