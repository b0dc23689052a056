"""What measuring does several times over, done once."""

from tests.unit.edge.export import one_load

__all__ = ["one_load"]
