"""What is wrong with a model."""


class ModelError(ValueError):
    """The model can't be built as the job names it. The message says what to write instead."""
