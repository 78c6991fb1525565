"""Parts of networks: elements, radial bases, cutoff envelopes, filters, activations, multilayer perceptrons,
readouts of properties, cached tables, chunks of atoms."""

from mdgnn._internal.blas import with_suitable_rows
from mdgnn.nn.activation import ShiftedSoftplus, shifted_softplus
from mdgnn.nn.chunks import by_chunks
from mdgnn.nn.cutoff import ENVELOPES, cosine_cutoff, polynomial_cutoff
from mdgnn.nn.elements import Elements, atomic_numbers_of
from mdgnn.nn.filters import FILTER_MODES, Filters, call_in_float64
from mdgnn.nn.heads import Heads
from mdgnn.nn.mlp import MLP, xavier
from mdgnn.nn.radial import BASES, BesselBasis, ExponentialBasis, GaussianBasis
from mdgnn.nn.repulsion import Repulsion
from mdgnn.nn.table_cache import TableCache
from mdgnn.properties import KINDS, Property

__all__ = [
    "BASES",
    "ENVELOPES",
    "FILTER_MODES",
    "KINDS",
    "MLP",
    "BesselBasis",
    "Elements",
    "ExponentialBasis",
    "Filters",
    "GaussianBasis",
    "Heads",
    "Property",
    "Repulsion",
    "ShiftedSoftplus",
    "TableCache",
    "atomic_numbers_of",
    "by_chunks",
    "call_in_float64",
    "cosine_cutoff",
    "polynomial_cutoff",
    "shifted_softplus",
    "with_suitable_rows",
    "xavier",
]
