"""The shipped `lj`, a SchNet by least squares: python validation/lj/lj_fit.py FRAMES.xyz ... MODEL.safetensors

With one interaction, a SchNet holds a potential of pairs, since s(x) - s(-x) = x for its shifted softplus s, and beside
it a function of how many neighbours an atom has, which tells what lies beyond the cutoff of an atom in a liquid from
what does not of one in a cluster:

    E_i = 1/2 sum_j phi(r_ij) + sum_km o_km s(5 (n_ik - b_m)) + e,     n_ik = sum_j w_k(r_ij)

phi is a sum of the radial basis, whose coefficients are free, and of repulsions, which are positive. w_k are two
shells, in which a liquid has 1, and b_m are given. So energies, forces and stresses are linear in what is sought. Drawn
at random and trained for hours, SchNet was 0.003 epsilon an atom off in clusters. Trained on from this for two epochs
(steps of 3e-7, energies weighted 200 times), its energies stayed and its forces in cold clusters became worse.
"""

import hashlib
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from ase import Atoms
from ase.io import read
from numpy.typing import NDArray
from scipy.optimize import lsq_linear
from scipy.sparse import csr_matrix

from mdgnn import SchNet, save
from mdgnn.neighbors import primitive_neighbor_list

Array = NDArray[np.float64]

CUTOFF, N_FEATURES, N_BASIS, BASIS_START = 4.2, 16, 96, 0.5
SCALE = 20.0  # epsilon: energies of the network are of the size of 1
RATES = (5.795, 10.354, 17.271, 28.904)  # four positive exponentials that are within 2 % of r^-12 from 0.45 to 2
SHELLS = ((0.78, 0.95), (0.58, 0.78))  # of the cutoff
LIQUID = 0.85  # its density
STEEPNESS, PLACES = 5.0, (0.05, 0.23, 0.41, 0.59, 0.77, 0.95, 1.13)  # of the functions of numbers of neighbours
OF_NEIGHBOURS = tuple((shell, place) for shell in range(len(SHELLS)) for place in PLACES)
# Errors that weigh the same: of an energy per atom, a force and a component of the stress, and relative ones.
ENERGY, FORCE, STRESS, RELATIVE = 1e-4, 5e-3, 3e-3, 1e-3
EDGES = 1500  # at once


class Columns(NamedTuple):
    """What energy, forces (3 N) and stress times volume (6, if it is a box) are for each coefficient."""

    energy: Array
    forces: Array
    virial: Array


def empty_model(min_distance: float = 0.0) -> SchNet:
    """With basis and rates of the repulsion, on which the rest depends."""
    torch.manual_seed(0)
    radial = {"cutoff": CUTOFF, "envelope": "polynomial", "basis": "exponential", "basis_start": BASIS_START}
    options = {"elements": "any", "units": "lj", "repulsion": 1.0, "scale": SCALE, "min_distance": min_distance}
    model = SchNet(N_FEATURES, 1, N_BASIS, **radial, **options)
    with torch.no_grad():
        model.repulsion.functions.basis.rates.copy_(torch.logit(torch.tensor(RATES) / 60))
    return model


