"""What other tools call the fields of a spec (Jobs, Kubeflow, Volcano, KubeRay, torchrun, PyTorch): what they are here.

Left out, such a field would change what is trained or where, in silence; so whoever writes one reads what to write.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any, Final

from edgecloud.api.template import CONTAINER

_POD: Final = "spec.podTemplate.spec"
_WORKER: Final = f"spec.podTemplate.spec.containers, for the container with name: {CONTAINER}"
_LIMITS: Final = "write limits: (most it may use) or requests: (what is set aside), and this below it"
_ONE_STEP: Final = "write batchSize: images in a step, over all workers together"

PATHS: Final[dict[str, str]] = {
    # workers
    **dict.fromkeys(
        ("replicas", "parallelism", "completions", "numnodes", "nnodes", "numworkers", "numreplicas", "maxreplicas"),
        "workers",
    ),
    **dict.fromkeys(("minreplicas", "minavailable", "minnodes", "minmember"), "minWorkers"),
    **dict.fromkeys(
        ("nprocpernode", "numprocpernode", "procspernode", "processespernode", "slotsperworker"), "processesPerWorker"
    ),
    **dict.fromkeys(("backofflimit", "maxretry", "maxretries", "retries"), "restartPolicy.maxRestarts"),
    **dict.fromkeys(("timeout", "maxruntime", "deadline", "timelimit"), "activeDeadlineSeconds"),
    **dict.fromkeys(("ttl", "ttlseconds"), "ttlSecondsAfterFinished"),
    **dict.fromkeys(("terminationgraceperiodseconds", "graceperiod"), "stopGraceSeconds"),
    "priorityclass": "priorityClassName",
    "serviceaccount": "serviceAccountName",
    **dict.fromkeys(("gpus", "gpu", "numgpus", "gpusperworker"), 'resources.limits["nvidia.com/gpu"]'),
    # storage
    **dict.fromkeys(("storage.persistentvolumeclaim", "pvc", "storage.claim", "claim"), "storage.claimName"),
    **dict.fromkeys(("checkpointinterval", "checkpointevery", "saveinterval"), "storage.checkpointIntervalSeconds"),
    "savesteps": "storage.checkpointIntervalSteps",
    **dict.fromkeys(("savetotallimit", "maxtokeep"), "storage.keepCheckpoints"),
    "storage.path": "storage.subPath",
    # program
    **dict.fromkeys(("cwd", "workdir"), "program.workingDir"),
    # trainer
    **dict.fromkeys(("lr", "baselr", "initiallr", "maxlr"), "trainer.optimizer.learningRate"),
    "wd": "trainer.optimizer.weightDecay",
    **dict.fromkeys(("gradclip", "clipgradnorm", "maxgradnorm", "gradientclip"), "trainer.optimizer.gradientClipNorm"),
    **dict.fromkeys(("numepochs", "maxepochs", "numtrainepochs"), "trainer.epochs"),
    **dict.fromkeys(("amp", "mixedprecision", "fp16", "bf16", "dtype"), "trainer.precision"),
    **dict.fromkeys(("arch", "architecture", "network", "backbone"), "trainer.model"),
    **dict.fromkeys(("manualseed", "randomseed"), "trainer.seed"),
    "ema": "trainer.emaDecay",
    **dict.fromkeys(
        (
            "datadir",
            "datapath",
            "dataroot",
            "data.path",
            "data.dir",
            "data.root",
            "data.folder",
            "data.url",
            "data.uri",
        ),
        "trainer.data.source",
    ),
    **dict.fromkeys(("valsplit", "validationsplit", "valfraction"), "trainer.data.validationFraction"),
    **dict.fromkeys(("augmentation", "augmentations", "transform", "transforms"), "trainer.data.augment"),
}
"""Names, without case and dashes, some with that of the field around them: to the field of spec that means the same."""

REMEDIES: Final[dict[str, str]] = {
    "pytorchreplicaspecs": "write spec.workers, spec.image and spec.program or spec.trainer; what else a Pod template"
    " holds goes into spec.podTemplate",
    "runpolicy": "write activeDeadlineSeconds, ttlSecondsAfterFinished and suspend into spec, and backoffLimit as"
    " spec.restartPolicy.maxRestarts",
    "elasticpolicy": "write spec.minWorkers: with it the job goes on with so many while others are away",
    "template": "write its metadata and spec into spec.podTemplate",
    **dict.fromkeys((".name", "spec.name"), "write it into metadata:, above spec:"),
    "restartpolicy.name": "write maxRestarts: whatever failed is started again, as often as that",
    "resources.cpu": _LIMITS,
    "resources.memory": _LIMITS,
    "resources.nvidia.com/gpu": "write it below limits:",
    "resources.gpu": "write limits: and below it nvidia.com/gpu:",
    "storage.mountpath": "leave it out: the program finds the folders as worker.checkpoint_dir and worker.results_dir",
    **dict.fromkeys(("cpu", "memory"), "write it into spec.resources.limits or spec.resources.requests"),
    **dict.fromkeys(
        ("pools.cpu", "pools.memory", "measureon.cpu", "measureon.memory"), "write it below resources.limits of this"
    ),
    **dict.fromkeys(("measureon.replicas", "measureon.workers"), "leave it out: one Pod measures"),
    "containers": "write command, args and env into spec.program, and the image into spec.image; what is more goes into"
    f" {_WORKER}",
    "storage.size": "write sizeLimit for an emptyDir; a claim has its size already, and claimName names it",
    "storage.storageclassname": "make the claim first (kubectl apply), and write its name as claimName",
    "persistentvolumeclaim": "write spec.storage.claimName for checkpoints and results, or a volume of data into"
    f" {_POD}.volumes",
    **dict.fromkeys(
        ("checkpoint", "checkpoints", "checkpointing", "checkpointdir", "outputdir", "savedir"),
        "write spec.storage: with claimName (where to), checkpointIntervalSeconds and keepCheckpoints",
    ),
    **dict.fromkeys(
        ("script", "entrypoint", "main"), "write command: [python, train.py], and the script itself into files:"
    ),
    **dict.fromkeys(("batch", "microbatchsize", "batchsizepergpu", "perdevicetrainbatchsize"), _ONE_STEP),
    **dict.fromkeys(("gradientaccumulationsteps", "accumulategradbatches"), f"{_ONE_STEP}, however it is cut up"),
    **dict.fromkeys(("maxsteps", "numsteps", "trainsteps"), "write epochs: a training is as long as its epochs"),
    **dict.fromkeys(("loss", "lossfunction", "criterion"), "leave it out: it is cross entropy, with labelSmoothing"),
    "betas": "write momentum: the first of them; the second is torch's own",
    "eps": "leave it out: it is torch's own",
    **dict.fromkeys(("scheduler", "lrscheduler"), "write spec.trainer.schedule: with name and warmupFraction"),
    **dict.fromkeys(
        ("warmup", "warmupsteps", "warmupepochs", "warmupratio"),
        "write spec.trainer.schedule.warmupFraction: the part of all steps, such as 0.05",
    ),
    **dict.fromkeys(
        ("gamma", "stepsize", "milestones"),
        "write name: step, which goes to a tenth at 50 % and 75 % of what follows the warm-up",
    ),
    "dataset": "write spec.trainer.data: with name (of a named set) or source (path or URL)",
    **dict.fromkeys(
        ("data.train", "data.test", "data.val"), "write source: with the folder that train/ and test/ are in"
    ),
    **dict.fromkeys(
        ("imagesize", "resize"), "prepare the images in that size (edgecloud data prepare --resize), and name the file"
        " in source",
    ),
    "dataloaderworkers": "leave it out: there are no loader processes",
    "data.numworkers": "leave it out: there are no loader processes",
    "trainer.numworkers": "leave it out: there are no loader processes",
}  # fmt: skip
"""Likewise, where one field is not the whole answer."""

_OF_POD: Final = frozenset({
    "initcontainers", "volumes", "imagepullsecrets", "securitycontext", "affinity", "hostnetwork", "runtimeclassname",
    "schedulername", "topologyspreadconstraints", "dnspolicy",
})  # fmt: skip
"""Fields of a Pod's spec that a job has in its podTemplate alone."""
_OF_CONTAINER: Final = frozenset({"env", "envfrom", "volumemounts"})


