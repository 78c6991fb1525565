"""How models become programs: any made of the same operations, and a sentence for all others."""

import pytest
import torch
import torch.nn.functional as F
from laws import assert_equal
from systems import gnn, icosahedron, radial

from mdgnn import Engine, Graph, LennardJones, MDGNNCalculator, PaiNN, SchNet, SimpleGNN, evaluate
from mdgnn.engine import UnsupportedError
from mdgnn.nn import apply_mlp
from mdgnn.ops import cfconv, painn_message, polar, silu


def test_a_new_model_of_the_same_operations_needs_no_cpp():
    """SchNet with a gate on every block, which no model here has."""

    class Gated(SchNet):
        def atomic_energies(self, graph, vectors):
            rows, h = self.species.embed(graph.atomic_numbers, self.embedding)
            r, _ = polar(vectors, directions=False)
            for interaction, filter in zip(self.interactions, self.filters(r), strict=True):
                h = interaction(h, filter, graph) * silu(h) + h
            return self.species.energies(rows, self.output_mlp(h).squeeze(1))

    torch.manual_seed(0)
    model = Gated(8, 2, 6, cutoff=2.5).double()
    graph = Graph.from_atoms(icosahedron(3, 0.05), 2.5)
    assert_equal(Engine(model).evaluate(graph, virial=True), evaluate(model, graph, virial=True), torch.float64)


@pytest.mark.parametrize(
    "model",
    [
        LennardJones(cutoff=2.5),
        gnn(aggregation="max"),
        gnn(filters="direct"),
        radial("PaiNN", filters="direct"),
        SimpleGNN(cutoff=float("inf")),
    ],
    ids=["LennardJones", "max", "direct", "PaiNN direct", "infinite"],
)
def test_models_that_it_cannot_run_get_a_sentence(model):
    with pytest.raises(UnsupportedError, match=f"the engine cannot run this {type(model).__name__}|no instruction"):
        Engine(model)


def test_messages_that_are_all_of_the_embedding():
    """An array is in two messages, of which one has vectors that nothing depends on."""

    class FromEmbedding(PaiNN):
        def atomic_energies(self, graph, vectors):
            rows, s = self.species.embed(graph.atomic_numbers, self.embedding)
            v, (r, unit) = s.new_zeros(s.shape[0], 3, s.shape[1]), polar(vectors)
            x = apply_mlp(self.layers[0].message_mlp, s)
            for layer, filter in zip(self.layers, self.filters(r), strict=True):
                ds, dv = painn_message(x, v, filter, unit, graph.edges)
                s, v = layer.update(s + ds, v + dv)
            return self.species.energies(rows, apply_mlp(self.output_mlp, s).squeeze(1))

    torch.manual_seed(0)
    model, graph = FromEmbedding(8, 2, 6, cutoff=2.5).double(), Graph.from_atoms(icosahedron(3, 0.05), 2.5)
    assert_equal(Engine(model).evaluate(graph, virial=True), evaluate(model, graph, virial=True), torch.float64)


def variant(change):
    """A SchNet whose features `change` makes something of, between the blocks and the readout."""

    class Variant(SchNet):
        def atomic_energies(self, graph, vectors):
            rows, h = self.species.embed(graph.atomic_numbers, self.embedding)
            r, _ = polar(vectors, directions=False)
            for interaction, filter in zip(self.interactions, self.filters(r), strict=True):
                h = interaction(h, filter, graph)
            return self.species.energies(rows, self.output_mlp(change(self, h, filter, graph)).squeeze(1))

    torch.manual_seed(0)
    return Variant(8, 2, 6, cutoff=2.5).double()


def in_place(model, h, filter, graph):
    new = silu(h)
    old = new
    new += h
    return new + old


def limited(model, h, filter, graph):
    rows = model.species.row_of.index_select(0, graph.atomic_numbers)
    return h + F.embedding(rows, model.embedding.weight, max_norm=1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (in_place, "changes in place"),
        (lambda m, h, f, g: h / (h[:, :1] + (h[:, :1] == 0)), "part .* of an array|comparisons"),
        (lambda m, h, f, g: h + (h == 0), "comparisons"),
        (lambda m, h, f, g: h * (0.1 * h.shape[0]), "unsupported operand"),
        (lambda m, h, f, g: h * len(h), "has no len"),
        (lambda m, h, f, g: h * 2.0, "unsupported operand"),
        (lambda m, h, f, g: cfconv(h, f._replace(table=f.table._replace(cutoff=2.0)), g.edges), "2.5, not 2.0"),
        (lambda m, h, f, g: cfconv(h, f, object()), "along the edges of the graph"),
        (lambda m, h, f, g: cfconv(h, f._replace(r=h), g.edges), "along the edges of the graph"),
        (lambda m, h, f, g: cfconv(h.chunk(2, 1)[0], f, g.edges), "split"),
        (lambda m, h, f, g: torch.cat([h, h], dim=0), "instruction for cat"),
        (lambda m, h, f, g: h.sum(0), "instruction for 'sum'"),
        (lambda m, h, f, g: torch.tanh(h), "instruction for tanh"),
        (lambda m, h, f, g: h.new_zeros(3, 8), "makes zeros"),
        (limited, "instruction for embedding"),
    ],
)
def test_what_a_program_cannot_say_is_refused(change, message):
    """Torch may run it; a program that does something else would be worse than none."""
    with pytest.raises(UnsupportedError, match=message):
        Engine(variant(change))
    with pytest.warns(UserWarning, match=f"computed by torch.*({message})"):
        calculator = MDGNNCalculator(variant(change))
    assert calculator.backend == "torch"
    assert MDGNNCalculator(variant(change), backend="torch").backend == "torch", "without a warning"


def test_one_numbering_of_elements():
    class Groups(SchNet):
        def atomic_energies(self, graph, vectors):
            rows, h = self.species.embed(graph.atomic_numbers, self.embedding)
            other = torch.zeros(121, dtype=torch.int64).index_select(0, graph.atomic_numbers)
            return self.species.energies(
                rows, self.output_mlp(h + F.embedding(other, self.embedding.weight)).squeeze(1)
            )

    with pytest.raises(UnsupportedError, match="one numbering"):
        Engine(Groups(8, 1, 6, cutoff=2.5))
