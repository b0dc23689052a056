"""The folder of a local run: one run at a time in it, and a job.yaml that is whole or not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecloud.api.job import TrainingJob
from edgecloud.documents import read_documents
from edgecloud_operator.local import Workdir, WorkdirError, keeping, to_yaml
from edgecloud_operator.local.workdir import _take
from edgecloud_trainer.checkpoints import layout
from edgecloud_trainer.data.remembering import remember
from tests.unit.api import strategies
from tests.unit.local.jobs import made, make_job

OURS = {"uid": "u"}
as_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")


# Folders


def test_it_makes_its_folders(tmp_path: Path) -> None:
    workdir = made(tmp_path / "a/b/work")
    for _ in range(2):
        assert {path.name for path in workdir.path.iterdir()} == {"checkpoints", "results", "logs"}
        workdir.prepare()
    assert workdir.log_file(3) == workdir.path / "logs/worker-3.log"


@pytest.mark.parametrize("taken", ["work", "work/logs", "up"])
def test_a_file_stands_where_a_folder_should(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).parent.mkdir(exist_ok=True)
    (tmp_path / taken).write_text("")
    with pytest.raises(WorkdirError, match="--workdir") as raised:
        Workdir(tmp_path / ("up/work" if taken == "up" else "work")).prepare()
    assert taken in str(raised.value)


@as_root
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    workdir = made(tmp_path / "work")
    workdir.checkpoints.chmod(0o500)
    with pytest.raises(WorkdirError, match="can't be written"):
        workdir.prepare()


# The lock

HOLD = """
import sys
from pathlib import Path
from edgecloud_operator.local import Workdir
with Workdir(Path(sys.argv[1])).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_run_at_a_time(tmp_path: Path) -> None:
    workdir = made(tmp_path / "work")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(workdir.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin and holder.stdout
    with holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(WorkdirError) as raised:
            workdir.lock()
        assert f"(process {holder.pid})" in str(raised.value) and "--workdir" in str(raised.value)
        with pytest.raises(WorkdirError, match=f"process {holder.pid}"):
            workdir.save(make_job(metadata=OURS))
            workdir.put_aside()  # --fresh: not from under a run that goes on
        assert workdir.path.exists()
        holder.kill()
    with workdir.lock():
        assert (workdir.path / ".lock").read_text() == f"{os.getpid()}\n"


def test_the_lock_goes_with_the_file(tmp_path: Path) -> None:
    workdir = made(tmp_path / "work")
    for _ in range(2):
        with workdir.lock(), pytest.raises(WorkdirError):
            workdir.lock()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"not a number\n", b"9" * 100])
def test_what_stands_in_the_lock_is_no_matter(tmp_path: Path, content: bytes) -> None:
    workdir = made(tmp_path / "work")
    (workdir.path / ".lock").write_bytes(content)
    with workdir.lock():
        pass
    (workdir.path / ".lock").write_bytes(content)
    with (workdir.path / ".lock").open("a+") as other:
        import fcntl

        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(WorkdirError, match="another run"):
            workdir.lock()


def test_a_lock_that_cannot_be_opened(tmp_path: Path) -> None:
    workdir = made(tmp_path / "work")
    (workdir.path / ".lock").mkdir()
    with pytest.raises(WorkdirError, match="--workdir"):
        workdir.lock()


def test_a_lock_on_a_full_disk(tmp_path: Path) -> None:
    workdir = made(tmp_path / "work")
    (workdir.path / ".lock").symlink_to("/dev/full")
    with pytest.raises(WorkdirError, match=r"\.lock can't be written: .*--workdir"):
        workdir.lock()


# job.yaml

