"""`python -m edgecloud_operator`: the operator as a process, in a Pod or on a machine with a kubeconfig."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import socket
import sys
from importlib import metadata
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import click

from edgecloud_operator.core.builders import Settings
from edgecloud_operator.core.security import USER
from edgecloud_operator.kube.access import AccessError
from edgecloud_operator.kube.logs import Format, set_up_logging
from edgecloud_operator.kube.operator import Options, PodPlace, operate
from edgecloud_operator.kube.sockets import EVERY

NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
SERVICE: Final = "edgecloud-coordinator"
LEASE: Final = "edgecloud-operator"
TLS_SECRET: Final = "edgecloud-coordinator-ca"  # noqa: S105 - a name


class _Address(click.ParamType[tuple[str, int]]):
    """HOST:PORT, [HOST]:PORT for IPv6, or :PORT for every address of the machine."""

    name = "host:port"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        host, colon, port = str(value).rpartition(":")
        if not colon or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65536:
            self.fail(f"{value!r} is not HOST:PORT", param, ctx)
        return host.removeprefix("[").removesuffix("]") or EVERY, int(port)


_ADDRESS: Final = re.compile(r"https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?)(:[0-9]{1,5})?")
"""As the chart's values.schema.json has it."""


class _Url(click.ParamType[str]):
    """http://HOST[:PORT] or https://HOST[:PORT]; an IPv6 HOST stands in brackets."""

    name = "url"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        try:
            fits = _ADDRESS.fullmatch(text) is not None and urlsplit(text).port != 0  # which may be too large for one
        except ValueError:
            fits = False
        if not fits:
            self.fail(f"{text!r} is not https://HOST:PORT or http://HOST:PORT", param, ctx)
        return text


class _Place(click.ParamType[tuple[str, str]]):
    """NAMESPACE/NAME."""

    name = "namespace/name"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        namespace, slash, name = str(value).partition("/")
        if not (slash and namespace and name) or "/" in name:
            self.fail(f"{value!r} is not NAMESPACE/NAME", param, ctx)
        return namespace, name


class _User(click.ParamType[int | None]):
    """A user id above 0, or none."""

    name = "id"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        text = str(value)
        if text in ("", "none"):
            return None
        if not (text.isascii() and text.isdecimal() and len(text) <= 10 and 0 < int(text) < 2**31):
            self.fail(f"{text!r} is neither a user id from 1 to {2**31 - 1} nor none", param, ctx)
        return int(text)


_PULL_POLICY: Final = click.Choice(["Always", "IfNotPresent", "Never"])


def own_namespace() -> str | None:
    """Where this Pod is; None outside a cluster."""
    if "KUBERNETES_SERVICE_HOST" not in os.environ or not NAMESPACE_FILE.exists():
        return None
    return NAMESPACE_FILE.read_text().strip()


