"""Each command from outside: what it prints where, and its exit code."""

from __future__ import annotations

import json
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner

import edgecloud.cli
from edgecloud.api.crd import crd
from edgecloud.api.job import TrainingJob
from edgecloud.cli.main import COMMANDS, cli
from edgecloud.cli.run import _say_how, _unwritable
from edgecloud.validation import validate_bytes
from edgecloud_operator.local import Ended, Workdir
from edgecloud_operator.local.workdir import OURS
from tests.unit.cli.command import EDGECLOUD, ROOT, environment, job_file, run_edgecloud

# Help


def commands() -> dict[str, click.Command]:
    context = click.Context(cli)
    return {name: command for name in COMMANDS if (command := cli.get_command(context, name)) is not None}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_tells_of_every_option(name: str) -> None:
    done = run_edgecloud(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    command = commands()[name]
    assert command.help and command.help.splitlines()[0].rstrip(".") in " ".join(done.stdout.split())
    for parameter in command.params:
        for option in parameter.opts if isinstance(parameter, click.Option) else ():
            assert re.search(rf"(^|[\s,]){re.escape(option)}\b", done.stdout), option
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
        else:
            assert parameter.make_metavar(click.Context(command)) in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


@pytest.mark.parametrize("place", ["--help", "README.md"])
def test_everything_in_the_folder_of_a_run_is_told_of(place: str) -> None:
    text = (commands()["run"].help or "") if place == "--help" else (ROOT / place).read_text()
    for name in (name for name in OURS if not name.startswith(".")):
        assert re.search(rf"^(\|.*`| +){name}\b", text, re.MULTILINE), name


def test_every_module_of_the_command_line_is_a_command() -> None:
    found = {module.name for module in pkgutil.iter_modules(edgecloud.cli.__path__)}
    assert found - {"main", "display", "progress", "output", "tables", "needing", "images"} == set(COMMANDS)


def test_help_of_the_whole() -> None:
    done = run_edgecloud("-h")
    assert done.returncode == 0
    for name, command in commands().items():
        assert re.search(rf"^  {name} +\S", done.stdout, re.MULTILINE), name
        assert command.help
    assert "--version" in done.stdout
    assert "..." not in done.stdout.partition("Commands:")[2], "no summary is cut"


def test_without_a_command_it_shows_its_help() -> None:
    done = run_edgecloud()
    assert "Usage: edgecloud" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_version() -> None:
    done = run_edgecloud("-V")
    assert done.returncode == 0
    assert re.fullmatch(r"edgecloud, version \d+\.\d+\.\d+\S*\n", done.stdout)


def test_an_unknown_command() -> None:
    done = run_edgecloud("trian")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage: edgecloud" in done.stderr and "No such command 'trian'" in done.stderr
    assert "Did you mean" not in done.stderr
    assert "No such command 'runn'. Did you mean run?\n" in CliRunner().invoke(cli, ["runn", "a.yaml"]).stderr


@pytest.mark.parametrize(
    "arguments",
    [("run",), ("run", "--worker", "1", "a"), ("validate",), ("completion", "tcsh"), ("launcher",), ("-x",)],
    ids=" ".join,
)
def test_a_wrong_command_line(arguments: tuple[str, ...]) -> None:
    done = CliRunner().invoke(cli, arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "Usage: " in done.stderr and "Error: " in done.stderr


@pytest.mark.parametrize(
    "text",
    ["raise KeyboardInterrupt", "import click\n@click.command()\ndef command():\n    raise KeyboardInterrupt"],
    ids=["imports", "works"],
)
def test_ctrl_c_while_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    name = f"interrupted_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(COMMANDS, "validate", f"{name}:command")
    done = CliRunner().invoke(cli, ["validate"])
    assert (done.exit_code, done.stdout, done.stderr) == (130, "", "\nedgecloud: stopped\n")


# validate


def test_files_that_are_right(tmp_path: Path) -> None:
    files = [job_file(tmp_path / f"{name}.yaml", name) for name in ("a", "b")]
    done = run_edgecloud("validate", *files)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{files[0]}: ok (a)\n{files[1]}: ok (b)\n"
    quiet = run_edgecloud("validate", "-q", *files)
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")


def test_one_wrong_file_among_others(tmp_path: Path) -> None:
    good = job_file(tmp_path / "good.yaml")
    wrong = job_file(tmp_path / "wrong.yaml", workers=0, export={})
    done = run_edgecloud("validate", wrong, tmp_path / "none.yaml", good)
    assert done.returncode == 2
    assert done.stdout == f"{good}: ok (digits)\n"
    lines = done.stderr.splitlines()
    assert len(lines) == 2 or len(lines) == 3
    assert lines[0].startswith(f"{wrong}:") and "spec.workers" in lines[0]
    assert lines[-1].startswith(f"{tmp_path / 'none.yaml'}:") and "no such file" in lines[-1]


def test_a_list_and_several_documents(tmp_path: Path) -> None:
    one, two = (job_file(tmp_path / f"{name}.yaml", name).read_text() for name in ("one", "two"))
    (tmp_path / "both.yaml").write_text(f"{one}---\n{two}")
    assert run_edgecloud("validate", tmp_path / "both.yaml").stdout == f"{tmp_path / 'both.yaml'}: ok (one, two)\n"


@pytest.mark.parametrize(("edit", "code"), [("workers: 1", 0), ("workers: zero", 2)])
def test_standard_input(tmp_path: Path, edit: str, code: int) -> None:
    text = job_file(tmp_path / "a.yaml").read_text()
    done = run_edgecloud("validate", "-", stdin=text.replace("workers: 1", edit))
    assert done.returncode == code
    assert done.stdout == ("stdin: ok (digits)\n" if code == 0 else "")
    assert (done.stderr == "") == (code == 0)


@pytest.mark.parametrize("command", ["validate FILE", "run FILE --workdir FILE.d -q", "validate -"])
def test_without_a_standard_input(tmp_path: Path, command: str) -> None:
    """As a service manager or a cron job may start it."""
    file = job_file(tmp_path / "a.yaml")
    done = subprocess.run(
        ["bash", "-c", f"{EDGECLOUD} {command} <&-".replace("FILE", str(file))],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert done.returncode == (2 if command == "validate -" else 0), done.stderr


def test_without_standard_streams(tmp_path: Path) -> None:
    """As a daemon may start it. The exit code tells how it ended, and nothing is printed into the files of the run."""
    file = job_file(tmp_path / "a.yaml", program={"command": ["python", "-c", "print('trained')"]})
    done = subprocess.run(
        ["bash", "-c", f"{EDGECLOUD} run {file} --workdir {tmp_path}/work <&- >&- 2>&-"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    job = Workdir(tmp_path / "work").load()
    assert (done.returncode, job and job.status and job.status.phase) == (0, "Succeeded"), done.stderr
    assert "Traceback" not in done.stderr
    written = {path.name: path.read_text() for path in (tmp_path / "work").rglob("*") if path.is_file()}
    assert written.pop(".lock").strip().isdigit() and "trained" in written["worker-0.log"]
    assert not any("SUCCEEDED" in text or "RoundOpened" in text for text in written.values())


# crd


def test_crd_prints_the_resource() -> None:
    done = run_edgecloud("crd")
    assert (done.returncode, done.stderr) == (0, "")
    assert yaml.safe_load(done.stdout) == crd()


def test_crd_into_head() -> None:
    done = subprocess.run(
        ["bash", "-c", f"{EDGECLOUD} crd | head -n 2"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1] == "apiVersion: apiextensions.k8s.io/v1"


@pytest.mark.parametrize("arguments", [("crd",), ("--help",)], ids=" ".join)
def test_a_reader_that_is_gone(arguments: tuple[str, ...]) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [EDGECLOUD, *arguments], stdout=write, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize(("argument", "unbuffered"), [("crd", ""), ("crd", "1"), ("--help", "")])
def test_a_disk_that_is_full(argument: str, unbuffered: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [EDGECLOUD, argument], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
            env=environment(PYTHONUNBUFFERED=unbuffered),
        )  # fmt: skip
    assert done.returncode == 1
    said = "edgecloud: standard output can't be written (No space left on device): send it to another place\n"
    assert done.stderr == said


def test_characters_that_the_output_has_not(tmp_path: Path) -> None:
    """Of a name, and of what we draw ourselves."""
    file = job_file(tmp_path / "→.yaml")
    done = run_edgecloud("validate", file, env=environment(PYTHONIOENCODING="latin-1"))
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{tmp_path}/\\u2192.yaml: ok (digits)\n", "")


# completion


def test_completion_for_bash(tmp_path: Path) -> None:
    done = run_edgecloud("completion", "bash")
    assert done.returncode == 0
    assert "complete " in done.stdout and "_EDGECLOUD_COMPLETE=bash_complete" in done.stdout
    script = tmp_path / "completion.bash"
    script.write_text(done.stdout)
    checked = subprocess.run(["bash", "-n", script], capture_output=True, text=True, timeout=60, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    # Sourced by a shell it offers the commands, and a command's options.
    ask = (
        f"source {script}; COMP_WORDS=(edgecloud run --wo); COMP_CWORD=2; "
        '_edgecloud_completion edgecloud; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    path = f"{Path(EDGECLOUD).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    offered = subprocess.run(
        ["bash", "-c", ask], capture_output=True, text=True, timeout=60, check=False, env=environment(PATH=path)
    )
    assert offered.stdout.split() == ["--workers", "--workdir"], offered.stderr


@pytest.mark.parametrize(
    ("before", "typed", "offered"),
    [
        ("data prepare", "cif", ["plain,cifar10", "plain,cifar100", "file,cif"]),
        ("data verify", "pets.im", ["file,pets.im"]),
        ("evaluate runs/a --data", "s", ["plain,svhn", "plain,stl10", "file,s"]),
        ("export runs/a --data", "./", ["file,./"]),
        ("validate", "a", ["file,a"]),
    ],
)
def test_completion_of_images(before: str, typed: str, offered: list[str]) -> None:
    words = ["edgecloud", *before.split()]
    asked = {"COMP_WORDS": " ".join((*words, typed)), "COMP_CWORD": str(len(words))}
    done = CliRunner().invoke(cli, prog_name="edgecloud", env=asked | {"_EDGECLOUD_COMPLETE": "bash_complete"})
    assert done.stdout.splitlines() == offered


@pytest.mark.parametrize(
    ("shell", "first"), [("zsh", "#compdef edgecloud"), ("fish", "function _edgecloud_completion;")]
)
def test_completion_for_other_shells(shell: str, first: str) -> None:
    done = CliRunner().invoke(cli, ["completion", shell])
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.strip().startswith(first)
    assert f"_EDGECLOUD_COMPLETE={shell}_complete" in done.stdout


# launcher


def test_launcher_is_one_file_that_any_python_runs(tmp_path: Path) -> None:
    file = tmp_path / "edgecloud-launcher.pyz"
    done = run_edgecloud("launcher", "-o", file)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", f"wrote {file}\n")
    helped = subprocess.run(
        [sys.executable, "-I", "-S", file, "--help"],
        capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path, env={},
    )  # fmt: skip
    assert (helped.returncode, helped.stderr) == (0, "")
    assert "EDGECLOUD_COORDINATOR" in helped.stdout
    printed = CliRunner().invoke(cli, ["launcher", "-o", "-"])
    assert (printed.exit_code, printed.stdout_bytes, printed.stderr) == (0, file.read_bytes(), "")


@pytest.mark.parametrize("place", ["no/such/folder/l.pyz", "file/l.pyz", "."])
def test_launcher_into_nowhere(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(cli, ["launcher", "-o", str(tmp_path / place)])
    assert done.exit_code == 2 and isinstance(done.exception, SystemExit)
    assert "Error: " in done.stderr or "it can't be written (" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# run: what is refused before anything starts. The runs themselves: tests/e2e.


def refused(tmp_path: Path, *arguments: str | Path) -> str:
    """What it says; within this process, as nothing is started."""
    done = CliRunner().invoke(cli, ["run", *map(str, arguments), "--workdir", str(tmp_path / "work")])
    assert (done.exit_code, done.stdout) == (2, ""), done.output
    assert isinstance(done.exception, SystemExit)
    return done.stderr


def test_run_refuses_what_no_laptop_has(tmp_path: Path) -> None:
    program = {
        "command": ["python"],
        "workingDir": "/no/such/folder",
        "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
    }
    file = job_file(tmp_path / "a.yaml", program=program)
    assert "spec.program.workingDir: there is no folder /no/such/folder here" in refused(tmp_path, file)
    program.pop("workingDir")
    assert "spec.program.env[0].valueFrom" in refused(tmp_path, job_file(tmp_path / "b.yaml", program=program))
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("command", ["run", "bench"])
def test_where_we_stand_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    done = CliRunner().invoke(cli, [command, str(job_file(tmp_path / "a.yaml"))])
    assert (done.exit_code, done.stdout) == (2, "")
    said = "the folder that this was started in can't be used (No such file or directory): change to another one"
    assert done.stderr == f"edgecloud: {said}\n"


def test_run_refuses_what_the_locale_has_no_characters_for(tmp_path: Path) -> None:
    """No process could be given it: the run would try for ever. What is only written to files needs no locale."""
    program = {"command": ["python", "ü.py"], "files": {"a.py": "'ü'"}, "env": [{"name": "A", "value": "ü"}]}
    narrow = environment(LC_ALL="POSIX", PYTHONUTF8="0")
    file = job_file(tmp_path / "a.yaml", program=program)
    done = run_edgecloud("run", file, "--workdir", tmp_path / "work", env=narrow)
    assert (done.returncode, done.stdout) == (2, "")
    said = "this locale has no characters for it (ascii): set one with UTF-8, such as LC_ALL=C.UTF-8"
    assert done.stderr == f"edgecloud: {file}: spec.program.command[1]: {said}\n"
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("field", "path"),
    [
        ({"program": {"command": ["a"], "args": ["b", "ü"]}}, "spec.program.args[1]"),
        ({"program": {"command": ["a"], "env": [{"name": "A", "value": "ü"}]}}, "spec.program.env[0].value"),
        ({"program": {"command": ["a"], "workingDir": "/ü"}}, "spec.program.workingDir"),
        ({"program": None, "trainer": {"data": {"source": "ü"}}}, "spec.trainer.data.source"),
        (
            {"program": None, "trainer": {"data": {"name": "digits"}}, "export": {"destination": "/ü"}},
            "spec.export.destination",
        ),
    ],
)
def test_where_it_stands_is_said(tmp_path: Path, field: dict[str, Any], path: str) -> None:
    job = TrainingJob.parse(yaml.safe_load(job_file(tmp_path / "a.yaml", **field).read_text()))
    assert [line.partition(": ")[0] for line in _unwritable(job, "ascii")] == [path]
    assert _unwritable(job, "latin-1") == []


def test_run_refuses_two_jobs_and_none(tmp_path: Path) -> None:
    both = tmp_path / "both.yaml"
    both.write_text("---\n".join(job_file(tmp_path / f"{n}.yaml", n).read_text() for n in ("one", "two")))
    assert "it holds 2 jobs (one, two)" in refused(tmp_path, both)
    assert "there is no such file" in refused(tmp_path, tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("spec", "workers", "says"),
    [
        (
            {"workers": None, "pools": [{"name": "a", "workers": 1}]},
            "2",
            "--workers 2: spec.workers: this job has pools, and their workers are counted there: leave --workers out",
        ),
        ({"workers": 3, "minWorkers": 3}, "2", "--workers 2: spec.minWorkers: minWorkers is above"),
        ({}, "0", "0 is not in the range 1<=x<=1000"),
    ],
)
def test_run_refuses_a_number_of_workers(tmp_path: Path, spec: dict[str, Any], workers: str, says: str) -> None:
    assert says in refused(tmp_path, job_file(tmp_path / "a.yaml", **spec), "--workers", workers)


def test_run_refuses_workers_for_which_there_are_too_few_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NCCL would refuse two ranks on one GPU, in words that nobody understands."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a")
    file = job_file(tmp_path / "a.yaml", resources={"limits": {"nvidia.com/gpu": 1}})
    assert "spec.resources.limits: the workers ask for 2 GPUs" in refused(tmp_path, file, "--workers", "2", "--fresh")
    done = CliRunner().invoke(cli, ["bench", str(file), "--workers", "1,2", "--workdir", str(tmp_path / "work")])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("edgecloud bench: --workers 2: spec.resources.limits: the workers ask for 2 GPUs")
    assert not (tmp_path / "work").exists()


def test_run_never_overwrites_or_moves_what_is_not_its_own(tmp_path: Path) -> None:
    """`--workdir .` where the job file is called job.yaml, and `--fresh` in a folder with more in it than a run."""
    work = tmp_path / "work"
    work.mkdir()
    mine = "# my comments\n" + job_file(work / "job.yaml").read_text()
    (work / "job.yaml").write_text(mine)
    assert "is a job file of your own" in refused(tmp_path, work / "job.yaml")
    (work / "thesis.tex").write_text("")
    assert "thesis.tex" in refused(tmp_path, work / "job.yaml", "--fresh")
    assert (work / "job.yaml").read_text() == mine


def test_run_of_what_another_run_wrote(tmp_path: Path) -> None:
    """The record of a finished run is a job like any other in another folder: it is done again, and ends."""
    file = job_file(tmp_path / "a.yaml")
    (tmp_path / "tmp/edgecloud-run-killed").mkdir(parents=True)
    (tmp_path / "tmp/edgecloud-run-killed/lock").touch()
    temporary = environment(TMPDIR=str(tmp_path / "tmp"))
    first = run_edgecloud("run", file, "--workdir", tmp_path / "one", "-q", "-o", "yaml", env=temporary)
    assert first.returncode == 0, first.stderr
    assert list((tmp_path / "tmp").iterdir()) == [], "neither its own tokens, nor those of one that was killed"
    (tmp_path / "record.yaml").write_text(first.stdout)
    second = run_edgecloud("run", tmp_path / "record.yaml", "--workdir", tmp_path / "two", "-q", "-o", "yaml")
    assert second.returncode == 0, second.stderr
    jobs = [TrainingJob.parse(yaml.safe_load(done.stdout)) for done in (first, second)]
    assert jobs[0].metadata.uid != jobs[1].metadata.uid
    assert (tmp_path / "two/logs/worker-0.log").exists()
    again = run_edgecloud("run", file, "--workdir", tmp_path / "one", "-o", "yaml")
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert "the job is finished" in again.stderr


def finished(tmp_path: Path, phase: str) -> list[str]:
    """The arguments of a run whose job has finished in that folder already."""
    file = job_file(tmp_path / "a.yaml")
    record = yaml.safe_load(file.read_text()) | {"status": {"phase": phase}}
    record["metadata"]["uid"] = "u"
    (tmp_path / "work").mkdir()
    (tmp_path / "work/job.yaml").write_text(yaml.safe_dump(record))
    return ["run", str(file), "--workdir", str(tmp_path / "work")]


@pytest.mark.parametrize(("phase", "code"), [("Succeeded", 0), ("Failed", 1)])
def test_a_finished_job_ends_again_as_it_ended(tmp_path: Path, phase: str, code: int) -> None:
    """`edgecloud run job.yaml && deploy`, a second time."""
    done = CliRunner().invoke(cli, finished(tmp_path, phase))
    assert done.exit_code == code, done.output
    assert f"it has {phase.lower()}" in done.stderr and phase in done.stdout


def test_a_finished_job_needs_no_gpus_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    arguments = finished(tmp_path, "Succeeded")
    for file in (Path(arguments[1]), tmp_path / "work/job.yaml"):
        job = yaml.safe_load(file.read_text())
        job["spec"] |= {"workers": 2, "resources": {"limits": {"nvidia.com/gpu": 1}}}
        file.write_text(yaml.safe_dump(job))
    assert CliRunner().invoke(cli, arguments).exit_code == 0
    again = CliRunner().invoke(cli, [*arguments, "--fresh"])
    assert (again.exit_code, "ask for 2 GPUs together" in again.stderr) == (2, True), again.output
    assert not list(tmp_path.glob("work.*")), "nothing was moved"


@pytest.mark.parametrize(
    ("encoding", "json_has"), [("utf-8", "ü 🎉 \\u009b"), ("latin-1", "\\u00fc \\ud83c\\udf89 \\u009b")]
)
def test_json_and_yaml_are_utf_8_whatever_the_locale(tmp_path: Path, encoding: str, json_has: str) -> None:
    """And JSON, which has escapes, looks right on a terminal of another one as well."""
    arguments, text = finished(tmp_path, "Succeeded"), "ü 🎉 \x9b"
    for file in (Path(arguments[1]), tmp_path / "work/job.yaml"):
        job = yaml.safe_load(file.read_text())
        job["spec"]["program"]["args"] = [text]
        file.write_text(yaml.safe_dump(job))
    for output, read in (("json", json.loads), ("yaml", yaml.safe_load)):
        written = CliRunner(charset=encoding).invoke(cli, [*arguments, "-o", output]).stdout_bytes.decode()
        assert read(written)["spec"]["program"]["args"] == [text]
        assert output == "yaml" or json_has in written
        assert validate_bytes(written.encode(), "a", TrainingJob).ok


@pytest.mark.parametrize(("fresh", "which"), [(False, "the same command"), (True, "a run in {} without --fresh")])
def test_what_goes_on_after_a_stop(tmp_path: Path, fresh: bool, which: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With --fresh, as bench has it, the same command would start over."""
    job = yaml.safe_load(job_file(tmp_path / "a.yaml").read_text()) | {"status": {"phase": "Suspended"}}
    _say_how(Ended(job=TrainingJob.parse(job)), Workdir(tmp_path), fresh=fresh)
    assert capsys.readouterr().err.startswith(f"stopped; {which.format(tmp_path)} goes on from there\n")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"reason": "StartFailed"}, "StartFailed"),
        ({"reason": "Killed", "signal": "SIGKILL"}, "Killed (SIGKILL)"),
        ({"reason": "ProgramError", "exitCode": 1}, "ProgramError (exit code 1)"),
    ],
)
def test_how_it_failed(tmp_path: Path, how: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    failure = {"worker": 1, "rank": 1, "message": "", "round": 1, "at": "2026-01-31T12:00:00Z"} | how
    status = {"phase": "Failed", "lastFailure": failure}
    job = yaml.safe_load(job_file(tmp_path / "a.yaml").read_text()) | {"status": status}
    _say_how(Ended(job=TrainingJob.parse(job)), Workdir(tmp_path))
    assert f"last failure: worker 1, rank 1: {said}\n" in capsys.readouterr().err


WAY_ON = re.compile(
    r"to go on from its checkpoints, .*: edgecloud run FILE --workdir \S+/work --fresh --keep-checkpoints\n"
)


@pytest.mark.parametrize(("phase", "checkpoint", "said"), [("Failed", "step-3", True), ("Failed", "", False),
                                                           ("Succeeded", "step-3", False)])  # fmt: skip
def test_a_job_that_has_failed_names_the_way_on_from_its_checkpoints(
    tmp_path: Path, phase: str, checkpoint: str, said: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = finished(tmp_path, phase)
    (tmp_path / "work/checkpoints" / checkpoint).mkdir(parents=True)
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == (phase == "Failed") and bool(WAY_ON.search(done.stderr)) == said, done.output
    job = yaml.safe_load((tmp_path / "work/job.yaml").read_text())
    _say_how(Ended(job=TrainingJob.parse(job)), Workdir(tmp_path / "work"))
    assert bool(WAY_ON.search(capsys.readouterr().err)) == said


def test_to_keep_checkpoints_is_a_way_to_start_over(tmp_path: Path) -> None:
    file = job_file(tmp_path / "a.yaml")
    assert "--keep-checkpoints belongs to --fresh" in refused(tmp_path, file, "--keep-checkpoints")
    assert "there is no earlier run in" in refused(tmp_path, file, "--fresh", "--keep-checkpoints")


def test_a_script_that_was_put_right_goes_on_from_the_checkpoints(tmp_path: Path) -> None:
    """In a new run, whose rounds are above those of the earlier one: so a zombie of that can't win."""
    file = tmp_path / "a.yaml"
    options = ("--workdir", tmp_path / "work", "-q", "-o", "json")

    def run(step: str, *more: str) -> subprocess.CompletedProcess[str]:
        code = f"from edgecloud import worker; at = worker.checkpoint_dir / 'at'; {step}"
        program = {"command": ["python", "-c", code]}
        job_file(file, program=program, restartPolicy={"maxRestarts": 0})
        return run_edgecloud("run", file, *options, *more)

    failed = run("at.write_text('7'); 1 / 0")
    assert failed.returncode == 1 and WAY_ON.search(failed.stderr)
    round = json.loads(failed.stdout)["status"]["rendezvous"]["round"]
    mended = "assert at.read_text() == '7'; at.write_text('8')"
    done = run(mended, "--fresh", "--keep-checkpoints")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"]["rendezvous"]["round"] == round + 1
    [aside] = tmp_path.glob("work.2*")
    assert (aside / "checkpoints/at").read_text() == "7", "kept as it was"
    assert (tmp_path / "work/checkpoints/at").read_text() == "8"


@pytest.mark.parametrize("written", [True, False])
def test_a_log_is_named_if_there_is_one(tmp_path: Path, written: bool, capsys: pytest.CaptureFixture[str]) -> None:
    failure = {"worker": 1, "exitCode": 2, "reason": "BadConfiguration", "message": "no log", "round": 0}
    status = {"phase": "Failed", "lastFailure": failure | {"at": "2026-01-31T12:00:00Z"}}
    job = yaml.safe_load(job_file(tmp_path / "a.yaml").read_text()) | {"status": status}
    log = tmp_path / "logs" / "worker-1.log"
    (log.parent if written else log).mkdir(parents=True)
    if written:
        log.write_text("")
    _say_how(Ended(job=TrainingJob.parse(job)), Workdir(tmp_path))
    said = capsys.readouterr().err
    assert "  | no log\n" in said
    assert (f"its log: {log}\n" in said) == written and ("its log" in said) == written


def test_a_job_that_finds_no_room_where_it_is_printed(tmp_path: Path) -> None:
    """`edgecloud run job.yaml -o json > result.json`"""
    command = [EDGECLOUD, *finished(tmp_path, "Succeeded"), "-o", "json"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "the job can't be printed: No space left on device" in done.stderr
    assert "it has succeeded" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("missing", ["numpy", "PIL"])
@pytest.mark.parametrize(
    "arguments",
    [["stats", "a.images"], ["prepare", "digits", "--out", "a.images", "--resize", "8"], ["verify", "digits"]],
)
def test_data_without_what_it_needs(arguments: list[str], missing: str, tmp_path: Path) -> None:
    """A sentence in the place of a traceback, where the base alone is installed."""
    program = f"import sys; sys.modules[{missing!r}] = None; from edgecloud.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "data", *arguments], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"edgecloud: {missing} is not installed: pip install '.[trainer]' in EdgeCloud's folder\n"