some_jobs = st.builds(
    lambda spec, status, metadata: TrainingJob.parse(
        strategies.resource(spec, status=status, metadata=metadata | OURS)
    ),
    strategies.right_specs,
    strategies.statuses,
    strategies.metadata,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(some_jobs)
def test_what_is_saved_is_loaded(tmp_path: Path, job: TrainingJob) -> None:
    workdir = made(tmp_path / "work")
    workdir.save(job)
    loaded = workdir.load()
    assert loaded is not None and loaded.dump() == job.dump()


ODD_TEXTS = [
    "y", "n", "Y", "on", "08", "09", "018", "12e5", "6801E89", "-0o05", "+1", "1e3", "0b1", "1__0", "..", "-", "?", ":",
    "yes", "no", "null", "~", "1", "1.5", "0x1F", "1_000", "12:30:45", "2026-01-31", "2026-01-31T12:00:00Z", ".nan",
    "=", "<<", "- a", "a: b", "a #b", "#", "'", '"', "\\", "%TAG", "@a", "`a`", "&a", "*a", "!a", "|", ">", "{}", "[]",
    " a", "a ", "a\n", "\na", "a\n\n", "\n", " \n", "a \nb", "\ta\n\tb", "a\r\nb", "a\rb", "\x07", "\x1b[31m", "\x7f",
    "\x85", "\u2028", "\u2029", "\ufeff", "\u200b", "\u202e", "é", "日本", "\U0001f600", "\ud7ff", "\ue000", "\uffff",
    "\U0010ffff", "---", "...", "--- a\n", "a" * 5000, "a b " * 500,
]  # fmt: skip


@pytest.mark.parametrize("text", ODD_TEXTS, ids=[ascii(text)[:20] for text in ODD_TEXTS])
def test_any_text_survives(tmp_path: Path, text: str) -> None:
    workdir = made(tmp_path / "work")
    program = {"command": ["python", text[:4096]], "files": {"a.py": text}, "env": [{"name": "A", "value": text}]}
    job = make_job(
        metadata=OURS | {"annotations": {text[:300]: text}}, program=program, podTemplate={"spec": {text: [text]}}
    )
    workdir.save(job)
    assert workdir.load() == job
    assert TrainingJob.parse(yaml.safe_load(to_yaml(job))) == job


@settings(max_examples=300, deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.text(st.sampled_from(" \t\n\r#:-'\"|>ab\\"), max_size=20)
    | st.from_regex(r"[-+]?[0-9._:eExXobyn]{1,7}", fullmatch=True)
)
def test_every_text_is_read_as_it_was_written(text: str) -> None:
    written = to_yaml(make_job(podTemplate={"spec": {"text": text, "texts": [text]}})).encode()
    (document,), problems = read_documents(written, "job.yaml")
    assert not problems
    for read in (document.value, yaml.safe_load(written)):
        assert read["spec"]["podTemplate"]["spec"] == {"text": text, "texts": [text]}


SPOILT = {
    "empty": b"",
    "half": b"apiVersion: edgecloud.io/v1alpha1\nkind: Train",
    "no yaml": b"{[",
    "bytes": b"\xff\x00\xfe",
    "two": b"a: 1\n---\nb: 2\n",
    "a list": b"- 1\n",
    "a text": b"hello\n",
    "a wrong status": to_yaml(make_job(metadata=OURS)).encode() + b"status: {phase: Sleeping}\n",
    "a time without a zone": to_yaml(make_job(metadata=OURS)).encode() + b"status: {startTime: '2026-01-31T12:00'}\n",
    "a broken rule": to_yaml(make_job(metadata=OURS)).replace("workers: 2", "workers: 2\n  minWorkers: 3").encode(),
    "huge": b"a: " + b"x" * 20_000_000,
    "deep": b"[" * 5000,
    "aliases": b"a: &a [x]\nb: [*a, *a]\n",
}  # fmt: skip


@pytest.mark.parametrize("content", SPOILT.values(), ids=SPOILT)
def test_a_spoilt_job_yaml(tmp_path: Path, content: bytes) -> None:
    workdir = made(tmp_path / "work")
    workdir.job_file.write_bytes(content)
    with pytest.raises(WorkdirError, match="--fresh"):
        workdir.load()
    assert workdir.job_file.read_bytes() == content, "it is left as it was"


def test_a_job_from_before_a_rule_of_the_trainers(tmp_path: Path) -> None:
    workdir = made(tmp_path / "work")
    export = {"trainer": {"data": {"name": "digits"}}, "program": None, "export": {"destination": "models/"}}
    job = make_job(metadata=OURS)
    spec = {key: value for key, value in (job.spec.dump() | export).items() if value is not None}
    workdir.job_file.write_text(yaml.safe_dump(job.dump() | {"spec": spec}))
    loaded = workdir.load()
    assert loaded is not None and loaded.spec.export is not None and loaded.spec.export.destination == "models/"


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=100) | st.integers(0, 400).map(lambda size: to_yaml(make_job(metadata=OURS)).encode()[:size]))
def test_any_bytes_are_a_job_or_spoilt(tmp_path: Path, content: bytes) -> None:
    workdir = made(tmp_path / "work")
    workdir.job_file.write_bytes(content)
    try:
        job = workdir.load()
    except WorkdirError as error:
        assert str(workdir.job_file) in str(error)
    else:
        assert job is not None


