"""Which models become programs: any made of the engine's operations; all others get a sentence with their line."""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from engines import with_given_tables
from laws import assert_equal
from systems import gnn, icosahedron, radial
from torch import nn

from mdgnn import Engine, Graph, LennardJones, MDGNNCalculator, PaiNN, SchNet, SimpleGNN, evaluate
from mdgnn.engine import UnsupportedError, trace
from mdgnn.ops import cfconv, painn_message, polar, scatter_add, silu


def test_a_new_model_of_the_same_operations_needs_no_cpp():
    """SchNet with a gate on every block, which no model here has."""

    class Gated(SchNet):
        def atomic_features(self, graph, vectors, types):
            h, (r, _) = self.embedding(types), polar(vectors, directions=False)
            for interaction, filter in zip(self.interactions, self.filters(r), strict=True):
                h = interaction(h, filter, graph.edges) * silu(h) + h
            return h

    torch.manual_seed(0)
    model = Gated(8, 2, 6, cutoff=2.5).double()
    graph = Graph.from_atoms(icosahedron(3, 0.05), 2.5)
    assert_equal(
        with_given_tables(model).evaluate(graph, virial=True), evaluate(model, graph, virial=True), torch.float64
    )


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (LennardJones(cutoff=2.5), "'graph.edges_by_receiver'"),
        (gnn(aggregation="max"), "edge_basis"),
        (gnn(filters="direct"), "edge_basis"),
        (radial("PaiNN", filters="direct"), "painn_message with a filter that is not a table"),
        (SimpleGNN(cutoff=float("inf")), "edge_basis"),
    ],
    ids=["LennardJones", "max", "direct", "PaiNN direct", "infinite"],
)
def test_models_that_it_cannot_run_get_a_sentence(model, message):
    with pytest.raises(
        UnsupportedError,
        match=f"the engine cannot run this {type(model).__name__}: it has no instruction for {message}",
    ):
        Engine(model)


def test_messages_that_are_all_of_the_embedding():
    """An array is in two messages, of which one has vectors that nothing depends on."""

    class FromEmbedding(PaiNN):
        def atomic_features(self, graph, vectors, types):
            s = self.embedding(types)
            v, (r, unit) = s.new_zeros(s.shape[0], 3, s.shape[1]), polar(vectors)
            x = self.layers[0].message_mlp(s)
            for layer, filter in zip(self.layers, self.filters(r), strict=True):
                ds, dv = painn_message(x, v, filter, unit, graph.edges)
                s, v = layer.update(s + ds, v + dv)
            return s

    torch.manual_seed(0)
    model, graph = FromEmbedding(8, 2, 6, cutoff=2.5).double(), Graph.from_atoms(icosahedron(3, 0.05), 2.5)
    assert_equal(
        with_given_tables(model).evaluate(graph, virial=True), evaluate(model, graph, virial=True), torch.float64
    )


def variant(change):
    """A SchNet whose features `change` makes something of, between the blocks and the readout."""

    class Variant(SchNet):
        def atomic_features(self, graph, vectors, types):
            h, (r, _) = self.embedding(types), polar(vectors, directions=False)
            for interaction, filter in zip(self.interactions, self.filters(r), strict=True):
                h = interaction(h, filter, graph.edges)
            return change(self, h, filter, graph)

    torch.manual_seed(0)
    return Variant(8, 2, 6, cutoff=2.5).double()


def view_changed(model, h, filter, graph):
    new = silu(h)
    first = new[:, :4]
    first += 1
    return new


def viewed_then_changed(model, h, filter, graph):
    new = silu(h)
    first = new[:, :4]
    new *= 2
    return new + first.sum(1, keepdim=True)


def same_memory_changed(model, h, filter, graph):
    new = silu(h)
    same = F.dropout(new.contiguous().to(new.dtype), training=False)
    same += 1  # and new with it
    return new


def constant_changed(model, h, filter, graph):
    total = torch.zeros(h.shape, dtype=h.dtype)
    total += h
    return total


