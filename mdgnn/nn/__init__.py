"""Parts of networks: elements, cutoff envelopes, multilayer perceptrons."""

from mdgnn.nn.cutoff import ENVELOPES, cosine_cutoff, polynomial_cutoff
from mdgnn.nn.elements import Elements, atomic_numbers_of
from mdgnn.nn.mlp import apply_mlp, linears, mlp

__all__ = [
    "ENVELOPES",
    "Elements",
    "apply_mlp",
    "atomic_numbers_of",
    "cosine_cutoff",
    "linears",
    "mlp",
    "polynomial_cutoff",
]
