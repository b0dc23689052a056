"""The mean of the weights against the sum that it is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgecloud_trainer import ordinary
from edgecloud_trainer.ema import Ema, decay_at


class Counted(nn.Module):
    """A weight, and a count of steps, as batch norm has it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def set(self, value: float) -> None:
        with torch.no_grad():
            self.weight.fill_(value)
        self.get_buffer("count").add_(1)


def test_the_first_steps_weigh_more() -> None:
    decays = [1 / 10, 2 / 11, 3 / 12, 0.3, 0.3]  # (1 + 3) / (10 + 3) is above 0.3 already
    assert [decay_at(number, 0.3) for number in range(5)] == decays
    model, mean = Counted(), 0.0
    ema = Ema(model, 0.3, ordinary=ordinary.names(model))
    for number, decay in enumerate(decays):
        model.set(number + 1.0)
        ema.update(model, number)
        mean = decay * mean + (1 - decay) * (number + 1.0)
        assert ema.state["weight"].tolist() == pytest.approx([mean] * 3)
        assert ema.state["count"] == number + 1


def test_nothing_is_left_of_the_untrained_weights() -> None:
    """A training of 150 steps; without the first steps' weight 0.999 would leave 86 % of them."""
    model = Counted()
    ema = Ema(model, 0.999, ordinary=ordinary.names(model))
    model.set(1.0)
    for number in range(150):
        ema.update(model, number)
    assert ema.state["weight"].tolist() == pytest.approx([1.0] * 3, abs=1e-9)


def test_in_the_long_run_the_decay_is_the_users() -> None:
    assert decay_at(8989, 0.999) < decay_at(8990, 0.999) == decay_at(10**9, 0.999) == 0.999
    assert decay_at(0, 0.0) == 0.0


@pytest.mark.parametrize("begin", [0, 5, 100])
def test_several_steps_at_once(begin: int) -> None:
    """As after each exchange with `sync: local`: the state counts for each of the steps."""
    model = Counted()
    at_once, singly = (Ema(model, 0.9, ordinary=ordinary.names(model)) for _ in range(2))
    model.set(1.0)
    at_once.update(model, begin + 5, steps=6)
    for number in range(begin, begin + 6):
        singly.update(model, number)
    assert at_once.state["weight"].tolist() == pytest.approx(singly.state["weight"].tolist(), rel=1e-12)
