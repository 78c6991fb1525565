"""Our list as torch-sim's and NequIP's, one structure and batches, against theirs and inside their models."""

import warnings
from importlib import import_module

import numpy as np
import pytest
import torch
from ase import Atoms
from systems import crystal, icosahedron, neighbor_cases, slab, triclinic, water

from mdgnn import neighbor_list as of_one
from mdgnn.adapters import nequip, torch_sim

CASES = [(name, atoms, cutoff) for name, atoms, cutoff in neighbor_cases() if cutoff in (1.5, 2.5)]


def peer(name):
    """A module that may be absent, or too old for this, and may warn when it is imported."""
    pytest.importorskip(name.split(".")[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_module(name)


def batch_of(systems, dtype=torch.float64):
    """positions, cell, pbc and system_idx."""
    return (
        torch.tensor(np.concatenate([a.positions for a in systems]), dtype=dtype),
        torch.tensor(np.stack([a.cell.array for a in systems]), dtype=dtype),
        torch.tensor(np.stack([a.pbc for a in systems])),
        torch.repeat_interleave(torch.arange(len(systems)), torch.tensor([len(a) for a in systems])),
    )


def rows(mapping, shifts):
    return [(*e, *map(int, s)) for e, s in zip(mapping.T.tolist(), shifts.tolist(), strict=True)]


@pytest.mark.parametrize("cutoff", [1.5, 2.5])
@pytest.mark.parametrize("self_interaction", [False, True])
def test_a_batch_holds_the_lists_of_its_systems(cutoff, self_interaction):
    systems = [*(atoms for _, atoms, c in CASES if c == cutoff), Atoms(), Atoms("Ar")]
    positions, cell, pbc, system_idx = batch_of(systems)
    for limit in (cutoff, torch.tensor(cutoff)):
        batch = torch_sim.neighbor_list(positions, cell, pbc, limit, system_idx, self_interaction)
        mapping, system_mapping, shifts = batch
        first, expected = 0, []
        for s, atoms in enumerate(systems):
            i, j, S = of_one("ijS", atoms, cutoff, self_interaction)
            expected += [(s, i + first, j + first, *shift) for i, j, shift in zip(i, j, S.tolist(), strict=True)]
            first += len(atoms)
        assert [(s, *row) for s, row in zip(system_mapping.tolist(), rows(mapping, shifts), strict=True)] == expected
        assert len(expected) > 500
        assert (mapping.dtype, system_mapping.dtype, shifts.dtype) == (torch.int64, torch.int64, torch.float64)


def test_one_cell_for_all_rows_of_cells_and_single_precision():
    systems = [triclinic(True, seed=s) for s in range(3)]
    for atoms in systems:
        atoms.cell = systems[0].cell
    for dtype in (torch.float32, torch.float64):
        positions, cell, pbc, system_idx = batch_of(systems, dtype)
        expected = torch_sim.neighbor_list(positions, cell, pbc, 1.5, system_idx)
        assert expected[0].shape[1] > 100
        assert expected[2].dtype == dtype
        for box, periodic in [(cell[0], pbc[0]), (cell.reshape(9, 3), pbc.reshape(9)), (cell, pbc[0]), (cell[0], pbc)]:
            again = torch_sim.neighbor_list(positions, box, periodic, 1.5, system_idx)
            assert all(torch.equal(a, b) for a, b in zip(again, expected, strict=True))
        again = torch_sim.neighbor_list(positions, cell.to(torch.float64), pbc, 1.5, system_idx)
        assert all(torch.equal(a, b) for a, b in zip(again, expected, strict=True))
        assert again[2].dtype == torch.float64


def test_gradients_do_not_flow_through_a_list_and_inputs_stay_as_they_are():
    inputs = [t.requires_grad_() if t.is_floating_point() else t for t in batch_of([crystal(), slab()])]
    before = [t.detach().clone() for t in inputs]
    assert not any(t.requires_grad for t in torch_sim.neighbor_list(*inputs[:3], 1.5, inputs[3]))
    assert all(torch.equal(a, b) for a, b in zip(inputs, before, strict=True))


@pytest.mark.parametrize("n_atoms", [0, 1])
def test_nothing_to_list(n_atoms):
    tensors = torch_sim.neighbor_list(
        torch.zeros(n_atoms, 3), torch.eye(3)[None], torch.zeros(1, 3, dtype=bool), 1.0, torch.zeros(n_atoms, dtype=int)
    )
    assert [tuple(t.shape) for t in tensors] == [(2, 0), (0,), (0, 3)]


def test_errors_are_sentences():
    positions, cell, pbc, system_idx = batch_of([crystal(), slab()])
    with pytest.raises(ValueError, match="does not ascend"):
        torch_sim.neighbor_list(positions, cell, pbc, 1.5, system_idx.flip(0))
    with pytest.raises(ValueError, match="the 1 systems that have a cell, got system 1"):
        torch_sim.neighbor_list(positions, cell[:1], pbc[:1], 1.5, system_idx)
    with pytest.raises(ValueError, match="positive cutoff"):
        torch_sim.neighbor_list(positions, cell, pbc, 0.0, system_idx)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("self_interaction", [False, True])
def test_edges_are_those_of_torch_sim(self_interaction):
    torch_sim_lists = peer("torch_sim.neighbors")
    if not hasattr(torch_sim_lists, "torchsim_nl"):
        pytest.skip("this torch-sim has lists of another signature")
    boxes = (True, False, (True, False, True))
    systems = [triclinic(pbc, left_handed=hand) for pbc in boxes for hand in (False, True)] + [crystal(), slab()]
    systems.append(triclinic(True, n=3))
    systems[-1].positions += np.array([[2, -1, 0], [0, 0, 3], [0, 1, 0]]) @ systems[-1].cell.array
    positions, cell, pbc, system_idx = batch_of(systems)
    for cutoff in (1.4, 3.6):
        ours = torch_sim.neighbor_list(positions, cell, pbc, cutoff, system_idx, self_interaction)
        for name in ("torch_nl_n2", "torch_nl_linked_cell"):  # its default may have room for fewer neighbours
            theirs = getattr(torch_sim_lists, name)(positions, cell, pbc, cutoff, system_idx, self_interaction)
            expected = sorted(rows(theirs[0], theirs[2]))
            assert len(expected) > 500
            assert sorted(rows(ours[0], ours[2])) == expected, name
            assert [t.dtype for t in ours] == [t.dtype for t in theirs]
        assert torch.equal(ours[1], system_idx[ours[0][0]])


@pytest.mark.filterwarnings("ignore")
def test_a_model_of_torch_sim_gives_what_it_gave():
    ts, lennard_jones = peer("torch_sim"), peer("torch_sim.models.lennard_jones")
    lists = peer("torch_sim.neighbors")
    if not hasattr(lists, "torchsim_nl"):
        pytest.skip("this torch-sim has lists of another signature")
    systems = [crystal(seed=s) for s in range(3)] + [triclinic(True, n=1)]
    results = []
    for function in (lists.torch_nl_linked_cell, torch_sim.neighbor_list):
        state = ts.io.atoms_to_state(systems, device=torch.device("cpu"), dtype=torch.float64)
        model = lennard_jones.LennardJonesModel(
            **{"sigma": 1.0, "epsilon": 1.0, "cutoff": 2.5, "dtype": torch.float64},
            **{"compute_forces": True, "compute_stress": True, "neighbor_list_fn": function},
        )
        results.append(model(state))
        assert model.neighbor_list_fn is function
    for key in ("energy", "forces", "stress"):
        assert results[0][key].abs().max() > 1e-2
        torch.testing.assert_close(results[1][key], results[0][key], rtol=1e-10, atol=1e-10)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("cutoff", [1.5, 4.0])
def test_edges_are_those_of_nequip(cutoff):
    data, from_ase = peer("nequip.data"), peer("nequip.data.ase")
    nequip.register()
    nequip.register()
    systems = [triclinic((True, False, True)), triclinic(True, left_handed=True), crystal(), icosahedron(2), slab()]
    frames = [from_ase.from_ase(atoms) for atoms in systems]
    batch = data.AtomicDataDict.batched_from_list(frames)
    for item in (*frames, batch):
        theirs = data.compute_neighborlist_(dict(item), cutoff, backend="ase")
        before = dict(item)
        ours = data.compute_neighborlist_(before, cutoff, backend="mdgnn")
        assert ours is before
        assert set(ours) == set(theirs)
        assert ours.keys() - item.keys() == {"edge_index", "edge_cell_shift"}
        assert all(ours[key] is item[key] for key in item)
        expected = sorted(rows(theirs["edge_index"], theirs["edge_cell_shift"]))
        assert expected
        assert rows(ours["edge_index"], ours["edge_cell_shift"]) == expected
        for key in ("edge_index", "edge_cell_shift"):
            assert ours[key].dtype == theirs[key].dtype


@pytest.mark.filterwarnings("ignore")
def test_nequip_without_a_cell():
    data = peer("nequip.data")
    nequip.register("ours")
    frame = {"pos": torch.tensor(icosahedron(2).positions), "atom_types": torch.zeros(13, dtype=torch.int64)}
    ours = data.compute_neighborlist_(dict(frame), 1.2, backend="ours")
    assert set(ours) == {"pos", "atom_types", "edge_index"}
    assert ours["edge_index"].shape == (2, 84)
    with pytest.raises(ValueError, match="singular cell"):
        data.compute_neighborlist_({**frame, "pbc": torch.ones(3, dtype=bool)}, 1.2, backend="ours")


@pytest.fixture
def default_dtype():
    before = torch.get_default_dtype()
    yield
    torch.set_default_dtype(before)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("pbc", [False, (True, True, False), True], ids=str)
def test_a_model_of_nequip_gives_what_it_gave(default_dtype, pbc):
    transforms, calculators = peer("nequip.data.transforms"), peer("nequip.integrations.ase")
    peer("nequip.utils.global_state").set_global_state()  # sets torch's default dtype
    nequip.register()
    options = {"seed": 0, "model_dtype": "float64", "type_names": ["H", "O"], "avg_num_neighbors": 4.0, "parity": True}
    options |= {"num_layers": 2, "l_max": 1, "num_features": 4, "radial_mlp_depth": 1, "radial_mlp_width": 8}
    model = peer("nequip.model").NequIPGNNModel(r_max=3.0, **options).eval()
    atoms = water()
    atoms.set_cell([4, 4, 4])
    atoms *= 2
    atoms.pbc = pbc
    atoms.rattle(0.2, seed=1)
    results = []
    for backend in ("matscipy", "mdgnn"):
        steps = [
            transforms.ChemicalSpeciesToAtomTypeMapper(["H", "O"], {"H": "H", "O": "O"}),
            transforms.NeighborListTransform(3.0, backend=backend),
        ]
        atoms.calc = calculators.NequIPCalculator(model=model, device="cpu", transforms=steps)
        results.append((atoms.get_potential_energy(), atoms.get_forces()))
    assert np.abs(results[0][1]).max() > 1e-3
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * np.abs(b).max())  # NequIP's results are rounded to float32
