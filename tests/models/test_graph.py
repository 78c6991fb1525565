"""Graphs: frozen data, and what follows from them, worked out once."""

import copy
import dataclasses
import pickle
import threading

import pytest
import torch
from ase import Atoms
from systems import crystal, gnn, icosahedron

from mdgnn import Graph, evaluate
from mdgnn._internal.cached import cached_property, view
from mdgnn.graph import mean_per_structure, sum_per_structure
from mdgnn.ops import Rows


@pytest.fixture
def graph():
    return Graph.from_atoms([icosahedron(2, 0.05), crystal(), icosahedron(2, 0.05, 1)], 2.5)


def test_what_follows_is_what_its_name_says(graph):
    assert torch.equal(graph.receivers, torch.arange(graph.n_atoms).repeat_interleave(graph.row_ptr.diff()))
    by_sender = graph.edges.by_sender
    assert torch.equal(graph.senders[by_sender.edge], graph.senders.sort().values)
    assert torch.equal(graph.receivers[by_sender.edge], by_sender.index)
    assert torch.equal(graph.n_neighbours[:, 0], graph.receivers.bincount(minlength=graph.n_atoms).double())
    atoms = graph.atoms_by_structure
    assert torch.equal(graph.structure[atoms.index], graph.structure.sort().values)
    assert atoms.row_ptr.tolist() == [0, 13, 45, 58]
    assert torch.equal(graph.structure_of_atoms.index, graph.structure)
    values = torch.arange(58.0)
    expected = torch.stack([part.sum() for part in values.split([13, 32, 13])]).double()
    assert torch.equal(sum_per_structure(values, graph), expected)
    assert torch.equal(mean_per_structure(values, graph), expected / torch.tensor([13.0, 32.0, 13.0]).double())


def test_what_follows_is_worked_out_once_and_writes_nothing_into_the_graph(graph):
    before = set(vars(graph))
    for name in ("edges_by_receiver", "atoms_by_structure", "structure_of_atoms", "padded", "n_neighbours", "edges"):
        assert getattr(graph, name) is getattr(graph, name), name
    assert set(vars(graph)) == before
    with pytest.raises(dataclasses.FrozenInstanceError):
        graph.senders = graph.senders


@pytest.mark.parametrize("change", [copy.copy, copy.deepcopy, Graph.clone, lambda g: pickle.loads(pickle.dumps(g))])
def test_copies_are_the_same_graph_in_memory_of_their_own(graph, change):
    """Kernels must read the arrays of the copy: in another process, those of the original are nowhere."""
    model = gnn()
    expected = evaluate(model, graph)
    _ = graph.padded, graph.edges.by_sender, graph.edges.addresses, graph.atoms_by_structure.addresses
    other = change(graph)
    assert torch.equal(other.edges.by_sender.index, graph.edges.by_sender.index)
    assert torch.equal(other.padded.row_ptr, graph.padded.row_ptr)
    for g in (other, other.padded):
        by_receiver, by_sender = g.edges.by_receiver, g.edges.by_sender
        assert g.edges.addresses == (addresses(by_receiver), addresses(by_sender))
    for rows in (other.edges_by_receiver, other.atoms_by_structure, other.structure_of_atoms):
        assert rows.addresses == addresses(rows)
    del graph
    prediction = evaluate(model, other)
    assert torch.equal(prediction.energies, expected.energies) and torch.equal(prediction.forces, expected.forces)


def addresses(rows):
    arrays = (rows.row_ptr, rows.index, rows.edge)
    n_entries = int(rows.row_ptr[-1])
    n_values = n_entries if rows.index is None else int(rows.index.max()) + 1 if n_entries else 0
    return *(0 if a is None else a.data_ptr() for a in arrays), rows.n_rows, n_entries, n_values


