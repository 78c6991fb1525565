"""Where ASE is absent (a bare GPU machine), the tests that need it are skipped, and the header says so."""

from importlib.util import find_spec

import pytest

OPS = (
    "cfconv",
    "concat_message",
    "concat_message_linear",
    "concat_message_table",
    "edge_basis",
    "force_virial",
    "laws",
    "ops_neighbors",
    "ops_neighbor_buffers",
    "painn_message",
    "polar",
    "radial_filter",
    "scatter_add",
    "silu",
    "tables",
)
NEED_NO_ASE = {f"test_{name}.py" for name in (*OPS, "cuda", "house", "messages_cuda", "neighbor_levels", "threads")}
HAS_ASE = find_spec("ase") is not None


def pytest_report_header():
    return None if HAS_ASE else f"ase is not installed: only {', '.join(sorted(NEED_NO_ASE))} are collected"


def pytest_ignore_collect(collection_path):
    name = collection_path.name
    return True if not HAS_ASE and name.startswith("test_") and name not in NEED_NO_ASE else None


@pytest.fixture
def one_thread_and_no_pictures(monkeypatch):
    """Of runs of training; what is made for a whole module is made before."""
    import torch

    from mdgnn.training import outcome

    monkeypatch.setattr(outcome, "draw", lambda folder, pictures: list(pictures))
    n = torch.get_num_threads()
    yield
    torch.set_num_threads(n)


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A file of sixteen labelled clusters."""
    from training_runs import clusters, file_of

    return file_of(tmp_path_factory.mktemp("data") / "clusters.xyz", clusters(16))


@pytest.fixture(scope="session")
def property_data(tmp_path_factory):
    """A file of sixteen molecules with other labels than energies."""
    from property_runs import molecules
    from training_runs import file_of

    return file_of(tmp_path_factory.mktemp("data") / "molecules.xyz", molecules(16))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The exact potential as a model file."""
    import mdgnn

    path = tmp_path_factory.mktemp("model") / "exact.safetensors"
    mdgnn.save(mdgnn.LennardJones(), path)
    return path


@pytest.fixture
def one_thread():
    """Thousands of steps of small systems: two threads gain little and lose much on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
