"""Images per second of the built-in trainer beside the loop that a PyTorch tutorial writes, in turns in one run.

    python -m tests.bench.speed --repeats 3

Both sides train the same network on the same pixels (10,240 random ones of CIFAR-10's size; there is nothing to
download), in the same global batch of 128, with SGD and momentum, with as many ranks and threads:

    1x2   one rank of two threads
    2x1   two ranks of one thread each, over gloo

plain       torchvision's CIFAR10 class with RandomCrop(32, padding=4), RandomHorizontalFlip, ToTensor and Normalize,
            DataLoader, DistributedDataParallel, fp32. It is measured with loader processes (two a rank, as tutorials
            have it, kept over the epochs) and without; each model and arrangement counts the better of the two.
ours        The trainer's own data, augmentation (flip-crop) and step, with the settings a job gets that says nothing:
            precision auto is bf16 where the CPU multiplies in it, memory is channels_last.
ours-fp32   The same with precision: fp32: how much of the difference is the loop's and not the arithmetic's.
ours-exact  The same with deterministic: true, in 2x1 only: what the same bits for any number of workers cost.
bound       The network's convolutions and matrix products alone, forward and backward, one after the other on numbers
            that are there already, in the arithmetic of ours: no loop over this network is faster than that.

All sides of a model and arrangement are started first, in processes of their own, and then take turns, each waiting
while another one is measured: a busy machine slows all of them. Evaluation, checkpoints and what is logged of each
step (some microseconds) are not in it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.ports import free_port

ROOT = Path(__file__).parents[2]
MODELS = ("article-cnn", "edgenet", "resnet18")
ARRANGEMENTS = {"1x2": (1, 2), "2x1": (2, 1)}
"""Ranks, and threads of each."""
BATCH = 128
IMAGES = 80 * BATCH
"""Whole batches, for any number of ranks that divides one: no step is shorter than the others."""
TEST_IMAGES = BATCH
SEED = 0
LEARNING_RATE = 0.01
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
"""CIFAR-10's, as tutorials have them."""
WARM_SECONDS = 0.6
"""Before each measurement: a loader has batches in store after its rest, and the one before may still be refilling."""
ANSWER_SECONDS = 180.0


class Side(NamedTuple):
    """One that takes turns. loader: processes of the plain side's DataLoader for each rank; None: no plain loop."""

    loader: int | None
    trainer: Mapping[str, Any]
    arrangements: Sequence[str] = tuple(ARRANGEMENTS)
    bound: bool = False
    """Whether it is the arithmetic alone."""


SIDES = {
    "plain-0": Side(0, {}),
    "ours": Side(None, {}),
    "plain-2": Side(2, {}),
    "ours-fp32": Side(None, {"precision": "fp32"}),
    "ours-exact": Side(None, {"deterministic": True}, ("2x1",)),
    "bound": Side(None, {}, bound=True),
}


class Row(NamedTuple):
    """Medians in images per second of all ranks together; ratio: ours by plain."""

    model: str
    arrangement: str
    side: str
    arithmetic: str
    plain_side: str
    plain: float
    ours: float
    ratio: float


# -- in a rank's own process


