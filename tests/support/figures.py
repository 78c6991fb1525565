"""What pictures show: the figures that a run asks for, and files that hold more than a header."""

import matplotlib.image
import numpy as np


def assert_picture(path):
    """A PNG that can be read, of a fair size, with ink in every quarter of it."""
    image = matplotlib.image.imread(path)[..., :3]
    height, width, _ = image.shape
    assert min(height, width) >= 300, (path, image.shape)
    ink = (image < 0.9).any(axis=2)
    for rows in (slice(None, height // 2), slice(height // 2, None)):
        for columns in (slice(None, width // 2), slice(width // 2, None)):
            assert 0.0005 < ink[rows, columns].mean() < 0.9, f"{path} is empty, or full, in a quarter"


def figures_of(monkeypatch, *modules):
    """Figures by file name, which fill when those modules draw: here, instead of in another process."""
    figures = {}

    def draw(folder, pictures):
        figures.update({name: prepare()() for name, prepare in pictures.items()})
        return list(pictures)

    for module in modules:
        monkeypatch.setattr(f"{module}.draw", draw)
    return figures


def curve(axes, number=0):
    """x and y of a line, as they are drawn."""
    return np.array(axes.lines[number].get_data(), dtype=float)


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]