def limited(model, h, filter, graph):
    rows = model.elements.type_of.index_select(0, graph.atomic_numbers)
    return h + F.embedding(rows, model.embedding.weight, max_norm=1.0)


def branch(model, h, filter, graph):
    return h if h.sum() > 0 else -h


def read(model, h, filter, graph):
    return h * float(h.sum(1).sum(0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (view_changed, r"add_: changes in place of an array of which there are views \(.*first \+= 1\)"),
        (viewed_then_changed, r"mul_: changes in place of an array of which there are views \(.*new \*= 2\)"),
        (same_memory_changed, r"add_: changes in place of an array of which there are views \(.*same \+= 1"),
        (constant_changed, r"add_: changes in place of a constant array \(.*total \+= h\)"),
        (branch, "sums over atoms"),
        (read, r"sums over atoms \(test_refusals.py, line \d+: return h \* float"),
        (lambda m, h, f, g: h * h[0, 0].item(), "a part of the rows of an array"),
        (lambda m, h, f, g: h * h.max().item(), r"for max \(test_refusals.py, line"),
        (lambda m, h, f, g: h * bool(h[:, 0]), r"for __bool__: numbers that are known only when"),
        (lambda m, h, f, g: h + torch.from_numpy(h.numpy()), "for numpy: numbers that are known only"),
        (lambda m, h, f, g: h / (h[:, :1] + (h[:, :1] == 0)), r"for __eq__ \(.*== 0"),
        (lambda m, h, f, g: torch.where(h > 0, h, 0.0), r"for gt \(test_refusals.py, line \d+: .*torch.where"),
        (lambda m, h, f, g: torch.where(torch.ones(8) > 0, h, h), r"for where \(.*torch.where\(torch.ones"),
        (lambda m, h, f, g: h * (0.1 * h.shape[0]), r"depends on the number of atoms.*0.1 \* h.shape"),
        (lambda m, h, f, g: h * len(h), r"depends on the number of atoms or edges \(.*len\(h\)"),
        (lambda m, h, f, g: h + torch.ones(len(h), 1).cumsum(0), "differs from atom to atom"),
        (lambda m, h, f, g: h / torch.full((len(h), 1), len(h)), "depends on the number of atoms"),
        (lambda m, h, f, g: h if len(h) > 215 else -h, "depends on the number of atoms"),
        (lambda m, h, f, g: (h * h, silu(h))[len(h) > 215], "depends on the number of atoms"),
        (lambda m, h, f, g: cfconv(h, f._replace(table=f.table._replace(cutoff=2.0)), g.edges), "2.5, not 2.0"),
        (lambda m, h, f, g: cfconv(h, f, object()), "along the edges of the graph"),
        (lambda m, h, f, g: cfconv(h, f._replace(r=h), g.edges), "along the edges of the graph"),
        (lambda m, h, f, g: cfconv(h, f._replace(r=2 * f.r), g.edges), "along the edges of the graph"),
        (lambda m, h, f, g: cfconv(h, f.r[:, None] * torch.ones(8), g.edges), "a filter that is not a table"),
        (lambda m, h, f, g: h * g.senders[:1], r"'graph.senders' \(.*g.senders"),
        (lambda m, h, f, g: h * g.edges.by_receiver.row_ptr.diff()[:, None], "'by_receiver' of graph.edges"),
        (lambda m, h, f, g: torch.cat([h, h], dim=0), "together along another axis"),
        (lambda m, h, f, g: h.sum(0), r"sums over atoms \(.*h.sum\(0\)"),
        (lambda m, h, f, g: h @ h.T @ h, "products of every atom, component or channel with every other"),
        (lambda m, h, f, g: h.flip(0), r"for flip \(.*h.flip"),
        (lambda m, h, f, g: h[:5], "a part of the rows of an array"),
        (lambda m, h, f, g: h.view(-1, 2, 4).sum(1), r"the view \(\d+, 2, 4\) of an array \(\d+, 8\)"),
        (lambda m, h, f, g: torch.special.erf(h), r"for (special_)?erf \(.*special.erf"),
        (lambda m, h, f, g: torch.erf(input=h), r"for erf \(.*erf"),
        (lambda m, h, f, g: h.float().double(), r"a change of precision \(.*h.float"),
        (lambda m, h, f, g: h + g.atomic_numbers[:, None], "arithmetic with an array of atomic numbers"),
        (lambda m, h, f, g: h.to(torch.int64), "a change of torch.float64 to torch.int64"),
        (lambda m, h, f, g: torch.add(h, h, out=torch.empty(1)), "add of these arguments"),
        (lambda m, h, f, g: nn.Dropout(0.5)(h), r"dropout in training \(.*nn.Dropout"),
        (lambda m, h, f, g: h**h, "powers with arrays"),
        (lambda m, h, f, g: 1 - h.sort(1).values, r"for sort \(.*1 - h.sort"),
        (
            lambda m, h, f, g: 1 - h.unsqueeze(0),
            "sums over atoms",
        ),
        (lambda m, h, f, g: scatter_add(h, g.edges_by_receiver), "graph.edges_by_receiver"),
        (limited, "embedding with a greatest norm"),
    ],
)
def test_what_a_program_cannot_say_is_refused(change, message):
    """Torch may run it; a program that does something else would be worse than none."""
    with pytest.raises(UnsupportedError, match=f"the engine cannot run this Variant: .*({message})"):
        Engine(variant(change))


