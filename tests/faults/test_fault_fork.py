"""Fork: a child process that made a calculator after its parent had used several threads hung.

Torch's threads do not survive a fork, and torch waits for them for ever. In a child all its operators take one thread.
"""

import subprocess
import sys

import pytest
from warnings_as_errors import WARNINGS_AS_ERRORS

# The parent uses threads of torch (products, autograd) and of the kernels; a hang of the child ends it after a while.
PROGRAM = """
import faulthandler, multiprocessing, sys, warnings
warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)  # which is what is tested
import numpy as np, torch, mdgnn
from ase.build import bulk
torch.set_num_threads(3)
mdgnn.set_num_threads(3)

def atoms():
    found = bulk("Ar", "fcc", a=1.55, cubic=True) * 5
    found.positions += np.random.default_rng(0).normal(0, 0.05, found.positions.shape)
    return found

def result(backend):
    a = atoms()
    a.calc = mdgnn.MDGNNCalculator("lj", backend=backend)
    return a.get_potential_energy(), a.get_forces().tobytes(), torch.get_num_threads()

def shared(calc):
    return calc.compute(atoms(), stress=True)["stresses"].tobytes()

def batch(calc):
    return [r["forces"].tobytes() for r in calc.evaluate([atoms(), atoms()])]

def saved(folder):
    model = mdgnn.load("water")
    mdgnn.save(model, folder + "/m.safetensors")
    return mdgnn.Engine.load(folder + "/m.safetensors").evaluate(mdgnn.Graph.from_atoms(water(), 3.5)).energy.item()

def water():
    from ase.build import molecule
    return molecule("H2O")

def send(connection, work, arguments):
    faulthandler.dump_traceback_later(60, exit=True)
    connection.send(work(*arguments))

def in_child(work, *arguments):
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    child = context.Process(target=send, args=(there, work, arguments))
    child.start()
    there.close()
    try:
        return here.recv()
    finally:
        child.join()

x = torch.ones(400, 400, requires_grad=True)
(x @ x).exp().sum().backward()
"""


def run(code):
    done = subprocess.run(
        [sys.executable, *WARNINGS_AS_ERRORS, "-c", PROGRAM + code], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("backend", ["engine", "torch"])
def test_a_calculator_made_in_a_child(backend):
    run(f"""
expected = result({backend!r})
n_threads = 1 if {backend!r} == "torch" else 3
assert in_child(result, {backend!r}) == (*expected[:2], n_threads), "the same numbers, and one thread of torch if used"
assert in_child(mdgnn.get_num_threads) == 3 and torch.get_num_threads() == 3
""")


@pytest.mark.parametrize("backend", ["engine", "torch"])
def test_a_calculator_of_the_parent_used_in_a_child(backend):
    run(f"""
calc = mdgnn.MDGNNCalculator("lj", backend={backend!r})
expected = shared(calc), batch(calc)
assert (in_child(shared, calc), in_child(batch, calc)) == expected
""")


def test_models_files_and_engines_in_a_child(tmp_path):
    run(f"""
expected = saved({str(tmp_path)!r})
assert in_child(saved, {str(tmp_path)!r}) == expected
""")


def test_training_in_a_child():
    """Derivatives outside of our own functions, and a model that is called directly."""
    run("""
def trained():
    model = mdgnn.load("lj")
    graph = mdgnn.Graph.from_atoms(atoms(), model.cutoff)
    found = mdgnn.evaluate(model, graph, create_graph=True)
    (found.forces.square().sum() + found.energy.sum()).backward()
    direct = model.atomic_energies(graph, graph.vectors.float()).sum()
    return [p.grad.double().sum().item() for p in model.parameters()] + [direct.item()]

found = in_child(trained)
torch.set_num_threads(1)  # as the child, since torch's sums depend on it
assert found == trained() and len(found) > 10
""")


@pytest.mark.parametrize("imported", [True, False])
def test_a_fork_by_hand(imported):
    """Of a parent that has used torch alone; the package may be there, and nothing of it in use."""
    code = f"""
import faulthandler, os
import torch
if {imported}:
    import mdgnn
torch.set_num_threads(3)
x = torch.ones(400, 400)
(x @ x).exp().sum()
pid = os.fork()
if pid == 0:
    faulthandler.dump_traceback_later(60, exit=True)
    import mdgnn
    from ase.build import bulk
    mdgnn.MDGNNCalculator("lj", backend="torch").compute(bulk("Ar", "fcc", a=1.55, cubic=True) * 5)
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
"""
    done = subprocess.run(
        [sys.executable, *WARNINGS_AS_ERRORS, "-c", code], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_fork_while_another_thread_makes_tables():
    """The child gets no lock that somebody held who is not there any more."""
    run("""
import threading
over = threading.Event()

def busy():
    while not over.is_set():
        mdgnn.MDGNNCalculator("water", backend="torch").compute(water())

worker = threading.Thread(target=busy)
worker.start()
try:
    expected = result("torch")
    for _ in range(5):
        assert in_child(result, "torch")[:2] == expected[:2]
finally:
    over.set()
    worker.join()
""")


def test_a_child_that_loads_the_package_itself():
    """Of a parent that has used torch alone."""
    code = """
import faulthandler, multiprocessing, warnings
warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)
import torch
torch.set_num_threads(3)
x = torch.ones(400, 400)
(x @ x).exp().sum()

def work():
    faulthandler.dump_traceback_later(60, exit=True)
    import mdgnn
    from ase.build import bulk
    atoms = bulk("Ar", "fcc", a=1.55, cubic=True) * 5
    mdgnn.MDGNNCalculator("lj", backend="torch").compute(atoms)

child = multiprocessing.get_context("fork").Process(target=work)
child.start()
child.join()
assert child.exitcode == 0
"""
    done = subprocess.run(
        [sys.executable, *WARNINGS_AS_ERRORS, "-c", code], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_locks_are_free_in_a_child():
    """While another thread of the parent holds each: of torch's threads, of the precision of products, of tables."""
    run("""
import threading, time
import mdgnn.nn.table_cache, mdgnn.threads, mdgnn._internal.torch_context
expected = result("torch")
over = threading.Event()

def hold(lock):
    with lock:
        over.wait(120)

locks = mdgnn.threads._lock, mdgnn._internal.torch_context._lock, mdgnn.nn.table_cache._making
holders = [threading.Thread(target=hold, args=(lock,)) for lock in locks]
for holder in holders:
    holder.start()
time.sleep(0.3)
try:
    assert in_child(result, "torch")[:2] == expected[:2]
finally:
    over.set()
""")