def test_without_a_job_yaml_there_is_none(tmp_path: Path) -> None:
    assert made(tmp_path / "work").load() is None
    assert Workdir(tmp_path / "nowhere").load() is None


def test_a_folder_for_a_job_yaml(tmp_path: Path) -> None:
    workdir = made(tmp_path / "work")
    workdir.job_file.mkdir()
    with pytest.raises(WorkdirError, match=r"job\.yaml"):
        workdir.load()


OWN = {
    "a job": to_yaml(make_job()),
    "a job with a mistake": to_yaml(make_job()).replace("workers: 2", "worker: 2"),
    "two jobs": to_yaml(make_job()) + "---\n" + to_yaml(make_job()),
    "another kind": "apiVersion: batch/v1\nkind: Job\nmetadata: {name: a}\n",
}


@pytest.mark.parametrize("content", OWN.values(), ids=OWN)
def test_a_job_file_of_ones_own_is_not_overwritten_or_moved(tmp_path: Path, content: str) -> None:
    """`edgecloud run job.yaml --workdir .`: the file would lose its comments to our record of the run.

    And with --fresh it would be gone from where it was.
    """
    workdir = Workdir(tmp_path / "work")
    workdir.path.mkdir()
    workdir.job_file.write_text("# mine\n" + content)
    for attempt in (workdir.load, workdir.put_aside):
        with pytest.raises(WorkdirError, match=r"job file of your own.*--workdir"):
            attempt()
    assert [path.name for path in tmp_path.iterdir()] == ["work"]
    assert workdir.job_file.read_text() == "# mine\n" + content


def test_a_spoilt_job_yaml_is_put_aside(tmp_path: Path) -> None:
    workdir = made(tmp_path / "work")
    for content in (b"{[", b"\xff\x00\xfe", to_yaml(make_job(metadata=OURS)).encode() + b"status: {phase: Sleeping}\n"):
        workdir.prepare()
        workdir.job_file.write_bytes(content)
        assert (put_aside(workdir) / "job.yaml").read_bytes() == content


