"""Files that are wrong before anyone asks what a TrainingJob is: YAML's syntax, its traps, encodings and bounds."""

from __future__ import annotations

import time

import pytest

from edgecloud.documents import MAX_BYTES, MAX_DEPTH, MAX_DOCUMENTS, read_documents
from tests.unit.validation.files import PROGRAM, Row, check, edited, expect, good, job

NEL = "\u0085"
LIST = "apiVersion: v1\nkind: List\nitems:\n- "
"""A List; the first item begins in line 4."""

KEYS: list[Row] = [
    (good("workers: 3"), '8 | spec.workers | a second "workers" in this mapping; the first is in line 6 | keep one'),
    (
        good("resources: {limits: {cpu: 1, cpu: 2}}"),
        "8 | spec.resources.limits.cpu | the first is in line 8 | keep one",
    ),
    (good("on: 1"), '8 | spec.on | a key must be text, and "on" is a boolean in YAML | put the key into quotes'),
    (good("nodeSelector: {80: a}"), '8 | spec.nodeSelector.80 | "80" is a number in YAML | put the key into quotes'),
    (good("~: 1"), '8 | spec["~"] | no text in YAML | put the key into quotes'),
    (good("? ", ": 1"), "8 | spec | a key is empty | write a key"),
    (good("? [a]", ": 1"), "8 | spec | this one is a list or mapping | put the key into quotes"),
    (good("minWorkers: {{ .Values.min }}"), "8 | spec.minWorkers | a template, and not YAML yet | helm template"),
    (good("<<: {suspend: true}"), '8 | spec["<<"] | merge keys are not part of YAML 1.2 | write the fields out'),
    (job("<<: {workers: 1}", PROGRAM), '6 | spec["<<"] | merge keys are not part of YAML 1.2 | write the fields out'),
]

TAGS: list[Row] = [
    (
        good("minWorkers: !!python/name:os.system x"),
        "8 | spec.minWorkers | a tag that has no meaning | leave the tag out",
    ),
    (good("minWorkers: !mine 3"), "8 | spec.minWorkers | a tag that has no meaning here | leave the tag out"),
    (good("nodeSelector: !mine {a: b}"), "8 | spec.nodeSelector | a tag that has no meaning | leave the tag out"),
    (good("nodeSelector: !e!mine {a: b}"), "8 |  | a tag that has no meaning here | leave the tag out"),
    (good("minWorkers: !!int two"), "8 | spec.minWorkers | not of its tag's type, int | leave the tag out"),
    (good("image: !<"), "8 |  | a tag that has no meaning here | leave the tag out"),
]

ALIASES: list[Row] = [
    (
        good("podTemplate: &a {spec: *a}"),
        "8 | spec.podTemplate.spec | *a stands within the value that it repeats | write the value out",
    ),
    (good("image: *b"), "8 | spec.image | *b repeats nothing that stands above | into quotes"),
    (good("image: *.tar"), "8 |  | a * that begins no name | put a text that begins with * into quotes"),
    (good("image: &"), "8 |  | an & that begins no name | put a text that begins with & into quotes"),
]

SYNTAX: list[Row] = [
    ("spec:\n\tworkers: 1\n", "2 |  | a tab where YAML wants spaces | YAML indents with spaces; replace the tab"),
    (good("storage:", "\tclaimName: a"), "9 |  | a tab where YAML wants spaces | replace the tab"),
    ("a: |\n\tx\n", "2 |  | a tab where YAML wants spaces | replace the tab"),
    (good("image: 'a", "suspend: true"), "8 |  | a quote that is opened here is never closed | the closing quote"),
    (good("tolerations: [a", "suspend: true"), "9 |  | the [ of line 8 is not closed before this | a comma or ]"),
    (good("resources: {limits: {", "suspend: true"), "9 |  | the { of line 8 is not closed before this | a comma or }"),
    (
        job("workers:2", PROGRAM),
        "6 |  | no space behind the colon of workers, which makes a text of the line | write workers: 2",
    ),
    (
        good("restartPolicy:", "  maxRestarts:1", "", "  exitCodeRules: []"),
        "9 |  | no space behind the colon of maxRestarts | write maxRestarts: 1",
    ),
    (job("workers:\u00a02", PROGRAM), "6 |  | a no-break space (U+00A0) | write a space in its place"),
    (
        good().replace("  workers", "\u00a0 workers"),
        "6 |  | a no-break space (U+00A0), which looks like a space | write a space in its place",
    ),
    (good("image:", "  http://a", "  b: c"), "10 |  | a `: ` where no key can stand | into quotes"),
    (good("image: a: b"), "8 |  | a `: ` where no key can stand | into quotes"),
    (good("minWorkers 3", "suspend: true"), "9 |  | a line that is no `key: value` | a colon and a space"),
    (
        good("storage:", "    claimName: a", "  subPath: b"),
        "10 |  | no field of the mapping around it | indent the fields",
    ),
    (good("- image: a"), "8 |  | no field of the mapping around it | indent the fields"),
    ("- a\nb: c\n", "2 |  | no item of the list around it | begin each item with `- `"),
    (good("tolerations: - a"), "8 |  | a `- ` where no list can begin | on the lines below"),
    (good("image: @sha256"), '8 |  | "@" cannot begin a value | put the value into quotes'),
    ("]\n", "1 |  | a bracket or comma is too many | check the brackets"),
    (good('image: "C:\\dir"'), "8 |  | an unknown escape in double quotes | use single quotes"),
    (good('image: "\\ud800"'), "8 |  | an escape that stands for no character | write the character itself"),
    (
        '{"a": "\\\\\\ud83c\\udf89\\udf89"}',
        "1 |  | an escape that stands for no character | write the character itself",
    ),
    ('{a: "\\ud83c\\udf89"}', "1 |  | an escape that stands for no character | write the character itself"),
    (good("image: |x", "  y"), "8 |  | that does not belong there | on the next line"),
    (good() + "...\na: b\n", "9 |  | something behind the end of the document | a line `---`"),
    ("%YAML 3.0\n--- a\n", "1 |  | a version of YAML that is not read here | remove the %YAML line"),
    ("%PDF-1.7\n", "1 |  | begins with % and is no directive | remove it"),
]

