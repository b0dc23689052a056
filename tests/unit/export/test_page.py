"""What a report says in sentences, and the page, which obeys nothing that a network or a job is called."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from edgecloud.edge.reference import Reference
from edgecloud.edge.report import (
    Gate,
    Interval,
    Latency,
    Machine,
    Measured,
    Memory,
    Parity,
    Problem,
    Ratio,
    Report,
)
from edgecloud_trainer.export.gates import COMMAND, JOB, complaints
from edgecloud_trainer.export.page import meaning, page
from edgecloud_trainer.export.pictures import draw_all
from tests.unit.export.made import CLASSES, RUN, card, pixels

HOSTILE = '<script>alert("1")</script>$\\frac{1}'


def ratio(low: float, p50: float, high: float) -> Ratio:
    return Ratio(against="onnx", p50=p50, interval=Interval(low=low, high=high), faster=high < 1, batch=1, threads=1)


def measured(format: Any = "onnx", *, accuracy: float = 0.9, lost: float = 0.0, allowed: float = 1.0) -> Measured:
    parity = Parity(images=100, agreement=0.99, max_difference=0.5, mean_difference=0.1, relative_difference=0.01)
    latency = Latency(p50=1.0, p90=2.0, p99=3.0, p50_interval=Interval(low=0.9, high=1.1), runs=10)
    return Measured(
        format=format,
        path=f"model.{format}",
        bytes=1_000_000,
        sha256="c" * 64,
        accuracy=accuracy,
        accuracy_interval=Interval(low=0.8, high=0.95),
        parity=parity,
        latency=latency,
        latencies=(latency, latency.model_copy(update={"batch": 32})),
        ratios=() if format == "onnx" else (ratio(0.4, 0.5, 0.6),),
        load_milliseconds=10.0,
        memory=Memory(loaded=1, peak=2),
        macs=1_000_000,
        gate=Gate(passed=lost <= allowed, max_accuracy_loss=allowed, accuracy_loss=lost),
    )


def report(*exports: Measured, **more: Any) -> Report:
    said: dict[str, Any] = {
        "network": card(), "run": RUN, "original_accuracy": 0.9, "images": 100, "calibration_images": 256,
        "machine": Machine(cpu="some CPU", instructions=("avx2",), cpus=2.0), "exports": exports,
    }  # fmt: skip
    return Report(**(said | more))


def test_no_complaints_where_all_is_well() -> None:
    assert complaints(report(measured(), measured("onnx-int8", accuracy=0.89, lost=1.0)), COMMAND) == []


def test_a_complaint_names_format_loss_and_every_way_out() -> None:
    lost = report(measured(), measured("onnx-int8", accuracy=0.85, lost=5.0), measured("pt2", accuracy=0.8, lost=10.0))
    int8, pt2 = complaints(lost, JOB)
    assert int8.startswith("onnx-int8 has lost 5.00 points") and "85.00 % of 100 images, not 90.00 %" in int8
    for word in ("spec.export.calibrationImages, now 256", "spec.export.maxAccuracyLoss", "spec.export.formats"):
        assert word in int8
    assert "calibrat" not in pt2
    assert "--calibration-images" in complaints(lost, COMMAND)[0]
    (just,) = complaints(report(measured("pt2", lost=1.0017)), COMMAND)
    assert just.startswith("pt2 has lost 1.002 points") and "and 1 are allowed" in just


def test_a_problem_is_a_complaint() -> None:
    said = complaints(report(problems=(Problem(format="pt2", message="no words: leave it out"),)), COMMAND)
    assert said == ["pt2 could not be made: no words: leave it out"]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (ratio(0.4, 0.5, 0.6), "2.00 times as fast"),
        (ratio(0.9, 0.95, 1.0), "no difference shown"),
        (ratio(0.9, 1.0, 1.1), "no difference shown"),
        (ratio(1.1, 1.5, 2.0), "slower"),
    ],
)
def test_no_speed_is_claimed_that_the_interval_does_not_show(found: Ratio, words: str) -> None:
    assert meaning(found) == words


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.all: set[str] = set()
        self.outside: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.all.add(tag)
        self.outside += [
            value or "" for name, value in attrs if name in ("src", "href") and "data:" not in (value or "")
        ]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_from_elsewhere() -> None:
    exports = (measured(), measured("onnx-int8"), measured("pt2"))
    text = page(report(*exports), {"a picture": b"\x89PNG"}, [])
    tags = Tags(text)
    assert not tags.outside and "script" not in tags.all and {"table", "img", "style"} <= tags.all
    assert "2.00 times as fast" in text and "0.400 to 0.600" in text and "some CPU" in text
    assert 'class="verdict passed"' in text
    failed = page(report(measured("onnx-int8", lost=5.0)), {}, ["it <failed>"])
    assert 'class="verdict failed"' in failed and "it &lt;failed&gt;" in failed


def test_names_are_shown_and_not_obeyed() -> None:
    network = card(HOSTILE, job=HOSTILE, namespace=HOSTILE, classes=(HOSTILE, *CLASSES[1:]))
    machine = Machine(node=HOSTILE, cpu=HOSTILE, runtime=HOSTILE)
    problem = Problem(format="pt2", message=HOSTILE)
    logits = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
    other = np.random.default_rng(1).normal(size=(30, 5)).astype(np.float32)
    said = report(measured(), network=network, machine=machine, problems=(problem,))
    some = Reference(pixels=pixels(30), labels=np.zeros(30, np.int64), logits=logits)
    text = page(said, draw_all(said, some, {"onnx": other}), complaints(said, COMMAND))
    assert "script" not in Tags(text).all
    assert "<script" not in text and len(re.findall("&lt;script&gt;", text)) >= 4


def test_every_picture_is_drawn() -> None:
    logits = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
    reference = Reference(pixels=pixels(30), labels=np.zeros(30, np.int64), logits=logits)
    same = draw_all(report(measured()), reference, {"onnx": logits})
    other = draw_all(report(measured()), reference, {"onnx": -logits})
    assert len(same) == 3 and len(other) == 4
    assert all(image.startswith(b"\x89PNG") for image in other.values())
    assert draw_all(report(), reference, {}) == {}
