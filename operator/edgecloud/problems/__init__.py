"""What is wrong with a file, in words: the line, the path, what is wrong, and what to write instead."""

from edgecloud.problems.errors import Source, explain
from edgecloud.problems.problem import (
    MAX_PROBLEMS,
    Path,
    Problem,
    bounded,
    clipped,
    path_text,
    printable,
    quoted,
)
from edgecloud.problems.words import described, near

__all__ = [
    "MAX_PROBLEMS",
    "Path",
    "Problem",
    "Source",
    "bounded",
    "clipped",
    "described",
    "explain",
    "near",
    "path_text",
    "printable",
    "quoted",
]
