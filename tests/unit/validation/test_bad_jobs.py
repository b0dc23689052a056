"""Each way of getting a TrainingJob wrong: the line, the path, the reason and the remedy that the user reads."""

from __future__ import annotations

import pytest

from tests.unit.validation.files import HEAD, PROGRAM, Row, check, edited, expect, good, job, meta, program, trainer

ENVELOPE: list[Row] = [
    ("apiVersion: apps/v1\nkind: Deployment\n", "2 | kind | Deployment is not a TrainingJob | file of its own"),
    (edited("TrainingJob", "trainingjob"), '2 | kind | "trainingjob" is no kind | write kind: TrainingJob'),
    (edited("TrainingJob", "TrainigJob"), '2 | kind | "TrainigJob" is no kind | write kind: TrainingJob'),
    (edited("kind: TrainingJob\n", ""), "1 |  | kind is missing | write kind: TrainingJob"),
    (edited("TrainingJob", "5"), "2 | kind | the number 5 is no kind | write kind: TrainingJob"),
    (edited("TrainingJob", "[]"), "2 | kind | a list is no kind | write kind: TrainingJob"),
    (
        "apiVersion: trainer.kubeflow.org/v1alpha1\nkind: TrainJob\nspec: {}\n",
        "2 | kind | TrainJob is not a TrainingJob | write kind: TrainingJob",
    ),
    (edited("v1alpha1", "v1"), "1 | apiVersion | edgecloud.io/v1 is a version that is not known | io/v1alpha1"),
    (edited("edgecloud.io/", ""), "1 | apiVersion | the group is missing before v1alpha1 | edgecloud.io/v1alpha1"),
    (edited("edgecloud.io/v1alpha1", "batch/v1"), "1 | apiVersion | batch/v1 has no TrainingJob | io/v1alpha1"),
    (edited("edgecloud.io/v1alpha1", "1"), "1 | apiVersion | the number 1 is no apiVersion | io/v1alpha1"),
    (edited("apiVersion: edgecloud.io/v1alpha1\n", ""), "1 |  | apiVersion is missing | edgecloud.io/v1alpha1"),
    (edited("metadata:\n  name: digits\n", ""), "1 | metadata | this field is missing | write metadata:"),
    (edited("name: digits", "namespace: here"), "3 | metadata.name | this field is missing | write name:"),
    (HEAD.replace("spec:\n", ""), "1 | spec | this field is missing | write spec:"),
    (HEAD, "5 | spec | nothing where a mapping is needed | below it, indented"),
    (edited("spec:", "specs:"), "5 | specs | unknown field, and spec is missing | write spec instead"),
    ("- apiVersion: x\n", "1 |  | a list where a TrainingJob is needed | write apiVersion:"),
    ("hello\n", '1 |  | the text "hello" where a TrainingJob is needed | write apiVersion:'),
]

NAMES: list[Row] = [
    (
        good("foo: 1"),
        "8 | spec.foo | unknown field | leave it out; known here: workers, minWorkers, trainer, program, ",
    ),
    (good("minWorker: 1"), "8 | spec.minWorker | unknown field | did you mean minWorkers?"),
    (good("Workers: 3"), "8 | spec.Workers | unknown field | leave it out; workers is there already"),
    (good("Suspend: true"), "8 | spec.Suspend | unknown field | write suspend"),
    (good("epochs: 3"), "8 | spec.epochs | unknown field here | epochs belongs to spec.trainer"),
    (good("spex: {}"), "8 | spec.spex | unknown field | leave it out; known here: workers, minWorkers, "),
    (good("tariner: 1"), "8 | spec.tariner | unknown field | did you mean trainer?"),
    (good("program2: 1"), "8 | spec.program2 | unknown field | leave it out; program is there already"),
    (good("batch_size: 3"), "8 | spec.batch_size | unknown field here | batchSize belongs to spec.trainer"),
    (program("valueFrom: {}"), "9 | spec.program.valueFrom | unknown field here | belongs to spec.program.env[]"),
    (good() + "workers: 3\n", "8 | workers | unknown field here | workers belongs to spec or spec.pools[]"),
    (good('"\\e[31m\\nx": 3'), '8 | spec["\\x1b[31m\\nx"] | unknown field | known here'),
    (
        job("workers: 1", "trainer:", "  dat: {name: digits}"),
        "8 | spec.trainer.dat | unknown field, and data is missing | write data instead",
    ),
    (job("workers: 1", "trainer: {epochs: 1}"), "7 | spec.trainer.data | this field is missing | write data:"),
    (
        job("workers: 1", "program: {command: [a], env: [{naem: A}]}"),
        "7 | spec.program.env[0].naem | unknown field, and name is missing | write name instead",
    ),
]

