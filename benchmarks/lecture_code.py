"""The baseline: the lecture's network in plain torch, its batching and its training loop."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _mlp(n_in: int, n_hidden: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_in, n_hidden), nn.SiLU(), nn.Linear(n_hidden, n_out))


class MessagePassingLayer(nn.Module):
    def __init__(self, node_dim: int, edge_dim: int, hidden_dim: int):
        super().__init__()
        self.message_mlp = _mlp(2 * node_dim + edge_dim, hidden_dim, hidden_dim)
        self.update_mlp = _mlp(node_dim + hidden_dim, hidden_dim, node_dim)

    def forward(self, h: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        src, dst = edge_index
        messages = self.message_mlp(torch.cat([h[src], h[dst], edge_attr], dim=1))
        agg = torch.zeros(h.size(0), messages.size(1), dtype=h.dtype, device=h.device)
        agg.index_add_(0, dst, messages)
        return h + self.update_mlp(torch.cat([h, agg], dim=1))


class LectureGNN(nn.Module):
    def __init__(self, n_elements: int = 3, node_dim: int = 32, edge_dim: int = 16, n_layers: int = 3):
        super().__init__()
        self.atom_embedding = nn.Embedding(n_elements + 1, node_dim)
        self.rbf_centers = nn.Parameter(torch.linspace(0.5, 5.0, edge_dim), requires_grad=False)
        self.rbf_width = 0.5
        self.layers = nn.ModuleList(MessagePassingLayer(node_dim, edge_dim, node_dim) for _ in range(n_layers))
        self.output_mlp = _mlp(node_dim, node_dim, 1)

    def forward(self, z: Tensor, positions: Tensor, edge_index: Tensor, batch: Tensor | None = None) -> Tensor:
        h = self.atom_embedding(z)
        src, dst = edge_index
        distances = torch.norm(positions[dst] - positions[src], dim=1)
        edge_attr = torch.exp(-((distances.unsqueeze(-1) - self.rbf_centers) ** 2) / (2 * self.rbf_width**2))
        for layer in self.layers:
            h = layer(h, edge_index, edge_attr)
        atom_energy = self.output_mlp(h).squeeze(-1)
        if batch is None:
            return atom_energy.sum()
        energy = torch.zeros(batch.max().item() + 1, dtype=h.dtype, device=h.device)
        energy.index_add_(0, batch, atom_energy)
        return energy


def energy_and_forces(model: nn.Module, z: Tensor, positions: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
    positions = positions.detach().requires_grad_()
    energy = model(z, positions, edge_index)
    (gradient,) = torch.autograd.grad(energy, positions)
    return energy.detach(), -gradient


def collate_graphs(graphs: list[dict[str, Any]]) -> dict[str, Tensor]:
    z, positions, edges, batch, offset = [], [], [], [], 0
    for number, g in enumerate(graphs):
        z.append(torch.tensor(g["z"]))
        positions.append(torch.tensor(g["positions"]))
        edges.append(torch.tensor(g["edge_index"]) + offset)
        batch.append(torch.full((len(g["z"]),), number, dtype=torch.long))
        offset += len(g["z"])
    return {
        "z": torch.cat(z),
        "positions": torch.cat(positions),
        "edge_index": torch.cat(edges, dim=1),
        "energy": torch.tensor([g["energy"] for g in graphs], dtype=torch.float32),
        "batch": torch.cat(batch),
    }


def train_epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, data: list[dict[str, Any]], batch_size: int = 32
) -> float:
    """One pass over the data, in order; returns the mean loss."""
    total, n_batches = 0.0, 0
    for start in range(0, len(data), batch_size):
        b = collate_graphs(data[start : start + batch_size])
        optimizer.zero_grad()
        loss = F.mse_loss(model(b["z"], b["positions"], b["edge_index"], b["batch"]), b["energy"])
        loss.backward()
        optimizer.step()
        total += loss.item()
        n_batches += 1
    return total / n_batches
