"""What a model is, and what follows from its atomic energies: forces, virial and stress, once for every model.

A model maps edge vectors to atomic energies. Everything else follows from g = dE/dD, the derivative with respect to the
edge vectors: the force on atom i is the sum of g over the edges that it receives minus the sum over those that it
sends, and the virial is -sum g x D, of which half of each edge's share belongs to either of its ends.
"""

import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from mdgnn._internal.torch_context import torch_context
from mdgnn.graph import Graph, mean_per_structure, sum_per_structure
from mdgnn.model_config import ModelConfig
from mdgnn.nn import Elements, Heads, Property, Repulsion
from mdgnn.ops import force_virial, polar, scatter_add


class Potential(nn.Module):
    """The base of every model: what a model is to calculators, training, the engine and files.

    A model derives from it and has

    - `Config`, its options: a frozen dataclass that derives from `ModelConfig`;
    - in ``__init__(self, config)``, after ``super().__init__(config)``, its layers, sized by the configuration. Under
      ``@takes_options_of(Config)`` it takes options, too. Atoms are of the types 1 .. n_elements, so that an embedding
      has ``1 + config.n_elements`` rows. Among the layers is `output_mlp`, from features (N, F) to the network's
      energies (N, 1); an `mdgnn.nn.MLP` if the model is trained;
    - `atomic_features`, from edge vectors to features of atoms.

    The base does the rest: ``e_i = shift + scale * (output_mlp(h_i) + repulsion_i)``, in float64, with shift and scale
    of the atom's element; other properties, from the same features, by `heads`. Nothing is registered: files and
    configurations of training name a class of another package as "package.module:Class".

    What a model has beyond that has its place too. A second cutoff, as of triplets, is a field of the configuration
    and an entry of its `cutoffs`; the graph's edges reach as far as the largest. Features of structures, such as a
    total charge, will be a field of `Graph` with a row for each structure, which ``graph.structure`` gathers for atoms.

    Parameters
    ----------
    args, options
        One instance of `Config`, or its fields: ``PaiNN(64, cutoff=5.0)``.

    Attributes
    ----------
    has_weights : bool
        Of the class: False for a formula, which cannot be trained and which torch computes as fast as the engine.
    config : ModelConfig
    elements : Elements
        Types of atoms, and shift and scale of their energies.
    output_mlp : Module
        (N, F) -> (N, 1).
    repulsion : Repulsion or None
    heads : Heads or None
        Other properties: see `attach_heads`.

    Raises
    ------
    TypeError
        For an option that there is not.
    ValueError
        For values that make no model.
    """

    Config: ClassVar[type[ModelConfig]] = ModelConfig
    has_weights: ClassVar[bool] = True
    output_mlp: nn.Module

    def __init__(self, *args: Any, **options: Any):
        super().__init__()
        self.config = c = self.Config.make(type(self).__name__, args, options)
        self.elements = Elements(c.elements, c.n_elements, c.shift, c.scale)
        self.config_in_file: dict[str, Any] | None = None  # the options as they stand where the model was loaded from
        self.heads: Heads | None = None
        self.repulsion: Repulsion | None = None
        if c.repulsion:
            self.repulsion = Repulsion(c.n_elements, c.repulsion, cutoff=c.cutoff, mode=c.filters, n_knots=c.n_knots)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.__signature__ = inspect.signature(cls.Config)  # type: ignore[attr-defined]  # what help() shows

    @property
    def cutoffs(self) -> tuple[float, ...]:
        """As of `ModelConfig`."""
        return self.config.cutoffs

    @property
    def cutoff(self) -> float:
        """The largest of `cutoffs`: the graph's. Infinite: all pairs of an open system."""
        return max(self.cutoffs)

    @property
    def units(self) -> str:
        """As of `ModelConfig`."""
        return self.config.units

    @property
    def readout(self) -> str:
        """As of `ModelConfig`."""
        return self.config.readout

    @property
    def min_distance(self) -> float:
        """The shortest distance in the training data."""
        return self.config.min_distance

    @property
    def least_distance(self) -> float:
        """The name of `min_distance` in the release before."""
        warnings.warn("least_distance of a model is called min_distance now", DeprecationWarning, stacklevel=2)
        return self.min_distance

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the network."""
        for kind in ("_parameters", "_buffers"):  # in half of the time of self.parameters(): every evaluation asks
            for module in self.modules():
                for tensor in getattr(module, kind).values():
                    if tensor is not None and tensor.is_floating_point():
                        return tensor.dtype  # type: ignore[no-any-return]
        return torch.float64

    @property
    def has_energy(self) -> bool:
        """Whether it has learnt energies: one that has learnt other properties alone has not."""
        return self.heads is None or self.heads.energy

    def atomic_features(self, graph: Graph, vectors: Tensor, types: Tensor) -> Tensor:
        """(E, 3) edge vectors in the model's dtype, (N,) types of atoms -> (N, F) features."""
        raise NotImplementedError(f"{type(self).__name__} has no atomic_features")

    def check_complete(self) -> None:
        """Raise NotImplementedError where a model lacks its body or output layer, unless its energies are its own."""
        own = type(self)
        if own.atomic_energies is not Potential.atomic_energies:
            return
        if own.atomic_features is Potential.atomic_features:
            raise NotImplementedError(f"{own.__name__} has no atomic_features")
        if own.read_out is Potential.read_out and not hasattr(self, "output_mlp"):
            raise NotImplementedError(f"{own.__name__} has no output_mlp: make one in __init__, such as MLP(F, F, 1)")

    def atomic_energies(self, graph: Graph, vectors: Tensor) -> Tensor:
        """(E, 3) edge vectors in the model's dtype -> (N,) atomic energies in float64.

        Raises
        ------
        ValueError
            For an atom whose element the model does not know (on the CPU; a GPU stops with an error of its own).
        """
        return self._features_and_energies(graph, vectors)[2]

    def energies_and_properties(self, graph: Graph, vectors: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """`atomic_energies`, and what `heads` say of each atom, (N,) float64 by name. Raises the same."""
        types, features, energies = self._features_and_energies(graph, vectors)
        return energies, {} if self.heads is None else self.heads(types, features)

    def _features_and_energies(self, graph: Graph, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Types (N,), features (N, F) and energies (N,) of atoms."""
        try:
            types = self.elements.types(graph.atomic_numbers)
            features = self.atomic_features(graph, vectors, types)
            return types, features, self.read_out(graph, vectors, types, features)
        except IndexError as error:  # of a table that has no row for an unknown element
            if (unknown := self.elements.unknown(graph.atomic_numbers)) is None:
                raise
            raise unknown from error

    def read_out(self, graph: Graph, vectors: Tensor, types: Tensor, features: Tensor) -> Tensor:
        """(N, F) features -> (N,) atomic energies in float64, repulsion included."""
        pairs = None
        if self.repulsion is not None:
            r, _ = polar(vectors, directions=False)  # E
            pairs = self.repulsion(types, r, graph)  # N, 1
        try:
            network = self.output_mlp(features)  # N, 1
        except AttributeError:
            self.check_complete()
            raise
        return self.elements.energies(types, (network if pairs is None else network + pairs).squeeze(1))

    def attach_heads(self, properties: Sequence[Property], energy: bool) -> None:
        """Have these properties read out of the features too, with random weights; those that there are stay.

        Parameters
        ----------
        properties : sequence of Property
        energy : bool
            Whether the model's energies are worth asking for.

        Raises
        ------
        ValueError
            If the model has no features, or as `Heads`.
        NotImplementedError
            If it lacks its body or its output layer.
        """
        self.check_complete()
        name, kind = type(self).__name__, type(self)
        output = getattr(self, "output_mlp", nn.Identity())  # a model's own energies need none
        first = next((m for m in output.modules() if isinstance(m, nn.Linear)), None)
        if first is None:
            raise ValueError(f"{name} has no features of atoms to predict properties from")
        alone = kind.energies_and_properties is Potential.energies_and_properties
        if alone and kind.atomic_energies is not Potential.atomic_energies:  # which that would leave out
            raise ValueError(f"{name} has atomic_energies of its own: expected energies_and_properties of its own, too")
        before, weight = self.heads, first.weight
        heads = Heads(properties, first.in_features, self.elements, energy).to(weight.device, self.dtype)
        for p, network in [] if before is None else zip(before.properties, before.networks, strict=True):
            if p in properties:
                heads.networks[heads.properties.index(p)].load_state_dict(network.state_dict())
        self.heads = heads


class Prediction(NamedTuple):
    """energy (S,), energies (N,), forces (N, 3), virial (S, 3, 3) and its shares of atoms (N, 3, 3), all float64; other
    properties by name, (S,) or of atoms (N,)."""

    energy: Tensor
    energies: Tensor
    forces: Tensor | None
    virial: Tensor | None
    virials: Tensor | None
    properties: Mapping[str, Tensor] | None = None


def total_energy(model: Potential, energies: Tensor, graph: Graph) -> Tensor:
    """(N,) atomic energies -> (S,) in float64: the sum, or the mean for an intensive readout."""
    return sum_per_structure(energies, graph) if model.readout == "sum" else mean_per_structure(energies, graph)


@torch_context()
def evaluate(
    model: Potential,
    graph: Graph,
    *,
    forces: bool = True,
    virial: bool = False,
    dtype: torch.dtype | None = None,
    create_graph: bool = False,
    properties: bool = False,
) -> Prediction:
    """Energies, and on request forces, virial and other properties, of all structures of a graph.

    Parameters
    ----------
    model : Potential
    graph : Graph
    dtype : torch.dtype, optional
        What the edge vectors are rounded to after differencing in float64; by default the model's `dtype`.
    create_graph : bool
        Keep what is needed to differentiate the results: training. Otherwise they are detached.
    properties : bool
        Whether to predict those too that the model has `heads` for; there may be none.

    Notes
    -----
    ``torch.inference_mode`` and ``torch.autocast`` around the call make no difference: forces need derivatives, and the
    model has a precision of its own.
    """
    dtype = dtype or model.dtype
    if graph.vectors.is_inference():
        graph = graph.clone()
    derivatives = forces or virial
    vectors = graph.vectors.detach().to(dtype).requires_grad_() if derivatives else graph.vectors.to(dtype)
    by_atom = virials = total = None
    with torch.set_grad_enabled(derivatives or create_graph):
        energies, others = _outputs(model, graph, vectors, properties)
        if derivatives:
            g = edge_gradient(model, energies, vectors, graph, create_graph)
            d = graph.vectors.detach() if virial else None
            by_atom, virials = force_virial(g, graph.padded.edges, d)
            by_atom, virials = by_atom[: graph.n_atoms], None if virials is None else virials[: graph.n_atoms]
            total = None if virials is None else total_virial(virials, graph)
        if not create_graph:
            energies = energies.detach()
            others = None if others is None else {name: values.detach() for name, values in others.items()}
        energy = total_energy(model, energies, graph)
    return Prediction(energy, energies.to(torch.float64), by_atom if forces else None, total, virials, others)


def _outputs(
    model: Potential, graph: Graph, vectors: Tensor, properties: bool
) -> tuple[Tensor, dict[str, Tensor] | None]:
    """Energies of atoms, and on request what the model's heads say of the graph."""
    n = graph.n_atoms
    if not properties or model.heads is None:
        return model.atomic_energies(graph.padded, vectors)[:n], {} if properties else None
    energies, values = model.energies_and_properties(graph.padded, vectors)
    return energies[:n], model.heads.reduce({name: a[:n] for name, a in values.items()}, graph)


def edge_gradient(
    model: Potential, energies: Tensor, vectors: Tensor, graph: Graph, create_graph: bool = False
) -> Tensor:
    """dE/dD (E, 3), from the atomic energies; E is what `total_energy` makes of them."""
    if not energies.requires_grad:  # a model whose energy does not depend on the edges
        return torch.zeros_like(vectors)
    share = torch.ones_like(energies)  # of an atom's energy in E
    if model.readout != "sum":
        share = share / sum_per_structure(share, graph).clamp(min=1)[graph.structure]
    (g,) = torch.autograd.grad(energies, vectors, share, create_graph=create_graph, allow_unused=True)
    return torch.zeros_like(vectors) if g is None else g


def total_virial(virials: Tensor, graph: Graph) -> Tensor:
    """(N, 3, 3) virials of atoms -> (S, 3, 3), -sum g x D made symmetric, which equals -dE/d(strain)."""
    return scatter_add(virials.reshape(-1, 9), graph.atoms_by_structure, columns=graph.structure_of_atoms).reshape(
        -1, 3, 3
    )


def stress(virial: Tensor, cells: Tensor) -> Tensor:
    """(S, 3, 3) stress in energy per volume, positive under tension as in ASE: -virial / volume."""
    volume: Tensor = torch.linalg.det(cells).abs()
    return -virial / volume[:, None, None]