ENCODINGS: list[Row] = [
    (b"a: 1\nb: \0\n", "2 |  | a NUL byte is not allowed | remove it"),
    (good("image: a\x1b[31m"), "8 |  | the control character U+001B is not allowed | remove it"),
    (good("image: a\x9b31m"), "8 |  | the control character U+009B is not allowed | remove it"),
    (good("image: caf\u00e9").encode("latin-1"), "8 |  | the byte 0xe9 is not UTF-8 | save the file as UTF-8"),
    (good().encode("utf-16"), "1 |  | UTF-16 | save the file as UTF-8"),
    (good().encode("utf-16-le"), "1 |  | UTF-16 | save the file as UTF-8"),
    (good().encode("utf-32"), "1 |  | UTF-32 | save the file as UTF-8"),
    (b"\x7fELF\x02\x01\x01" + bytes(60), "1 |  | the file is binary | save the file as UTF-8"),
    (b"", "- |  | there is no document in the file | write a TrainingJob"),
    (b"# a\n---\n# b\n---\nnull\n", "- |  | there is no document in the file | write a TrainingJob"),
    (b"\xef\xbb\xbf", "- |  | there is no document in the file | write a TrainingJob"),
]

LINES: list[Row] = [
    (job("workers: 0", PROGRAM).replace("\n", "\r\n"), "6 | spec.workers | 0 is below | at least 1"),
    (job("workers: 0", PROGRAM).replace("\n", "\r"), "6 | spec.workers | 0 is below | at least 1"),
    (b"\xef\xbb\xbf" + job("workers: 0", PROGRAM).encode(), "6 | spec.workers | 0 is below | at least 1"),
    (job(PROGRAM, "workers: 0").rstrip(), "7 | spec.workers | 0 is below | at least 1"),
    (job(f'managedBy: "a{NEL}b"', PROGRAM, "workers: 0"), "8 | spec.workers | 0 is below | at least 1"),
    ("# äöü € 😀\n" + job("workers: 0", PROGRAM), "7 | spec.workers | 0 is below | at least 1"),
    (
        job("program:", "  command:", "  - |", "    a", "", "    b", "workers: 0"),
        "12 | spec.workers | 0 is below | at least 1",
    ),
    (good() + "---\n" + job("workers: 0", PROGRAM), "14 | spec.workers | 0 is below | at least 1"),
    ("---\n---\n# a\n---\n" + job("workers: 0", PROGRAM), "10 | spec.workers | 0 is below | at least 1"),
    (good() + "---\nkind: ConfigMap\n", "9 | kind | ConfigMap is not a TrainingJob | file of its own"),
    (job("workers: 1", PROGRAM, "nodeSelector: &a", "  b: 1"), '9 | spec.nodeSelector.b | the number 1 | "1"'),
    (job("workers: &n 2", PROGRAM, "image: *n"), '8 | spec.image | the number 2 | "2"'),
    (
        '{\n\t"apiVersion": "edgecloud.io/v1alpha1", "kind": "TrainingJob",\n\t"metadata": {"name": "a"},\n'
        '\t"spec": {"workers": 0, "program": {"command": ["a"]}}\n}',
        "4 | spec.workers | 0 is below | at least 1",
    ),
    (
        LIST + job("workers: 0", PROGRAM).replace("\n", "\n  "),
        "9 | items[0].spec.workers | 0 is below | at least 1",
    ),
    (LIST + "kind: Pod\n", "4 | items[0].kind | Pod is not a TrainingJob | kind: TrainingJob"),
    (LIST + "5\n", "4 | items[0] | the number 5 where a TrainingJob is needed | write apiVersion:"),
    ("apiVersion: v1\nkind: List\n", "1 | items | a List without items | below items:"),
    (
        good('podTemplate: {metadata: {annotations: {"a.b/c": .nan}}}'),
        '8 | spec.podTemplate.metadata.annotations["a.b/c"] | .nan is no number | finite',
    ),
]

