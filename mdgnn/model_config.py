"""Options of models: a frozen dataclass for each, which says by name what is wrong."""

import difflib
import functools
import inspect
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from numbers import Integral
from typing import Any, ClassVar, Concatenate, ParamSpec, TypeVar, cast

import numpy as np

from mdgnn.nn import ENVELOPES, FILTER_MODES, atomic_numbers_of

Self = TypeVar("Self", bound="ModelConfig")
Configured = TypeVar("Configured")  # a model
Options = ParamSpec("Options")
RENAMED = {"least_distance": "min_distance"}  # options of the release before, and in files


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Options that every model has; those of a model are a dataclass that derives from this one.

    Fields of a derived ``@dataclass(frozen=True)`` may be given by position; ``_: KW_ONLY`` ends them. A
    ``__post_init__`` calls ``super().__post_init__()`` first and raises ValueError for values that make no model.

    Parameters
    ----------
    cutoff : float
        How far edges reach (Angstrom, or sigma in reduced units). None and infinity: all pairs of an open system. A
        model with a second cutoff, as of triplets, has a field for it and overrides `cutoffs`.
    elements : "any" or sequence of int
        Atomic numbers that the model knows. "any": all atoms are the same kind.
    units : "metal" or "lj"
        eV and Angstrom, or epsilon and sigma (numerically eV and Angstrom, with mass 1).
    readout : "sum" or "mean"
        Of atomic energies: "sum" for extensive properties such as the energy, "mean" for intensive ones.
    shift, scale : float or sequence of float
        In the order of `elements`, or one for all: an atom's energy is ``scale * network + shift``, in float64.
    min_distance : float
        The shortest distance in the training data; calculators warn below it.
    repulsion : float
        The distance at which atoms begin to repel each other, beside what the network says; 0: no repulsion. See
        `mdgnn.nn.Repulsion`.
    filters : "table" or "direct"
        Whether functions of the distance alone are interpolated between `n_knots` distances up to the cutoff, or
        evaluated at every edge, which costs more and differs by less than the rounding of float32.
    n_knots : int

    Raises
    ------
    ValueError
    """

    cutoff: float = 5.0
    elements: str | Sequence[int] | None = "any"
    units: str = "metal"
    readout: str = "sum"
    shift: float | Sequence[float] = 0.0
    scale: float | Sequence[float] = 1.0
    min_distance: float = 0.0
    repulsion: float = 0.0
    filters: str = "table"
    n_knots: int = 1024

    knows_bare_numbers: ClassVar[bool] = False  # whether `elements` may be None: an atomic number is its type

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, np.generic):  # which JSON does not hold
                value = value.item()
                self.set(**{f.name: value})
            if f.type in (int, "int") and (not isinstance(value, Integral) or isinstance(value, bool)):
                raise ValueError(f"expected {f.name} as an integer, got {value!r}")
        self.set(
            cutoff=math.inf if self.cutoff is None else float(self.cutoff),
            elements=atomic_numbers_of(self.elements),
            shift=_floats(self.shift),
            scale=_floats(self.scale),
            min_distance=float(self.min_distance),
        )
        if self.elements != "any" and not isinstance(self.elements, tuple) and not self.knows_bare_numbers:
            raise ValueError(f"expected elements as 'any' or a list of atomic numbers, got {self.elements!r}")
        require_positive("cutoff", self.cutoff)
        require("readout", self.readout, ("sum", "mean"))
        require("units", self.units, ("metal", "lj"))
        require("filters", self.filters, FILTER_MODES)
        if self.n_knots < 2:
            raise ValueError(f"expected two knots or more, got n_knots = {self.n_knots}")
        if isinstance(self.repulsion, bool) or not isinstance(self.repulsion, (int, float)):
            raise ValueError(f"expected a repulsion as the distance it begins at, or 0, got {self.repulsion!r}")

    def set(self, **values: Any) -> None:
        """Give fields their final type; for `__post_init__` alone."""
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def cutoffs(self) -> tuple[float, ...]:
        """How far edges reach, then triplets and what else a model has; a graph's edges reach to the largest."""
        return (self.cutoff,)

    @property
    def n_elements(self) -> int:
        """Atoms are of the types 1 .. n_elements."""
        return len(self.elements) if isinstance(self.elements, tuple) else 1

    @classmethod
    def names(cls) -> list[str]:
        """Of all options: those that may be given by position first."""
        return list(inspect.signature(cls).parameters)

    @classmethod
    def make(cls: type[Self], model: str, args: Sequence[Any], options: Mapping[str, Any], stacklevel: int = 4) -> Self:
        """From the arguments of a model of this name: a configuration, or options.

        Warnings are for the line that is so many calls away, the caller of a model's constructor.

        Raises
        ------
        TypeError
            For an option that there is not; the sentence names the nearest. For one under its old and its new name.
        """
        if args and isinstance(args[0], ModelConfig):
            if not isinstance(args[0], cls) or len(args) > 1 or options:
                raise TypeError(f"expected {model} to be given one {cls.__name__} or options, got {args[0]} and more")
            return args[0]
        options = {**options}
        for old, new in RENAMED.items():
            if old in options:
                warnings.warn(
                    f"the option {old} of models is called {new} now", DeprecationWarning, stacklevel=stacklevel
                )
                if new in options:
                    raise TypeError(f"{model} was given {new} twice: as {old}, too, its name of before")
                options[new] = options.pop(old)
        known = cls.names()
        for name in options:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1, 0.6)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise TypeError(f"{model} has no option {name!r}; options are {', '.join(known)}{hint}")
        return cls(*args, **options)

    def to_json(self) -> dict[str, Any]:
        """For the header of a model file: JSON has no infinity."""
        return {name: None if value == math.inf else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls: type[Self], model: str, content: Mapping[str, Any]) -> Self:
        """What `to_json` made, under the names of files too. Raises as `make`."""
        options = {RENAMED.get(name, name): value for name, value in content.items()}
        if len(options) < len(content):
            raise TypeError(f"{model} was given an option twice: by its name and by that of before")
        return cls.make(model, (), options)


