"""Which class is taken for which, kept as the pairs that there are: a matrix of 20,000 classes would be 3.2 GB."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch import distributed as dist

Whole = npt.NDArray[np.int64]

MOST_AS_MATRIX: Final = 1000
"""Classes that a matrix is made of. Of more the pairs are written and exchanged."""


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Pairs of a true and a predicted class, and how many images each has: int64 [K, 3], none of 0, sorted."""

    classes: int
    cells: Whole

    @classmethod
    def counted(cls, labels: Whole, predicted: Whole, classes: int) -> Confusion:
        """From images: int64 [N] each, from 0 to `classes` - 1."""
        keys, counts = np.unique(labels * classes + predicted, return_counts=True)
        return cls._of(keys, counts, classes)

    @classmethod
    def of(cls, matrix: Whole) -> Confusion:
        """From int64 [C, C], true class by row, predicted by column."""
        keys = np.flatnonzero(matrix)
        return cls._of(keys, matrix.reshape(-1)[keys], len(matrix))

    @classmethod
    def _of(cls, keys: Whole, counts: Whole, classes: int) -> Confusion:
        return cls(classes=classes, cells=np.stack([keys // classes, keys % classes, counts], axis=1).astype(np.int64))

    def matrix(self, most: int = MOST_AS_MATRIX) -> Whole:
        """int64 [C, C], true class by row, predicted by column.

        Of more than `most` classes as many neighbours are taken together as it needs to have no more rows.
        """
        together = -(-self.classes // most)
        found = np.zeros((-(-self.classes // together),) * 2, np.int64)
        rows, columns, counts = self.cells.T
        np.add.at(found, (rows // together, columns // together), counts)
        return found

    @property
    def total(self) -> int:
        return int(self.cells[:, 2].sum())

    @property
    def correct(self) -> int:
        return int(self.by_class[2].sum())

    @property
    def by_class(self) -> Whole:
        """int64 [3, C]: its images, those that were taken for it, and those of both."""
        found = np.zeros((3, self.classes), np.int64)
        rows, columns, counts = self.cells.T
        right = rows == columns
        for place, (where, many) in enumerate(((rows, counts), (columns, counts), (rows[right], counts[right]))):
            np.add.at(found[place], where, many)
        return found

    def mistakes(self, most: int) -> list[tuple[int, int, int]]:
        """The pairs of different classes that have most images, the most first: true, predicted, images."""
        wrong = self.cells[self.cells[:, 0] != self.cells[:, 1]]
        order = np.argsort(-wrong[:, 2], kind="stable")[:most]
        return [(row, column, count) for row, column, count in wrong[order].tolist()]

    def to_json(self) -> dict[str, Any]:
        """`confusion`, the matrix; of more than 1,000 classes `confusionCells`, [true, predicted, images] of each pair
        that was met, with the classes' places in `classes`."""
        if self.classes <= MOST_AS_MATRIX:
            return {"confusion": self.matrix().tolist()}
        return {"confusionCells": self.cells.tolist()}

    def of_all_ranks(self, device: torch.device) -> Confusion:
        """The sum over all ranks, on every rank; all must call it."""
        if self.classes <= MOST_AS_MATRIX:
            matrix = torch.from_numpy(self.matrix()).to(device)
            dist.all_reduce(matrix)
            return Confusion.of(matrix.cpu().numpy())
        most = torch.tensor(len(self.cells), device=device)
        dist.all_reduce(most, op=dist.ReduceOp.MAX)
        mine = torch.zeros(int(most), 3, dtype=torch.int64)
        mine[: len(self.cells)] = torch.from_numpy(self.cells)
        return self._sum([one.cpu() for one in _gathered(mine.to(device))])

    def _sum(self, several: list[Tensor]) -> Confusion:
        """Of cells of this many classes, among which some may be empty."""
        rows, columns, counts = torch.cat(several).numpy().T
        keys, places = np.unique(rows * self.classes + columns, return_inverse=True)
        found = np.zeros(len(keys), np.int64)
        np.add.at(found, places, counts)
        return Confusion._of(keys[found > 0], found[found > 0], self.classes)


def _gathered(mine: Tensor) -> list[Tensor]:
    everyone = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, mine)
    return everyone