@pytest.mark.parametrize("rows", ["strided", "contiguous"])
def test_copies_of_rows_have_their_own_addresses(rows):
    index = torch.tensor([1, 7, 0, 7, 2, 7])
    rows = Rows(torch.tensor([0, 2, 3]), index[::2] if rows == "strided" else index[::2].clone())
    before = rows.addresses
    for other in (copy.deepcopy(rows), pickle.loads(pickle.dumps(rows))):
        assert other.addresses == addresses(other) != before
        assert other.n_values == 3 and torch.equal(other.index, rows.index)
    assert copy.copy(rows).addresses == before


class Lazy:
    """Another thread asks for `value` while it is worked out, and is done first."""

    def __init__(self):
        self._views, self.seen_by_the_other, self.calls = {}, [], 0

    def value(self):
        self.calls += 1
        if self.calls == 1:
            other = threading.Thread(target=lambda: self.seen_by_the_other.append(self.value))
            other.start()
            other.join()
        return object()


@pytest.mark.parametrize("descriptor", [cached_property, view])
def test_threads_that_ask_at_once_get_one_value(descriptor):
    """Two values would be two arrays, and the address of one could outlive it."""
    lazy = type("Mine", (Lazy,), {"value": descriptor(Lazy.value)})()
    value = lazy.value
    assert lazy.calls == 2 and lazy.seen_by_the_other == [value] and lazy.value is value


def test_graphs_are_equal_to_themselves_alone(graph):
    """Comparing tensors would be an error, or in lists of graphs a random answer."""
    other = graph.clone()
    assert graph != other and other in [graph, other] and len({graph, other, graph}) == 2


def test_other_edges_are_not_those_of_before(graph):
    """A replaced field must not leave what followed from the old one."""
    _ = graph.padded, graph.edges.by_sender, graph.atoms_by_structure
    none = dataclasses.replace(
        graph, vectors=graph.vectors[:0], senders=graph.senders[:0], row_ptr=torch.zeros_like(graph.row_ptr)
    )
    assert none.edges.by_sender.index.numel() == 0 and none.padded.n_edges == 0


@pytest.mark.parametrize("n", [1, 13, 16, 127, 128, 200])
def test_isolated_atoms_are_added_where_matrix_products_want_them(n):
    graph = Graph.from_atoms(icosahedron(6)[:n], 2.5)
    assert graph.padded.n_atoms == (-(-n // 16) * 16 if n < 128 else n)
    assert graph.padded.n_edges == graph.n_edges and (graph.padded is graph) == (graph.padded.n_atoms == n)


@pytest.mark.parametrize("chosen", [[0], [2, 0], [1, 1, 2], [0, 1, 2]])
def test_a_selection_is_the_batch_of_its_structures(chosen):
    structures = [icosahedron(2, 0.05), crystal(), Atoms("Ar")]
    graphs = [Graph.from_atoms(atoms, 2.5) for atoms in structures]
    selected, expected = Graph.batch(graphs).select(chosen), Graph.batch([graphs[k] for k in chosen])
    for ours, other in zip(selected._tensors, expected._tensors, strict=True):
        assert ours.dtype == other.dtype and torch.equal(ours, other)
    for name in ("row_ptr", "index", "edge"):
        assert torch.equal(getattr(selected.edges.by_sender, name), getattr(expected.edges.by_sender, name))
    values = torch.arange(float(expected.n_atoms))
    assert torch.equal(sum_per_structure(values, selected), sum_per_structure(values, expected))


@pytest.mark.parametrize(("chosen", "error"), [([3], IndexError), ([-1], IndexError), ([], ValueError)])
def test_a_selection_of_what_is_not_there_is_refused(graph, chosen, error):
    with pytest.raises(error, match="expected"):
        graph.select(chosen)


def test_a_selection_of_atoms_in_another_order_is_refused():
    graph = Graph.from_edge_index(torch.ones(3), torch.rand(3, 3), torch.zeros(2, 0), torch.tensor([0, 1, 0]))
    with pytest.raises(ValueError, match="in the order of their structures"):
        graph.select([0])


def test_a_selection_of_edges_between_structures_is_refused():
    graph = Graph.from_edge_index(torch.ones(2), torch.rand(2, 3), torch.tensor([[0], [1]]), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="between atoms of one structure"):
        graph.select([0])
