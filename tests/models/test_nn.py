"""Parts of networks: radial bases, shifted softplus, chunks of atoms, filters and when their tables are kept."""

import copy
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from ase import Atoms
from kernels import assert_same_bits_for_any_number_of_threads, dtypes
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from mdgnn import Graph, PaiNN, SchNet, evaluate
from mdgnn.nn import (
    BASES,
    ENVELOPES,
    MLP,
    BesselBasis,
    ExponentialBasis,
    Filters,
    GaussianBasis,
    by_chunks,
    shifted_softplus,
)
from mdgnn.nn.filters import call_in_float64
from mdgnn.ops import radial_filter
from mdgnn.ops.dual import Dual

R = torch.linspace(0.1, 4.9, 23, dtype=torch.float64)


@pytest.fixture
def in_double():
    """Centres and frequencies are made in the default dtype: in float32 they are rounded."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def assert_equal(result, expected):
    """To the rounding of float64."""
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-14 * max(1.0, float(expected.abs().max())))


@pytest.mark.usefixtures("in_double")
def test_gaussians_are_as_wide_as_their_spacing():
    basis = GaussianBasis(6, 5.0, start=0.5)
    assert_equal(basis(R), [[math.exp(-((r - (0.5 + 0.9 * k)) ** 2) / (2 * 0.9**2)) for k in range(6)] for r in R])


@pytest.mark.usefixtures("in_double")
def test_bessel_functions():
    basis = BesselBasis(4, 5.0)
    assert_equal(basis(R), [[math.sin(n * math.pi * r / 5) / r for n in range(1, 5)] for r in R])
    at_zero = basis(Dual(torch.zeros(1), torch.ones(1)))
    torch.testing.assert_close(at_zero.value[0], basis.frequencies, rtol=1e-11, atol=0)
    assert not at_zero.slope.any(), "the functions are even"


@pytest.mark.usefixtures("in_double")
def test_exponential_functions_are_those_of_physnet():
    """With a cutoff of 2.5, where a is 1; and the same functions of (r - start) / (cutoff - start)."""
    centers, b = [math.exp(-2.5) + k * (1 - math.exp(-2.5)) / 6 for k in range(7)], (2 / 7 * (1 - math.exp(-2.5))) ** -2
    expected = [[math.exp(-b * (math.exp(-r) - mu) ** 2) for mu in centers] for r in R.tolist()]
    assert_equal(ExponentialBasis(7, 2.5)(R), expected)
    assert_equal(ExponentialBasis(7, 6.0, start=1.0)(1 + 2 * R), expected)


def test_envelopes_are_their_formulas():
    r = torch.linspace(0, 4, 33, dtype=torch.float64)
    inside = [min(x, 3.0) / 3.0 for x in r.tolist()]
    assert_equal(ENVELOPES["cosine"](r, 3.0), [(1 + math.cos(math.pi * x)) / 2 for x in inside])
    assert_equal(ENVELOPES["polynomial"](r, 3.0), [1 - 28 * x**6 + 48 * x**7 - 21 * x**8 for x in inside])
    assert list(ENVELOPES) == ["cosine", "polynomial"], "a new one has a formula"


@pytest.mark.parametrize("basis", list(BASES))
def test_bases_are_differentiable_twice_and_have_slopes_for_tables(basis):
    functions = BASES[basis](3, 5.0).double()
    assert gradcheck(functions, R.clone().requires_grad_())
    assert gradgradcheck(functions, R.clone().requires_grad_())
    of_r = torch.autograd.functional.jacobian(lambda r: functions(r).sum(0), R).T  # row r depends on r alone
    assert_equal(functions(Dual(R, torch.ones_like(R))).slope, of_r)


def test_too_few_basis_functions_get_a_sentence():
    with pytest.raises(ValueError, match="two Gaussians or more.*got 1"):
        GaussianBasis(1, 5.0)
    with pytest.raises(ValueError, match="one Bessel function or more, got 0"):
        BesselBasis(0, 5.0)
    with pytest.raises(ValueError, match="two functions or more.*got 1"):
        ExponentialBasis(1, 5.0)
    with pytest.raises(ValueError, match="finite cutoff.*got inf"):
        ExponentialBasis(4, math.inf)


@pytest.mark.parametrize("architecture", [SchNet, PaiNN])
@pytest.mark.parametrize(("basis", "start"), [("bessel", 0.5), ("gaussian", 5.0), ("exponential", -0.1)])
def test_where_no_basis_can_begin(architecture, basis, start):
    with pytest.raises(ValueError, match=f"basis_start.*got {start}"):
        architecture(8, 1, 4, basis=basis, basis_start=start, cutoff=5.0)
    assert architecture(8, 1, 4, basis="gaussian", basis_start=0.5).filters.basis.centers[0] == 0.5


@dtypes
def test_shifted_softplus_and_its_derivatives(dtype):
    x = torch.tensor([-200, -90, -20, -3, -1e-3, 0, 1e-3, 3, 20, 90, 200], dtype=dtype, requires_grad=True)
    y, sigmoid = shifted_softplus(x), torch.sigmoid(x)
    few = {"rtol": 4 * torch.finfo(dtype).eps, "atol": torch.finfo(dtype).eps}
    torch.testing.assert_close(y, F.softplus(x) - math.log(2), **few)
    (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    torch.testing.assert_close(first, sigmoid, **few)
    torch.testing.assert_close(torch.autograd.grad(first.sum(), x)[0], sigmoid * (1 - sigmoid), **few)
    torch.testing.assert_close(shifted_softplus(Dual(x, torch.ones_like(x))).slope, sigmoid, **few)


@dtypes
@pytest.mark.parametrize("n", [33000, 86415, 100003])
def test_bits_of_shifted_softplus_do_not_depend_on_threads(dtype, n):
    """Those of torch's softplus do, where a thread's share is not a multiple of the vector width."""
    x = (4 * torch.randn(n, dtype=dtype, generator=torch.Generator().manual_seed(0))).requires_grad_()

    def run():
        y = shifted_softplus(x)
        return y, *torch.autograd.grad(y.sum(), x)

    assert_same_bits_for_any_number_of_threads(run)


def filters(mode="table", n_knots=65):
    torch.manual_seed(0)
    networks = (nn.Sequential(nn.Linear(4, 3), nn.Softplus(), nn.Linear(3, 3)) for _ in range(2))
    made = Filters(networks, GaussianBasis(4, 5.0), "polynomial", cutoff=5.0, mode=mode, n_knots=n_knots)
    return made.double()


def knots(made):
    return [table.coefficients for table in made.tables()]


def test_direct_filters_are_networks_of_the_basis_times_the_envelope():
    made = filters("direct")
    x = R / 5
    envelope = (1 - 28 * x**6 + 48 * x**7 - 21 * x**8)[:, None]
    for filter, network in zip(made(R), made.networks, strict=True):
        assert_equal(filter, (network(made.basis(R)) * envelope).detach())
    assert [f.shape for f in made(R[:0])] == [(0, 3), (0, 3)]


def test_tables_interpolate_the_direct_filters():
    for tabulated, expected in zip(filters(n_knots=1025)(R), filters("direct")(R), strict=True):
        torch.testing.assert_close(radial_filter(*tabulated), expected, rtol=0, atol=1e-10)


def test_tables_are_kept_until_a_parameter_changes():
    made = filters().requires_grad_(False)
    first = made.tables()
    assert made.tables() is first

    def in_place():
        made.networks[0][2].bias.add_(1.0)

    def new_data():
        made.networks[1][0].weight.data = made.networks[1][0].weight * 2

    def new_parameter():
        made.networks[1][0].weight = nn.Parameter(made.networks[1][0].weight * 2, requires_grad=False)

    def loaded():
        made.load_state_dict({k: 0.5 * v for k, v in made.state_dict().items()})

    def assigned():
        made.load_state_dict({k: 0.5 * v for k, v in made.state_dict().items()}, assign=True)

    def moved_basis():
        made.basis.centers.add_(0.1)

    for change in (in_place, new_data, new_parameter, loaded, assigned, moved_basis, made.float, made.double):
        before = made.tables()
        change()
        assert made.tables() is not before, change.__name__
        fresh = copy.deepcopy(made)
        assert all(torch.equal(a, b) for a, b in zip(knots(made), knots(fresh), strict=True)), change.__name__


def test_tables_are_made_anew_while_parameters_are_trained():
    made = filters()
    assert made.tables() is not made.tables() and knots(made)[0].requires_grad
    with torch.no_grad():
        kept = made.tables()
        assert made.tables() is kept and not kept[0].coefficients.requires_grad
    assert knots(made)[0].requires_grad, "tables that are kept without gradients do not serve training"


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad])
def test_steps_that_are_fused_are_seen_by_tables(optimizer):
    """torch does not count what they write."""
    made = filters()
    step = optimizer(made.parameters(), lr=0.1, fused=True).step
    for _ in range(2):
        with torch.no_grad():
            before = made.tables()
        sum(table.coefficients.square().sum() for table in made.tables()).backward()
        step()
        with torch.no_grad():
            assert made.tables() is not before
            assert all(torch.equal(a, b) for a, b in zip(knots(made), knots(copy.deepcopy(made)), strict=True))


def test_tables_of_inference_mode_are_not_kept_for_autograd():
    made = filters().requires_grad_(False)
    with torch.inference_mode():
        made(R)
    r = R.clone().requires_grad_()
    (slope,) = torch.autograd.grad(radial_filter(*made(r)[0]).sum(), r)
    assert slope.shape == r.shape and slope.any()


def test_tables_are_neither_state_nor_copied():
    made = filters().requires_grad_(False)
    names, size = list(made.state_dict()), len(pickle.dumps(made))
    before = knots(made)
    assert list(made.state_dict()) == names and len(pickle.dumps(made)) == size
    for other in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert all(torch.equal(a, b) for a, b in zip(knots(other), before, strict=True))
        with torch.no_grad():
            other.networks[0][0].weight.zero_()
        assert not torch.equal(knots(other)[0], before[0])
    assert knots(made)[0] is before[0], "copies leave the original's alone"


def test_chunks_of_atoms_change_no_derivative(monkeypatch):
    a, b = torch.randn(2, 11, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weight = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)

    def function(a, b):
        calls.append(len(a))
        return torch.tanh(a @ weight) * b, (a * b).sum(1)

    derivatives = []
    for rows in (8192, 4):
        monkeypatch.setattr("mdgnn.nn.chunks.ATOMS", rows)
        calls = []
        x, y = by_chunks(function, a, b)
        first = torch.autograd.grad((x.square().sum(1) * y).sum(), (a, b), create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), (a, b, weight))
        derivatives.append((x, y, *first, *second))
        assert calls[:3] == [[11], [4, 4, 3]][rows == 4][:3], "whole below, in chunks of similar size above"
    for whole, parts in zip(*derivatives, strict=True):
        torch.testing.assert_close(parts, whole, rtol=0, atol=1e-14 * float(whole.detach().abs().max()))


def test_bits_of_chunks_do_not_depend_on_threads():
    """Also where the last chunk would be a few rows, whose products have other bits."""
    layers = MLP(64, 64, 192)
    x = torch.randn(8197, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()

    def run():
        (y,) = by_chunks(lambda x: (layers(x),), x)
        return y, *torch.autograd.grad(y.square().sum(), x)

    assert_same_bits_for_any_number_of_threads(run)


def test_shift_and_scale_move_with_a_model_and_stay_float64():
    """At every call they were copied to the device, which no CUDA graph can capture."""
    model = SchNet(8, 1, 6, elements=[1, 8], cutoff=2.0, shift=[-1e6, 1.0]).to(torch.float32)
    assert model.elements.shift.dtype == torch.float64 and model.elements.shift.tolist() == [0.0, -1e6, 1.0]
    moved = model.to("meta").elements
    assert moved.shift.device == moved.scale.device == moved.type_of.device == torch.device("meta")


@pytest.mark.parametrize("kind", [PaiNN, SchNet])
def test_models_made_without_memory_are_those_of_their_state(kind):
    """The table of types is no part of the state, and `to_empty` initialises nothing."""
    graph = Graph.from_atoms(Atoms("ArO", [[0, 0, 0], [1.5, 0, 0]]), 3.0)

    def make():
        return kind(8, 1, 6, elements=[18, 8], cutoff=3.0, shift=[-1.0, 2.0], scale=[3.0, 4.0])

    torch.manual_seed(0)
    expected = make()
    with torch.device("meta"):
        model = make()
    assert {t.device.type for t in model.state_dict().values()} == {"meta"}
    model.to_empty(device="cpu").load_state_dict(expected.state_dict())
    assert torch.equal(model.elements.type_of, expected.elements.type_of)
    a, b = evaluate(model, graph), evaluate(expected, graph)
    assert torch.equal(a.energies, b.energies) and torch.equal(a.forces, b.forces)


class Picks(nn.Module):
    """Some of its inputs, by a buffer of integers."""

    def __init__(self):
        super().__init__()
        self.register_buffer("picked", torch.tensor([2, 0]))
        self.factor = nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        return self.factor * x[:, self.picked]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own
@pytest.mark.parametrize("compiled", [False, True])
def test_integers_of_a_module_stay_integers_where_it_runs_in_float64(compiled):
    module, x = Picks(), torch.rand(4, 3, dtype=torch.float64)
    torch._dynamo.reset()
    function = torch.compile(call_in_float64, backend="aot_eager") if compiled else call_in_float64
    out = function(module, x)
    assert out.dtype == torch.float64 and torch.equal(out, 2 * x[:, [2, 0]])
    assert module.picked.dtype == torch.int64 and module.factor.dtype == torch.float32
