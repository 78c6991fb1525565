"""The elements that a model knows: types of atoms, and shift and scale of each element's energy."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

N_NUMBERS = 120  # size of the table of atomic numbers; its last entry stands for all that are out of range


class Elements(nn.Module):
    """What a model knows of its elements; nothing of it is trained or part of the state.

    Types of atoms are rows of an embedding. Rows that no element has may be anything.

    Parameters
    ----------
    elements : None, "any" or sequence of int
        Atomic numbers, which get the types 1, 2 ... None: an atom's number is its type. "any": all atoms are of type 1.
    n_elements : int
        Types are 0 .. n_elements; the length of a list, 1 or more for "any".
    shift, scale : float or sequence of float
        In the order of `elements`, or one for all: an atom's energy is ``scale * network + shift``.

    Attributes
    ----------
    type_of : (121,) int64
        The type of each atomic number; -1 where the model does not know it.
    shift, scale : (n_elements + 1,) float64

    Raises
    ------
    ValueError
        If an atomic number is out of range or comes twice, or the number of shifts or scales does not fit.
    """

    type_of: Tensor

    def __init__(
        self,
        elements: str | Sequence[int] | None,
        n_elements: int,
        shift: float | Sequence[float] = 0.0,
        scale: float | Sequence[float] = 1.0,
    ):
        super().__init__()
        self.known, self.n_elements = atomic_numbers_of(elements), n_elements
        device = torch.get_default_device()
        with torch.device("cpu" if device.type == "meta" else device):  # nothing else would fill them later
            self.register_buffer("type_of", _types(self.known, n_elements), persistent=False)
            # No buffers: they stay float64, so that large shifts lose nothing.
            self.shift, self.scale = (_per_type(values, n_elements) for values in (shift, scale))

    def _apply(self, *args: Any, **kwargs: Any) -> "Elements":
        """They move with the module: a copy at every call would wait for a GPU, and cannot be captured.

        All stay what they are: `Module.to_empty`, after which a state is loaded, would leave the types uninitialised.
        """
        types = self.type_of
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        if not self.type_of.is_meta:
            self.type_of = types.to(self.type_of.device)
        self.shift, self.scale = (table.to(self.type_of.device) for table in (self.shift, self.scale))
        return self

    def types(self, atomic_numbers: Tensor) -> Tensor:
        """(N,) -> (N,) types; -1 of unknown elements, which no embedding has a row for: see `unknown`."""
        return self.type_of.index_select(0, atomic_numbers)

    def energies(self, types: Tensor, network: Tensor) -> Tensor:
        """(N,) types and the network's values -> (N,) energies in float64."""
        return torch.addcmul(self.shift.index_select(0, types), network, self.scale.index_select(0, types))

    @contextmanager
    def known_in(self, atomic_numbers: Tensor) -> Iterator[None]:
        """For what looks up types: a ValueError for an atom of an element that the model does not know."""
        try:
            yield
        except IndexError as error:  # of a table that has no row for it
            if (unknown := self.unknown(atomic_numbers)) is None:
                raise
            raise unknown from error

    def unknown(self, atomic_numbers: Tensor) -> ValueError | None:
        """The error that names the first atom of an element which the model does not know, if there is one."""
        inside = (atomic_numbers >= 0) & (atomic_numbers < N_NUMBERS)
        outside = ~inside | (self.type_of[atomic_numbers.where(inside, N_NUMBERS)] < 0)
        if not outside.any():
            return None
        atom = int(outside.nonzero()[0])
        known = [*self.numbers] if isinstance(self.known, tuple) else f"0 .. {self.numbers[-1]}"
        return ValueError(f"expected atomic numbers out of {known}, got {int(atomic_numbers[atom])} for atom {atom}")

    @property
    def numbers(self) -> Sequence[int]:
        """Atomic numbers that the model knows."""
        if isinstance(self.known, tuple):
            return self.known
        return range(N_NUMBERS if self.known == "any" else self.n_elements + 1)


def atomic_numbers_of(elements: str | Sequence[int] | None) -> str | tuple[int, ...] | None:
    """The `elements` of a model: a sequence as plain integers; "any" and None as they are.

    Raises
    ------
    ValueError
        If an atomic number is out of range or comes twice.
    """
    if elements is None or isinstance(elements, str):
        return elements
    numbers = tuple(int(z) for z in elements)
    if len(set(numbers)) < len(numbers) or not all(0 < z < N_NUMBERS for z in numbers):
        raise ValueError(f"expected different atomic numbers from 1 to {N_NUMBERS - 1}, got {[*numbers]}")
    return numbers


def _types(elements: str | tuple[int, ...] | None, n_elements: int) -> Tensor:
    """(N_NUMBERS + 1,): the type of each atomic number, -1 where the model does not know it."""
    if elements == "any":
        return torch.ones(N_NUMBERS + 1, dtype=torch.int64)
    types = torch.full((N_NUMBERS + 1,), -1, dtype=torch.int64)
    if elements is None:
        types[: min(n_elements + 1, N_NUMBERS)] = torch.arange(min(n_elements + 1, N_NUMBERS))
    else:
        types[torch.tensor(elements)] = torch.arange(1, len(elements) + 1)
    return types


def _per_type(values: float | Sequence[float], n_elements: int) -> Tensor:
    """(n_elements + 1,): one number for all types, or one for each element (types 1 ..)."""
    given: Tensor = torch.atleast_1d(torch.as_tensor(values, dtype=torch.float64))
    if len(given) == 1:
        return given.repeat(n_elements + 1)
    if len(given) != n_elements:
        raise ValueError(f"expected one shift and scale for each of the {n_elements} elements, got {len(given)}")
    return torch.cat([torch.zeros(1, dtype=given.dtype), given])
