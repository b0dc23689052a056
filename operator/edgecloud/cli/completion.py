"""`edgecloud completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for a shell.

    \b
      bash: mkdir -p ~/.local/share/bash-completion/completions
            edgecloud completion bash > ~/.local/share/bash-completion/completions/edgecloud
      zsh:  mkdir -p "${fpath[1]}"
            edgecloud completion zsh > "${fpath[1]}/_edgecloud"
      fish: mkdir -p ~/.config/fish/completions
            edgecloud completion fish > ~/.config/fish/completions/edgecloud.fish
    """
    from edgecloud.cli.main import cli

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "edgecloud", "_EDGECLOUD_COMPLETE").source())