POD = "spec.podTemplate.spec"
FOREIGN: list[Row] = [
    (good("name: a"), "8 | spec.name | unknown field | write it into metadata:, above spec:"),
    (good() + "name: a\n", "8 | name | unknown field | write it into metadata:, above spec:"),
    (good("replicas: 2"), "8 | spec.replicas | unknown field | leave it out; workers is there already"),
    (good("minReplicas: 2"), "8 | spec.minReplicas | unknown field | write minWorkers"),
    (job("workers: 1", PROGRAM, "completions: 2"), "8 | spec.completions | unknown | workers is there already"),
    (good("backoffLimit: 2"), "8 | spec.backoffLimit | unknown field | write spec.restartPolicy.maxRestarts"),
    (good("restartPolicy: {backoffLimit: 2}"), "8 | spec.restartPolicy.backoffLimit | unknown | write maxRestarts"),
    (
        good("restartPolicy: {name: Always}"),
        "8 | spec.restartPolicy.name | unknown field | write maxRestarts: whatever",
    ),
    (good("gpus: 1"), '8 | spec.gpus | unknown field | write spec.resources.limits["nvidia.com/gpu"]'),
    (
        good("resources: {cpu: 1}"),
        "8 | spec.resources.cpu | unknown field | write limits: (most it may use) or requests:",
    ),
    (good("imagePullSecrets: []"), f"8 | spec.imagePullSecrets | unknown field | write it into {POD}"),
    (good("containers: []"), "8 | spec.containers | unknown field | the image into spec.image"),
    (good("volumeMounts: []"), f"8 | spec.volumeMounts | unknown | into {POD}.containers, for the container with name"),
    (
        good("storage: {persistentVolumeClaim: {}}"),
        "8 | spec.storage.persistentVolumeClaim | unknown | write claimName",
    ),
    (good("storage: {mountPath: /data}"), "8 | spec.storage.mountPath | unknown | leave it out: the program finds"),
    (
        job("trainer: {data: {name: digits}}", "workers: 1", "export: {measureOn: {cpu: 1}}"),
        "8 | spec.export.measureOn.cpu | unknown field | write it below resources.limits of this",
    ),
    (
        job("trainer: {data: {name: digits}}", "workers: 1", "export: {measureOn: {replicas: 2}}"),
        "8 | spec.export.measureOn.replicas | unknown field | leave it out: one Pod measures",
    ),
    (
        job("program: {command: [a]}", "pools: [{name: a, workers: 1, cpu: 2}]"),
        "7 | spec.pools[0].cpu | unknown field | write it below resources.limits of this",
    ),
    (good("storage: {size: 1Gi}"), "8 | spec.storage.size | unknown field | write sizeLimit for an emptyDir"),
    (good("ttl: 1"), "8 | spec.ttl | unknown field | write ttlSecondsAfterFinished"),
    (good("env: []"), "8 | spec.env | unknown field here | env belongs to spec.program"),
    (
        trainer("env: []"),
        f"9 | spec.trainer.env | unknown | into {POD}.containers, for the container with name: worker",
    ),
    (
        trainer().rstrip() + "\n  env: []\n",
        f"9 | spec.env | unknown field | into {POD}.containers, for the container with name: worker",
    ),
    (trainer("optimizer: {lr: 0.001}"), "9 | spec.trainer.optimizer.lr | unknown field | write learningRate"),
    (trainer("lr: 0.001"), "9 | spec.trainer.lr | unknown field | write spec.trainer.optimizer.learningRate"),
    (
        trainer("optimizer: {lr: 0.001, learning_rate: 0.1}").replace("learning_rate", "learningRate"),
        "9 | spec.trainer.optimizer.lr | unknown field | leave it out; learningRate is there already",
    ),
    (
        job("workers: 2", "trainer:", "  data: {name: digits, path: /d}"),
        "8 | spec.trainer.data.path | unknown field | write source",
    ),
    (trainer("checkpoint: {}"), "9 | spec.trainer.checkpoint | unknown field | write spec.storage: with claimName"),
    (
        job("pools: [{name: a, replicas: 2, workers: 1}]", PROGRAM),
        "6 | spec.pools[0].replicas | unknown field | write workers",
    ),
    (good("podTemplate: {imagePullSecrets: []}"), "8 | spec.podTemplate.imagePullSecrets | unknown | podTemplate.spec"),
    (
        good("podTemplate: {labels: {a: b}}"),
        "8 | spec.podTemplate.labels | unknown | move it below podTemplate.metadata",
    ),
    (good("podTemplate: {env: []}"), f"8 | spec.podTemplate.env | unknown | {POD}.containers, for the container with"),
    (good("podTemplate: {specs: {}}"), "8 | spec.podTemplate.specs | unknown field | did you mean spec?"),
    (good("podTemplate: {kind: Pod}"), "8 | spec.podTemplate.kind | unknown field | has metadata and spec alone"),
]
"""Words of Kubernetes, Kubeflow and PyTorch: leaving them out would change what is trained, or where."""