class Pairs:
    """The functions that phi is a sum of: the basis, then repulsions, all times the envelope."""

    def __init__(self, model: SchNet):
        self.basis = model.filters.basis
        self.centers = self.basis.centers.double().numpy()
        self.places = BASIS_START - np.log(self.centers) / self.basis.rate  # distances of the centres
        self.rates = 60 * torch.sigmoid(model.repulsion.functions.basis.rates.detach().double()).numpy()
        self.count = N_BASIS + len(RATES)
        self.shells = np.array([self._shell(CUTOFF * a, CUTOFF * b) for a, b in SHELLS])

    def __call__(self, r: Array) -> tuple[Array, Array]:
        """Values and derivatives (E, count)."""
        x = r[:, None] / CUTOFF
        envelope = 1 - 28 * x**6 + 48 * x**7 - 21 * x**8
        envelope_derivative = (-168 * x**5 + 336 * x**6 - 168 * x**7) / CUTOFF
        decay = np.exp((BASIS_START - r[:, None]) * self.basis.rate)
        away = decay - self.centers
        gaussians = np.exp(-self.basis.sharpness * away**2)
        repulsions = np.exp(-np.outer(r - 1, self.rates))
        functions = np.concatenate([gaussians, repulsions], axis=1)
        # Of their logarithms.
        derivatives = np.concatenate(
            [2 * self.basis.sharpness * self.basis.rate * away * decay, np.tile(-self.rates, (len(r), 1))], axis=1
        )
        return functions * envelope, functions * (derivatives * envelope + envelope_derivative)

    def _shell(self, inner: float, outer: float) -> Array:
        """Coefficients (B,) of a smooth shell whose sum over the neighbours in a liquid is 1."""
        weights = ((self.places > inner) & (self.places < outer)).astype(float)
        r, step = np.linspace(0.8, CUTOFF, 4000, retstep=True)
        values = self(r)[0][:, :N_BASIS] @ weights
        return weights / (LIQUID * 4 * np.pi * float((values * r**2).sum()) * step)


def columns(atoms: Atoms, pairs: Pairs) -> Columns:
    """Of one structure."""
    n, n_pairs, n_others = len(atoms), pairs.count, len(OF_NEIGHBOURS)
    i, j, vectors = primitive_neighbor_list("ijD", atoms.pbc, atoms.cell.array, atoms.positions, CUTOFF)
    order = np.argsort(i, kind="stable")
    i, j, vectors = i[order], j[order], vectors[order]
    r = np.linalg.norm(vectors, axis=1)
    unit = vectors / r[:, None]
    strain = np.stack([vectors[:, a] * unit[:, b] for a, b in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))], axis=1)

    def sums(weights: Array, first: int, last: int) -> csr_matrix:
        """(N, edges): sums over these edges of each receiver."""
        own = i[first:last]
        return csr_matrix((weights, (own, np.arange(len(own)))), (n, len(own)))

    values, forces = np.zeros((n, n_pairs)), np.zeros((n, 3, n_pairs + n_others + 1))
    virial = np.zeros((6, n_pairs + n_others + 1))
    shell_derivatives = np.zeros((len(r), len(SHELLS)))
    for first in range(0, len(r), EDGES):
        last = min(first + EDGES, len(r))
        value, derivative = pairs(r[first:last])
        values += sums(np.ones(last - first), first, last) @ value
        for axis in range(3):
            forces[:, axis, :n_pairs] += sums(unit[first:last, axis], first, last) @ derivative
        virial[:, :n_pairs] += 0.5 * strain[first:last].T @ derivative
        shell_derivatives[first:last] = derivative[:, :N_BASIS] @ pairs.shells.T
    energy = np.concatenate([0.5 * values.sum(axis=0), np.zeros(n_others), [n]])
    neighbours, whole = values[:, :N_BASIS] @ pairs.shells.T, sums(np.ones(len(r)), 0, len(r))
    for k, (shell, place) in enumerate(OF_NEIGHBOURS, start=n_pairs):
        x = STEEPNESS * (neighbours[:, shell] - place)
        energy[k] = (np.logaddexp(0, x) - np.log(2)).sum()
        change = STEEPNESS / (1 + np.exp(-x))
        forces[:, :, k] = whole @ (((change[i] + change[j]) * shell_derivatives[:, shell])[:, None] * unit)
        virial[:, k] = strain.T @ (change[i] * shell_derivatives[:, shell])
    return Columns(energy, forces.reshape(3 * n, -1), virial)


