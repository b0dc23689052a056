"""`edgecloud crd`."""

from __future__ import annotations

import click


@click.command()
def crd() -> None:
    """Print the CustomResourceDefinition of TrainingJob.

    \b
      edgecloud crd | kubectl apply -f -
    """
    from edgecloud.api.crd import crd_yaml

    click.echo(crd_yaml(), nl=False)
