"""A molecule as a graph, message passing, and the radial basis: python examples/graphs.py [FOLDER]"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from ase import Atoms

from mdgnn import neighbor_list
from mdgnn.ops import edge_basis


def draw(ax, places, edges, colors, labels, title):
    """Nodes at `places` (N, 2), and a line for every edge (2, E)."""
    ax.plot(*places[edges].transpose(2, 0, 1), color="gray", lw=2, zorder=1)
    ax.scatter(*places.T, s=1300, c=colors, edgecolors="black", zorder=2)
    for place, label in zip(places, labels, strict=True):
        ax.text(*place, label, ha="center", va="center", zorder=3)
    ax.set(title=title, xmargin=0.25, ymargin=0.25)


def arrow(ax, start, end, color):
    ax.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": color, "lw": 2, "shrinkA": 20, "shrinkB": 20})


def water_graph(path):
    """Every pair of atoms closer than the cutoff makes two edges, one in each direction."""
    water = Atoms("OH2", [[0, 0, 0], [0.757, 0.587, 0], [-0.757, 0.587, 0]])
    i, j, d = neighbor_list("ijd", water, cutoff=2.0)
    print(f"water: {len(water)} nodes, {len(i)} edges at cutoff 2.0 A")
    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    colors, names = ["tomato", "lightblue", "lightblue"], ["O 0\nZ=8", "H 1\nZ=1", "H 2\nZ=1"]
    draw(left, water.positions[:, :2], np.stack([i, j]), colors, names, "Water: bonds and the H-H distance")
    left.set(xlabel="x (A)", ylabel="y (A)", aspect=1, adjustable="datalim")
    places = np.array([[0.5, 1.0], [1.0, 0.0], [0.0, 0.0]])
    draw(right, places, np.zeros((2, 0), int), colors, names, "Its graph: a message along every edge")
    for a, b, r in zip(i, j, d, strict=True):
        print(f"edge {water.symbols[a]}({a}) - {water.symbols[b]}({b}): {r:.3f} A")
        left.text(*water.positions[[a, b], :2].mean(0), f"{r:.3f}", ha="center", va="center", backgroundcolor="white")
        aside = np.array([[0, -0.03], [0.03, 0]]) @ (places[b] - places[a])
        arrow(right, places[b] + aside, places[a] + aside, "gray")
    right.axis("off")
    fig.savefig(path, dpi=120)


def message_passing(path):
    """The three steps of one layer, as node 0 sees them."""
    places = np.array([[0, 0], [1, 0.5], [1, -0.5], [2, 0.5], [2, -0.5]])
    edges = np.array([[0, 0, 1, 1, 2, 3], [1, 2, 2, 3, 4, 4]])
    fig, axes = plt.subplots(1, 3, figsize=(13, 3.5), layout="constrained")
    titles = ["Send: neighbours 1 and 2", r"Aggregate: $M = \sum_j m_{0j}$", r"Update: $h_0 + U(h_0, M)$"]
    active = [{1: "gold", 2: "gold"}, {0: "orange"}, {0: "limegreen"}]
    for ax, title, color in zip(axes, titles, active, strict=True):
        draw(ax, places, edges, [color.get(node, "lightblue") for node in range(5)], range(5), title)
        ax.axis("off")
    for sender in (1, 2):
        arrow(axes[0], places[sender], places[0], "red")
    fig.savefig(path, dpi=120)


def radial_basis(path):
    """A distance becomes 16 smooth numbers, each sensitive to its own range."""
    centers, r = torch.linspace(0.5, 5.0, 16), torch.linspace(0, 6, 301)
    fig, ax = plt.subplots(figsize=(8, 4), layout="constrained")
    ax.plot(r, edge_basis(torch.outer(r, torch.eye(3)[0]), centers, 0.5)[1])
    ax.set(title="Gaussian radial basis", xlabel="distance r (A)", ylabel="value")
    fig.savefig(path, dpi=120)
    print("basis of r = 2.5:", *(f"{value:.3f}" for value in edge_basis(2.5 * torch.eye(3)[:1], centers, 0.5)[1][0]))


folder = Path(sys.argv[1] if len(sys.argv) > 1 else "figures")
folder.mkdir(parents=True, exist_ok=True)
water_graph(folder / "water_graph.png")
message_passing(folder / "message_passing.png")
radial_basis(folder / "radial_basis.png")
