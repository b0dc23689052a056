"""`edgecloud validate`."""

from __future__ import annotations

import sys

import click


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path())
@click.option("-q", "--quiet", is_flag=True, help="Say nothing about files that are right.")
def validate(files: tuple[str, ...], quiet: bool) -> None:
    """Check TrainingJob files before they are run or applied.

    Says file, line, field, what is wrong and what to write instead. A file may hold several documents; `-` is standard
    input.

    Exit code: 0 all is right, 2 something is not.
    """
    from edgecloud.api.job import TrainingJob
    from edgecloud.validation import validate_files

    results = validate_files(files, TrainingJob)
    for result in results:
        for problem in result.problems:
            click.echo(str(problem), err=True)
        if result.ok and not quiet:
            names = ", ".join(job.metadata.name for job in result.jobs)
            click.echo(f"{result.file}: ok ({names})")
    wrong = [result.file for result in results if not result.ok]
    if wrong:
        sys.exit(2)
