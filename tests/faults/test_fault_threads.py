"""Threads (wrong numbers): calculators made and used by several threads at once, each in a process that is new.

Torch's forward mode, by which tables were made, keeps its state in one place: of 30 calculators 24 ended in "invalid
index of forward AD level", and one returned another energy without a word.
"""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from systems import crystal, gnn, radial
from warnings_as_errors import WARNINGS_AS_ERRORS

import mdgnn
from mdgnn.engine import UnsupportedError
from mdgnn.threads import one_torch_thread

ROUNDS = int(os.environ.get("MDGNN_ROUNDS", "8"))
N_THREADS = 8

# Torch is loaded once, and has no threads yet; all else is new in each child: imports, registration, pools, models.
ROUND = """
import os, sys, threading
import numpy as np, torch, ase, ase.build, ase.calculators.calculator

def prepare():
    pass  # what all threads of a child share

def child():
    import mdgnn.threads
    mdgnn.threads._forked = False  # torch had no threads in the parent that could have been lost
    prepare()
    barrier, results, problems = threading.Barrier({n_threads}), [], []

    def work(k):
        try:
            barrier.wait()
            results.append(one(k))
        except BaseException as error:
            problems.append(repr(error))

    workers = [threading.Thread(target=work, args=(k,)) for k in range({n_threads})]
    [w.start() for w in workers]
    [w.join() for w in workers]
    if problems or len(set(results)) > 1:
        print(problems or set(results), file=sys.stderr)
    return bool(problems) or len(set(results)) > 1

{one}

if {rounds} == 0:
    sys.exit(child())
for _ in range({rounds}):
    pid = os.fork()
    if pid == 0:
        os._exit(child())
    if os.waitpid(pid, 0)[1]:
        sys.exit("a round failed")
"""

CALCULATOR = """
def one(k):
    from mdgnn import MDGNNCalculator
    atoms = ase.build.bulk("H" if {model!r} == "water" else "Ar", "fcc", a=1.55, cubic=True) * 2
    atoms.positions += np.random.default_rng(0).normal(0, 0.05, atoms.positions.shape)
    atoms.calc = MDGNNCalculator({model!r}, backend={backend!r}, dtype={dtype!r})
    assert atoms.calc.backend == {backend!r}
    return atoms.get_potential_energy(), atoms.get_forces().tobytes(), atoms.get_stress().tobytes()
"""


def assert_all_threads_agree(one, n_rounds=ROUNDS):
    code = ROUND.format(n_threads=N_THREADS, rounds=n_rounds, one=textwrap.dedent(one))
    done = subprocess.run(
        [sys.executable, *WARNINGS_AS_ERRORS, "-c", code], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-2000:]


CASES = [("lj", "engine", "float32"), ("lj", "torch", "float32"), ("water", "torch", "float64")]


@pytest.mark.parametrize(("model", "backend", "dtype"), CASES)
def test_calculators_made_and_used_at_once(model, backend, dtype):
    assert_all_threads_agree(CALCULATOR.format(model=model, backend=backend, dtype=dtype))
    assert_all_threads_agree(
        CALCULATOR.format(model=model, backend=backend, dtype=dtype), 0
    )  # in a process that is no fork


