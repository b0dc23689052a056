"""Who computes which virtual shards: shared out by speed, the same on every rank, from nothing but the times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

SLACK: Final = 0.15
"""A new assignment must shorten the slowest rank's step by this part, or the old one stays: times are noisy."""

Assignment = tuple[int, ...]
"""How many shards each rank has, in the order of ranks. Rank r's come after those of the ranks before it."""


def even(shards: int, ranks: int) -> Assignment:
    """Shared out evenly, the first ranks taking what is left over.

    Raises:
        ValueError: there are more ranks than shards.
    """
    if ranks > shards:
        raise ValueError(f"{ranks} ranks can't share {shards} shards: write trainer.shards of at least {ranks}")
    return tuple(shards // ranks + (rank < shards % ranks) for rank in range(ranks))


def balanced(seconds_per_shard: Sequence[float], shards: int) -> Assignment:
    """Shared out so that the slowest rank is done as early as can be; every rank has at least one shard.

    Greedy, one shard at a time to the rank that would be done first with it: optimal for equal shards.
    """
    ranks = len(seconds_per_shard)
    counts = list(even(shards, ranks)) if ranks == shards else [1] * ranks
    for _ in range(shards - sum(counts)):
        rank = min(range(ranks), key=lambda r: ((counts[r] + 1) * seconds_per_shard[r], r))
        counts[rank] += 1
    return tuple(counts)


def rebalanced(current: Assignment, seconds_per_shard: Sequence[float]) -> Assignment:
    """The assignment from here on: a better one if it is better by enough, else the current one.

    seconds_per_shard: each rank's own time for one shard, the same list on every rank.
    """
    if not all(0 < seconds < 3600 for seconds in seconds_per_shard):
        return current
    proposed = balanced(seconds_per_shard, sum(current))
    now = max(count * seconds for count, seconds in zip(current, seconds_per_shard, strict=True))
    then = max(count * seconds for count, seconds in zip(proposed, seconds_per_shard, strict=True))
    return proposed if then < (1 - SLACK) * now else current


def own(assignment: Assignment, rank: int) -> range:
    """The shards of a rank."""
    first = sum(assignment[:rank])
    return range(first, first + assignment[rank])
