"""Run a program, and leave each figure beside its picture: python tests/support/drawn.py FILE ARGUMENTS"""

import pickle
import runpy
import sys
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

save = Figure.savefig


def save_both(figure, path, **options):
    save(figure, path, **options)
    plt.close(figure)
    Path(path).with_suffix(".pickle").write_bytes(pickle.dumps(figure))


Figure.savefig = save_both
sys.argv = sys.argv[1:]
sys.path[0] = str(Path(sys.argv[0]).parent)
runpy.run_path(sys.argv[0], run_name="__main__")