def test_a_reader_never_sees_half_of_it(tmp_path: Path) -> None:
    """A process that reads all the time while it is written, and finds a whole job each time."""
    workdir = made(tmp_path / "work")
    big = {"command": ["a"], "files": {"a.py": "print()\n" * 2000}}
    workdir.save(make_job(metadata=OURS, program=big))
    read = (
        "import sys\n"
        "for count in range(10**9):\n"
        "    data = open(sys.argv[1]).read()\n"
        "    assert data.startswith('apiVersion') and data.endswith('suspend: false\\n'), data[-100:]\n"
        "    if count == 20: print('reading', flush=True)\n"
    )
    reader = subprocess.Popen(
        [sys.executable, "-c", read, str(workdir.job_file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with reader:
        assert reader.stdout and reader.stderr
        assert reader.stdout.readline() == "reading\n"
        for number in range(60):
            workdir.save(make_job(metadata=OURS | {"labels": {"n": "x" * (number % 60)}}, program=big))
        assert reader.poll() is None, reader.stderr.read()
        reader.kill()
    assert [path.name for path in workdir.path.iterdir() if path.name.startswith(".job")] == []


def test_a_save_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workdir = made(tmp_path / "work")
    before = make_job(metadata=OURS)
    workdir.save(before)

    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        workdir.save(make_job(metadata=OURS, workers=5))
    assert workdir.load() == before
    assert not list(workdir.path.glob(".job*")), "it takes no room"


# Readable

SCRIPT = (
    '"""A script."""\n\nimport torch\n\n\ndef main():\n'
    """    print("hello: [world] {x}", 'it\\'s', "ümläut", "# no comment")\n"""
    "\tif True:  # a tab\n"
    "        pass  # spaces at the end   \n"
    "   \n"
    '\n\nif __name__ == "__main__":\n    main()\n'
)


def test_a_script_in_a_job_stays_readable() -> None:
    text = to_yaml(make_job(program={"command": ["python", "train.py"], "files": {"train.py": SCRIPT}}))
    lines = text.splitlines()
    assert "      train.py: |" in lines
    for line in SCRIPT.splitlines():
        assert (f"        {line}" if line else "") in lines
    assert yaml.safe_load(text)["spec"]["program"]["files"]["train.py"] == SCRIPT


def test_fields_stand_in_the_order_of_the_api_and_without_aliases() -> None:
    toleration = {"key": "edge"}
    pools = [{"name": name, "workers": 1, "tolerations": [toleration, toleration]} for name in "ab"]
    text = to_yaml(make_job(workers=None, pools=pools, metadata=OURS))
    assert "&" not in text and "*" not in text
    top = [line.split(":")[0] for line in text.splitlines() if not line.startswith((" ", "-"))]
    assert top == ["apiVersion", "kind", "metadata", "spec"]
    assert json.loads(json.dumps(yaml.safe_load(text))) == make_job(workers=None, pools=pools, metadata=OURS).dump()


# --fresh


def put_aside(workdir: Workdir) -> Path:
    aside = workdir.put_aside()
    assert aside is not None
    return aside


def test_an_earlier_run_is_put_aside_whole(tmp_path: Path) -> None:
    workdir = made(tmp_path / "work")
    workdir.save(make_job(metadata=OURS))
    (workdir.checkpoints / "step-1").write_text("weights")
    aside = put_aside(workdir)
    assert aside.parent == tmp_path and aside.name.startswith("work.20")
    assert not workdir.path.exists()
    assert (aside / "checkpoints/step-1").read_text() == "weights"
    assert Workdir(aside).load() == make_job(metadata=OURS)


def test_several_in_one_second(tmp_path: Path) -> None:
    places = set()
    for _ in range(4):
        workdir = made(tmp_path / "work")
        places.add(put_aside(workdir))
    assert len(places) == 4


@pytest.mark.parametrize("there", [None, [], [".lock"]])
def test_nothing_to_put_aside(tmp_path: Path, there: list[str] | None) -> None:
    workdir = Workdir(tmp_path / "work")
    if there is not None:
        workdir.path.mkdir()
        for name in there:
            (workdir.path / name).write_text("")
    assert workdir.put_aside() is None
    assert [path.name for path in tmp_path.iterdir()] == ([] if there is None else ["work"])


@pytest.mark.parametrize("foreign", ["thesis.tex", ".git", "src"])
def test_a_folder_that_holds_more_than_a_run_is_not_moved(tmp_path: Path, foreign: str) -> None:
    """`--workdir . --fresh` in a project, or in one's home."""
    workdir = made(tmp_path / "work")
    workdir.save(make_job(metadata=OURS))
    (workdir.path / foreign).mkdir()
    with pytest.raises(WorkdirError, match=f"{foreign}.*--workdir"):
        workdir.put_aside()
    assert workdir.load() is not None


def with_cache(folder: Path) -> Workdir:
    """An earlier run with all that the trainer's cache may hold."""
    workdir = made(folder)
    workdir.save(make_job(metadata=OURS))
    for name in ("torchvision", "4711.partial"):
        (workdir.path / "data" / name).mkdir(parents=True)
    for name in ("digits-1.images", "digits-1.lock", "torchvision/cifar-10-python.tar.gz", "4711.partial/images"):
        (workdir.path / "data" / name).write_text(name)
    remember(workdir.path / "data", "https://example.com/set.tar", key="set-1", name="set.tar")
    (workdir.path / "data" / f"{40 * 'a'}.{16 * 'b'}").write_text("half a note, of a run that was killed")
    return workdir


def test_the_trainers_cache_goes_on_into_the_new_folder(tmp_path: Path) -> None:
    workdir = with_cache(tmp_path / "work")
    aside = put_aside(workdir)
    assert [entry.name for entry in workdir.path.iterdir()] == ["data"]
    assert (workdir.path / "data/digits-1.images").read_text() == "digits-1.images"
    assert (workdir.path / "data/torchvision/cifar-10-python.tar.gz").exists()
    assert Workdir(aside).load() is not None and not (aside / "data").exists()
    with made(workdir.path).lock():
        assert workdir.load() is None


@pytest.mark.parametrize("own", ["cat.jpg", "train/cat/1.png", "labels.csv", "torchvision.images.zip", "link.url"])
def test_a_data_folder_of_the_users_own_is_not_moved(tmp_path: Path, own: str) -> None:
    workdir = with_cache(tmp_path / "work")
    file = workdir.path / "data" / own
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("mine")
    with pytest.raises(WorkdirError, match=r"\(data\).*--workdir"):
        workdir.put_aside()
    assert file.read_text() == "mine"


def test_a_link_named_data_is_the_users(tmp_path: Path) -> None:
    workdir = made(tmp_path / "work")
    (tmp_path / "elsewhere").mkdir()
    (workdir.path / "data").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(WorkdirError, match=r"\(data\)"):
        workdir.put_aside()


def test_a_link_to_a_folder_leads_to_the_new_one(tmp_path: Path) -> None:
    """`runs -> /scratch/runs`: not the link alone is moved, so that the run goes on where it was."""
    real = with_cache(tmp_path / "scratch/real")
    workdir = Workdir(tmp_path / "work")
    workdir.path.symlink_to(real.path)
    aside = put_aside(workdir)
    assert aside.parent == tmp_path / "scratch" and Workdir(aside).load() is not None
    assert workdir.path.is_symlink() and workdir.path.resolve() == real.path
    assert made(workdir.path).load() is None and (real.path / "data/digits-1.images").exists()
    aside = put_aside(workdir)
    assert aside.is_dir() and not aside.is_symlink()


@pytest.mark.parametrize("taken", ["work", "up"])
def test_a_file_is_not_put_aside(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).write_text("mine")
    with pytest.raises(WorkdirError, match=r"Not a directory.*--workdir"):
        Workdir(tmp_path / ("up/work" if taken == "up" else "work")).put_aside()
    assert (tmp_path / taken).read_text() == "mine"


@as_root
def test_a_folder_that_cannot_be_read_is_not_put_aside(tmp_path: Path) -> None:
    workdir = made(tmp_path / "locked/work")
    for folder in (workdir.path, workdir.path.parent):
        folder.chmod(0o000)
        with pytest.raises(WorkdirError, match=r"Permission denied.*--workdir"):
            workdir.put_aside()
        folder.chmod(0o700)


def test_what_a_killed_run_left_half_written_is_its_own(tmp_path: Path) -> None:
    workdir = made(tmp_path / "work")
    (workdir.path / ".job.yaml.4711").write_text("half")
    assert put_aside(workdir).exists()


@as_root
def test_a_folder_that_cannot_be_moved(tmp_path: Path) -> None:
    workdir = made(tmp_path / "work")
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(WorkdirError, match="can't be moved"):
            workdir.put_aside()
    finally:
        tmp_path.chmod(0o700)


# --fresh --keep-checkpoints


def earlier(path: Path) -> Workdir:
    """A run with a checkpoint, its mark that it is done, and what else may lie there."""
    workdir = made(path)
    workdir.save(make_job(metadata=OURS, status={"rendezvous": {"round": 3}}))
    (workdir.checkpoints / "step-1").mkdir()
    for name in ("step-1/weights", "step-1/done.json", "done.json"):
        (workdir.checkpoints / name).write_text(name)
    (workdir.checkpoints / "latest").symlink_to("step-1")
    (workdir.results / "tensorboard").mkdir()
    for name in ("metrics.jsonl", "tensorboard/events.1", "curves.png"):
        (workdir.results / name).write_text(name)
    return workdir


def held(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


BUILT_IN = {"program": None, "trainer": {"data": {"name": "digits"}}}
COPY = ".edgecloud-checkpoints"
ALL = {"step-1", "step-1/weights", "step-1/done.json", "done.json", "latest"}


@pytest.mark.parametrize(("spec", "kept"), [({}, ALL), (BUILT_IN, ALL - {"done.json"})], ids=["program", "trainer"])
def test_checkpoints_are_kept_for_the_next_run_without_the_trainers_mark(
    tmp_path: Path, spec: dict[str, Any], kept: set[str]
) -> None:
    workdir = earlier(tmp_path / "work")
    aside = workdir.put_aside(keep_for=make_job(**spec))
    assert aside is not None
    curves = {"results", "results/metrics.jsonl", "results/tensorboard", "results/tensorboard/events.1"}
    there = {"checkpoints"} | {f"checkpoints/{name}" for name in kept} | (curves if spec else set())
    assert held(workdir.path) == there
    assert held(aside / "results") == {"metrics.jsonl", "tensorboard", "tensorboard/events.1", "curves.png"}
    assert (workdir.checkpoints / "latest/weights").read_text() == "step-1/weights"
    assert held(aside / "checkpoints") == ALL and COPY not in held(aside)
    (workdir.checkpoints / "step-1/weights").write_text("trained on")
    assert (aside / "checkpoints/step-1/weights").read_text() == "step-1/weights", "a copy, and no link"
    assert (Workdir(aside).last_round(), workdir.last_round()) == (3, 0)


def test_the_mark_is_the_trainers_own() -> None:
    assert keeping.DONE == layout.DONE


def test_checkpoints_and_the_trainers_cache_are_kept_behind_a_link(tmp_path: Path) -> None:
    real = with_cache(tmp_path / "scratch/real")
    (real.checkpoints / "step-1").mkdir()
    workdir = Workdir(tmp_path / "work")
    workdir.path.symlink_to(real.path)
    assert workdir.put_aside(keep_for=make_job()) is not None
    assert {entry.name for entry in real.path.iterdir()} == {"checkpoints", "data"}


@pytest.mark.parametrize("there", ["no folder", "no checkpoints", "a mark alone"])
def test_no_checkpoints_to_keep(tmp_path: Path, there: str) -> None:
    """Not to begin at the beginning: of one who asks for this the checkpoints lie elsewhere."""
    workdir = Workdir(tmp_path / "work")
    if there != "no folder":
        workdir.prepare()
    if there == "a mark alone":
        (workdir.checkpoints / "done.json").write_text("{}")
    before = held(tmp_path)
    with pytest.raises(WorkdirError, match="leave --keep-checkpoints out"):
        workdir.put_aside(keep_for=make_job(**BUILT_IN))
    assert held(tmp_path) - {"work/.lock"} == before


def test_checkpoints_that_cannot_be_copied(tmp_path: Path) -> None:
    """Nothing is moved, and no half of a copy is left; a copy that was killed is in nobody's way."""
    workdir = earlier(tmp_path / "work")
    os.mkfifo(workdir.checkpoints / "pipe")
    (workdir.path / COPY).mkdir()
    (workdir.path / COPY / "half").write_text("")
    with pytest.raises(WorkdirError, match=r"can't be copied \(.*pipe.*nothing was moved"):
        workdir.put_aside(keep_for=make_job())
    assert COPY not in held(workdir.path) and held(workdir.checkpoints) == ALL | {"pipe"}
    (workdir.checkpoints / "pipe").unlink()
    (workdir.path / COPY).mkdir()
    (workdir.path / COPY / "half").write_text("")
    assert workdir.put_aside(keep_for=make_job()) is not None and held(workdir.checkpoints) == ALL
    (workdir.path / COPY).mkdir()
    aside = workdir.put_aside()
    assert aside is not None and COPY not in held(aside)


def test_an_earlier_run_is_put_back_where_the_next_ones_folder_cannot_take_its_place(tmp_path: Path) -> None:
    workdir = earlier(tmp_path / "work")
    aside = workdir.path.rename(tmp_path / "work.20260131-120000")
    with pytest.raises(WorkdirError, match=r"can't be moved to .*work: No such file"):
        _take(aside / COPY, workdir.path, aside)
    assert held(workdir.checkpoints) == ALL and not aside.exists()