def plain(said: Any, loader: int) -> Iterator[str]:
    """The tutorial's loop. Yields first its arithmetic, then after each step. said: the trainer's Settings."""
    import torch
    from torch import distributed as dist
    from torch import nn, optim
    from torch.utils.data import DataLoader, DistributedSampler
    from torchvision import datasets, transforms  # type: ignore[import-untyped]

    from edgecloud_trainer import models

    class Cifar10(datasets.CIFAR10):  # type: ignore[misc]
        """torchvision's, but for where the pixels come from."""

        def __init__(self, pixels: np.ndarray, labels: np.ndarray, transform: Any) -> None:
            datasets.VisionDataset.__init__(self, "", transform=transform)
            self.data, self.targets = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)), labels.tolist()

    torch.set_num_threads(said.threads)
    torch.manual_seed(SEED)
    several = said.world_size > 1
    if several:
        dist.init_process_group("gloo")
    crop, flip = transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()
    transform = transforms.Compose([crop, flip, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    pixels, labels = pictures(IMAGES)
    dataset = Cifar10(pixels, labels, transform)
    sampler: DistributedSampler[Any] | None = DistributedSampler(dataset) if several else None
    batches: DataLoader[Any] = DataLoader(
        dataset,
        batch_size=BATCH // said.world_size,
        shuffle=sampler is None,
        sampler=sampler,
        num_workers=loader,
        persistent_workers=loader > 0,
    )
    model = models.build(said.trainer.model, classes=10, channels=3, height=32, width=32)
    models.initialise(model, pixels[:5000], mean=MEAN, std=STD)
    network = nn.parallel.DistributedDataParallel(model) if several else model
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.SGD(network.parameters(), lr=LEARNING_RATE, momentum=0.9)
    running_loss = 0.0
    yield "fp32"
    for epoch in count():
        if sampler is not None:
            sampler.set_epoch(epoch)
        for images, targets in batches:
            optimizer.zero_grad()
            loss = criterion(network(images), targets)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
            yield ""


def ours(said: Any) -> Iterator[str]:
    """What edgecloud_trainer.train does, up to the steps. Yields first its arithmetic, then after each step."""
    from edgecloud import worker
    from edgecloud_trainer import group, ready
    from edgecloud_trainer.reduction import Wishes
    from edgecloud_trainer.shards import even
    from edgecloud_trainer.steps import Stepper

    dataset, model = ready.make_ready(said)
    device = ready.take_device(said, model)
    ready.use_threads(said)
    device = group.join(said, device)
    stepper = Stepper(said, device, dataset, model)
    assignment = even(said.trainer.shards, said.world_size)
    yield arithmetic_name(device.autocast)
    for number in count():
        stepper.step(number, assignment, Wishes(stop=worker.should_stop()))
        yield ""


def bound(said: Any) -> Iterator[str]:
    """The products of a step and nothing else. Yields first their arithmetic, then after each step's worth of them."""
    import torch
    from torch import nn

    from edgecloud_trainer import ready

    _, model = ready.make_ready(said)
    device = ready.take_device(said, model)
    ready.use_threads(said)
    dtype = device.autocast or torch.float32
    products: list[Callable[[], object]] = []

    def note(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        assert isinstance(module, nn.Linear | nn.Conv2d)
        # Random numbers in the places of the real ones: how long a product takes does not depend on them.
        x, gradient = torch.randn_like(inputs[0], dtype=dtype), torch.randn_like(output, dtype=dtype)
        weight = module.weight.detach().to(dtype)
        wanted = [inputs[0].requires_grad, module.weight.requires_grad]
        if isinstance(module, nn.Linear):
            products.append(lambda: nn.functional.linear(x, weight))
            products.extend([lambda: gradient @ weight] if wanted[0] else [])
            products.extend([lambda: gradient.t() @ x] if wanted[1] else [])
            return
        how, groups = (module.stride, module.padding, module.dilation), module.groups
        products.append(lambda: torch.conv2d(x, weight, None, *how, groups))
        backward = torch.ops.aten.convolution_backward
        if any(wanted):
            products.append(lambda: backward(gradient, x, weight, None, *how, False, [0, 0], groups, [*wanted, False]))

    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.register_forward_hook(note)
    images = torch.randn(BATCH // said.world_size, 3, 32, 32).to(memory_format=device.memory_format)
    with torch.autocast("cpu", dtype, enabled=device.autocast is not None):
        model(images)
    yield arithmetic_name(device.autocast)
    with torch.no_grad():
        while True:
            for product in products:
                product()
            yield ""


def arithmetic_name(autocast: Any) -> str:
    """fp32, bf16: of a torch.dtype, or None."""
    return "fp32" if autocast is None else str(autocast).removeprefix("torch.").replace("bfloat", "bf")


def rank_main(name: str) -> None:
    """Say once what arithmetic it is; then, for each line with a number of steps, do them and say the seconds."""
    from edgecloud_trainer import group, settings

    with os.fdopen(os.dup(1), "w", buffering=1) as answers:
        os.dup2(2, 1)  # whatever else writes to standard output: answers stay clean
        said, side = settings.read(), SIDES[name]
        steps = bound(said) if side.bound else ours(said) if side.loader is None else plain(said, side.loader)
        print(next(steps), file=answers)
        for line in sys.stdin:
            began = time.perf_counter()
            for _ in range(int(line)):
                next(steps)
            print(time.perf_counter() - began, file=answers)
        group.leave()


def pictures(number: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [number, 3, 32, 32], and their labels from 0 to 9, int64 [number]: the same for everybody."""
    random = np.random.default_rng(SEED)
    return random.integers(0, 256, (number, 3, 32, 32), np.uint8), random.integers(0, 10, number)


# -- in the bench's process


class Team:
    """The ranks of one side, started; they wait until they are told to do steps."""

    def __init__(self, name: str, model: str, arrangement: str, folder: Path) -> None:
        ranks, threads = ARRANGEMENTS[arrangement]
        self.arithmetic = ""
        self.steps, self.warm_steps = 0, 0
        self._logs = [folder / f"{name}-{rank}.log" for rank in range(ranks)]
        environment = {
            **os.environ,
            "EDGECLOUD_TRAINER": json.dumps({"trainer": _spec(SIDES[name], model, folder.parent / "images")}),
            "EDGECLOUD_CHECKPOINT_DIR": str(folder.parent / "checkpoints"),
            "EDGECLOUD_RESULTS_DIR": str(folder / name),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()),
            "WORLD_SIZE": str(ranks),
            "LOCAL_WORLD_SIZE": str(ranks),
            "OMP_NUM_THREADS": str(threads),
        }
        self._processes = [
            _popen(name, environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, self._logs[rank])
            for rank in range(ranks)
        ]

    def wait(self) -> None:
        """Until it could do steps."""
        self.arithmetic = self._answers()[0]

    def warm_up(self, seconds: float) -> None:
        """Find out how many steps take about so many seconds: a turn's."""
        self._do(1)  # allocators, kernels and loaders get going
        speed, steps = 1 / self._do(1), 1
        for _ in range(2):  # more steps tell it better, of a network for which they take no time
            if (more := round(speed * WARM_SECONDS)) > steps:
                speed, steps = more / self._do(more), more
        self.steps, self.warm_steps = max(1, round(speed * seconds)), round(speed * WARM_SECONDS)

    def images_per_second(self) -> float:
        """Of all ranks together, in one turn."""
        if self.warm_steps:  # none where a step takes so long that what is in store doesn't matter
            self._do(self.warm_steps)
        return self.steps * BATCH / self._do(self.steps)

    def _do(self, steps: int) -> float:
        """Seconds of the slowest rank for so many steps of all."""
        for process in self._processes:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # its answer is missing then
                process.stdin.write(f"{steps}\n".encode())
        return max(float(answer) for answer in self._answers())

    def _answers(self) -> list[str]:
        """A line from each rank."""
        deadline, answers = time.monotonic() + ANSWER_SECONDS, []
        for process in self._processes:
            assert process.stdout is not None
            left = max(0.0, deadline - time.monotonic())
            if not select.select([process.stdout], [], [], left)[0]:
                raise RuntimeError(f"no answer within {ANSWER_SECONDS:.0f} s{self._said()}")
            if not (line := process.stdout.readline()):
                with contextlib.suppress(subprocess.TimeoutExpired):  # it says why after it has closed its pipe
                    process.wait(timeout=15)
                raise RuntimeError(f"a rank has ended, exit code {process.poll()}{self._said()}")
            answers.append(line.decode().strip())
        return answers

    def _said(self) -> str:
        return "".join(f"\n--- {log.name}\n{log.read_text()[-3000:]}" for log in self._logs)

    def end(self) -> None:
        """Kill the ranks and their loaders."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for process in self._processes:
            process.wait(timeout=15)
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()


def _spec(side: Side, model: str, images: Path) -> dict[str, Any]:
    """spec.trainer. The optimiser is the tutorial's; precision, memory format and shards are what a job gets."""
    optimizer = {"name": "sgd", "learningRate": LEARNING_RATE, "momentum": 0.9, "nesterov": False, "weightDecay": 0}
    return {
        "model": model,
        "data": {"source": str(images), "augment": "flip-crop"},
        "epochs": 100_000,
        "batchSize": BATCH,
        "optimizer": optimizer,
        "schedule": {"name": "constant", "warmupFraction": 0},
        "seed": SEED,
        "device": "cpu",
        **side.trainer,
    }


def _popen(name: str, environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """A rank, in a session of its own: Ctrl-C reaches the bench alone, and its loaders end with it."""
    with log.open("wb") as stderr:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.bench.speed", "--rank-of", name],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            bufsize=0,
            start_new_session=True,
        )


def write_images(folder: Path) -> None:
    """The pictures in CIFAR-10's binary version, which the trainer reads: records of a label and its pixels."""
    folder.mkdir()
    for name, number in (("data_batch_1.bin", IMAGES), ("test_batch.bin", TEST_IMAGES)):
        pixels, labels = pictures(number)
        np.concatenate((labels[:, None].astype(np.uint8), pixels.reshape(number, -1)), axis=1).tofile(folder / name)


def measure(
    model: str, arrangement: str, folder: Path, *, repeats: int, seconds: float
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Images per second of each side, in the order measured; and each one's arithmetic."""
    teams: dict[str, Team] = {}
    try:
        for name, side in SIDES.items():
            if arrangement in side.arrangements:
                teams[name] = Team(name, model, arrangement, folder)
        for team in teams.values():
            team.wait()
        for team in teams.values():  # only now: starting takes all of the CPUs
            team.warm_up(seconds)
        values: dict[str, list[float]] = {name: [] for name in teams}
        for repeat in range(repeats):
            # There and back, so that nobody always comes after the same one.
            for name in list(teams)[:: -1 if repeat % 2 else 1]:
                values[name].append(teams[name].images_per_second())
            line = "  ".join(f"{name} {values[name][-1]:,.0f}" for name in teams)
            print(f"{model} {arrangement} {repeat + 1}/{repeats}  {line}", file=sys.stderr, flush=True)
        return values, {name: team.arithmetic for name, team in teams.items()}
    finally:
        for team in teams.values():
            team.end()


def rows(
    model: str, arrangement: str, values: Mapping[str, Sequence[float]], arithmetic: Mapping[str, str]
) -> list[Row]:
    """A row for each of our sides, beside the better plain one."""
    medians = {name: statistics.median(several) for name, several in values.items()}
    best = max((name for name in medians if SIDES[name].loader is not None), key=lambda name: medians[name])
    return [
        Row(model, arrangement, name, arithmetic[name], best, medians[best], median, median / medians[best])
        for name, median in medians.items()
        if SIDES[name].loader is None
    ]


def table(found: Sequence[Row]) -> str:
    """For people."""
    lines = [f"{'':<12} {'ranks x':<8} {'':<11} {'':<6} {'plain':>9} {'loader':>9} {'ours':>9}"]
    lines += [
        f"{'model':<12} {'threads':<8} {'ours is':<11} {'in':<6} {'images/s':>9} {'procs':>9} {'images/s':>9}  ratio"
    ]
    for row in found:
        loader = SIDES[row.plain_side].loader
        lines.append(
            f"{row.model:<12} {row.arrangement:<8} {row.side:<11} {row.arithmetic:<6} {row.plain:>9,.0f} {loader:>9}"
            f" {row.ours:>9,.0f}  {row.ratio:5.2f}"
        )
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """What the figures depend on. load: the mean number of running processes over a minute, before the bench."""
    import torch
    import torchvision

    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.exists() else []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "cpu": named or platform.processor() or platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "python": platform.python_version(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), metavar="MODEL", help=str(MODELS))
    parser.add_argument("--arrangements", nargs="+", choices=ARRANGEMENTS, default=list(ARRANGEMENTS))
    parser.add_argument("--repeats", type=int, default=3, help="turns of each side (default: 3)")
    parser.add_argument("--seconds", type=float, default=2.0, help="about how long a turn is measured (default: 2.0)")
    parser.add_argument(
        "-o", "--output", choices=("table", "json"), default="table", help="json: with each single value, on one line"
    )
    parser.add_argument("--rank-of", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank_of:
        rank_main(options.rank_of)
        return
    if options.repeats < 1 or options.seconds <= 0:
        parser.error("--repeats and --seconds must be more than 0")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended then too

    about = machine()
    if about["cpus"] < 2 or about["load"] > 0.5:
        print(f"{about['cpus']} CPUs, load {about['load']}: two idle CPUs are needed for good figures", file=sys.stderr)
    found: list[Row] = []
    values: dict[str, dict[str, dict[str, list[float]]]] = {}
    with tempfile.TemporaryDirectory(prefix="edgecloud-bench-") as name:
        write_images(Path(name) / "images")
        for model in options.models:
            for arrangement in options.arrangements:
                folder = Path(name) / f"{model}-{arrangement}"
                folder.mkdir()
                measured, arithmetic = measure(
                    model, arrangement, folder, repeats=options.repeats, seconds=options.seconds
                )
                found += rows(model, arrangement, measured, arithmetic)
                values.setdefault(model, {})[arrangement] = measured
    if options.output == "json":
        print(json.dumps({"machine": about, "rows": [row._asdict() for row in found], "imagesPerSecond": values}))
        return
    print(table(found))
    print(f"medians of {options.repeats}; " + ", ".join(f"{name} {value}" for name, value in about.items()))


if __name__ == "__main__":
    main()