def fit(frames: list[Atoms], pairs: Pairs) -> Array:
    """Coefficients of phi, of the functions of the numbers of neighbours, and of an atom."""
    n_others = len(OF_NEIGHBOURS)
    # How large they are expected to be: repulsions alone are to make the wall.
    wall = 4 * pairs.places**-12.0
    expected = np.concatenate([1 + 0.05 * wall, np.full(len(RATES), 10.0), np.full(n_others, 3.0), [10.0]])
    matrix, right = np.diag(expected**-2), np.zeros(len(expected))
    for atoms in frames:
        of, n, force = columns(atoms, pairs), len(atoms), atoms.get_forces()
        energy = atoms.get_potential_energy()
        errors = FORCE + RELATIVE * np.linalg.norm(force, axis=1)
        parts = [
            (of.energy[None], np.array([energy]), np.array([n * (ENERGY + RELATIVE * max(energy / n + 1, 0))])),
            (of.forces, force.ravel(), np.repeat(errors, 3)),
        ]
        if atoms.pbc.all():
            volume = atoms.get_volume()
            parts.append((of.virial, atoms.get_stress() * volume, np.full(6, STRESS * volume)))
        for rows, labels, error in parts:
            scaled = rows / error[:, None]
            matrix += scaled.T @ scaled
            right += scaled.T @ (labels / error)
    # As |L' x - b|^2 with a Cholesky factor, for a solver that knows bounds.
    factor = np.linalg.cholesky(matrix)
    lowest = np.full(len(expected), -np.inf)
    lowest[N_BASIS : pairs.count] = 0
    solution = lsq_linear(factor.T, np.linalg.solve(factor, right), bounds=(lowest, np.inf), tol=1e-14, max_iter=500)
    return np.asarray(solution.x)


@torch.no_grad()
def fill(model: SchNet, pairs: Pairs, solution: Array) -> None:
    """Give the network these coefficients. What they leave of its features stays as it was drawn, and counts for
    nothing."""
    phi, repulsions, others, constant = np.split(
        solution / SCALE, [N_BASIS, pairs.count, pairs.count + len(OF_NEIGHBOURS)]
    )

    def set_rows(linear: torch.nn.Linear, rows: list[Array]) -> None:
        linear.weight[: len(rows)] = torch.tensor(np.array(rows))

    def unit(k: int, factor: float = 1.0) -> Array:
        return factor * np.eye(N_FEATURES)[k]

    model.repulsion.strengths[1] = torch.tensor(0.5 * np.log(np.maximum(repulsions, 1e-12)))
    # All filters multiply 1.
    model.embedding.weight[1] = torch.tensor(unit(N_FEATURES - 1))
    interaction, filters, output = model.interactions[0], model.filters.networks[0], model.output_mlp
    interaction.project.weight.zero_()[:, -1] = 1
    # Features: phi, and the numbers of neighbours in each shell.
    features = np.array([phi, *pairs.shells])
    set_rows(filters.first, [sign * row for row in features for sign in (1, -1)])
    filters.last.weight.zero_()
    set_rows(filters.last, [unit(2 * k) - unit(2 * k + 1) for k in range(len(features))])
    # Their function becomes the first feature of the atom.
    update = interaction.update
    shells = [unit(1 + shell, STEEPNESS) for shell, _ in OF_NEIGHBOURS]
    set_rows(update.first, [unit(0), -unit(0), *shells])
    update.first.bias[2 : 2 + len(shells)] = torch.tensor([-STEEPNESS * place for _, place in OF_NEIGHBOURS])
    update.last.weight.zero_()[0, : 2 + len(shells)] = torch.tensor(np.concatenate([[0.5, -0.5], others]))
    set_rows(output.first, [unit(0), -unit(0)])
    output.last.weight.zero_()[0, :2] = torch.tensor([1.0, -1.0])
    output.last.bias[0] = float(constant[0])


def shortest(atoms: Atoms) -> float:
    """Distance of two atoms."""
    return float(primitive_neighbor_list("d", atoms.pbc, atoms.cell.array, atoms.positions, CUTOFF).min(initial=np.inf))


def main() -> None:
    *files, target = sys.argv[1:]
    frames = [atoms for file in files for atoms in read(file, ":")]
    model = empty_model(min(shortest(atoms) for atoms in frames))
    pairs = Pairs(model)
    fill(model, pairs, fit(frames, pairs))
    digests = {file: hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files}
    record = {"command": "make lj", "method": "least squares", "structures": {"train": len(frames)}, "data": digests}
    save(model, target, record)


if __name__ == "__main__":
    main()
