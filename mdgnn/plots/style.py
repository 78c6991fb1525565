"""What all pictures have in common. Matplotlib is imported where a picture is made, and nowhere else."""

import io
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.floating[Any]]
MOST_IN_A_LINE = 5000  # points; a picture has some 600 columns
BLOCKS = 1000
DPI = 120


def new_figure(width: float, height: float) -> "Figure":
    """A figure of so many inches that no window shows."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def load_matplotlib() -> None:
    """Import what pictures need: half of the time that they take."""
    import matplotlib.backends.backend_agg
    import matplotlib.figure  # noqa: F401


def save(figure: "Figure", path: Path) -> None:
    """As PNG, whole at any moment: two processes may draw the pictures of one run."""
    picture = io.BytesIO()
    figure.dpi = DPI
    layout = figure.get_layout_engine()
    if layout is not None:  # once: savefig would do it twice, which takes longer than to draw
        layout.execute(figure)
        figure.set_layout_engine("none")
    figure.savefig(picture, dpi=DPI, format="png")
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        part.write_bytes(picture.getvalue())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def line(axes: "Axes", x: Array, y: Array, *style: str, **more: Any) -> None:
    """A curve; of very many points a band from the least to the greatest of each thousandth, which looks the same."""
    y = np.where(np.isfinite(y), y, np.nan)
    if len(y) > MOST_IN_A_LINE:
        first = np.linspace(0, len(y), BLOCKS, endpoint=False).astype(int)
        y = np.stack([np.fmin.reduceat(y, first), np.fmax.reduceat(y, first)], axis=1).ravel()
        x = np.repeat(x[first], 2)
    axes.plot(x, y, *style, **more)


def note(axes: "Axes", sentences: Sequence[str]) -> None:
    """Small print below a panel: what the picture leaves out."""
    if sentences:
        axes.annotate(
            "\n".join(sentences), (0.5, 0), (0, -4), xycoords=axes.transAxes, textcoords="offset points",
            ha="center", va="top", fontsize=8, color="0.4",
        )  # fmt: skip


def literal(text: str) -> str:
    """Text that a user has chosen, in which a dollar is a dollar."""
    return text.replace("$", r"\$")


def symbol(unit: str) -> str:
    """Of units as files have them, such as epsilon/sigma^3, as they are printed."""
    names = {"epsilon": "ε", "sigma": "σ", "tau": "τ", "kB": "k$_B$", "Angstrom": "Å"}
    parts = unit.replace("^3", "³").split("/")
    return "/".join(names.get(part.rstrip("³"), part.rstrip("³")) + "³" * part.endswith("³") for part in parts)