def takes_options_of(
    config: Callable[Options, Self],
) -> Callable[[Callable[[Configured, Self], None]], Callable[Concatenate[Configured, Options], None]]:
    """Have a model's constructor, which takes its configuration, take the fields of that as well.

    ``PaiNN(64, cutoff=5.0)`` is ``PaiNN(PaiNNConfig(64, cutoff=5.0))``; help, type checkers and editors know the
    fields, which are declared once. A class that derives from the model may have a `Config` that derives from its.
    """

    def decorate(init: Callable[[Configured, Self], None]) -> Callable[Concatenate[Configured, Options], None]:
        def with_options(self: Configured, /, *args: Options.args, **options: Options.kwargs) -> None:
            model = cast(Any, type(self))
            init(self, model.Config.make(model.__name__, args, options, stacklevel=3))

        functools.update_wrapper(with_options, init)
        first, *_ = inspect.signature(init).parameters.values()
        parameters = [first, *inspect.signature(config).parameters.values()]
        with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return with_options

    return decorate


@dataclass(frozen=True, kw_only=True)
class RadialConfig(ModelConfig):
    """Options of networks whose messages are weighted by functions of the distance that vanish at the cutoff.

    Parameters
    ----------
    envelope : "cosine" or "polynomial"
        "polynomial" has a continuous curvature at the cutoff, "cosine" has not.
    basis_start : float
        Where Gaussians and exponentials begin.
    mean_neighbours : float
        Number of neighbours whose square root sums of messages are divided by, as a sum of so many messages of either
        sign is so much larger. 1: the published network; `mdgnn train` takes that of the data.
    """

    envelope: str | None = "cosine"
    basis_start: float = 0.0
    mean_neighbours: float = 1.0

    envelopes: ClassVar[tuple[str | None, ...]] = tuple(ENVELOPES)

    def __post_init__(self) -> None:
        super().__post_init__()
        require("envelope", self.envelope, self.envelopes)
        n = self.mean_neighbours
        if isinstance(n, bool) or not isinstance(n, (int, float)) or not 0 < n < math.inf:
            raise ValueError(f"expected mean_neighbours as a positive number, got {n!r}")

    def require_basis_start(self, below: float) -> None:
        """Raise ValueError unless the basis can begin there; `below` is 0 for one that begins at 0, or has its own
        numbers."""
        if self.basis_start and not 0 <= self.basis_start < below:
            of_bases = "for the basis 'exponential' or of even Gaussians alone"
            where = f"from 0 to the cutoff of {below}" if below else of_bases
            raise ValueError(f"expected a basis_start {where}, got {self.basis_start}")


def require(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """Raise ValueError unless the value is allowed."""
    if value not in allowed:
        raise ValueError(f"expected {name} to be one of {', '.join(map(repr, allowed))}, got {value!r}")


def require_positive(name: str, value: float) -> None:
    """Raise ValueError unless the value is positive."""
    if not value > 0:
        raise ValueError(f"expected a positive {name}, got {value}")


def _floats(values: float | Sequence[float]) -> tuple[float, ...]:
    return tuple(float(x) for x in values) if isinstance(values, Sequence) else (float(values),)
