"""force_virial: its formula, derivatives, operators, edge cases, bits."""

from importlib import import_module

import pytest
import torch
from kernels import devices, dtypes

from mdgnn.ops import EdgeRows, Rows, force_virial, rows_by

reference = import_module("mdgnn.ops.force_virial").reference


def problem(n=7, n_edges=23, device="cpu", dtype=torch.float64):
    """Gradients, vectors and edges of a graph without symmetry, with self loops; atom 2 has no edges."""
    g = torch.Generator().manual_seed(0)
    ends = torch.randint(0, max(n, 1), (2, n_edges), generator=g)
    ends[ends == 2] = 0
    receivers = ends[0].sort().values.to(device)
    gradients = torch.randn(n_edges, 3, dtype=torch.float64, generator=g).to(device, dtype)
    vectors = torch.randn(n_edges, 3, dtype=torch.float64, generator=g).to(device)
    rows = Rows(rows_by(receivers, n).row_ptr, ends[1].to(device))
    return gradients, vectors, EdgeRows(rows)


@devices
@dtypes
def test_equals_its_formula(device, dtype):
    gradients, vectors, edges = problem(device=device, dtype=dtype)
    for given in (None, vectors):
        expected = reference(gradients, edges, given)
        outputs = force_virial(gradients, edges, given)
        tracked = force_virial(gradients.clone().requires_grad_(), edges, given)
        for a, b, c in zip(expected, outputs, tracked, strict=True):
            if a is None:
                assert b is None and c is None
                continue
            torch.testing.assert_close(b, a, rtol=0, atol=1e-14)
            assert torch.equal(b, c.detach()), "one sum, one order, the same bits"
            assert not b[2].any(), "an atom without edges gets zero"
    total = -torch.einsum("ka,kb->ab", gradients.double(), vectors)
    torch.testing.assert_close(outputs[1].sum(0), (total + total.T) / 2, rtol=0, atol=1e-13)
    assert torch.equal(outputs[1], outputs[1].transpose(1, 2))
    for again in (force_virial(gradients, edges, vectors), force_virial(gradients, edges, vectors)):
        assert torch.equal(again[0], outputs[0]) and torch.equal(again[1], outputs[1]), "two runs differ"


def test_bad_input_gets_a_sentence():
    gradients, vectors, edges = problem()
    for bad in (gradients[:, :2], gradients[0], gradients[1:], gradients[1:].clone().requires_grad_()):
        with pytest.raises(ValueError, match=r"gradients of shape \(23, 3\)"):
            force_virial(bad, edges)
    with pytest.raises(ValueError, match="gradients in float32 or float64, got torch.float16"):
        force_virial(gradients.half(), edges)
    rows = edges.by_receiver
    with pytest.raises(ValueError, match="row_ptr to rise from 0 to the number of entries, 23"):
        force_virial(gradients, EdgeRows(Rows(rows.row_ptr.clamp(max=22), rows.index), edges.by_sender))
    with pytest.raises(ValueError, match="senders below 7"):
        force_virial(gradients, EdgeRows(Rows(rows.row_ptr, rows.index + 7), edges.by_sender))
    for bad in (vectors.float(), vectors[1:]):
        with pytest.raises(ValueError, match=r"vectors of shape \(23, 3\) torch.float64"):
            force_virial(gradients, edges, bad)
