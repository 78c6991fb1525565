"""What torch does on a CUDA device, which the emulated one does too."""

import pytest
import torch

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def test_printing():
    x = torch.arange(3.0, device="cuda")
    assert repr(x) == "tensor([0., 1., 2.], device='cuda:0')"
    assert f"{x[1]:.2f}" == "1.00" and x.tolist() == [0.0, 1.0, 2.0] and x.is_cuda


def test_indexing():
    on_cpu = torch.arange(12.0).reshape(3, 4)
    x, numbers = on_cpu.cuda(), torch.tensor([2, 0])
    mask = on_cpu > 4
    for index in (1, slice(0, 3, 2), numbers, mask, (numbers, 1), (Ellipsis, None, 2)):
        moved = tuple(
            i.cuda() if isinstance(i, torch.Tensor) else i for i in (index if isinstance(index, tuple) else (index,))
        )
        assert torch.equal(x[moved].cpu(), on_cpu[index])
    x[mask.cuda()] = -1
    x[numbers.cuda(), 0] += 3
    on_cpu[mask] = -1
    on_cpu[numbers, 0] += 3
    assert torch.equal(x.cpu(), on_cpu)
    assert x[1:].t().data_ptr() == x.data_ptr() + 16  # views share memory


def test_comparison():
    x = torch.tensor([1.0, torch.nan, 3.0], device="cuda")
    assert not torch.equal(x, x) and torch.equal(x[::2], x[::2].clone()) and not torch.equal(x[:1], x[2:])
    assert (x == x).tolist() == [True, False, True] and (x > 2).any() and torch.allclose(x, x.clone(), equal_nan=True)
    with pytest.raises(RuntimeError, match="device"):
        x + torch.ones(3)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_optimizers(optimizer):
    parameters = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.SiLU(), torch.nn.Linear(5, 1)).double().to(device)
        steps = optimizer(model.parameters(), lr=0.1)
        x = torch.linspace(-1, 1, 12, dtype=torch.float64, device=device).reshape(4, 3)
        for _ in range(3):
            steps.zero_grad()
            model(x).square().sum().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            steps.step()
        parameters.append([p.detach().cpu() for p in model.parameters()])
    for on_cpu, on_gpu in zip(*parameters, strict=True):
        torch.testing.assert_close(on_gpu, on_cpu, rtol=1e-12, atol=1e-12)


def captured(step):
    """A graph of a step, which has run once before."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph


def test_a_graph_runs_when_it_is_replayed():
    """Capturing computes nothing; a replay works on what is in memory then."""
    x, total = torch.ones(3, device="cuda"), torch.zeros(1, device="cuda")
    graph = captured(lambda: total.add_((x * x).sum()))
    assert total.item() == 3.0
    for expected in (3 + 12, 3 + 12 + 12):
        x.fill_(2.0)
        graph.replay()
        assert total.item() == expected


WAITS = {
    "item": lambda x, mask: x.sum().item(),
    "nonzero": lambda x, mask: x.nonzero(),
    "equal": lambda x, mask: torch.equal(x, x),
    "a mask": lambda x, mask: x[mask],
    "a mask and numbers": lambda x, mask: x.__setitem__(mask, torch.zeros(2, device="cuda")),
    "bincount": lambda x, mask: torch.bincount(x.long()),
    "repeat_interleave": lambda x, mask: x.repeat_interleave(x.long()),
    "unique": lambda x, mask: x.unique(),
    "copy": lambda x, mask: x.cpu(),
}
DOES_NOT = {
    "a mask and a number": lambda x, mask: x.__setitem__(mask, 0.0),
    "indices": lambda x, mask: x[mask.long()],
    "repeat_interleave of a size": lambda x, mask: x.repeat_interleave(x.long(), output_size=3),
    "where": lambda x, mask: torch.where(mask, x, 0.0),
}


@pytest.mark.parametrize("waits", WAITS)
def test_a_capture_must_not_wait_for_the_device(waits):
    x, mask = torch.ones(3, device="cuda"), torch.tensor([True, False, True], device="cuda")
    with pytest.raises(RuntimeError, match="captur"):
        captured(lambda: WAITS[waits](x, mask))


@pytest.mark.parametrize("name", DOES_NOT)
def test_what_waits_for_nothing_may_be_captured(name):
    """And a replay computes it, of what is in memory then."""
    step, made = DOES_NOT[name], []
    x, mask = torch.ones(3, device="cuda"), torch.tensor([True, False, True], device="cuda")
    graph = captured(lambda: made.append(step(x, mask)))
    on_cpu = torch.tensor([0.0, 1.0, 2.0])
    x.copy_(on_cpu)
    graph.replay()
    expected = step(on_cpu, mask.cpu())
    ours, theirs = (x, on_cpu) if expected is None else (made[-1], expected)
    assert torch.equal(ours.cpu(), theirs) and not torch.equal(theirs, torch.ones(3))