TYPES: list[Row] = [
    (job("workers: 1.5", PROGRAM), "6 | spec.workers | the number 1.5 where a whole number is needed | such as 2"),
    (job('workers: "3"', PROGRAM), '6 | spec.workers | the text "3" where a whole number | write 3 without quotes'),
    (job("workers: yes", PROGRAM), "6 | spec.workers | the boolean yes where a whole number | write a whole number"),
    (job("workers: [2]", PROGRAM), "6 | spec.workers | a list where a whole number is needed | a whole number"),
    (good("activeDeadlineSeconds: 30s"), '8 | spec.activeDeadlineSeconds | the text "30s" | write a whole number'),
    (trainer("labelSmoothing: '0.1'"), '9 | spec.trainer.labelSmoothing | the text "0.1" | 0.1 without quotes'),
    (good('suspend: "yes"'), '8 | spec.suspend | the text "yes" where true or false is needed | write true or false'),
    (good("suspend: 1"), "8 | spec.suspend | the number 1 where true or false is needed | write true or false"),
    (good("image: on"), '8 | spec.image | the boolean on where text is needed | put it in quotes: "on"'),
    (good("image: {name: a}"), "8 | spec.image | a mapping where text is needed | registry/repository:tag"),
    (meta("labels: {debug: yes}"), '5 | metadata.labels.debug | the boolean yes where text | in quotes: "yes"'),
    (edited("name: digits", "name: 2024"), "4 | metadata.name | the number 2024 where text is needed | first a letter"),
    (
        program("env:", "- {name: PORT, value: 0080}"),
        '10 | spec.program.env[0].value | the number 0080 where text is needed | put it in quotes: "0080"',
    ),
    (job("workers: 1", "program: {command: [a, 5]}"), '7 | spec.program.command[1] | the number 5 where text | "5"'),
    (
        job("workers: 1", "program: {command: python train.py}"),
        '7 | spec.program.command | the text "python train.py" where a list | as a list: [python, train.py]',
    ),
    (
        job("workers: 1", "program: {command: [a], env: {A: b}}"),
        '7 | spec.program.env | a mapping where a list | write [{name: A, value: "b"}]',
    ),
    (
        job("workers: 1", "program: {command: [a], env: {A: 5, B: [b], C: c}}"),
        '7 | spec.program.env | a mapping where a list | write [{name: A, value: "5"}, {name: B, value: ...}, ...]',
    ),
    (good("tolerations: {key: a}"), "8 | spec.tolerations | a mapping where a list is needed | each item with `- `"),
    (good("storage: []"), "8 | spec.storage | a list where a mapping is needed | without `- `"),
    (good("storage: claim"), '8 | spec.storage | the text "claim" where a mapping is needed | lines below it'),
    (program("env: [5]"), "9 | spec.program.env[0] | the number 5 where a mapping is needed | `key: value`"),
    (trainer("epochs:"), "9 | spec.trainer.epochs | nothing where a whole number is needed | or leave epochs out"),
    (job("workers: 1", "trainer:", "  data:"), "8 | spec.trainer.data | nothing where a mapping | below it, indented"),
    (meta("creationTimestamp: 5"), "5 | metadata.creationTimestamp | where a time is needed | 2026-01-31T12:00:00Z"),
    (meta("creationTimestamp: noon"), '5 | metadata.creationTimestamp | the text "noon" | 2026-01-31T12:00:00Z'),
]

