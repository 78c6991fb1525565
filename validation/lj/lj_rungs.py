"""What each rung of the Lennard-Jones ladder measures of a model; `lj_ladder.py` runs them and writes the table.

A rung takes a calculator and the folders of data and of work, and returns figures by name, numbers alone.
"""

import itertools
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculatorError
from ase.calculators.lj import LennardJones as AseLennardJones
from ase.io import read, write
from ase.optimize import BFGS, FIRE
from lj_dynamics import caloric, drift, state_points
from lj_minima import Array, find, hop, lennard_jones, quench, random_start, read_table
from lj_systems import SHORT_CUTOFF, Figures, cluster, exact, langevin, liquid, minima

from mdgnn import MDGNNCalculator
from mdgnn.dynamics.lj_frames import label

BOX_CUTOFF = 10.0  # sigma, of exact labels of boxes; beyond, tail corrections


# --- rung 1: the lecture's clusters of four atoms --------------------------------------------------------------------


def four_atoms(random: np.random.RandomState, n: int) -> list[Atoms]:
    """Clusters as the lecture draws them: no two atoms nearer than 0.8 sigma."""
    clusters: list[Atoms] = []
    while len(clusters) < n:
        positions = random.randn(4, 3) * 0.8
        i, j = np.triu_indices(4, 1)
        if np.linalg.norm(positions[i] - positions[j], axis=1).min() >= 0.8:
            clusters.append(cluster(positions))
    return clusters


def lecture_test(calculator: MDGNNCalculator, data: Path, work: Path) -> Figures:
    """MAE and R2 on the lecture's test clusters, the last 400 of 2,000."""
    frames = four_atoms(np.random.RandomState(42), 2000)[1600:]
    truth = np.array([lennard_jones(atoms.positions)[0] for atoms in frames])
    guess = np.array([results["energy"] for results in calculator.evaluate(frames)])
    error = guess - truth
    return {
        "mae": float(np.abs(error).mean()),
        "median": float(np.median(np.abs(error))),
        "r2": float(1 - np.square(error).sum() / np.square(truth - truth.mean()).sum()),
        "truth": truth.tolist(),
        "guess": guess.tolist(),
    }


# --- rung 2: forces and energies of unseen dynamics ------------------------------------------------------------------

CLUSTERS = ((13, 0.1), (13, 0.3), (38, 0.1), (38, 0.3), (55, 0.1), (55, 0.3), (147, 0.2), (147, 0.4))
LIQUIDS = ((0.776, 0.85), (0.8442, 0.72), (0.9, 0.9))  # density, temperature


def unseen(data: Path, work: Path) -> list[Atoms]:
    """Labelled frames of dynamics with the exact potential, made once; ten of each system and temperature."""
    path = work / "unseen_2.xyz"  # another number where what makes them changes
    if path.exists():
        return list(read(path, ":"))
    known, frames = minima(data, work), []
    for k, (n, temperature) in enumerate(CLUSTERS):
        atoms = known[n].copy()
        atoms.calc = exact()
        made = _sampled(atoms, temperature, np.random.default_rng([7, k]))
        label(made, exact())
        frames += [_named(a, f"{n} atoms, T = {temperature}") for a in made]
    for k, (density, temperature) in enumerate(LIQUIDS):
        atoms = liquid(density, 4, exact(SHORT_CUTOFF), np.random.default_rng([8, k]))
        made = _sampled(atoms, temperature, np.random.default_rng([9, k]))
        label(made, exact(BOX_CUTOFF), BOX_CUTOFF)
        frames += [_named(a, f"liquid, rho = {density}, T = {temperature}") for a in made]
    write(path, frames, format="extxyz")
    return frames


def _sampled(atoms: Atoms, temperature: float, rng: np.random.Generator) -> list[Atoms]:
    melt = atoms.pbc.any()  # still hot
    dynamics = langevin(atoms, temperature, rng, friction=3.0 if melt else 0.5, start=1.0 if melt else 2.0)
    dynamics.run(2000)
    frames = []
    for _ in range(10):
        dynamics.run(200)
        frames.append(atoms.copy())
    return frames


def _named(atoms: Atoms, name: str) -> Atoms:
    atoms.info["system"] = name
    return atoms


def force_errors(calculator: MDGNNCalculator, data: Path, work: Path) -> Figures:
    """Sum |dF| / sum |F| and mean |dE| per atom, of each system and temperature."""
    groups: dict[str, list[Atoms]] = {}
    for atoms in unseen(data, work):
        groups.setdefault(atoms.info["system"], []).append(atoms)
    result: Figures = {}
    for name, frames in groups.items():
        guesses = calculator.evaluate(frames)
        wrong = sum(np.abs(f["forces"] - a.get_forces()).sum() for f, a in zip(guesses, frames, strict=True))
        size = sum(np.abs(a.get_forces()).sum() for a in frames)
        energy = [abs(f["energy"] - a.get_potential_energy()) / len(a) for f, a in zip(guesses, frames, strict=True)]
        result[name] = [float(wrong / size), float(np.mean(energy))]
    return result


# --- rung 3: the Cambridge Cluster Database --------------------------------------------------------------------------

LARGEST_HOPPED = 20


