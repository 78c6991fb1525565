"""The elements that a model knows: rows of its embedding, and shift and scale of each element's energy."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

N_NUMBERS = 120  # size of the table of atomic numbers; its last entry stands for all that are out of range


class Elements(nn.Module):
    """What a model knows of its elements; nothing of it is trained or part of the state.

    Parameters
    ----------
    elements : None, "any" or list of int
        Atomic numbers, which get rows 1, 2 ... of the embedding. None: an atom's number is its row. "any": all atoms
        are the same kind (row 1).
    n_elements : int
        The embedding has rows 0 .. n_elements; the length of a list, 1 for "any".
    shift, scale : float or list of float
        In the order of `elements`, or one for all: an atom's energy is ``scale * network + shift``.

    Raises
    ------
    ValueError
        If an atomic number is out of range or comes twice, or the number of shifts or scales does not fit.
    """

    row_of: Tensor

    def __init__(
        self,
        elements: str | list[int] | None,
        n_elements: int,
        shift: float | list[float] = 0.0,
        scale: float | list[float] = 1.0,
    ):
        super().__init__()
        self.elements, self.n_elements = elements, n_elements
        self.register_buffer("row_of", _element_rows(elements, n_elements), persistent=False)
        # No buffers: they stay float64, so that large shifts lose nothing.
        self.shift, self.scale = (_per_row(values, n_elements) for values in (shift, scale))

    def _apply(self, *args: Any, **kwargs: Any) -> "Elements":
        """They move with the module: a copy at every call would wait for a GPU, and cannot be captured."""
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        self.shift, self.scale = (table.to(self.row_of.device) for table in (self.shift, self.scale))
        return self

    def embed(self, atomic_numbers: Tensor, embedding: nn.Embedding) -> tuple[Tensor, Tensor]:
        """(N,) atomic numbers -> (N,) rows of the embedding, and their features (N, F).

        Raises
        ------
        ValueError
            For an atom whose element the model does not know (on the CPU; a GPU stops with an error of its own).
        """
        try:  # on the CPU, both tables name an index that they do not have; -1 stands for an unknown element
            rows = self.row_of.index_select(0, atomic_numbers)
            return rows, F.embedding(rows, embedding.weight)
        except IndexError as error:
            raise self._unknown(atomic_numbers) from error

    def energies(self, rows: Tensor, network: Tensor) -> Tensor:
        """(N,) rows of the embedding and the network's values -> (N,) energies in float64."""
        return torch.addcmul(self.shift.index_select(0, rows), network, self.scale.index_select(0, rows))

    def _unknown(self, atomic_numbers: Tensor) -> ValueError:
        inside = (atomic_numbers >= 0) & (atomic_numbers < N_NUMBERS)
        rows = self.row_of[atomic_numbers.where(inside, N_NUMBERS)]
        atom = int((~inside | (rows < 0)).nonzero()[0])
        last = N_NUMBERS - 1 if self.elements == "any" else self.n_elements
        known = f"{self.elements}" if isinstance(self.elements, list) else f"0 .. {last}"
        return ValueError(f"expected atomic numbers out of {known}, got {int(atomic_numbers[atom])} for atom {atom}")


def atomic_numbers_of(elements: str | list[int] | None) -> str | list[int] | None:
    """The `elements` of a model: a list as plain integers; "any" and None as they are.

    Raises
    ------
    ValueError
        If an atomic number is out of range or comes twice.
    """
    if not isinstance(elements, (list, tuple)):
        return elements
    numbers = [int(z) for z in elements]
    if len(set(numbers)) < len(numbers) or not all(0 < z < N_NUMBERS for z in numbers):
        raise ValueError(f"expected different atomic numbers from 1 to {N_NUMBERS - 1}, got {numbers}")
    return numbers


def _element_rows(elements: str | list[int] | None, n_elements: int) -> Tensor:
    """(N_NUMBERS + 1,): row of the embedding for each atomic number, -1 where the model does not know it."""
    if elements == "any":
        return torch.ones(N_NUMBERS + 1, dtype=torch.int64)
    rows = torch.full((N_NUMBERS + 1,), -1, dtype=torch.int64)
    if elements is None:
        rows[: min(n_elements + 1, N_NUMBERS)] = torch.arange(min(n_elements + 1, N_NUMBERS))
    else:
        rows[torch.tensor(elements)] = torch.arange(1, len(elements) + 1)
    return rows


def _per_row(values: float | list[float], n_elements: int) -> Tensor:
    """(n_elements + 1,): one number for all rows, or one for each element (rows 1 ..)."""
    given: Tensor = torch.atleast_1d(torch.as_tensor(values, dtype=torch.float64))
    if len(given) == 1:
        return given.repeat(n_elements + 1)
    if len(given) != n_elements:
        raise ValueError(f"expected one shift and scale for each of the {n_elements} elements, got {len(given)}")
    return torch.cat([torch.zeros(1, dtype=given.dtype), given])