def test_auto_warns_once_with_the_refusal():
    model = variant(lambda m, h, f, g: torch.erf(h))
    with pytest.warns(
        UserWarning, match=r"computed by torch.*no instruction for erf \(test_refusals.py, line \d+: .*erf"
    ):
        calculator = MDGNNCalculator(model)
    assert calculator.backend == "torch"
    assert MDGNNCalculator(model, backend="torch").backend == "torch", "without a warning"


def test_a_refusal_within_an_operator_that_python_turns_around_keeps_its_sentence():
    """``1 - x`` and ``1 / x`` are functions of torch's that make TypeErrors into NotImplemented."""
    for line in (lambda m, h, f, g: 1 - g.atomic_numbers, lambda m, h, f, g: 1 / g.atomic_numbers):
        with pytest.raises(UnsupportedError, match="arithmetic with an array of atomic numbers"):
            Engine(variant(line))


def test_the_line_is_the_models_own():
    """Not that of a layer of torch's or ours in which the operation is."""
    with pytest.raises(UnsupportedError, match=r"gelu \(test_refusals.py, line \d+: .*nn.GELU\(\)\(h\)"):
        Engine(variant(lambda m, h, f, g: nn.GELU()(h)))


OF_TORCHS_REFUSALS = [
    (lambda h: h[:, :5], "products of 5 features with a matrix for 8"),
    (lambda h: torch.cat([h, h], dim=1), "products of 16 features with a matrix for 8"),
    (lambda h: torch.cat(h.split([3, 4], dim=1), dim=1), "split into [3, 4] where there are 8"),
    (lambda h: h * h[:, 8:9] + h[:, 8, None], "a part of the channels of an array"),
    (lambda h: h * h.select(1, -9)[:, None], "index -9 where there are 8"),
    (lambda h: h * h.narrow(1, 8, 1), "narrow from 8 by 1 where there are 8"),
    (lambda h: h * h.narrow(1, 4, 5).sum(1, keepdim=True), "narrow from 4 by 5 where there are 8"),
    (lambda h: h * h.narrow(1, 4, -1).sum(1, keepdim=True), "narrow from 4 by -1 where there are 8"),
    (lambda h: h * h.split([9, -1], dim=1)[0].sum(1, keepdim=True), "split into [9, -1] where there are 8"),
    (lambda h: h + h[:, :3], "add of arrays (N, 1, 8) and (N, 1, ...)"),
    (lambda h: h @ torch.ones(7, 8, dtype=h.dtype), "products of 8 features with a matrix for 7"),
    (lambda h: torch.einsum("nc,cd->nd", h, torch.ones(7, 8, dtype=h.dtype)), "products of 8 features with a matrix"),
    (lambda h: h.view(-1, 3), "the view (562, 3) of an array (211, 8)"),
    (lambda h: h.no_such_method(), "object has no attribute 'no_such_method'"),
]