def default_address(port: int) -> str | None:
    """Where workers reach the coordinator's Service from any namespace; None outside a cluster."""
    namespace = own_namespace()
    return f"https://{SERVICE}.{namespace}.svc:{port}" if namespace else None


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
    default=":8443",
    show_envvar=True,
    help="Where the coordinator answers the workers; without HOST on every address, IPv4 and IPv6.",
)
@click.option(
    "--coordinator-address",
    type=_Url(),
    show_envvar=True,
    metavar="URL",
    help="Where workers reach it: https://HOST:PORT, written into every new Pod; http:// for no TLS.  [default, in a "
    f"cluster: https://{SERVICE}.NAMESPACE.svc:PORT]",
)
@click.option(
    "--tls-secret",
    type=_Place(),
    show_envvar=True,
    help="Secret in which the operator keeps a certificate authority of its own.  [default, in a cluster: "
    f"{TLS_SECRET} beside it]",
)
@click.option(
    "--tls-folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    show_envvar=True,
    help="Where somebody else, such as cert-manager, keeps tls.crt, tls.key and ca.crt, instead of --tls-secret.",
)
@click.option(
    "--lease",
    type=_Place(),
    show_envvar=True,
    help="Lease by which one of several replicas leads.  [default, in a cluster: "
    f"{LEASE} beside it; elsewhere: none, and only one may run for a namespace]",
)
@click.option(
    "--pod",
    type=_Place(),
    show_envvar=True,
    help="The Pod that this is, which is labelled while it leads.",
)
@click.option(
    "--pod-selector",
    default="app.kubernetes.io/name=edgecloud,app.kubernetes.io/component=operator",
    show_envvar=True,
    metavar="LABELS",
    help="Labels of the Pods among which one leads.",
)
@click.option(
    "--trainer-image",
    default=Settings.trainer_image,
    show_envvar=True,
    metavar="IMAGE",
    help="Image of the workers of jobs that name none. A job keeps the one that it was accepted with.",
)
@click.option(
    "--edge-image",
    default=Settings.edge_image,
    show_envvar=True,
    metavar="IMAGE",
    help="Image of the Pods that measure converted models on the nodes of jobs' export.measureOn.",
)
@click.option(
    "--launcher-image",
    default=Settings.launcher_image,
    show_envvar=True,
    metavar="IMAGE",
    help="Image that brings the launcher into the Pods of jobs whose program has an image of its own.",
)
@click.option(
    "--trainer-pull-policy",
    type=_PULL_POLICY,
    show_envvar=True,
    help="When nodes pull --trainer-image.  [default: as Kubernetes decides]",
)
@click.option(
    "--edge-pull-policy",
    type=_PULL_POLICY,
    show_envvar=True,
    help="When nodes pull --edge-image.  [default: as Kubernetes decides]",
)
@click.option(
    "--launcher-pull-policy",
    type=_PULL_POLICY,
    show_envvar=True,
    help="When nodes pull --launcher-image.  [default: as Kubernetes decides]",
)
@click.option(
    "--worker-user",
    type=_User(),
    default=str(USER),
    show_envvar=True,
    metavar="ID",
    help="Id of user, group and volumes' group (runAsUser, runAsGroup, fsGroup) that the Pods of jobs ask for; none: "
    "they ask for none, and the platform gives them out.",
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
    "--give-back-seconds",
    type=click.FloatRange(min=0),
    default=Settings.give_back_seconds,
    show_envvar=True,
    metavar="SECONDS",
    help="How long, and at most twice as long, a job that has not trained keeps the nodes of some of its workers while "
    "no scheduler finds any for the others; then all are deleted, and made anew soon after. 0: for ever.",
)
@click.option(
    "--liveness-port",
    type=click.IntRange(0, 65535),
    default=8081,
    show_envvar=True,
    metavar="PORT",
    help="Port of /healthz, /readyz and /metrics, on every address; 0: none.",
)
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_envvar=True)
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_envvar=True)
def main(
    namespaces: str,
    listen: tuple[str, int],
    coordinator_address: str | None,
    tls_secret: tuple[str, str] | None,
    tls_folder: Path | None,
    lease: tuple[str, str] | None,
    pod: tuple[str, str] | None,
    pod_selector: str,
    trainer_image: str,
    edge_image: str,
    launcher_image: str,
    trainer_pull_policy: str | None,
    edge_pull_policy: str | None,
    launcher_pull_policy: str | None,
    worker_user: int | None,
    progress_seconds: float,
    give_back_seconds: float,
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
    workers train on, and the next one takes up where this one was. Of several replicas that share a Lease one leads;
    another takes over within seconds when it is gone.

    \b
    Exit code:
      0    stopped by SIGTERM or Ctrl-C, or another replica has taken over
      1    something broke that a restart may mend
      2    the command line is wrong, or there is no way to an API server

    \b
      python -m edgecloud_operator --coordinator-address https://10.0.0.5:8443 --tls-secret edgecloud/ca
    """
    set_up_logging(log_format, log_level)
    address = coordinator_address or default_address(listen[1])
    if address is None:
        raise click.UsageError("outside a cluster, --coordinator-address has to say where the workers' Pods reach this")
    home = own_namespace()
    encrypted = address.startswith("https://")
    if tls_secret and tls_folder:
        raise click.UsageError("--tls-secret and --tls-folder: one of them")
    if encrypted and not (tls_secret or tls_folder):
        if home is None:
            raise click.UsageError("an https:// address needs --tls-secret or --tls-folder, outside a cluster")
        tls_secret = (home, TLS_SECRET)
    if not encrypted and (tls_secret or tls_folder):
        raise click.UsageError("--tls-secret and --tls-folder are for an https:// address")
    if lease is None and home is not None:
        lease = (home, LEASE)
    options = Options(
        namespaces=tuple(sorted({name.strip() for name in namespaces.split(",")} - {""})),
        listen=listen,
        coordinator_address=address,
        trainer_image=trainer_image,
        edge_image=edge_image,
        launcher_image=launcher_image,
        trainer_pull_policy=trainer_pull_policy,
        edge_pull_policy=edge_pull_policy,
        launcher_pull_policy=launcher_pull_policy,
        worker_user=worker_user,
        progress_seconds=progress_seconds,
        give_back_seconds=give_back_seconds,
        liveness=(EVERY, liveness_port) if liveness_port else None,
        tls_secret=tls_secret,
        tls_folder=tls_folder,
        lease=lease,
        # In a Pod the processes of one container come one after the other, so a successor may go on at once.
        identity=pod[1] if pod else f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}",
        pod=PodPlace(namespace=pod[0], name=pod[1], selector=pod_selector) if pod else None,
    )
    try:
        asyncio.run(operate(options))
    except (AccessError, OSError) as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