def test_first_uses_of_all_else():
    """Searches, files, ops on torch's dispatcher, random numbers of the caller, one model shared by all."""
    assert_all_threads_agree(
        """
        def one(k):
            import mdgnn
            from mdgnn.dynamics.lj_frames import compact
            rng = np.random.default_rng(0)
            positions = rng.random((4000, 3)) * 11
            edges = mdgnn.NeighborList(1.2, 0.1).update(positions)
            graph = mdgnn.Graph.from_atoms(compact(13, rng), 2.5)
            model = mdgnn.SchNet(8, 2, 6, cutoff=2.5)  # its weights are torch's random numbers, of all threads
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.copy_(torch.linspace(-1, 1, parameter.numel()).reshape(parameter.shape))
            prediction = mdgnn.evaluate(model, graph, create_graph=True)
            (prediction.forces.square().sum() + prediction.energy.sum()).backward()
            gradients = [p.grad.double().sum().item() for p in model.parameters()]
            return edges.distances.tobytes(), prediction.forces.detach().numpy().tobytes(), *gradients
        """,
        n_rounds=max(2, ROUNDS // 2),
    )


def test_one_model_in_many_threads():
    """Its tables were made by changing its parameters for a while, which others then used."""
    assert_all_threads_agree(
        """
        atoms = ase.build.bulk("Ar", "fcc", a=1.55, cubic=True)

        def prepare():
            global models
            from mdgnn import PaiNN
            torch.manual_seed(0)
            options = {"cutoff": 2.5, "basis": "exponential", "repulsion": 0.9}
            models = [PaiNN(8, 2, 6, **options).requires_grad_(False) for _ in range(4)]

        def one(k):
            from mdgnn import Graph, evaluate
            graph = Graph.from_atoms(atoms, 2.5)
            energies = {m: evaluate(models[m], graph).energy.item() for m in sorted(range(4), reverse=k % 2 == 0)}
            return tuple(energies[m] for m in range(4))
        """,
        n_rounds=max(2, ROUNDS // 2),
    )


def test_numbers_of_torch_threads_come_back():
    """Two runs at once, each on one thread: whoever left last gave back what the first one had set."""
    import threading

    before, steps = torch.get_num_threads(), [threading.Event() for _ in range(3)]
    seen = []

    def first():
        with one_torch_thread():
            steps[0].set()
            steps[1].wait(10)
        seen.append(torch.get_num_threads())
        steps[2].set()

    def second():
        steps[0].wait(10)
        with one_torch_thread():
            steps[1].set()
            steps[2].wait(10)
        seen.append(torch.get_num_threads())

    workers = [threading.Thread(target=work) for work in (first, second)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(20)
    assert seen == [before, before] and torch.get_num_threads() == before


def test_a_fallback_speaks():
    """In threads the engine's error was hidden, and torch computed, several times as slow."""
    with pytest.warns(UserWarning, match="computed by torch.*engine cannot run this SimpleGNN"):
        calculator = mdgnn.MDGNNCalculator(gnn(aggregation="max"))
    assert calculator.backend == "torch"
    with pytest.raises(UnsupportedError, match="SimpleGNN"):
        mdgnn.MDGNNCalculator(gnn(aggregation="max"), backend="engine")
    for silent in (mdgnn.LennardJones(), radial("SchNet")):
        mdgnn.MDGNNCalculator(silent)  # warnings are errors here


def test_making_tables_loads_no_compiler():
    """It took 4.4 s of torch._dynamo and sympy out of every start."""
    code = (
        "import sys, mdgnn; mdgnn.MDGNNCalculator('lj'); mdgnn.MDGNNCalculator('lj', backend='torch')\n"
        "assert not {'torch._dynamo', 'sympy'} & set(sys.modules), 'loaded'"
    )
    subprocess.run([sys.executable, *WARNINGS_AS_ERRORS, "-c", code], check=True, timeout=120)


def test_slopes_of_tables_are_exact():
    """By dual numbers, against torch's own forward mode, of every basis, envelope and network."""
    from mdgnn.nn import BASES, ENVELOPES, MLP, ShiftedSoftplus
    from mdgnn.ops.dual import Dual

    torch.manual_seed(0)
    r = torch.linspace(0, 5, 101, dtype=torch.float64)
    for make in BASES.values():
        basis = make(6, 5.0).double()
        for envelope in ENVELOPES.values():
            for network in (MLP(6, 8, 4).double(), MLP(6, 8, 4, ShiftedSoftplus).double(), torch.nn.Identity()):

                def function(r, basis=basis, envelope=envelope, network=network):
                    return network(basis(r)) * envelope(r, 5.0)[:, None]

                dual = function(Dual(r, torch.ones_like(r)))
                value, slope = torch.autograd.functional.jvp(function, (r,), (torch.ones_like(r),))
                torch.testing.assert_close(dual.value, value, rtol=1e-14, atol=1e-14)
                torch.testing.assert_close(dual.slope, slope, rtol=1e-12, atol=1e-13)


OPERATIONS = {
    "plus": lambda d, t: d + t + (t + d) + 1,
    "minus": lambda d, t: (d - t) * (t - d) * (1 - d),
    "times": lambda d, t: (t * d) * (d * 2) * d,
    "over": lambda d, t: d / t + t / d + 2 / d + d / (d + 1),
    "powers": lambda d, t: d**3 + torch.pow(d, 2) - (-d).square() + d.sqrt() + d.reciprocal(),
    "numpy's numbers": lambda d, t: (np.float64(2) - d) * np.float64(3) / d,
    "functions": lambda d, t: torch.sin(d) * torch.cos(d) + torch.exp(-d) * torch.log(d) + torch.tanh(d),
    "activations": lambda d, t: torch.sigmoid(d) + torch.nn.functional.silu(d) + torch.nn.functional.softplus(d),
    "sharper softplus": lambda d, t: torch.nn.functional.softplus(d, 30.0, 20.0) + torch.nn.functional.logsigmoid(d),
    "clamped": lambda d, t: d.clamp(max=1.0) * torch.clamp(d, min=0.7),
    "joined": lambda d, t: torch.cat([torch.stack([d, t]), torch.stack([d * d, torch.ones_like(d)])], 1),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_dual_numbers(name):
    from mdgnn.ops.dual import Dual

    x, t = torch.tensor([0.5, 1.5, 0.9], dtype=torch.float64), torch.tensor([2.0, 3.0, -1.0], dtype=torch.float64)
    dual = OPERATIONS[name](Dual(x, torch.ones_like(x)), t)
    value, slope = torch.autograd.functional.jvp(lambda x: OPERATIONS[name](x, t), (x,), (torch.ones_like(x),))
    torch.testing.assert_close(dual.value, value, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(dual.slope, slope, rtol=1e-14, atol=1e-14)


def test_where_chooses_between_dual_numbers():
    from mdgnn.ops.dual import Dual

    x = torch.tensor([0.5, 1.5], dtype=torch.float64)
    dual = torch.where(x > 1, Dual(x, 2 * x), torch.zeros_like(x))
    assert dual.value.tolist() == [0, 1.5] and dual.slope.tolist() == [0, 3]


OTHERS = {
    "relu": lambda r: torch.relu(r[:, None] - 1),
    "norm": lambda r: torch.nn.functional.layer_norm(torch.stack([r, r * r, torch.sin(r)], 1), (3,)),
    "product": lambda r: torch.erf(r[:, None]) @ torch.ones(1, 2, dtype=torch.float64),
    "comparison": lambda r: ((r > 1) * r)[:, None],
    "shape": lambda r: (r.unsqueeze(-1) * 2).reshape(-1, 1),
    "powers": lambda r: r[:, None] ** torch.arange(3),
    "number of axes": lambda r: (r * r if r.ndim == 1 else r)[:, None],
    "property": lambda r: (r if r.is_cuda or r.grad is not None else r * r)[:, None],
    "equality": lambda r: ((r == r * 1) * r + r * r)[:, None],
    "inequality": lambda r: ((r != r * 1) * r + r * r)[:, None],
    "constant": lambda r: torch.ones(len(r), 2, dtype=torch.float64),
}


@pytest.mark.parametrize("name", OTHERS)
def test_uses_of_tensors_without_a_rule_take_the_reverse_pass(name):
    from mdgnn.ops.dual import value_and_slope

    r = torch.linspace(0, 2, 7, dtype=torch.float64) + 0.01 * (name != "powers")
    value, slope = value_and_slope(OTHERS[name], r, torch.ones_like(r))
    jacobian = torch.autograd.functional.jacobian(OTHERS[name], r)
    torch.testing.assert_close(value, OTHERS[name](r), rtol=1e-15, atol=0)
    torch.testing.assert_close(slope, jacobian.diagonal(dim1=0, dim2=2).T, rtol=1e-13, atol=1e-14)


def test_an_error_of_the_function_itself_is_not_hidden():
    from mdgnn.ops import tabulate

    with pytest.raises(TypeError, match="of mine"):
        tabulate(lambda r: (_ for _ in ()).throw(TypeError("of mine")), 2.0, 9, torch.zeros(()))


def test_results_do_not_depend_on_threads_at_once_in_an_old_process():
    """Where everything has been used before: the same bits as alone."""
    from concurrent.futures import ThreadPoolExecutor

    atoms = crystal()

    def forces(backend):
        return mdgnn.MDGNNCalculator("water", backend=backend).compute(_as_water(atoms))["forces"]

    alone = {backend: forces(backend) for backend in ("engine", "torch")}
    with ThreadPoolExecutor(6) as pool:
        for k, result in enumerate(pool.map(forces, ["engine", "torch"] * 15)):
            np.testing.assert_array_equal(result, alone[["engine", "torch"][k % 2]])


def _as_water(atoms):
    copy = atoms.copy()
    copy.numbers[:] = 1
    return copy
