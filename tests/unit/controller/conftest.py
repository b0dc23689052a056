"""The simulated clock, for every test that names it."""

from tests.unit.controller.simulated import simulated

__all__ = ["simulated"]
