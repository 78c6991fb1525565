"""Parts of networks: radial bases, cutoff envelopes, multilayer perceptrons."""

from mdgnn.nn.cutoff import cosine_cutoff, polynomial_cutoff
from mdgnn.nn.mlp import apply_mlp, linears, mlp
from mdgnn.nn.radial import gaussian_basis

__all__ = ["apply_mlp", "cosine_cutoff", "gaussian_basis", "linears", "mlp", "polynomial_cutoff"]
