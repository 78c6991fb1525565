"""Relax a water molecule, with the calculator as the only choice: python examples/water.py [mdgnn|xtb]"""

import sys

from ase import Atoms
from ase.optimize import BFGS

name = sys.argv[1] if len(sys.argv) > 1 else "mdgnn"
if name == "mdgnn":
    from mdgnn import MDGNNCalculator

    calculator = MDGNNCalculator("water")
elif name == "xtb":
    from tblite.ase import TBLite

    calculator = TBLite(method="GFN2-xTB", verbosity=0)
else:
    sys.exit(f"expected mdgnn or xtb, got {name!r}")

water = Atoms("OH2", positions=[[0, 0, 0], [0.757, 0.587, 0], [-0.757, 0.587, 0]])
water.calc = calculator
BFGS(water).run(fmax=0.01)

print(f"bond lengths: {water.get_distance(0, 1):.4f} {water.get_distance(0, 2):.4f} A")
print(f"angle: {water.get_angle(1, 0, 2):.2f} degrees")
print(f"energy: {water.get_potential_energy():.4f} eV")