VALUES: list[Row] = [
    (good("startDeadlineSeconds: -5"), "8 | spec.startDeadlineSeconds | -5 is below the least value (1) | at least 1"),
    (job("workers: 0", PROGRAM), "6 | spec.workers | 0 is below the least value (1) | a value of at least 1"),
    (job("workers: 1001", PROGRAM), "6 | spec.workers | 1001 is above the greatest value (1000) | at most 1000"),
    (trainer("optimizer: {learningRate: 0}"), "9 | spec.trainer.optimizer.learningRate | 0 is not above 0 | above 0"),
    (trainer("labelSmoothing: 1.0"), "9 | spec.trainer.labelSmoothing | 1.0 is not below 1 | below 1"),
    (job("workers: 1" + "0" * 400, PROGRAM), "6 | spec.workers | above the greatest value (1000) | at most 1000"),
    (job("workers: 1" + "0" * 4400, PROGRAM), "6 | spec.workers | a number of 4401 digits | a smaller number"),
    (job("workers: 1e30", PROGRAM), "6 | spec.workers | the number 1e30 | write a whole number"),
    (job("workers: 1e400", PROGRAM), '6 | spec.workers | the text "1e400" | write a whole number'),
    (trainer(f"labelSmoothing: 1{'0' * 400}"), "9 | spec.trainer.labelSmoothing | too large | write a finite number"),
    (trainer("labelSmoothing: .nan"), "9 | spec.trainer.labelSmoothing | .nan is no number | write a finite number"),
    (good("minWorkers: .inf"), "8 | spec.minWorkers | .inf is no number | write a finite number"),
    (good("podTemplate: {spec: {a: -.INF}}"), "8 | spec.podTemplate.spec.a | -.INF is no number | a finite number"),
    (edited("digits", "My_Job"), '4 | metadata.name | "My_Job" does not have the form | lower-case letters'),
    (edited("digits", "a" * 70), "4 | metadata.name | text of 70 characters, and at most 50 fit | write at most 50"),
    (edited("digits", '""'), "4 | metadata.name | empty, and at least 1 character is needed | write at most 50"),
    (good("resources: {limits: {cpu: 5Q}}"), '8 | spec.resources.limits.cpu | "5Q" does not have the form | 500m'),
    (
        good("resources: {limits: {cpu: -1}}"),
        "8 | spec.resources.limits.cpu | -1 is below the least value | at least 0",
    ),
    (
        good("resources: {limits: {cpu: 0.5}}"),
        '8 | spec.resources.limits.cpu | the number 0.5 where text or a whole number is needed | in quotes: "0.5"',
    ),
    (
        good("resources: {limits: {cpu: [1]}}"),
        "8 | spec.resources.limits.cpu | a list where text or a whole number is needed | 500m, 2, 4Gi",
    ),
    (program("files: {a/b.py: x}"), '9 | spec.program.files["a/b.py"] | does not have the form | without a folder'),
    (
        trainer("optimizer: {name: adam}"),
        '9 | spec.trainer.optimizer.name | the text "adam" is not one of sgd, adamw, muon | write adamw',
    ),
    (trainer("device: xpu9"), "9 | spec.trainer.device | not one of the choices | write one of auto, cpu, cuda"),
    (trainer("device: on"), "9 | spec.trainer.device | the boolean on is not one | write one of auto, cpu, cuda"),
    (trainer().rstrip() + "\n  export: {formats: []}\n", "9 | spec.export.formats | empty | write at least 1 item"),
    (
        trainer().rstrip() + "\n  export: {formats: [onnx, onnx, onnx, onnx]}\n",
        "9 | spec.export.formats | a list of 4 items, and at most 3 fit | write at most 3 items",
    ),
]

ITEMS: list[Row] = [
    (
        good(
            "podTemplate:", "  spec:", "    containers:", "    - name: worker", "    - name: pytorch", "      env: []"
        ),
        "12 | spec.podTemplate.spec.containers[1] | not named worker | write name: worker to say more of the one that",
    ),
    (
        trainer().rstrip() + "\n  export: {formats: [int8]}\n",
        '9 | spec.export.formats[0] | the text "int8" is not one of the choices | write one of onnx, onnx-int8, pt2',
    ),
    (
        good("restartPolicy: {exitCodeRules: [{exitCodes: [0], action: Fail}]}"),
        "8 | spec.restartPolicy.exitCodeRules[0].exitCodes[0] | 0 is below the least value (1) | at least 1",
    ),
]
"""A wrong item makes no list too short."""

