"""message_passing_layer: against its reference for sizes around those of tiles, and on many atoms."""

import pytest
import torch
from kernels import assert_close, assert_same_bits_for_any_number_of_threads, dtypes, everything

from mdgnn.ops import EdgeRows, LayerWeights, Rows, message_passing_layer, rows_by
from mdgnn.ops.message_passing_layer import MESSAGE_PASSING_LAYER, Static, reference


def inputs_of(n_atoms, n_edges, sizes, dtype):
    """Static arguments and inputs for (F, B, H, K, G)."""
    g = torch.Generator().manual_seed(0)
    n_features, n_basis, width, n_messages, n_hidden = sizes
    rows = rows_by(torch.randint(n_atoms, (n_edges,), generator=g).sort().values, n_atoms)
    edges = EdgeRows(Rows(rows.row_ptr, torch.randint(n_atoms, (n_edges,), generator=g)))
    message = (width, 2 * n_features + n_basis), (width,), (n_messages, width), (n_messages,)
    update = (n_hidden, n_features + n_messages), (n_hidden,), (n_features, n_hidden), (n_features,)
    shapes = (n_atoms, n_features), (n_edges, n_basis), (n_atoms,), (n_edges,), *message, *update
    inputs = [torch.randn(*s, generator=g, dtype=torch.float64).to(dtype) / s[-1] ** 0.5 for s in shapes]
    return Static(edges), [x.requires_grad_() for x in inputs]


@dtypes
@pytest.mark.parametrize(
    ("n_atoms", "n_edges", "sizes"),
    [
        (1, 1, (1, 1, 1, 1, 1)),
        (7, 30, (16, 8, 16, 32, 33)),
        (13, 40, (17, 5, 32, 15, 31)),
        (300, 900, (32, 16, 32, 32, 32)),
        (600, 700, (48, 3, 8, 20, 40)),
    ],
)
def test_equals_its_reference(n_atoms, n_edges, sizes, dtype):
    static, inputs = inputs_of(n_atoms, n_edges, sizes, dtype)
    ours, expected = (
        everything(MESSAGE_PASSING_LAYER, static, inputs, function, loss=lambda results: results[0].square().mean())
        for function in (message_passing_layer, reference)
    )
    assert_close(ours, expected, {torch.float64: 1e-13, torch.float32: 3e-5}[dtype])


def test_shares_of_atoms_and_of_weights_do_not_show():
    static, inputs = inputs_of(1500, 4000, (40, 16, 32, 24, 32), torch.float32)

    def run():
        out = message_passing_layer(*MESSAGE_PASSING_LAYER.arguments(static, *inputs))
        return out, *torch.autograd.grad(out.square().sum(), inputs)

    assert_same_bits_for_any_number_of_threads(run)


@pytest.mark.parametrize(("name", "columns"), [("message_1", "4 + 2 columns, got 7"), ("update_1", "2 + 3 columns")])
def test_weights_that_do_not_fit_their_inputs_are_refused(name, columns):
    static, inputs = inputs_of(3, 5, (2, 2, 4, 3, 5), torch.float64)
    h, features, n_neighbours, envelope, *weights = inputs
    given = LayerWeights(*weights)
    wide = given._replace(**{name: torch.cat([getattr(given, name), getattr(given, name)[:, :1]], dim=1)})
    with pytest.raises(ValueError, match=f"expected {name} with {columns[:5]}".replace("+", r"\+")):
        message_passing_layer(h, features, static.edges, envelope, n_neighbours, wide)
