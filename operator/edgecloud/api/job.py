"""The resource itself: `kind: TrainingJob`."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from edgecloud.api import synonyms
from edgecloud.api.base import Model, Time
from edgecloud.api.rules import violations
from edgecloud.api.sets import unknown_set
from edgecloud.api.spec import TrainingJobSpec
from edgecloud.api.status import TrainingJobStatus
from edgecloud.api.template import as_far_as_read
from edgecloud.api.types import Count, JobName, Label, ShortText
from edgecloud.api.unmade import unmade

GROUP: Final = "edgecloud.io"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "TrainingJob"
PLURAL: Final = "trainingjobs"


class ObjectMeta(Model):
    """Kubernetes' object metadata: what EdgeCloud reads is typed, the rest is known by name, accepted and kept."""

    name: JobName = Field(description="Name of the job, unique in its namespace.")
    namespace: Label = Field("default", description="Namespace.")
    uid: Annotated[str, Field(max_length=64)] | None = Field(None, description="Set by the server.")
    generation: Count = Field(1, description="Set by the server: rises with every change of spec.")
    resource_version: ShortText | None = Field(None, description="Set by the server: changes with every write.")
    creation_timestamp: Time | None = Field(None, description="Set by the server.")
    deletion_timestamp: Time | None = Field(None, description="Set by the server.")
    labels: dict[Annotated[str, Field(max_length=317)], Annotated[str, Field(max_length=63)]] | None = Field(
        None, description="Labels."
    )
    annotations: dict[Annotated[str, Field(max_length=317)], Annotated[str, Field(max_length=262144)]] | None = Field(
        None, description="Annotations."
    )
    generate_name: Any = Field(None, description="Not used: a job has a name.")
    owner_references: Any = Field(None, description="Kept for the server.")
    finalizers: Any = Field(None, description="Kept for the server.")
    managed_fields: Any = Field(None, description="Kept for the server.")
    self_link: Any = Field(None, description="Kept for the server.")
    deletion_grace_period_seconds: Any = Field(None, description="Kept for the server.")


class TrainingJob(Model):
    """A distributed training: what is asked for (spec) and what became of it (status)."""

    api_version: Literal["edgecloud.io/v1alpha1"] = Field(description="edgecloud.io/v1alpha1")
    kind: Literal["TrainingJob"] = Field(description="TrainingJob")
    metadata: ObjectMeta = Field(description="Name, namespace, labels.")
    spec: TrainingJobSpec = Field(description="What is asked for.")
    status: TrainingJobStatus | None = Field(None, description="What became of it; written by EdgeCloud.")

    @classmethod
    def parse(cls, value: Any, *, stored: bool = False) -> Self:
        """Check plain data, the rules that span fields included.

        Args:
            value: the data.
            stored: an API server holds it: what the trainer or, when it is to take a Pod, the server refuses by itself
                is left to them; of podTemplate what means nothing, and a managedBy that names nobody, which were taken
                once, are passed over.

        Raises:
            pydantic.ValidationError: with one entry for each field or rule; a rule's has type `rule` and in its
                context `message` and `remedy`.
        """
        job = super().parse(_as_stored(value) if stored else value)
        broken = [
            (rule.path, rule.message, rule.remedy) for rule in violations(job.spec) if not (stored and rule.by_trainer)
        ]
        if not stored:
            broken += [*unmade(job.spec), *unknown_set(job.spec.trainer)]
        if broken:
            raise ValidationError.from_exception_data(cls.__name__, [_broken(*one) for one in broken])
        return job

    @classmethod
    def hint(cls, path: tuple[str | int, ...], document: Any) -> str | None:
        return synonyms.hint(path, document)

    def with_workers(self, workers: int) -> TrainingJob:
        """The same job with so many workers.

        Raises:
            pydantic.ValidationError: that breaks a rule, as minWorkers and the trainer's shards have them; or the
                job has pools, which say how many there are.
        """
        if self.spec.pools:
            message = "this job has pools, and their workers are counted there"
            broken = _broken(("workers",), message, "leave --workers out, or write workers: in the place of pools:")
            raise ValidationError.from_exception_data(type(self).__name__, [broken])
        spec = self.spec.model_copy(update={"workers": workers})
        return TrainingJob.parse(self.model_copy(update={"spec": spec}).dump())

    def with_status(self, status: TrainingJobStatus | None) -> TrainingJob:
        """The same job with another status."""
        return self.model_copy(update={"status": status})


def _broken(path: tuple[str | int, ...], message: str, remedy: str) -> InitErrorDetails:
    error = PydanticCustomError("rule", "{message}", {"message": message, "remedy": remedy})
    return InitErrorDetails(type=error, loc=("spec", *path), input=None)


def _as_stored(value: Any) -> Any:
    spec = value.get("spec") if isinstance(value, dict) else None
    if not isinstance(spec, dict):
        return value
    spec = {key: entry for key, entry in spec.items() if (key, entry) != ("managedBy", "")}
    if "podTemplate" in spec:
        spec["podTemplate"] = as_far_as_read(spec["podTemplate"])
    return {**value, "spec": spec}
