"""`edgecloud launcher`."""

from __future__ import annotations

from pathlib import Path

import click

from edgecloud.cli.needing import refuse


@click.command(short_help="Write the worker's launcher, for images with python3.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    required=True,
    help="File to write, such as edgecloud-launcher.pyz; - is standard output.",
)
def launcher(output: Path) -> None:
    """Write the worker's launcher as one file that any image with python3 can run.

    \b
      edgecloud launcher -o edgecloud-launcher.pyz
      python3 edgecloud-launcher.pyz --help
    """
    from edgecloud.launcher.archive import content, write

    if str(output) == "-":
        click.echo(content(), nl=False)
        return
    try:
        write(output)
    except OSError as error:
        refuse(f"-o {output}: it can't be written ({error.strerror or error}): name another file")
    click.echo(f"wrote {output}", err=True)
