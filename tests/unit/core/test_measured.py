"""What the end of a measuring Pod comes to: its exit code, its message, and what worker 0 had published."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecloud.api.status import TrainingJobStatus
from edgecloud_operator.core.measured import MAX_WORDS, End, read_end
from edgecloud_operator.core.observed import Pod
from edgecloud_operator.core.termination import MAX_BYTES
from tests.unit.core.build import MEASURED, died, make_export, make_job, make_measurer, make_message
from tests.unit.core.profile import tries

PUBLISHED = tuple(make_export(name, accuracy=0.9) for name in ("onnx", "onnx-int8", "pt2"))
BAD_GATE = make_export("onnx-int8", gate="failed", accuracy=0.5)


def ended(code: int | None, message: str = "", **termination: Any) -> Pod:
    return died(make_measurer(), code, **({"message": message} if code is not None else {}), **termination)


def end_of(code: int | None, message: str = "", *, published: Any = PUBLISHED, **termination: Any) -> End:
    return read_end(make_job(**MEASURED), published, ended(code, message, **termination))


def test_what_was_measured_takes_the_place_of_what_worker_0_said_and_the_rest_stays() -> None:
    end = end_of(0, make_message())
    node = {"node": "pc-1"}
    assert end == End(exports=(make_export("onnx") | node, make_export("onnx-int8") | node, PUBLISHED[2]))


def test_what_worker_0_had_not_published_is_added() -> None:
    end = end_of(0, make_message(), published=(PUBLISHED[2],))
    assert end.exports is not None
    assert [(one["format"], one.get("node")) for one in end.exports] == [
        ("pt2", None),
        ("onnx", "pc-1"),
        ("onnx-int8", "pc-1"),
    ]


def test_the_node_is_the_clusters_word_and_not_the_pods() -> None:
    end = end_of(0, make_message(make_export("onnx", node="forged"), make_export("onnx-int8")))
    assert end.exports is not None and {one["node"] for one in end.exports[:2]} == {"pc-1"}


def test_a_model_that_was_not_asked_for_is_passed_over() -> None:
    """Such as one that an earlier job has left in the folder."""
    job = make_job(**MEASURED | {"export": {"measureOn": {}}})
    end = read_end(job, (), ended(0, make_message()))
    assert end.exports == (make_export("onnx", node="pc-1"),)


def test_a_gate_that_failed_fails_the_job_and_the_figures_stay() -> None:
    end = end_of(3, make_message(make_export("onnx"), BAD_GATE))
    assert end.exports is not None and end.exports[1]["gate"] == "failed"
    assert end.failed == (
        "onnx-int8 (accuracy 50.00%), measured on pc-1: more is lost than the 1 percentage points of"
        " export.maxAccuracyLoss; raise calibrationImages or the limit, in a job of another name"
    )


@pytest.mark.parametrize(
    ("message", "failed"),
    [
        ('{"error": "there is no model.onnx in /edgecloud/storage/results/export"}', "there is no model.onnx in"),
        ('{"error": "a\\u001b[31m\\nb\\u0000c"}', "a [31m b c"),
        ("", "nothing to be measured, and not why"),
        ('{"error": 7}', "nothing to be measured, and not why"),
        ("[]", "nothing to be measured, and not why"),
    ],
)
def test_what_cannot_be_measured_is_not_tried_again(message: str, failed: str) -> None:
    end = end_of(2, message)
    assert end.failed is not None and failed in end.failed
    assert (end.exports, end.again) == (None, None)


@pytest.mark.parametrize(
    ("code", "message", "again"),
    [
        (75, '{"error": "https://models: connection refused"}', "https://models: connection refused (exit code 75)"),
        (75, "", "it ended with exit code 75"),
        (1, "Traceback", "it ended with exit code 1"),
        (137, "", "it was killed by SIGKILL"),
        (143, '{"error": "told to go"}', "told to go (killed by SIGTERM)"),
        (255, "", "it ended with exit code 255"),
        (None, "", "the Pod was lost"),
        (0, "", "its termination message was refused: it is empty"),
        (0, "{", "its termination message was refused: it is no list of measured models"),
        (0, '{"exports": []}', "its termination message was refused: it is no list of measured models"),
        (0, make_message(make_export("onnx")), "refused: it says nothing of onnx-int8"),
        (0, make_message(make_export(), make_export(), make_export("onnx-int8")), "refused: it names a format twice"),
        (0, make_message(make_export("onnx"), BAD_GATE), "refused: its gates contradict its exit code 0"),
        (3, make_message(), "refused: its gates contradict its exit code 3"),
        (0, make_message(make_export("onnx"), make_export("tflite")), "it is no list of measured models"),
        (0, make_message(make_export("onnx"), make_export("onnx-int8", accuracy=2)), "it is no list of measured"),
        (0, make_message(make_export("onnx"), make_export("onnx-int8", more=1)), "it is no list of measured models"),
        (
            0,
            make_message(make_export("onnx", sha256=64 * "0"), make_export("onnx-int8")),
            f"it speaks of another onnx than worker 0 wrote: sha256 000000000000…, not {PUBLISHED[0]['sha256'][:12]}…",
        ),
        (3, make_message(make_export("onnx", sha256=64 * "0"), BAD_GATE), "it speaks of another onnx than worker 0"),
    ],
)
def test_what_may_pass_is_tried_again(code: int | None, message: str, again: str) -> None:
    end = end_of(code, message)
    assert end.again is not None and again in end.again
    assert (end.exports, end.failed) == (None, None)


def test_out_of_memory_and_evicted() -> None:
    assert "export.measureOn.resources" in (end_of(137, out_of_memory=True).again or "")
    pod = make_measurer(phase="Failed", why="Evicted: The node was low on resource: memory.")
    assert read_end(make_job(**MEASURED), (), pod).again == "Evicted: The node was low on resource: memory"


@pytest.mark.parametrize("forged", [{"format": ["onnx"]}, {}, {"format": "onnx", "sha256": 7}, {"format": None}])
def test_exports_that_somebody_edited_raise_nothing(forged: dict[str, Any]) -> None:
    end = end_of(0, make_message(), published=(forged,))
    assert end.exports is not None or "another onnx" in (end.again or "")


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["exports", "error", "format", "sha256", "gate"]), inner, max_size=5)
    ),
    max_leaves=8,
)


@tries(200)
@given(
    st.sampled_from([0, 1, 2, 3, 75, 137, 255]),
    st.text(max_size=200) | _json.map(json.dumps) | st.integers(0, MAX_BYTES).map(lambda depth: "[" * depth),
)
def test_any_message_comes_to_something_that_a_status_can_hold(code: int, message: str) -> None:
    end = end_of(code, message)
    assert (end.exports is None) or code in (0, 3)
    words = end.failed or end.again
    assert words and len(words) < MAX_WORDS + 200 and words.isprintable()


@tries(200)
@given(st.data())
def test_one_field_that_is_mangled_is_refused_or_was_right(data: st.DataObject) -> None:
    entry = make_export("onnx")
    field = data.draw(st.sampled_from([*entry, "more"]))
    entry[field] = data.draw(_json)
    end = end_of(0, json.dumps({"exports": [entry, make_export("onnx-int8")]}))
    if end.exports is not None:
        TrainingJobStatus.parse({"exports": list(end.exports)})
        assert all(type(one["latency"]["p50"]) is float and len(one["sha256"]) == 64 for one in end.exports)
