"""`python -m edgecloud_operator`: the operator as a process, in a Pod or on a machine with a kubeconfig."""

from __future__ import annotations

import asyncio
import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Final

import click

from edgecloud_operator.core.builders import Settings
from edgecloud_operator.kube.access import AccessError
from edgecloud_operator.kube.logs import Format, set_up_logging
from edgecloud_operator.kube.operator import Options, operate

NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
SERVICE: Final = "edgecloud-coordinator"


class _Address(click.ParamType[tuple[str, int]]):
    """HOST:PORT, [HOST]:PORT for IPv6, or :PORT for every address of the machine."""

    name = "host:port"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        host, colon, port = str(value).rpartition(":")
        if not colon or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65536:
            self.fail(f"{value!r} is not HOST:PORT", param, ctx)
        return host.removeprefix("[").removesuffix("]") or "0.0.0.0", int(port)  # noqa: S104 - as it was asked for


def default_address(port: int) -> str | None:
    """Where workers reach the coordinator's Service from any namespace; None outside a cluster."""
    if "KUBERNETES_SERVICE_HOST" not in os.environ or not NAMESPACE_FILE.exists():
        return None
    return f"http://{SERVICE}.{NAMESPACE_FILE.read_text().strip()}.svc:{port}"


@click.command(
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "EDGECLOUD_OPERATOR",
        "show_default": True,
        "max_content_width": 100,
    }
)
@click.version_option(metadata.version("edgecloud"), "-V", "--version", prog_name="edgecloud_operator")
@click.option(
    "--namespaces",
    default="",
    show_default=False,
    show_envvar=True,
    metavar="NAME,...",
    help="Namespaces whose TrainingJobs are run, separated by commas.  [default: all]",
)
@click.option(
    "--listen",
    type=_Address(),
    default="0.0.0.0:8443",
    show_envvar=True,
    help="Where the coordinator answers the workers.",
)
@click.option(
    "--coordinator-address",
    show_envvar=True,
    metavar="URL",
    help="Where workers reach it: http://HOST:PORT, written into every new Pod.  [default, in a cluster: "
    f"http://{SERVICE}.NAMESPACE.svc:PORT]",
)
@click.option(
    "--trainer-image",
    default=Settings.trainer_image,
    show_envvar=True,
    metavar="IMAGE",
    help="Image of the workers of jobs that name none. A job keeps the one that it was accepted with.",
)
@click.option(
    "--launcher-image",
    default=Settings.launcher_image,
    show_envvar=True,
    metavar="IMAGE",
    help="Image that brings the launcher into the Pods of jobs whose program has an image of its own.",
)
@click.option(
    "--progress-seconds",
    type=click.FloatRange(min=0.1),
    default=10.0,
    show_envvar=True,
    metavar="SECONDS",
    help="How often a job's mere progress is written into its status; changes of phase or round are at once.",
)
@click.option(
    "--liveness-port",
    type=click.IntRange(0, 65535),
    default=8081,
    show_envvar=True,
    metavar="PORT",
    help="Port of /healthz and /readyz, on every address; 0: none.",
)
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_envvar=True)
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_envvar=True)
def main(
    namespaces: str,
    listen: tuple[str, int],
    coordinator_address: str | None,
    trainer_image: str,
    launcher_image: str,
    progress_seconds: float,
    liveness_port: int,
    log_format: Format,
    log_level: str,
) -> None:
    """Run EdgeCloud's operator: it turns TrainingJobs into Services and worker Pods, and leads the workers.

    \b
    The API server is found by, in this order:
      $KUBECONFIG       a kubeconfig file
      the Pod's ServiceAccount, in a cluster
      ~/.kube/config

    The operator holds nothing that is not in the cluster. It can be killed at any moment, and be away for hours: the
    workers train on, and the next one takes up where this one was. Only one may run for a namespace.

    \b
    Exit code:
      0    stopped by SIGTERM or Ctrl-C
      1    something broke that a restart may mend
      2    the command line is wrong, or there is no way to an API server

    \b
      python -m edgecloud_operator --listen 0.0.0.0:8443 --coordinator-address http://10.0.0.5:8443
    """
    set_up_logging(log_format, log_level)
    address = coordinator_address or default_address(listen[1])
    if address is None:
        raise click.UsageError("outside a cluster, --coordinator-address has to say where the workers' Pods reach this")
    if not address.startswith(("http://", "https://")):
        raise click.BadParameter(
            f"{address!r} does not begin with http:// or https://", param_hint="--coordinator-address"
        )
    options = Options(
        namespaces=tuple(sorted({name.strip() for name in namespaces.split(",")} - {""})),
        listen=listen,
        coordinator_address=address,
        trainer_image=trainer_image,
        launcher_image=launcher_image,
        progress_seconds=progress_seconds,
        liveness=("0.0.0.0", liveness_port) if liveness_port else None,  # noqa: S104 - for the kubelet
    )
    try:
        asyncio.run(operate(options))
    except (AccessError, OSError) as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
