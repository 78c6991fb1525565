"""Calculators of ours in the place of ASE's, in a module of its own so that another process can load them.

The models of EMT and MorsePotential are those of `BACKEND`.
"""

import os

import numpy as np
import torch
import torch.nn.functional as F
from ase import Atoms
from ase.build import bulk
from ase.calculators import emt
from ase.data import atomic_numbers, covalent_radii, reference_states
from torch import nn

import mdgnn
from mdgnn.graph import sum_over_neighbours
from mdgnn.nn import Elements
from mdgnn.nn.table_cache import TableCache

BACKEND = os.environ.get("ASE_SUITE_BACKEND", "engine")
METALS = ("Al", "Cu", "Ag", "Au", "Ni", "Pd", "Pt")
NEAREST = {"fcc": 2**-0.5, "bcc": 0.75**0.5, "hcp": 1.0}  # distance in units of a


class Morse(nn.Module):
    """Pairs of ``sqrt(D_i D_j) (x**2 - 2 x)`` with ``x = exp(a (R_i + R_j - r))``, for all elements.

    Parameters
    ----------
    depth, radius : (119,)
        D and R of each atomic number.
    rate : float
        a.
    onset, cutoff : float
        Between these a polynomial, as of ASE's MorsePotential, takes the energy to zero.
    shift : float or (118,)
        The energy of an atom alone.
    """

    units, elements, readout, least_distance, heads = "metal", None, "sum", 0.0, None

    def __init__(self, depth, radius, rate, onset, cutoff, shift=0.0):
        super().__init__()
        self.config, self.dtype = {"n_elements": 118}, torch.float64
        self.onset, self.cutoff = float(onset), float(cutoff)
        depth, radius = (torch.as_tensor(x, dtype=torch.float64) for x in (depth, radius))
        self.register_buffer("rates", torch.tensor([2 * rate, rate], dtype=torch.float64))
        self.register_buffer("strengths", depth[:, None].sqrt() * torch.exp(self.rates * radius[:, None]))
        self.register_buffer("shares", torch.tensor([[0.5, -1.0]], dtype=torch.float64))
        self.species, self.tables = Elements(None, 118, shift), TableCache()

    def functions(self, r):
        """(G,) distances -> (G, 2): the exponentials."""
        s = ((self.cutoff - r[:, None]) / (self.cutoff - self.onset)).clamp(min=0, max=1)
        return torch.exp(-r[:, None] * self.rates) * (s * s * s * (6 * s * s - 15 * s + 10))

    def atomic_energies(self, graph, vectors):
        rows = self.species.row_of.index_select(0, graph.atomic_numbers)
        x = F.embedding(rows, self.strengths)
        r, _ = mdgnn.ops.polar(vectors, directions=False)
        make = lambda: mdgnn.ops.tabulate(self.functions, self.cutoff, 4096, self.strengths)  # noqa: E731
        table = self.tables.get("pairs", [self.strengths], make)
        met = mdgnn.ops.cfconv(x, mdgnn.ops.TabulatedFilter(table, r), graph.edges)
        return self.species.energies(rows, F.linear(x * met, self.shares).squeeze(1))


def of_metals_and_molecules():
    """Bonds of metals as in their crystals, the energy of which is zero; of other elements by covalent radii."""
    depth, radius = np.full(119, 4.0), np.nan_to_num(covalent_radii[:119], nan=1.0)
    for z, state in enumerate(reference_states[:119]):
        if state and state["symmetry"] in NEAREST:
            depth[z], radius[z] = 0.4, 0.52 * state["a"] * NEAREST[state["symmetry"]]
    parameters = {"depth": depth, "radius": radius, "rate": 1.6, "onset": 4.0, "cutoff": 6.0}
    calculator, shift = mdgnn.MDGNNCalculator(Morse(**parameters), dtype="float64", backend="torch"), np.zeros(118)
    for symbol in METALS:
        shift[atomic_numbers[symbol] - 1] = -calculator.get_potential_energy(bulk(symbol))
    return Morse(**parameters, shift=shift.tolist())


class EffectiveMedium(nn.Module):
    """EMT (Jacobsen, Stoltze, Norskov, Surf. Sci. 366, 394 (1996)) with the parameters of ASE's."""

    units, readout, least_distance, heads, dtype, config = "metal", "sum", 0.0, None, torch.float64, {}

    def __init__(self):
        super().__init__()
        self.elements, self.beta = [atomic_numbers[symbol] for symbol in emt.parameters], emt.beta
        theirs = emt.EMT()
        theirs.initialize(Atoms(numbers=self.elements))
        self.cutoff, self.middle, self.slope = theirs.rc_list, theirs.rc, theirs.acut
        for name, values in theirs.par.items():
            of_number = torch.zeros(119, dtype=torch.float64)
            of_number[sorted(self.elements)] = torch.from_numpy(values)
            self.register_buffer(name, of_number)

    def atomic_energies(self, graph, vectors):
        z, i, j = graph.atomic_numbers, graph.receivers, graph.senders
        r = torch.linalg.vector_norm(vectors, dim=1)
        w = torch.sigmoid(self.slope * (self.middle - r))
        s0, eta, kappa = (getattr(self, name)[z] for name in ("s0", "eta2", "kappa"))
        chi = self.n0[z[j]] / self.n0[z[i]]
        share, of_pair = self.inv12gamma1[z], self.neghalfv0overgamma2[z]
        density = torch.exp(-eta[j] * (r - self.beta * s0[j])) * chi * w
        received = torch.exp(-kappa[j] * (r / self.beta - s0[j])) * chi * w
        sent = torch.exp(-kappa[i] * (r / self.beta - s0[i])) / chi * w
        by_atom = torch.stack([density, (of_pair[i] * received + of_pair[j] * sent) / 2], dim=1)
        density, pairs = sum_over_neighbours(by_atom, graph).unbind(1)
        met = density > 0
        ds = -torch.log(density.where(met, 1.0) * share) / (self.beta * eta)
        reach = self.get_buffer("lambda")[z] * ds
        embedded = self.E0[z] * (1 + reach) * torch.exp(-reach) + 6 * self.V0[z] * torch.exp(-kappa * ds)
        return embedded.where(met, 0.0) + pairs - self.E0[z]


OF_EMT = EffectiveMedium() if BACKEND == "torch" else of_metals_and_molecules()


class EMT(mdgnn.MDGNNCalculator):
    def __init__(self):
        super().__init__(OF_EMT, dtype="float64", backend=BACKEND)


class MorsePotential(mdgnn.MDGNNCalculator):
    """Parameters as ASE's, which has no use for A either; the neighbours are ours in any case."""

    def __init__(self, epsilon=1.0, r0=1.0, rho0=6.0, rcut1=1.9, rcut2=2.7, A=None, neighbor_list=None):
        pairs = Morse(np.full(119, epsilon), np.full(119, r0 / 2), rho0 / r0, rcut1 * r0, rcut2 * r0)
        super().__init__(pairs, dtype="float64", backend=BACKEND)


class LennardJones(mdgnn.MDGNNCalculator):
    def __init__(self, epsilon=1.0, sigma=1.0, rc=None, ro=None, smooth=False):
        mode = "smooth" if smooth else "shifted"
        pairs = mdgnn.LennardJones(epsilon, sigma, cutoff=rc or 3 * sigma, mode=mode)
        super().__init__(pairs, dtype="float64")
