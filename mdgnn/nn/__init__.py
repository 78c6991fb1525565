"""Parts of networks: radial bases, cutoff envelopes, multilayer perceptrons."""

from mdgnn.nn.cutoff import cosine_cutoff, polynomial_cutoff
from mdgnn.nn.mlp import mlp
from mdgnn.nn.radial import gaussian_basis

__all__ = ["cosine_cutoff", "gaussian_basis", "mlp", "polynomial_cutoff"]
