"""Images as an argument: the name of a set, a path or a URL, which a shell completes as one of these."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem


class NameOrPath(click.ParamType[str]):
    """Text, of which the shell offers sets by name, and else files."""

    name = "text"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from edgecloud.api.trainer import SETS  # not above: --help needs no model of the API

        named = [CompletionItem(name) for name in SETS if name.startswith(incomplete)]
        return [*named, CompletionItem(incomplete, type="file")]
