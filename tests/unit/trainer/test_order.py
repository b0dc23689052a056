"""The order of samples: a permutation, the same for ever, whoever asks."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecloud_trainer.hashing import hashes, key_of
from edgecloud_trainer.order import batch_ids, epoch_order, shard_bounds, steps_per_epoch, validation_due

seeds = st.integers(0, 2**32 - 1)


def test_hashes_are_those_of_splitmix64() -> None:
    """The published first outputs for the state 1234567."""
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert hashes(1234567, np.arange(4)).tolist() == expected


def test_keys_depend_on_every_word_and_their_order() -> None:
    keys = {key_of(), key_of(0), key_of(0, 0), key_of(1, 2), key_of(2, 1), key_of(1, 2, 0), key_of(2**64 - 1)}
    assert len(keys) == 7
    assert all(0 <= key < 2**64 for key in keys)


def test_the_order_never_changes() -> None:
    """Checkpoints store a step: with another order it would stand for other samples."""
    assert epoch_order(0, 0, 10).tolist() == ORDER_0
    assert epoch_order(7, 3, 10).tolist() == ORDER_7_3
    assert [ids.tolist() for _, ids in (batch_ids(1, step, 7, 3) for step in range(3))] == BATCHES_1


ORDER_0 = [0, 6, 4, 2, 1, 7, 9, 3, 8, 5]
ORDER_7_3 = [2, 9, 4, 7, 1, 6, 3, 0, 8, 5]
BATCHES_1 = [[2, 5, 6], [1, 4, 3], [4, 3, 1]]


@given(seeds, st.integers(0, 10**6), st.integers(1, 3000))
def test_an_epoch_is_a_permutation(seed: int, epoch: int, samples: int) -> None:
    order = epoch_order(seed, epoch, samples)
    assert order.dtype == np.int64
    assert np.array_equal(np.sort(order), np.arange(samples))


def test_epochs_and_seeds_differ() -> None:
    orders = [tuple(epoch_order(seed, epoch, 50).tolist()) for seed in range(10) for epoch in range(10)]
    assert len(set(orders)) == 100


def test_every_place_is_as_likely() -> None:
    """Where sample 0 stands, over 4,000 epochs of 8: 500 for each place, 5 standard deviations are 105."""
    places = np.bincount([int(np.flatnonzero(epoch_order(5, epoch, 8) == 0)[0]) for epoch in range(4000)], minlength=8)
    assert np.abs(places - 500).max() < 105


def test_it_can_be_shared_and_not_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        epoch_order(0, 0, 5)[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        batch_ids(0, 0, 5, 2)[1][0] = 1


@given(seeds, st.integers(1, 300), st.integers(1, 100), st.integers(0, 5))
def test_batches_cut_an_epoch_in_order(seed: int, samples: int, batch: int, epoch: int) -> None:
    steps = steps_per_epoch(samples, batch)
    batches = [batch_ids(seed, epoch * steps + step, samples, batch) for step in range(steps)]
    assert {number for number, _ in batches} == {epoch}
    assert {len(ids) for _, ids in batches} == {min(batch, samples)}
    together = np.concatenate([ids for _, ids in batches])
    assert np.array_equal(together, epoch_order(seed, epoch, samples)[: len(together)])
    assert samples - len(together) < batch


@pytest.mark.parametrize(
    ("samples", "batch", "expected"), [(10, 3, 3), (9, 3, 3), (3, 3, 1), (2, 3, 1), (1, 1, 1), (50000, 128, 390)]
)
def test_steps_per_epoch(samples: int, batch: int, expected: int) -> None:
    assert steps_per_epoch(samples, batch) == expected


def test_a_set_smaller_than_the_batch_is_the_batch() -> None:
    epoch, ids = batch_ids(0, 4, 5, 128)
    assert epoch == 4
    assert sorted(ids.tolist()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("samples", "batch"), [(0, 1), (1, 0), (-1, 5)])
def test_nothing_to_do_is_an_error(samples: int, batch: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        steps_per_epoch(samples, batch)


@given(st.integers(0, 5000), st.integers(1, 1024))
def test_shards_cover_the_batch(batch: int, shards: int) -> None:
    bounds = shard_bounds(batch, shards)
    assert len(bounds) == shards
    assert bounds[0][0] == 0
    assert bounds[-1][1] == batch
    assert all(before[1] == after[0] for before, after in pairwise(bounds))
    sizes = [end - start for start, end in bounds]
    assert max(sizes) - min(sizes) <= 1
    for ranks in range(1, min(shards, 8) + 1):
        if shards % ranks == 0:  # a rank's shards are neighbours
            each = shards // ranks
            shares = [sum(sizes[rank * each : (rank + 1) * each]) for rank in range(ranks)]
            assert max(shares) - min(shares) <= 1


@pytest.mark.parametrize(
    ("batch", "shards", "expected"),
    [
        (10, 4, ((0, 2), (2, 5), (5, 7), (7, 10))),
        (2, 3, ((0, 0), (0, 1), (1, 2))),
        (0, 2, ((0, 0), (0, 0))),
        (5, 1, ((0, 5),)),
    ],
)
def test_shard_bounds(batch: int, shards: int, expected: tuple[tuple[int, int], ...]) -> None:
    assert shard_bounds(batch, shards) == expected


def test_no_shards_is_an_error() -> None:
    with pytest.raises(ValueError, match="can't be cut into 0 shards"):
        shard_bounds(10, 0)


def test_order_augmentation_and_data_need_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import edgecloud_trainer.order, edgecloud_trainer.augment"
    subprocess.run([sys.executable, "-c", code + ", edgecloud_trainer.data"], check=True, timeout=60)


@given(st.integers(1, 9), st.integers(1, 6), st.integers(1, 20))
def test_each_epoch_is_validated_once_wherever_a_training_goes_on(epoch: int, epochs: int, every: int) -> None:
    """As soon as the ranks have one model; counted here as one process would that saw all steps."""
    total, seen, expected = epoch * epochs, 0, []
    for done in range(1, total + 1):
        if (done % every == 0 or done == total) and done // epoch > seen:
            seen = done // epoch
            expected.append(done)
    due = [
        done for done in range(total + 1) if validation_due(done, steps_per_epoch=epoch, total_steps=total, every=every)
    ]
    assert due == expected
    assert due[-1] == total
    if every == 1:
        assert due == list(range(epoch, total + 1, epoch))
