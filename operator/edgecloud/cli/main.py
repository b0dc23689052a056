"""The `edgecloud` command and its parts."""

from __future__ import annotations

import sys
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module, metadata
from typing import Any, Final

import click

from edgecloud.cli.needing import refuse, sentence
from edgecloud.cli.output import STOPPED, OutputError, end_of_output, guard_output, open_closed

COMMANDS: Final = {
    "run": "edgecloud.cli.run:run",
    "validate": "edgecloud.cli.validate:validate",
    "data": "edgecloud.cli.data:data",
    "evaluate": "edgecloud.cli.evaluate:evaluate",
    "export": "edgecloud.cli.export:export",
    "predict": "edgecloud.cli.predict:predict",
    "bench": "edgecloud.cli.bench:bench",
    "crd": "edgecloud.cli.crd:crd",
    "launcher": "edgecloud.cli.launcher:launcher",
    "completion": "edgecloud.cli.completion:completion",
}


class _Late(click.Group):
    """A group whose commands are loaded when they are called, so that --help and completion stay quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        module, _, name = place.partition(":")
        command = getattr(import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:  # click knows of no commands that are not loaded
            if near := get_close_matches(args[0], COMMANDS, 1):
                raise click.UsageError(f"{error.message} Did you mean {near[0]}?", ctx) from None
            raise

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # of which click would make exit code 1: while a command is imported, or works
            with suppress(OSError):
                click.echo("\nedgecloud: stopped", err=True)  # below the terminal's ^C
            ctx.exit(STOPPED)


@click.group(cls=_Late, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(metadata.version("edgecloud"), "-V", "--version", prog_name="edgecloud")
def cli() -> None:
    """Distributed PyTorch training from one file.

    \b
    The same TrainingJob runs on this machine and on a Kubernetes cluster:
      edgecloud run job.yaml          train here, with as many workers as the file says
      kubectl apply -f job.yaml       train on a cluster where EdgeCloud is installed
    """


def main() -> None:
    """Entry point. Trouble with our own output, such as a reader that goes away early, is worth no traceback."""
    open_closed()
    guard_output()
    try:
        cli.main(prog_name="edgecloud")
    except OutputError as error:
        sys.exit(end_of_output(error))
    except ImportError as error:
        problem = sentence(error, "trainer")
        if problem is None:
            raise
        refuse(problem)


if __name__ == "__main__":
    main()
