"""Parts of networks: cutoff envelopes, multilayer perceptrons, tables that are kept."""

from mdgnn.nn.cutoff import cosine_cutoff, polynomial_cutoff
from mdgnn.nn.mlp import apply_mlp, linears, mlp
from mdgnn.nn.table_cache import TableCache

__all__ = ["TableCache", "apply_mlp", "cosine_cutoff", "linears", "mlp", "polynomial_cutoff"]
