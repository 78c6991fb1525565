"""torch-sim as a peer, where it is installed: ``pip install "torch-sim-atomistic>=0.6"``, with Python 3.12 or later; or
by ``make peer-torch_sim``, whose ``build/peers/torch_sim/bin/python -m pytest benchmarks --benchmark-only`` has it.

It moves all systems of a batch at once, with one of our models: the same weights and our kernels, by torch. Lists of
neighbours are its own by default, or ours.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch

from mdgnn import Graph, Potential, evaluate
from mdgnn.ops import neighbors

SPEC = find_spec("torch_sim")


@contextmanager
def quiet() -> Iterator[None]:
    """Without warnings that this environment turns into errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def steps_of(
    model: Potential, structures: Sequence[Any], timestep: float, friction: float | None, our_list: bool
) -> Callable[[int], None]:
    """A call that takes some steps: of velocity Verlet, or of Langevin dynamics at a temperature of 0.2."""
    with quiet():
        import torch_sim
        from torch_sim.integrators import nve, nvt

        potential = _potential(model, our_list)
        state = torch_sim.initialize_state(_in_cells(structures), torch.device("cpu"), torch.float64)
        state.masses = torch.ones_like(state.masses)
        make, step = (
            (nve.nve_init, nve.nve_step) if friction is None else (nvt.nvt_langevin_init, nvt.nvt_langevin_step)
        )
        of_bath = {} if friction is None else {"kT": torch.tensor(0.2), "gamma": torch.tensor(friction)}
        moving = make(state, potential, kT=torch.tensor(0.2))

    def run(steps: int) -> None:
        nonlocal moving
        with quiet():
            for _ in range(steps):
                moving = step(moving, potential, dt=torch.tensor(timestep), **of_bath)

    return run


def relaxations_of(
    model: Potential, structures: Sequence[Any], fmax: float, steps: int, our_list: bool
) -> Callable[[], None]:
    """A call that relaxes all structures by FIRE."""
    with quiet():
        import torch_sim

        potential = _potential(model, our_list)

    def run() -> None:
        with quiet():
            torch_sim.optimize(
                system=_in_cells(structures),
                model=potential,
                optimizer=torch_sim.Optimizer.fire,
                convergence_fn=torch_sim.generate_force_convergence_fn(fmax, include_cell_forces=False),
                max_steps=steps,
            )

    return run


def _in_cells(structures: Sequence[Any]) -> list[Any]:
    """Copies with a cell, which torch-sim's lists divide by, and which is not periodic."""
    copies = [atoms.copy() for atoms in structures]
    for atoms in copies:
        atoms.set_cell([30.0] * 3)
    return copies


def _potential(model: Potential, our_list: bool) -> Any:
    from torch_sim.models.interface import ModelInterface
    from torch_sim.neighbors import torchsim_nl

    class OurPotential(ModelInterface):  # type: ignore[misc,unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self._device, self._dtype = torch.device("cpu"), torch.float64
            self._compute_forces, self._compute_stress = True, False
            self._memory_scales_with = "n_atoms"

        def forward(self, state: Any, **_: Any) -> dict[str, torch.Tensor]:
            result = evaluate(model, (by_our_list if our_list else by_its_list)(state))
            assert result.forces is not None
            return {"energy": result.energy, "forces": result.forces}

    def by_its_list(state: Any) -> Graph:
        pbc = torch.zeros(state.n_systems, 3, dtype=torch.bool)
        r, system = state.positions.detach(), state.system_idx
        (i, j), *_ = torchsim_nl(r, state.row_vector_cell, pbc, model.cutoff, system)
        return Graph.from_edge_index(
            state.atomic_numbers.to(torch.int64), r, torch.stack((j, i)).to(torch.int64), system
        )

    def by_our_list(state: Any) -> Graph:
        cells, system = state.row_vector_cell, state.system_idx.to(torch.int64)
        counts = torch.bincount(system, minlength=state.n_systems)
        edges = neighbors(
            state.positions.detach(),
            cells,
            torch.zeros(state.n_systems, 3, dtype=torch.bool),
            model.cutoff,
            first_atom=torch.nn.functional.pad(counts.cumsum(0), (1, 0)),
            want=("vectors",),
        )
        assert edges.vectors is not None
        numbers = state.atomic_numbers.to(torch.int64)
        return Graph(numbers, edges.vectors, edges.row_ptr, edges.senders, system, cells)

    return OurPotential()