@pytest.mark.parametrize(("wrong", "refusal"), OF_TORCHS_REFUSALS)
def test_what_torch_refuses_is_refused_by_name_with_the_line(wrong, refusal):
    """That of the model, or of the readout where what it gives has the wrong width."""
    model = variant(lambda m, h, f, g: wrong(h))
    with pytest.raises((RuntimeError, IndexError, AttributeError)):
        evaluate(model, Graph.from_atoms(icosahedron(2, 0.05), 2.5))
    line = (
        r"potential.py, line \d+: .*output"
        if "features with a matrix for 8" in refusal
        else r"\w+.py, line \d+: .*lambda h"
    )
    with pytest.raises(UnsupportedError, match=rf"cannot run this Variant: .*{re.escape(refusal)}.* \({line}"):
        Engine(model)


def test_what_is_no_potential_is_refused():
    with pytest.raises(UnsupportedError, match=r"expected a model that derives from mdgnn\.Potential, got Linear"):
        Engine(nn.Linear(3, 3))


@pytest.mark.parametrize("places", [[2], [2, 5], [-3], [5, 3], [-30, 4], [4, 30]])
def test_columns_are_split_where_torch_splits_them(places):
    """It clamps places and counts negative ones from the end; parts of no column are refused."""

    def split(m, h, f, g):
        total = h[:, :1] * 0
        for k, part in enumerate(torch.tensor_split(h, places, dim=1)):
            total = total + (k + 1) * part.sum(1, keepdim=True)
        return h * total

    model = variant(split)
    expected = evaluate(model, graph := Graph.from_atoms(icosahedron(2, 0.05), 2.5), virial=True)
    if all(part.numel() for part in torch.empty(1, 8).tensor_split(places, dim=1)):
        assert_equal(with_given_tables(model).evaluate(graph, virial=True), expected, torch.float64)
    else:
        with pytest.raises(UnsupportedError, match="a part of the channels"):
            Engine(model)


def test_capture_leaves_the_model_and_torch_as_they_were():
    model = gnn()
    before = {name: (t, t._version, t.requires_grad) for name, t in model.state_dict(keep_vars=True).items()}
    trace(model)
    after = model.state_dict(keep_vars=True)
    assert all(after[name] is t and t._version == v and t.requires_grad == g for name, (t, v, g) in before.items())
    assert model.training and torch.is_grad_enabled()


def test_many_threads_capture_at_once():
    models = [radial("PaiNN"), gnn(), radial("SchNet")] * 4
    alone = [trace(m).to_json() for m in models]
    with ThreadPoolExecutor(4) as pool:
        assert [p.to_json() for p in pool.map(trace, models)] == alone


def test_the_compiler_of_torch_is_not_imported(tmp_path):
    """Nor what takes it a second: sympy, and torch's distributed tensors."""
    script = (
        "import sys; from mdgnn import Engine, PaiNN; Engine(PaiNN(8, 1, 6, elements=[1, 8]))\n"
        "names = 'torch._dynamo', 'torch._inductor', 'torch.fx.experimental.symbolic_shapes', 'sympy'\n"
        "print([n for n in names if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_one_numbering_of_elements():
    class Groups(SchNet):
        def atomic_features(self, graph, vectors, types):
            other = torch.zeros(121, dtype=torch.int64).index_select(0, graph.atomic_numbers)
            return self.embedding(types) + F.embedding(other, self.embedding.weight)

    with pytest.raises(UnsupportedError, match="one numbering"):
        Engine(Groups(8, 1, 6, cutoff=2.5))
