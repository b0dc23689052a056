"""report.html: a report for people, in one file that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from edgecloud.edge.report import Latency, Machine, Measured, Ratio, Report

_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 72rem; margin: 2rem auto;
  padding: 0 1.5rem; }
h1 { font-size: 1.5rem; margin-bottom: 0.2rem; } h2 { font-size: 1.1rem; margin: 2rem 0 0.5rem; }
.from { color: #666; margin-top: 0; overflow-wrap: anywhere; }
.verdict { border-left: 5px solid; padding: 0.5rem 1rem; } .verdict p { margin: 0.2rem 0; }
.passed { border-color: #2e8b57; background: #f0f8f3; } .failed { border-color: #c0392b; background: #fdf2f0; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
table { margin-bottom: 1rem; font-size: 14px; }
th, td { padding: 0.3rem 0.6rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { color: #555; font-weight: 600; }
td.bad { color: #c0392b; font-weight: 600; } img { max-width: 100%; } small { color: #666; }
"""


def page(report: Report, pictures: Mapping[str, bytes], sentences: Sequence[str]) -> str:
    """The whole page.

    Args:
        report: what it shows.
        pictures: PNG images under their headings.
        sentences: what `gates.complaints` says.
    """
    title = f"{report.network.model}: converted for the edge"
    sections = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="from">{escape(_origin(report))}</p>',
        _verdict(report, sentences),
        "<h2>Formats</h2>",
        _table(report),
        _notes(report),
        "<h2>Latency</h2>",
        _latencies(report.exports),
        _ratios(report.exports),
        *(
            f'<h2>{escape(name)}</h2><img alt="{escape(name)}" src="{_data(image)}">'
            for name, image in pictures.items()
        ),
        "<h2>Machine</h2>",
        _machine(report.machine),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(sections)
        + "\n</body></html>\n"
    )


def _origin(report: Report) -> str:
    network, run = report.network, report.run
    job = "/".join(part for part in (network.namespace, network.job) if part)
    parts = [f"job {job}" if job else "", f"step {run.step}", f"weights {run.weights_sha256[:16]}"]
    channels, height, width = network.shape
    parts += [f"{len(network.classes)} classes", f"{channels} x {height} x {width} pixels, uint8"]
    return " · ".join(part for part in parts if part)


def _verdict(report: Report, sentences: Sequence[str]) -> str:
    if sentences:
        return '<div class="verdict failed">' + "".join(f"<p>{escape(one)}</p>" for one in sentences) + "</div>"
    allowed = max((one.gate.max_accuracy_loss for one in report.exports), default=0.0)
    text = f"Every format is within the gate: none has lost more than {allowed:g} points of accuracy to the original."
    return f'<div class="verdict passed"><p>{escape(text)}</p></div>'


def _table(report: Report) -> str:
    plain = next((one.bytes for one in report.exports if one.format == "onnx"), None)
    head = ("file", "MB", "fp32 / size", "accuracy", "95 % interval", "points lost", "same class", "largest difference",
            "load, ms", "memory, MB", "gate")  # fmt: skip
    rows = [
        [
            one.path,
            f"{one.bytes / 1e6:.2f}",
            "" if plain is None else f"{plain / one.bytes:.2f}",
            f"{100 * one.accuracy:.2f} %",
            f"{100 * one.accuracy_interval.low:.2f} to {100 * one.accuracy_interval.high:.2f}",
            one.gate.points,
            f"{100 * one.parity.agreement:.2f} %",
            f"{one.parity.max_difference:.2g}",
            "" if one.memory is None else f"{one.load_milliseconds:.0f}",
            "" if one.memory is None else f"{one.memory.peak / 1e6:.0f}",
            "passed" if one.gate.passed else "failed",
        ]
        for one in report.exports
    ]
    return _rows(head, rows)


def _notes(report: Report) -> str:
    lines = [
        f"The original (torch, fp32) names the right class for {100 * report.original_accuracy:.2f} % of the same"
        f" {report.images:,} test images. Same class: the part of them for which a converted model names the class that"
        " the original names. Largest difference: of two logits."
    ]
    macs = next((one.macs for one in report.exports if one.macs), None)
    if macs:
        lines.append(f"One image takes {macs / 1e6:,.3g} million multiplications and additions.")
    if report.calibration_images:
        lines.append(f"The scales of int8 were fitted on {report.calibration_images} training images.")
    if report.mirror:
        lines.append("Original and converted models take the mean of the logits of each image and its mirror image.")
    elif report.network.mirror:
        lines.append(
            "The training evaluated each image together with its mirror image; here neither the original nor the"
            " converted models do, for it takes twice the time (--mirror)."
        )
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


def _latencies(exports: Sequence[Measured]) -> str:
    head = ("format", "batch", "threads", "p50, ms", "95 % interval", "p90, ms", "p99, ms", "images/s", "runs")
    rows = [[one.format, *_latency(found)] for one in exports for found in one.latencies or (one.latency,)]
    return _rows(head, rows)


def _latency(found: Latency) -> list[str]:
    interval = found.p50_interval
    return [
        str(found.batch),
        str(found.threads),
        f"{found.p50:.3f}",
        "" if interval is None else f"{interval.low:.3f} to {interval.high:.3f}",
        f"{found.p90:.3f}",
        f"{found.p99:.3f}",
        "" if found.p50 <= 0 else f"{1000 * found.batch / found.p50:,.0f}",
        str(found.runs),
    ]


def _ratios(exports: Sequence[Measured]) -> str:
    head = ("against each other, run by turns", "batch", "threads", "p50 / p50", "95 % interval", "which means")
    rows = [
        [f"{one.format} / {ratio.against}", str(ratio.batch), str(ratio.threads), f"{ratio.p50:.3f}",
         f"{ratio.interval.low:.3f} to {ratio.interval.high:.3f}", meaning(ratio)]
        for one in exports
        for ratio in one.ratios
    ]  # fmt: skip
    return _rows(head, rows) if rows else ""


def meaning(ratio: Ratio) -> str:
    """What may be claimed: nothing, where the interval holds 1."""
    if ratio.faster:
        return f"{1 / ratio.p50:.2f} times as fast"
    return "slower" if ratio.interval.low > 1 else "no difference shown"


def _machine(machine: Machine) -> str:
    rows = [
        ("node", machine.node),
        ("CPU", machine.cpu),
        ("architecture", machine.architecture),
        ("instruction sets", " ".join(machine.instructions)),
        ("CPUs for this process", f"{machine.cpus:g}"),
        ("CPU limit", "none" if machine.cpu_limit is None else f"{machine.cpu_limit:g}"),
        ("memory limit", "none" if machine.memory_limit is None else f"{machine.memory_limit / 2**20:,.0f} MiB"),
        ("runtime", machine.runtime),
    ]
    return _rows(("", ""), [list(row) for row in rows if row[1]])


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td{_mark(cell)}>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{top}</tr>{body}</table></div>'


def _mark(cell: str) -> str:
    return ' class="bad"' if cell == "failed" else ""


def _data(image: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(image).decode("ascii")
