"""Adam and AdamW in one call are torch's."""

import copy
import weakref

import pytest
import torch

from mdgnn import _C
from mdgnn.training.adam import Adam, AdamW

PAIRS = {"adam": (Adam, torch.optim.Adam), "adamw": (AdamW, torch.optim.AdamW)}


def network(dtype=torch.float64):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(5, 17), torch.nn.SiLU(), torch.nn.Linear(17, 1)).to(dtype)


def gradients(model, step):
    x = torch.randn(20, 5, generator=torch.Generator().manual_seed(step), dtype=model[0].weight.dtype)
    model.zero_grad()
    (model(x).square().mean() + x.sum() * model(x).mean()).backward()


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("weight_decay", [0, 0.3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_steps_are_torchs(kind, amsgrad, weight_decay, dtype):
    ours, theirs = network(dtype), network(dtype)
    options = {"lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-6, "weight_decay": weight_decay, "amsgrad": amsgrad}
    optimizer, torchs = (make(m.parameters(), **options) for make, m in zip(PAIRS[kind], (ours, theirs), strict=True))
    for step in range(12):
        for model, optim in ((ours, optimizer), (theirs, torchs)):
            gradients(model, step)
            optim.param_groups[0]["lr"] = 0.01 / (1 + step)
            optim.step()
    tolerance = {torch.float64: 1e-13, torch.float32: 2e-6}[dtype]
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
        for name, state in torchs.state[b].items():
            torch.testing.assert_close(
                optimizer.state[a][name], state, rtol=tolerance, atol=tolerance, check_dtype=False
            )


def after_steps(*optimizers_of, change=lambda optimizer, step: None):
    """The parameters of equal networks after steps of each optimiser, before which `change` is called."""
    results = []
    for make in optimizers_of:
        model = network()
        optimizer = make(model.parameters())
        for step in range(6):
            gradients(model, step)
            change(optimizer, step)
            optimizer.step()
        results.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    return results


@pytest.mark.parametrize(
    "options", [{"decoupled_weight_decay": True}, {"foreach": True}, {"differentiable": False}, {"fused": False}]
)
def test_options_are_torchs(options):
    options = {"lr": 0.1, "weight_decay": 0.3, **options}
    ours, torchs = after_steps(*(lambda p, make=make: make(p, **options) for make in (Adam, torch.optim.Adam)))
    torch.testing.assert_close(ours, torchs, rtol=1e-13, atol=1e-13)


def test_what_a_gradient_scaler_sets_is_looked_at():
    def scale(optimizer, step):
        if step > 3:
            optimizer.grad_scale, optimizer.found_inf = torch.tensor(4.0), torch.tensor(float(step == 4))

    makes = [lambda p, make=make: make(p, lr=0.1, fused=True) for make in (Adam, torch.optim.Adam)]
    ours, torchs = after_steps(*makes, change=scale)
    torch.testing.assert_close(ours, torchs, rtol=1e-13, atol=1e-13)


def test_moments_in_the_place_of_others_are_those_of_the_next_step():
    def replace(optimizer, step):
        for state in optimizer.state.values():
            if step == 4:
                state["exp_avg"] = 2 * state["exp_avg"]

    ours, torchs = after_steps(
        *(lambda p, make=make: make(p, lr=0.1) for make in (Adam, torch.optim.Adam)), change=replace
    )
    torch.testing.assert_close(ours, torchs, rtol=1e-13, atol=1e-13)


def test_is_one_call(monkeypatch):
    """But for the first, which makes the state and is torch's."""
    calls = []

    def recorded(name, function):
        return lambda *args, **options: (calls.append(name), function(*args, **options))[1]

    monkeypatch.setattr(torch, "_fused_adam_", recorded("torch", torch._fused_adam_))
    monkeypatch.setattr(_C, "adam_step", recorded("ours", _C.adam_step))
    model = network()
    optimizer = Adam(model.parameters())
    for step in range(3):
        gradients(model, step)
        optimizer.step()
    assert calls == ["torch", "ours", "ours"]


def test_a_loaded_state_takes_the_place_of_the_one_before():
    """Whose memory is not held."""
    model = network()
    optimizer = Adam(model.parameters(), lr=0.1)
    for step in range(3):
        gradients(model, step)
        optimizer.step()
    for _ in range(2):
        saved = copy.deepcopy(optimizer.state_dict())
        before_loading = weakref.ref(optimizer.state[model[0].weight]["exp_avg"])
        optimizer.load_state_dict(copy.deepcopy(saved))
        assert before_loading() is None
        gradients(model, 3)
        optimizer.step()
        for before, p in zip(saved["state"].values(), model.parameters(), strict=True):
            assert float(optimizer.state[p]["step"]) == float(before["step"]) + 1


def test_a_state_is_exchanged_with_torchs():
    model = network()
    optimizer = Adam(model.parameters(), lr=0.1)
    for step in range(2):
        gradients(model, step)
        optimizer.step()
    other = copy.deepcopy(model)
    torchs = torch.optim.Adam(other.parameters(), lr=0.1, fused=True)
    torchs.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    ours = Adam(model.parameters(), lr=0.1)
    ours.load_state_dict(copy.deepcopy(torchs.state_dict()))
    for m, optim in ((model, ours), (other, torchs)):
        gradients(m, 2)
        optim.step()
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)


def test_parameters_without_a_gradient_stay_and_others_are_seen_to_have_changed():
    model = network()
    optimizer = Adam(model.parameters())
    for step in range(2):
        gradients(model, step)
        model[0].bias.grad = None
        before, versions = model[0].bias.clone(), [p._version for p in model.parameters()]
        optimizer.step()
        assert torch.equal(model[0].bias, before)
        changed = [p._version > v for p, v in zip(model.parameters(), versions, strict=True)]
        assert changed == [True, False, True, True]


@pytest.mark.parametrize("layout", ["strided", "of two dtypes"])
def test_what_is_not_dense_in_one_dtype_is_left_to_torch(layout):
    """Reading it as if it were would give other numbers."""
    wide = torch.arange(12.0).reshape(3, 4)
    both = [torch.nn.Parameter(wide.clone().t() if layout == "strided" else wide.clone()) for _ in range(2)]
    second = [torch.nn.Parameter(torch.ones(2, dtype=torch.float64 if layout != "strided" else None)) for _ in both]
    optimizers = [make([p, q], lr=0.1) for make, p, q in zip((Adam, torch.optim.Adam), both, second, strict=True)]
    for _ in range(3):
        for optimizer, p, q in zip(optimizers, both, second, strict=True):
            p.grad, q.grad = torch.arange(12.0).reshape(p.shape), torch.ones_like(q)
            optimizer.step()
    torch.testing.assert_close(both[0], both[1])
    torch.testing.assert_close(second[0], second[1])


def test_a_closure_is_called():
    model, losses = network(), []
    optimizer = Adam(model.parameters(), lr=0.01)

    def closure():
        gradients(model, 0)
        losses.append(sum(float(p.grad.abs().sum()) for p in model.parameters()))
        return losses[-1]

    assert [optimizer.step(closure) for _ in range(2)] == losses and losses[1] < losses[0]
