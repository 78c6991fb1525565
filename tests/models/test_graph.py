"""Graphs: frozen data, and what follows from them, worked out once."""

import copy
import dataclasses
import pickle

import pytest
import torch
from systems import crystal, icosahedron

from mdgnn import Graph
from mdgnn.graph import mean_per_structure, sum_per_structure


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
    torch.testing.assert_close(mean_per_structure(values, graph), expected / torch.tensor([13.0, 32.0, 13.0]).double())


def test_what_follows_is_worked_out_once_and_writes_nothing_into_the_graph(graph):
    before = set(vars(graph))
    for name in ("edges_by_receiver", "atoms_by_structure", "structure_of_atoms", "padded", "n_neighbours", "edges"):
        assert getattr(graph, name) is getattr(graph, name), name
    assert set(vars(graph)) == before
    with pytest.raises(dataclasses.FrozenInstanceError):
        graph.senders = graph.senders


@pytest.mark.parametrize("change", [copy.copy, copy.deepcopy, Graph.clone, lambda g: pickle.loads(pickle.dumps(g))])
def test_copies_are_the_same_graph(graph, change):
    _ = graph.padded, graph.edges.by_sender
    other = change(graph)
    assert torch.equal(other.edges.by_sender.index, graph.edges.by_sender.index)
    assert torch.equal(other.padded.row_ptr, graph.padded.row_ptr)


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
