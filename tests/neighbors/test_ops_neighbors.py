"""The neighbour list as a torch function: batches, halves, reverse edges, derivatives. Needs no ASE."""

from importlib import import_module

import numpy as np
import pytest
import torch
from kernels import assert_same_bits_for_any_number_of_threads, devices, dtypes

from mdgnn import ops
from mdgnn.ops.edge_vectors import reference as edge_vectors_reference

reference = import_module("mdgnn.ops.neighbors").reference
EVERYTHING = ("receivers", "vectors", "distances", "reverse", "transposed")
PBC = [(False, False, False), (True, True, True), (True, False, True), (False, True, False)]


def structure(seed, n, pbc, dtype=torch.float64, device="cpu"):
    """Positions in a triclinic cell so small that atoms see several images."""
    rng = np.random.default_rng(seed)
    cell = np.diag(rng.uniform(1, 2, 3)) + rng.normal(0, 0.2, (3, 3))
    positions = rng.random((n, 3)) @ cell
    return [torch.tensor(x, dtype=dtype, device=device) for x in (positions, cell)] + [torch.tensor(pbc, device=device)]


def batch_of(structures):
    positions, cells, pbc = zip(*structures, strict=True)
    first = torch.tensor([0, *np.cumsum([len(r) for r in positions])], device=positions[0].device)
    return torch.cat(positions), torch.stack(cells), torch.stack(pbc), first


def rows_of(edges):
    """(i, j, S) of every edge."""
    i = np.repeat(np.arange(len(edges.row_ptr) - 1), np.diff(edges.row_ptr.cpu()))
    table = np.column_stack([i, edges.senders.cpu(), edges.shifts.cpu()]).tolist()
    return [tuple(row) for row in table]


@devices
@dtypes
@pytest.mark.parametrize("pbc", PBC)
def test_equals_the_reference(pbc, dtype, device):
    positions, cell, periodic = structure(0, 6, pbc, dtype)
    expected = reference(positions, cell, periodic, 1.7)
    edges = ops.neighbors(*(t.to(device) for t in (positions, cell, periodic)), 1.7)
    for ours, theirs in zip(edges, expected, strict=False):
        assert torch.equal(ours.cpu(), theirs)
    assert edges[3:] == (None,) * 5


@devices
@dtypes
@pytest.mark.parametrize("half", [False, True], ids=["full", "half"])
@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64], ids=["int32", "int64"])
def test_a_batch_is_its_structures(index_dtype, half, dtype, device):
    sizes = [3, 0, 7, 1, 12]
    parts = [structure(s, n, PBC[s % 4], dtype, device) for s, n in enumerate(sizes)]
    positions, cells, pbc, first = batch_of(parts)
    options = {"half": half, "index_dtype": index_dtype, "want": ("receivers", "vectors", "distances")}
    whole = ops.neighbors(positions, cells, pbc, 1.4, first_atom=first, **options)
    assert whole.senders.dtype == whole.receivers.dtype == index_dtype
    alone = [ops.neighbors(r, c, p, 1.4, **options) for r, c, p in parts]
    offsets = first[:-1].tolist()
    assert torch.equal(whole.row_ptr.diff(), torch.cat([a.row_ptr.diff() for a in alone]))
    for name in ("senders", "receivers"):
        assert torch.equal(
            getattr(whole, name), torch.cat([getattr(a, name) + o for a, o in zip(alone, offsets, strict=True)])
        )
    for name in ("shifts", "vectors", "distances"):
        assert torch.equal(getattr(whole, name), torch.cat([getattr(a, name) for a in alone]))
    assert len(whole.senders) > 100


@devices
@pytest.mark.parametrize("self_interaction", [False, True], ids=["without-self", "with-self"])
@pytest.mark.parametrize("pbc", PBC)
def test_a_half_list_is_one_edge_of_each_pair(pbc, self_interaction, device):
    args = (*structure(1, 7, pbc, device=device), 1.9)
    full = rows_of(ops.neighbors(*args, self_interaction=self_interaction))
    half = rows_of(ops.neighbors(*args, self_interaction=self_interaction, half=True))
    opposite = [(j, i, -a, -b, -c) for i, j, a, b, c in half]
    loops = [(i, j, *s) for i, j, *s in half if i == j and not any(s)]
    assert len(loops) == (7 if self_interaction else 0)
    assert sorted(half + [e for e in opposite if e not in loops]) == full
    assert all(i < j or (i == j and tuple(s) >= (0, 0, 0)) for i, j, *s in half)


