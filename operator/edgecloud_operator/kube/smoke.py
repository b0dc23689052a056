"""One training on the cluster at hand, from its creation to its end: what `helm test` runs."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Mapping
from typing import Any, Final

import click

from edgecloud.api.job import API_VERSION, KIND, TrainingJob
from edgecloud.api.status import TrainingJobStatus
from edgecloud.cli.display import Plain
from edgecloud_operator.kube.access import AccessError, load_access
from edgecloud_operator.kube.client import ApiError, Client, NotFoundError, UnavailableError, path

POLL_SECONDS: Final = 1.0
PREFIX: Final = "edgecloud-test-"


class SmokeError(Exception):
    """The training did not succeed; the message says what is known of why."""


def verdict(status: TrainingJobStatus) -> str | None:
    """None while the job goes on, empty when it has succeeded, else why it failed."""
    if status.phase == "Succeeded":
        return ""
    if status.phase != "Failed":
        return None
    said = [f"{one.reason}: {one.message}" for one in status.conditions if (one.type, one.status) == ("Failed", "True")]
    if failure := status.last_failure:
        said.append(f"worker {failure.worker}: {failure.reason}: {failure.message}")
    return "\n".join(said) or "it failed"


def stands(status: TrainingJobStatus) -> str:
    """What keeps a job that has not ended: the conditions that say so, or the phase."""
    kept = [
        f"{one.type}, {one.reason}: {one.message}"
        for one in status.conditions
        if one.type in ("Blocked", "Stalled") and one.status == "True"
    ]
    return "\n".join(kept) or (
        f"phase {status.phase}"
        if status.conditions
        else "no operator has taken it up: is it running, and is it its namespace?"
    )


async def follow(client: Client, where: str, display: Plain, *, within: float) -> TrainingJob:
    """Show a job's progress until it has succeeded.

    Raises:
        SmokeError: it failed, or took longer than so many seconds.
        ApiError: the API server said no.
    """
    deadline = asyncio.get_running_loop().time() + within
    shown: tuple[object, ...] = ()
    job: TrainingJob | None = None
    while asyncio.get_running_loop().time() < deadline:
        try:
            job = TrainingJob.parse(await client.request("GET", where))
        except UnavailableError as error:
            display.note(f"asking again: {error}")
        else:
            status = job.status or TrainingJobStatus()
            display.show(job)
            news = [(one.type, one.status, one.reason) for one in status.conditions]
            if (status.phase, *news) != shown:
                shown = (status.phase, *news)
                display.note(f"{status.phase}: {status.summary.reason if status.summary else 'not yet taken up'}")
            if (said := verdict(status)) is not None:
                if said:
                    raise SmokeError(said)
                return job
        await asyncio.sleep(POLL_SECONDS)
    raise SmokeError(f"not finished within {within:.0f} s; {stands((job and job.status) or TrainingJobStatus())}")


async def smoke(spec: Mapping[str, Any], namespace: str, *, within: float) -> TrainingJob:
    """Create a job of that spec, follow it to its end, and delete it whatever happened.

    Raises:
        SmokeError, ApiError: as `follow` does.
        AccessError: there is no way to an API server.
    """
    client = Client(await load_access(), reload=load_access)
    display = Plain(sys.stdout)
    body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"generateName": PREFIX}, "spec": spec}
    try:
        created = await client.request("POST", path("TrainingJob", namespace), body=body)
        name = str(created["metadata"]["name"])
        where = path("TrainingJob", namespace, name)
        display.note(f"created TrainingJob {name} in namespace {namespace}")
        try:
            return await follow(client, where, display, within=within)
        finally:
            try:
                await client.request("DELETE", where, query={"propagationPolicy": "Background"})
                display.note(f"deleted TrainingJob {name}")
            except NotFoundError:
                display.note(f"TrainingJob {name} is gone already")
    finally:
        await client.close()


class _Spec(click.ParamType[dict[str, Any]]):
    """A TrainingJob's spec as JSON."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        try:
            spec = json.loads(value)
        except ValueError as error:
            self.fail(f"no JSON: {error}", param, ctx)
        if not isinstance(spec, dict):
            self.fail("the spec of a TrainingJob is an object", param, ctx)
        return spec


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--spec", type=_Spec(), required=True, help="Of the TrainingJob, as in a job file's spec.")
@click.option("--namespace", default="default", help="Where it runs: one that the operator looks after.")
@click.option(
    "--within", type=click.FloatRange(min=1), default=900.0, metavar="SECONDS", help="It has so long to succeed."
)
def main(spec: dict[str, Any], namespace: str, within: float) -> None:
    """Run one TrainingJob on the cluster at hand, show how it goes, and delete it again.

    \b
    Exit code:
      0    it succeeded
      1    it failed, was refused, or took too long; the last lines say why
      2    the command line is wrong, or there is no way to an API server
    """

    async def interruptible() -> TrainingJob:
        task = asyncio.ensure_future(smoke(spec, namespace, within=within))
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        return await task

    try:
        job = asyncio.run(interruptible())
    except AccessError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    except (SmokeError, ApiError) as error:
        click.echo(f"Failed: {error}", err=True)
        sys.exit(1)
    except asyncio.CancelledError:
        click.echo("Stopped.", err=True)
        sys.exit(1)
    status = job.status or TrainingJobStatus()
    accuracy = (
        f", accuracy {status.evaluation.accuracy:.1%}" if status.evaluation and status.evaluation.accuracy else ""
    )
    click.echo(
        f"Succeeded: {status.summary.workers if status.summary else ''} workers, restarts {status.restarts}{accuracy}"
    )


if __name__ == "__main__":
    main()
