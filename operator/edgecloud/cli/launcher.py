"""`edgecloud launcher`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="File to write, such as edgecloud-launcher.pyz.",
)
def launcher(output: Path) -> None:
    """Write the worker's launcher as one file that any image with python3 can run.

    \b
      edgecloud launcher -o edgecloud-launcher.pyz
      python3 edgecloud-launcher.pyz --help
    """
    from edgecloud.launcher.archive import write

    try:
        write(output)
    except OSError as error:
        raise click.FileError(str(output), error.strerror) from error
    click.echo(f"wrote {output}", err=True)