@devices
@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64], ids=["int32", "int64"])
@pytest.mark.parametrize("self_interaction", [False, True], ids=["without-self", "with-self"])
@pytest.mark.parametrize("pbc", PBC)
def test_reverse_is_the_place_of_the_opposite_edge(pbc, self_interaction, index_dtype, device):
    args = (*structure(2, 7, pbc, device=device), 2.6)
    edges = ops.neighbors(*args, self_interaction=self_interaction, want=EVERYTHING, index_dtype=index_dtype)
    rows = rows_of(edges)
    place = {row: k for k, row in enumerate(rows)}
    expected = [place[(j, i, -a, -b, -c)] for i, j, a, b, c in rows]
    assert edges.reverse.tolist() == expected
    assert torch.equal(edges.vectors[edges.reverse.long()], -edges.vectors)


@devices
@pytest.mark.parametrize("half", [False, True], ids=["full", "half"])
def test_transposed_rows_hold_the_edges_by_sender(half, device):
    edges = ops.neighbors(*structure(3, 9, (True, True, False), device=device), 2.2, half=half, want=EVERYTHING[::4])
    columns = edges.transposed
    for j in range(9):
        entries = range(int(columns.row_ptr[j]), int(columns.row_ptr[j + 1]))
        assert sorted(int(columns.edge[k]) for k in entries) == torch.nonzero(edges.senders == j).flatten().tolist()
        for k in entries:
            assert columns.index[k] == edges.receivers[columns.edge[k]]


@devices
@dtypes
def test_vectors_and_distances_are_those_of_the_definition(dtype, device):
    parts = [structure(s, n, PBC[s % 4], dtype, device) for s, n in enumerate([5, 4, 6])]
    positions, cells, pbc, first = batch_of(parts)
    edges = ops.neighbors(positions, cells, pbc, 1.5, first_atom=first, want=EVERYTHING)
    structure_of = torch.repeat_interleave(torch.arange(3, device=device), first.diff())
    topology = (edges.receivers, edges.senders, edges.shifts, structure_of)
    tolerance = 8 * torch.finfo(dtype).eps
    for ours, expected in zip(
        (edges.vectors, edges.distances), edge_vectors_reference(positions, cells, *topology), strict=True
    ):
        torch.testing.assert_close(ours, expected, rtol=tolerance, atol=tolerance)


@devices
@pytest.mark.parametrize("want", [("vectors",), ("distances",), ("vectors", "distances")], ids="+".join)
def test_derivatives(want, device):
    """First and second, against finite differences and the reference, for positions and cells of a batch."""
    parts = [structure(s, n, PBC[s % 4], device=device) for s, n in enumerate([3, 2])]
    positions, cells, pbc, first = batch_of(parts)
    positions.requires_grad_(), cells.requires_grad_()

    def function(r, c):
        edges = ops.neighbors(r, c, pbc, 1.3, first_atom=first, want=want)
        return tuple(getattr(edges, name) for name in want)

    assert torch.autograd.gradcheck(function, (positions, cells))
    assert torch.autograd.gradgradcheck(function, (positions, cells))
    edges = ops.neighbors(positions, cells, pbc, 1.3, first_atom=first, want=("receivers",))
    structure_of = torch.repeat_interleave(torch.arange(2, device=device), first.diff())
    topology = (edges.receivers, edges.senders, edges.shifts, structure_of)
    expected = dict(zip(("vectors", "distances"), edge_vectors_reference(positions, cells, *topology), strict=True))
    for name, ours in zip(want, function(positions, cells), strict=True):
        weight = torch.rand_like(ours.detach())
        for a, b in zip(
            torch.autograd.grad((ours * weight).sum(), (positions, cells), retain_graph=True),
            torch.autograd.grad((expected[name] * weight).sum(), (positions, cells), retain_graph=True),
            strict=True,
        ):
            torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)


@devices
def test_the_derivative_of_a_distance_of_zero_is_zero(device):
    positions = torch.zeros(2, 3, dtype=torch.float64, device=device, requires_grad=True)
    box, open_ = torch.zeros(3, 3, dtype=torch.float64, device=device), torch.zeros(3, dtype=torch.bool, device=device)
    edges = ops.neighbors(positions, box, open_, 1.0, want=("distances",), self_interaction=True)
    assert edges.distances.tolist() == [0.0] * 4
    (first,) = torch.autograd.grad(edges.distances.square().sum() + edges.distances.sum(), positions, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), positions)
    assert first.abs().max() == 0
    assert second.isfinite().all()


