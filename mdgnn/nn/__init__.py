"""Parts of networks: cutoff envelopes, multilayer perceptrons."""

from mdgnn.nn.cutoff import cosine_cutoff, polynomial_cutoff
from mdgnn.nn.mlp import apply_mlp, linears, mlp

__all__ = ["apply_mlp", "cosine_cutoff", "linears", "mlp", "polynomial_cutoff"]
