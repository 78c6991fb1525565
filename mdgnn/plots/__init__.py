"""Pictures of runs. `draw` makes them, and nothing that happens to a picture happens to the run.

Matplotlib has one style for a process: its rcParams, which the user's matplotlibrc and MPLBACKEND fill when it is
imported, and which every artist reads while it is made and drawn. A context that changes them changes them for all
threads. So pictures are drawn in a process of their own: with Matplotlib's defaults whatever the user's files say,
within a limit of time, and without Matplotlib in this one.
"""

from mdgnn.plots.process import Drawing, draw, start

__all__ = ["Drawing", "draw", "start"]
