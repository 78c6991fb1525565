"""Errors that tables of filters make in energies and forces, against their number of knots: python table_error.py

Random networks of the default size, three seeds each, on a displaced crystal of NaCl (64 atoms) and ethanol. All errors
are root mean squares over atoms, against direct filters in float64: of atomic energies relative to their root mean
square about the mean, and of forces relative to theirs. The row "direct" is what float32 itself costs.
"""

import sys
from datetime import date

import torch
from ase.build import bulk, molecule

import mdgnn
from mdgnn import Graph, PaiNN, SchNet, evaluate

MODELS = {
    "SchNet, 20 Gaussians": lambda **options: SchNet(64, 3, 20, **options),
    "SchNet, 50 Gaussians": lambda **options: SchNet(64, 3, 50, **options),
    "PaiNN, 20 Bessel functions": lambda **options: PaiNN(64, 3, 20, **options),
}
ENVELOPES = ("cosine", "polynomial")
KNOTS = (256, 512, 1024, 2048)


def systems():
    salt = bulk("NaCl", "rocksalt", a=5.64, cubic=True) * 2
    salt.rattle(0.1, seed=0)
    return [salt, molecule("CH3CH2OH")]


def predict(make, seed, dtype, graph, **options):
    torch.manual_seed(seed)
    model = make(elements=[1, 6, 8, 11, 17], cutoff=5.0, **options).to(dtype).requires_grad_(False)
    prediction = evaluate(model, graph)
    return prediction.energies, prediction.forces


def errors(make, envelope, dtype, **options):
    """Relative errors of energies and forces, root mean squares over seeds and systems."""
    squares = []
    for atoms in systems():
        graph = Graph.from_atoms(atoms, 5.0)
        for seed in range(3):
            energies, forces = predict(make, seed, torch.float64, graph, envelope=envelope, filters="direct")
            e, f = predict(make, seed, dtype, graph, envelope=envelope, **options)
            spread = (energies - energies.mean()).square().mean()
            squares.append(
                ((e - energies).square().mean() / spread, (f - forces).square().mean() / forces.square().mean())
            )
    return torch.tensor(squares).mean(0).sqrt().tolist()


def main(out=sys.stdout):
    print(
        f"# Errors of tabulated filters\n\n{date.today()}, mdgnn {mdgnn.__version__}, torch {torch.__version__}, CPU\n",
        file=out,
    )
    print(__doc__.split("\n\n", 1)[1].strip(), file=out)
    for name, make in MODELS.items():
        for envelope in ENVELOPES:
            print(f"\n## {name}, {envelope} envelope\n", file=out)
            print("| knots | energies, float64 | forces, float64 | energies, float32 | forces, float32 |", file=out)
            print("|---:|---:|---:|---:|---:|", file=out)
            for n_knots in (None, *KNOTS):
                options = {"filters": "direct"} if n_knots is None else {"n_knots": n_knots}
                row = [f"{x:.1e}" for d in (torch.float64, torch.float32) for x in errors(make, envelope, d, **options)]
                print(f"| {n_knots or 'direct'} | {' | '.join(row)} |", file=out, flush=True)


if __name__ == "__main__":
    main()