@devices
@pytest.mark.parametrize("n", [0, 1])
def test_no_edges(n, device):
    positions = torch.zeros(n, 3, device=device, requires_grad=True)
    cell, pbc = torch.eye(3, device=device), torch.zeros(3, dtype=torch.bool, device=device)
    edges = ops.neighbors(positions, cell, pbc, 0.5, want=EVERYTHING)
    assert edges.row_ptr.tolist() == [0] * (n + 1)
    assert edges.vectors.shape == (0, 3)
    (grad,) = torch.autograd.grad(edges.vectors.sum() + edges.distances.sum(), positions)
    assert torch.equal(grad, torch.zeros(n, 3, device=device))
    empty = ops.neighbors(
        positions[:0], cell[None][:0], pbc[None][:0], 0.5, first_atom=torch.zeros(1, dtype=torch.int64, device=device)
    )
    assert empty.row_ptr.tolist() == [0]


@devices
def test_non_contiguous_input_and_two_runs(device):
    positions, cell, pbc = structure(4, 20, (True, True, True), device=device)
    wide = torch.randn(20, 6, dtype=torch.float64, device=device)
    wide[:, ::2] = positions
    runs = [
        ops.neighbors(r, c, pbc, 1.5, want=EVERYTHING[:4])
        for r, c in ((positions, cell), (wide[:, ::2], cell.T.contiguous().T), (positions, cell))
    ]
    for other in runs[1:]:
        for a, b in zip(runs[0][:7], other[:7], strict=True):
            assert torch.equal(a, b)


def test_bits_do_not_depend_on_threads():
    args = (*structure(5, 300, (True, True, False)), 0.9)
    assert_same_bits_for_any_number_of_threads(lambda: ops.neighbors(*args, want=EVERYTHING[:4])[:7])


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own, while it compiles
@pytest.mark.parametrize("half", [False, True], ids=["full", "half"])
def test_operator_passes_opcheck_and_compiles(half):
    positions, cell, pbc = structure(6, 8, (True, False, True))
    args = (positions, cell, pbc, None, "pjSd" if half else "pjSiDdr", 1.4, False, half, False)
    torch.library.opcheck(torch.ops.mdgnn.neighbors.default, args)

    def energy(r, c):
        edges = ops.neighbors(r, c, pbc, 1.4, want=("distances",), half=half)
        return edges.distances.square().sum()

    positions.requires_grad_(), cell.requires_grad_()
    expected = torch.autograd.grad(energy(positions, cell), (positions, cell))
    gradients = torch.autograd.grad(
        torch.compile(energy, backend="aot_eager", fullgraph=True)(positions, cell), (positions, cell)
    )
    for a, b in zip(gradients, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": torch.zeros(2, 2)}, r"positions of shape \(N, 3\) in float32 or float64, got \(2, 2\)"),
        ({"positions": torch.zeros(2, 3, dtype=torch.int64)}, "float32 or float64, got .* torch.int64"),
        ({"cell": torch.eye(3).double()}, "cell of shape .* torch.float32 on cpu, got .* torch.float64"),
        ({"pbc": torch.ones(2, dtype=torch.bool)}, r"pbc of shape \(3,\) torch.bool"),
        ({"pbc": torch.ones(3)}, "pbc of shape .* torch.bool .*, got .* torch.float32"),
        ({"first_atom": torch.tensor([0, 2])}, r"cell of shape \(1, 3, 3\)"),
        ({"want": ("length",)}, "names out of receivers, vectors"),
        ({"want": "vectors"}, "names out of receivers, vectors"),
        ({"want": ("reverse",), "half": True}, "half list has no reverse"),
        ({"index_dtype": torch.int16}, "index_dtype torch.int32 or torch.int64"),
        ({"cutoff": 0.0}, "positive cutoff, got 0"),
        ({"positions": torch.tensor([[0, 0, 0], [0, float("inf"), 0]])}, "finite positions, got inf for atom 1"),
        ({"cell": torch.zeros(3, 3)}, "singular cell"),
    ],
)
def test_bad_input_gets_a_sentence(change, message):
    options = {"positions": torch.eye(3)[:2], "cell": torch.eye(3), "pbc": torch.ones(3, dtype=torch.bool)}
    options |= {"cutoff": 1.0, **change}
    args = [options.pop(name) for name in ("positions", "cell", "pbc", "cutoff")]
    with pytest.raises(ValueError, match=message):
        ops.neighbors(*args, **options)


@devices
@pytest.mark.parametrize("first", [[0, 3], [1, 2], [0, 2, 1, 2]])
def test_first_atoms_must_rise_from_zero_to_n(first, device):
    s = len(first) - 1
    cells, pbc = torch.eye(3, device=device).expand(s, 3, 3), torch.ones(s, 3, dtype=torch.bool, device=device)
    with pytest.raises(ValueError, match="rise from 0 to 2"):
        ops.neighbors(cells[0, :2], cells, pbc, 1.0, first_atom=torch.tensor(first, device=device))


@devices
def test_names_may_come_from_a_generator(device):
    edges = ops.neighbors(*structure(0, 5, PBC[1], device=device), 1.5, want=(name for name in ("vectors", "reverse")))
    assert edges.vectors is not None and edges.reverse is not None and edges.distances is None