LAUGHS = "".join(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 10))
NESTED = "".join(f"a{level}: &a{level} [*a{level - 1}]\n" for level in range(1, 100))

BOUNDS: list[Row] = [
    (f"a0: &a0 [{'x, ' * 10}]\n{LAUGHS}", "5 | a4[7] | more than 100000 values | repeat less"),
    (f"a: &a {'x' * 100_000}\nb: [{'*a , ' * 1000}]\n", "2 | b[9] | text is larger than 1024 KiB | repeat less"),
    (f"a0: &a0 [x]\n{NESTED}", "64 | a63[0] | more than 64 collections within each other | write a flatter document"),
    ("[" * 100_000, "1 |  | brackets or lists more than 64 deep | write a flatter document"),
    ("[\n" * 100_000, f"65 | {'[0]' * 64} | more than 64 collections within each other | write a flatter document"),
    ("- " * 100_000, f"1 | {'[0]' * 64} | more than 64 collections within each other | write a flatter document"),
    ("{a: " * 100_000, f"1 | a{'.a' * 63} | more than 64 collections within each other | write a flatter document"),
    (f"[{'a,' * 200_000}]", "1 | [99999] | more than 100000 values | repeat less"),
    (b"a: b\n" * 2_000_000, "- |  | the file is larger than 1024 KiB | with the image or a volume"),
    (b"#" * (MAX_BYTES + 1), "- |  | the file is larger than 1024 KiB | with the image or a volume"),
    (
        "".join(f"%TAG !a{number}! b\n" for number in range(60_000)) + "--- a",
        "1 |  | more than 100 %TAG directives | remove them",
    ),
]


@pytest.mark.parametrize("row", [*KEYS, *TAGS, *ALIASES, *SYNTAX, *ENCODINGS, *LINES], ids=lambda row: row[1])
def test_the_one_problem_is_named(row: Row) -> None:
    expect(row)


@pytest.mark.parametrize("row", BOUNDS, ids=lambda row: row[1])
def test_bounds_hold_and_hold_quickly(row: Row) -> None:
    started = time.process_time()
    expect(row)
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    "content",
    [
        good(f"tolerations: [{'1, ' * 99_000}]"),
        good().replace(PROGRAM, f"program: {{command: [a], env: [{'{nmae: 1}, ' * 30_000}]}}"),
        good(*["suspend: true"] * 40_000),
        "a: 1\n" * 45_000,
        LIST + "{}\n- " * 999 + "{}\n",
        "--- a\n" * MAX_DOCUMENTS,
    ],
    ids=["wrong items", "misspelt fields", "duplicate fields", "duplicate keys", "a long List", "many documents"],
)
def test_as_many_problems_as_a_file_can_hold_take_no_time(content: str) -> None:
    started = time.process_time()
    assert not check(content).ok
    assert time.process_time() - started < 4


def test_the_greatest_depth_is_allowed() -> None:
    documents, problems = read_documents(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, "job.yaml")
    assert len(documents) == 1
    assert problems == ()


def test_a_document_too_many() -> None:
    *_, last = check("--- a\n" * (MAX_DOCUMENTS + 1)).problems
    assert f"more than {MAX_DOCUMENTS} documents" in last.message
    assert last.line == MAX_DOCUMENTS + 1


def test_documents_before_the_unreadable_one_are_checked() -> None:
    result = check(
        good() + "---\n" + edited("workers: 2", "workers: 0") + "---\n]\n---\n" + edited("workers: 2", "a: 0")
    )
    assert [job.metadata.name for job in result.jobs] == ["digits"]
    assert [problem.line for problem in result.problems] == [14, 17]


def test_what_follows_from_wrong_yaml_is_not_told() -> None:
    """The merge key may have brought workers and name: that they are missing is no problem of its own."""
    result = check(edited("  workers: 2\n", "  <<: {workers: 2}\n").replace("  name: digits\n", "  <<: {name: a}\n"))
    assert [problem.path for problem in result.problems] == ['metadata["<<"]', 'spec["<<"]']
    assert result.jobs == ()
