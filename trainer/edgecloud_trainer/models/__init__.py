"""Networks by name: the built-in ones, torchvision's, and the user's own."""

from edgecloud_trainer.models.building import build, initialise
from edgecloud_trainer.models.errors import ModelError

__all__ = ["ModelError", "build", "initialise"]