@devices
@dtypes
@pytest.mark.parametrize("n", [200, 2100])
@pytest.mark.parametrize("pbc", PBC)
def test_lists_of_many_atoms_equal_numpys(pbc, n, dtype, device):
    """Of several warps, or blocks, in each of which atoms are nearer to the origin than in those before."""
    import mdgnn

    rng = np.random.default_rng(n)
    side = (n / 0.8) ** (1 / 3)
    r = (rng.random((n, 3)) * side).astype(str(dtype)[6:])
    r = r[np.argsort(-r.sum(1))]
    cell = np.eye(3, dtype=r.dtype) * side
    j, S, D = mdgnn.primitive_neighbor_list("jSD", pbc, cell, r, 1.1)
    edges = ops.neighbors(*(torch.tensor(x, device=device) for x in (r, cell, pbc)), 1.1, want=EVERYTHING)
    for ours, theirs in ((edges.senders, j), (edges.shifts, S), (edges.vectors, D)):
        np.testing.assert_array_equal(ours.cpu(), theirs)


@devices
def test_an_atom_at_minus_zero(device):
    """It is less than zero where numbers are compared as integers."""
    positions, cell, pbc = structure(7, 250, PBC[0], device=device)
    positions, corner = positions.abs(), positions[:1] * 0
    lists = [ops.neighbors(torch.cat([first, positions]), cell, pbc, 0.2) for first in (corner, -corner)]
    for plus, minus in zip(*lists, strict=True):
        assert (plus is None and minus is None) or torch.equal(plus, minus)
    assert len(lists[0].senders) > 60


@devices
@pytest.mark.parametrize("n", [100, 2100])
def test_of_several_bad_atoms_the_first_is_named(n, device):
    positions, cell, pbc = structure(0, n, PBC[0], device=device)
    positions[[n - 1, 41, 70, 35], 1] = torch.nan
    with pytest.raises(ValueError, match="finite positions, got .*nan.* for atom 35"):
        ops.neighbors(positions, cell, pbc, 1.0)


@devices
@dtypes
def test_a_row_with_one_edge_more_than_is_sorted_in_one_go(dtype, device):
    """A GPU sorts 512. All neighbours are images; in these cells it comes to find a 513th alone, behind the 512."""
    diagonals = 1 + torch.tensor([0.038, 0.0385, 0.0555])[:, None] + 0.015 * torch.arange(3)
    given = torch.zeros(3, 3, dtype=dtype), torch.diag_embed(diagonals).to(dtype), torch.ones(3, 3, dtype=torch.bool)
    first = torch.arange(4)
    expected = ops.neighbors(*given, 5.7, first_atom=first)
    assert expected.row_ptr.diff().min() > 600
    actual = ops.neighbors(*(t.to(device) for t in given), 5.7, first_atom=first.to(device))
    for ours, theirs in zip(actual[:3], expected[:3], strict=True):
        assert torch.equal(ours.cpu(), theirs)


@devices
@dtypes
def test_rows_longer_than_are_sorted_in_one_go(dtype, device):
    """About 700 edges an atom: a GPU sorts 512."""
    given = structure(3, 3, PBC[1], dtype)
    expected = ops.neighbors(*given, 6.5, want=EVERYTHING)
    assert expected.row_ptr.diff().min() > 520
    actual = ops.neighbors(*(t.to(device) for t in given), 6.5, want=EVERYTHING)
    for name in ("row_ptr", "senders", "shifts", *EVERYTHING[:-1]):
        assert torch.equal(getattr(actual, name).cpu(), getattr(expected, name)), name


@devices
@pytest.mark.parametrize(
    ("n", "cutoff"), [(2200, 1.1), pytest.param(6000, 1.1, marks=pytest.mark.sample("none")), (300, 6.0)]
)
def test_large_lists_equal_numpys(device, n, cutoff):
    """Several kernels on a GPU, and rows longer than are sorted in one go."""
    import mdgnn

    side = (n / 0.9) ** (1 / 3)
    r, cell = np.random.default_rng(0).random((n, 3)) * side, np.eye(3) * side
    j, S, D = mdgnn.primitive_neighbor_list("jSD", True, cell, r, cutoff)
    args = (torch.tensor(r, device=device), torch.tensor(cell, device=device))
    edges = ops.neighbors(*args, torch.ones(3, dtype=torch.bool, device=device), cutoff, want=EVERYTHING)
    for ours, theirs in ((edges.senders, j), (edges.shifts, S), (edges.vectors, D)):
        np.testing.assert_array_equal(ours.cpu(), theirs)
    assert torch.equal(edges.senders[edges.reverse], edges.receivers)
