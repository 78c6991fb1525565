"""torch-sim as a peer, where it is installed: ``pip install "torch-sim-atomistic>=0.6"``, with Python 3.12 or later; or
by ``make peer-torch_sim``, whose ``build/peers/torch_sim/bin/python -m pytest benchmarks --benchmark-only`` has it.

It moves all systems of a batch at once, with one of our models: the same weights, and our kernels and lists of
neighbours, by torch.
"""

import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import torch

from mdgnn import Graph, Potential, evaluate
from mdgnn.ops import neighbors

SPEC = find_spec("torch_sim")


def steps_of(
    model: Potential, structures: Sequence[Any], timestep: float, friction: float | None
) -> Callable[..., None]:
    """A call that takes some steps: of velocity Verlet, or of Langevin dynamics at a temperature of 0.2."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its imports
        import torch_sim
        from torch_sim.integrators import nve, nvt
    potential = _potential(model)
    state = torch_sim.initialize_state(list(structures), torch.device("cpu"), torch.float64)
    state.masses = torch.ones_like(state.masses)
    make, step = (nve.nve_init, nve.nve_step) if friction is None else (nvt.nvt_langevin_init, nvt.nvt_langevin_step)
    options: dict[str, Any] = {} if friction is None else {"kT": torch.tensor(0.2), "gamma": torch.tensor(friction)}
    moving = make(state, potential, kT=torch.tensor(0.2))

    def run(steps: int) -> None:
        nonlocal moving
        for _ in range(steps):
            moving = step(moving, potential, dt=torch.tensor(timestep), **options)

    return run


def relaxations_of(model: Potential, structures: Sequence[Any], fmax: float, steps: int) -> Callable[[], None]:
    """A call that relaxes all structures by FIRE; those that have converged make room for others."""
    import torch_sim

    potential = _potential(model)

    def run() -> None:
        torch_sim.optimize(
            system=list(structures),
            model=potential,
            optimizer=torch_sim.Optimizer.fire,
            convergence_fn=torch_sim.generate_force_convergence_fn(fmax, include_cell_forces=False),
            max_steps=steps,
        )

    return run


def _potential(model: Potential) -> Any:
    from torch_sim.models.interface import ModelInterface

    class OurPotential(ModelInterface):
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self._device, self._dtype = torch.device("cpu"), torch.float64
            self._compute_forces, self._compute_stress = True, False
            self._memory_scales_with = "n_atoms"

        def forward(self, state: Any, **_: Any) -> dict[str, torch.Tensor]:
            counts = torch.bincount(state.system_idx, minlength=state.n_systems)
            cells = state.row_vector_cell
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
            graph = Graph(numbers, edges.vectors, edges.row_ptr, edges.senders, state.system_idx.to(torch.int64), cells)
            result = evaluate(model, graph)
            assert result.forces is not None
            return {"energy": result.energy, "forces": result.forces}

    return OurPotential()
