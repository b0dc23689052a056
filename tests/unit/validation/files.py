"""Files to check in few words, and the form in which the tables say what is expected of them."""

from __future__ import annotations

from edgecloud.api.job import TrainingJob
from edgecloud.problems import Problem
from edgecloud.validation import Result, validate_bytes

Row = tuple[str | bytes, str]
"""A file with one problem, and `line | path | phrase of message | phrase of remedy`; line is - for the whole file."""

HEAD = "apiVersion: edgecloud.io/v1alpha1\nkind: TrainingJob\nmetadata:\n  name: digits\nspec:\n"
"""Lines 1 to 5 of every job here; the spec begins in line 6."""
PROGRAM = "program: {command: [python, train.py]}"


def job(*spec: str) -> str:
    """A job with these lines of spec, from line 6 on."""
    return HEAD + "".join(f"  {line}\n" for line in spec)


def good(*more: str) -> str:
    """A job that is right (workers in line 6, program in line 7), and these lines of spec, from line 8 on."""
    return job("workers: 2", PROGRAM, *more)


def program(*more: str) -> str:
    """A job with these lines of program, from line 9 on."""
    return job("workers: 2", "program:", "  command: [a]", *(f"  {line}" for line in more))


def trainer(*more: str) -> str:
    """A job with these lines of trainer, from line 9 on."""
    return job("workers: 2", "trainer:", "  data: {name: digits}", *(f"  {line}" for line in more))


def meta(*more: str) -> str:
    """A job with these lines of metadata, from line 5 on."""
    return good().replace("  name: digits\n", "  name: digits\n" + "".join(f"  {line}\n" for line in more))


def edited(old: str, new: str) -> str:
    """A job that is right but for one place."""
    assert old in good()
    return good().replace(old, new)


def check(content: str | bytes) -> Result[TrainingJob]:
    data = content if isinstance(content, bytes) else content.encode()
    return validate_bytes(data, "job.yaml", TrainingJob)


def expect(row: Row) -> None:
    """The file has this problem, and no other."""
    content, expected = row
    line, path, reason, remedy = (part.strip() for part in expected.split(" | "))
    problems = check(content).problems
    assert len(problems) == 1, [str(problem) for problem in problems]
    [problem] = problems
    assert _place(problem) == (line, path), str(problem)
    assert reason in problem.message, str(problem)
    assert remedy in problem.remedy, str(problem)
    assert str(problem).isprintable()


def _place(problem: Problem) -> tuple[str, str]:
    assert problem.file == "job.yaml"
    return "-" if problem.line is None else str(problem.line), problem.path