WHOLE = '8 | spec.resources.limits["nvidia.com/gpu"] | nvidia.com/gpu is counted in whole ones | write a whole number'
UNMADE: list[Row] = [
    (good("resources: {limits: {nvidia.com/gpu: 0.5}}"), WHOLE),
    (good('resources: {limits: {nvidia.com/gpu: "0.5"}}'), WHOLE),
    (good("resources: {limits: {nvidia.com/gpu: 500m}}"), WHOLE),
    (
        job("pools: [{name: a, workers: 1, resources: {requests: {amd.com/gpu: 1m}}}]", PROGRAM),
        '6 | spec.pools[0].resources.requests["amd.com/gpu"] | amd.com/gpu is counted | write a whole number',
    ),
    (good("storage: {subPath: ../../y}"), "8 | spec.storage.subPath | a path within the claim has no .. | from the"),
    (
        trainer().replace("name: digits}", "name: cifar-11}"),
        "8 | spec.trainer.data.name | no data set is named cifar-11 | did you mean cifar10?",
    ),
    (
        trainer().replace("name: digits}", "name: flowers}"),
        "8 | spec.trainer.data.name | no data set is named flowers | write one of digits, cifar10, cifar100, ",
    ),
]
"""What an API server would refuse of the Pods, or the trainer at its start."""

RULES: list[Row] = [
    (
        job("workers: 1", "program: {command: ['python train.py']}"),
        "7 | spec.program.command | a space in the first word | write each word by itself: [python, train.py]",
    ),
    (
        good("trainer: {data: {name: digits}}"),
        "7 | spec.program | exactly one of trainer and program is needed | or program:",
    ),
    (job("workers: 1"), "5 | spec | exactly one of trainer and program is needed | or program:"),
    (job(PROGRAM), "5 | spec.workers | exactly one of workers and pools is needed | or pools:"),
    (good("minWorkers: 5"), "8 | spec.minWorkers | above the number of workers | at most workers"),
    (
        program("env:", "- {name: A, value: b}", "- name: RANK"),
        "11 | spec.program.env[1].name | this variable is set by EdgeCloud | another name",
    ),
]


@pytest.mark.parametrize(
    "row", [*ENVELOPE, *NAMES, *FOREIGN, *TYPES, *VALUES, *ITEMS, *UNMADE, *RULES], ids=lambda row: row[1]
)
def test_the_one_problem_is_named(row: Row) -> None:
    expect(row)


def test_all_problems_are_named_at_once_in_the_order_of_the_lines() -> None:
    content = edited("v1alpha1", "v2") + "  sped: 1\n  suspend: maybe\n  minWorkers: 0\n"
    assert [(p.line, p.path) for p in check(content).problems] == [
        (1, "apiVersion"),
        (8, "spec.sped"),
        (9, "spec.suspend"),
        (10, "spec.minWorkers"),
    ]


def test_the_text_of_a_problem() -> None:
    [problem] = check(good("startDeadlineSeconds: 0")).problems
    assert str(problem) == (
        "job.yaml:8: spec.startDeadlineSeconds: 0 is below the least value (1): write a value of at least 1"
    )


def test_what_is_repeated_is_cut() -> None:
    [problem] = check(edited("digits", "B" * 40 + "\u202e")).problems
    assert '"' + "B" * 40 + '\\u202e"' in str(problem)
    for content in (good(f"{'k' * 900}: 1"), good(f"suspend: {'v' * 100_000}"), edited("TrainingJob", "K" * 10_000)):
        [problem] = check(content).problems
        assert len(str(problem)) < 500
        assert "..." in str(problem)


@pytest.mark.parametrize("wrong", [51, 52, 40_000])
def test_many_problems_are_counted(wrong: int) -> None:
    *told, last = check(good(*(f"x{number}: 1" for number in range(wrong)))).problems
    assert [problem.path for problem in told] == [f"spec.x{number}" for number in range(50)]
    assert str(last) == f"job.yaml: and {wrong - 50} more problem{'s' if wrong > 51 else ''} in this document"


def test_fifty_problems_are_all_told() -> None:
    assert len(check(good(*(f"x{number}: 1" for number in range(50)))).problems) == 50