def relaxed(calculator: MDGNNCalculator, data: Path, work: Path) -> Figures:
    """True energies above the table, where FIRE ends from minima perturbed by 0.05 sigma; the order of two at 38."""
    table, excess, known = read_table(data / "lj_ccd.tsv"), {}, minima(data, work)
    pair = known[38].copy(), icosahedral_38(data, work)
    true_gap = lennard_jones(pair[1].positions)[0] - table[38]
    for n, atoms in known.items():
        atoms.positions += np.random.default_rng([3, n]).normal(0, 0.05, atoms.positions.shape)
        atoms.calc = calculator
        excess[str(n)] = lennard_jones(atoms.positions)[0] - table[n] if descend(atoms) else math.inf
    gap = []
    for atoms, true in zip(pair, (table[38], table[38] + true_gap), strict=True):
        atoms.calc = calculator
        there = descend(atoms) and abs(lennard_jones(atoms.positions)[0] - true) < 1e-3
        gap.append(atoms.get_potential_energy() if there else math.nan)
    return {"excess": excess, "gap": gap[1] - gap[0], "true gap": true_gap}


def descend(atoms: Atoms) -> bool:
    """Relax to 1e-3 epsilon/sigma; whether it came to that.

    By FIRE: where BFGS ends is chance for some starts, as its first steps go up by hundreds of epsilon. With the true
    potential and starts moved by 1e-5 sigma it came back from 22 atoms twice of twenty times, from 36 never, and FIRE
    each time.
    """
    return bool(FIRE(atoms, logfile=None).run(fmax=1e-3, steps=2000))


def shaken(calculator: MDGNNCalculator, data: Path, work: Path) -> Figures:
    """Of 40 starts displaced by 0.1 sigma, of 38 and 55 atoms: how many BFGS brings back, to 0.05 epsilon, and how many
    end with atoms nearer than 0.8 sigma, in a hole of the potential."""
    table, known, counts = read_table(data / "lj_ccd.tsv"), minima(data, work), {"returned": 0, "fell": 0}
    for n, seed in itertools.product((38, 55), range(20)):
        atoms = known[n].copy()
        atoms.positions += np.random.default_rng([12, n, seed]).normal(0, 0.1, atoms.positions.shape)
        atoms.calc = calculator
        try:
            BFGS(atoms, logfile=None).run(fmax=0.01, steps=600)
        except CalculatorError:  # atoms at one place
            counts["fell"] += 1
            continue
        i, j = np.triu_indices(n, 1)
        counts["fell"] += bool(np.linalg.norm(atoms.positions[i] - atoms.positions[j], axis=1).min() < 0.8)
        counts["returned"] += bool(abs(lennard_jones(atoms.positions)[0] - table[n]) < 0.05)
    return counts


def icosahedral_38(data: Path, work: Path) -> Atoms:
    """The lowest minimum that is left when an atom is taken from the icosahedral one of 39."""
    path = work / "icosahedral_38.xyz"
    if not path.exists():
        target = read_table(data / "lj_ccd.tsv")[39]
        whole = find(39, target, None, np.random.default_rng([0, 39]))
        best = min((quench(lennard_jones, np.delete(whole, k, axis=0), 1e-7) for k in range(39)), key=lambda m: m[0])
        write(path, cluster(best[1]), format="extxyz")
    return cluster(read(path).positions)


def hopped(calculator: MDGNNCalculator, data: Path, work: Path) -> Figures:
    """Basin hopping on the model alone: how far above the table the true energy of its lowest minimum is.

    The lowest of three runs of 10 + 5 N hops from random starts.
    """
    table, excess = read_table(data / "lj_ccd.tsv"), {}
    for n in range(3, LARGEST_HOPPED + 1):
        minimize = partial(quench, calculator, fmax=3e-3)
        rng = np.random.default_rng([4, n])
        _, where, _ = min(
            (hop(minimize, random_start(n, rng), rng, -math.inf, 10 + 5 * n) for _ in range(3)), key=_first
        )
        _, where = quench(calculator, where, 1e-4)
        excess[str(n)] = lennard_jones(where)[0] - table[n]
    return {"excess": excess}


def _first(run: tuple[float, Array, int]) -> float:
    return run[0]


# --- rung 6: speed ---------------------------------------------------------------------------------------------------


def speed(calculator: MDGNNCalculator, data: Path, work: Path) -> Figures:
    """Milliseconds of energy and forces, ours and of ASE's LennardJones, in turns: medians, and of their ratios.

    Of clusters ASE's takes all pairs, as their labels do; of the liquid those within 3 sigma, as the published figures.
    """
    known = minima(data, work)
    systems = {"4 atoms": known[4], "13 atoms": known[13], "55 atoms": known[55], "147 atoms": known[147]}
    systems["liquid of 500 atoms"] = liquid(0.8442, 5, exact(SHORT_CUTOFF), np.random.default_rng(11))
    result = {}
    for name, atoms in systems.items():
        theirs = atoms.copy()
        atoms.calc = calculator
        theirs.calc = AseLennardJones(sigma=1.0, epsilon=1.0, rc=SHORT_CUTOFF if atoms.pbc.any() else 30.0)
        rounds = [[_milliseconds(a) for a in (atoms, theirs)] for _ in range(9)]
        ours, ase = np.array(rounds[1:]).T
        result[name] = [float(np.median(ours)), float(np.median(ase)), float(np.median(ase / ours))]
    return result


def _milliseconds(atoms: Atoms) -> float:
    rng, count, start = np.random.default_rng(0), 0, time.perf_counter()
    while time.perf_counter() - start < 0.05 or count < 2:
        atoms.positions += rng.normal(0, 1e-5, atoms.positions.shape)
        atoms.get_forces()
        count += 1
    return (time.perf_counter() - start) / count * 1e3


RUNGS: dict[str, Callable[[MDGNNCalculator, Path, Path], Figures]] = {
    "lecture": lecture_test,
    "forces": force_errors,
    "relaxed": relaxed,
    "shaken": shaken,
    "hopped": hopped,
    "states": state_points,
    "drift": drift,
    "caloric": caloric,
    "speed": speed,
}