def hint(path: tuple[str | int, ...], document: Any) -> str | None:
    """What to write instead of an unknown field; None where it is no other tool's word for anything.

    Args:
        path: of the field, from the top of the document down.
        document: all of it, plain data.
    """
    *parents, last = path
    name = _plain(str(last))
    if parents == ["spec", "podTemplate"]:
        return _in_template(name)
    spec = document.get("spec") if isinstance(document, dict) else None
    if parents and parents[0] != "spec":
        return None
    if name in _OF_CONTAINER and (name != "env" or not (isinstance(spec, dict) and "program" in spec)):
        return f"write it into {_WORKER}"
    if name in _OF_POD:
        return f"write it into {_POD}"
    around = _plain(next((step for step in reversed(parents) if isinstance(step, str)), ""))
    for known in (f"{around}.{name}", name):
        if remedy := REMEDIES.get(known):
            return remedy
        if target := PATHS.get(known):
            return _field(target, parents, document)
    return None


def _in_template(name: str) -> str | None:
    """A template has two fields, of which Pods have the names as well; what is below them is more often meant."""
    if name in ("labels", "annotations", "finalizers"):
        return "move it below podTemplate.metadata"
    if name in ("apiversion", "kind"):
        return "leave it out: a template has metadata and spec alone"
    if name == "template":
        return "write its metadata and spec right below podTemplate"
    if name in _OF_CONTAINER:
        return f"write it into {_WORKER}"
    return None if get_close_matches(name, ("metadata", "spec"), cutoff=0.7) else "move it below podTemplate.spec"


def _field(target: str, parents: list[str | int], document: Any) -> str:
    first, *_ = keys = target.split(".")
    in_pool, measuring = parents[1:2] == ["pools"], "measureOn" in parents
    if (first == "workers" and in_pool) or (first == "resources" and (in_pool or measuring)):
        return f"write {target}"
    *around, last = ("spec", *keys)
    value = document
    for step in (*around, last):
        value = value.get(step) if isinstance(value, dict) else None
    said = last if around == parents else f"spec.{target}"
    return f"write {said}" if value is None else f"leave it out; {said} is there already"


def _plain(name: str) -> str:
    return name.replace("-", "").replace("_", "").casefold()
