"""What may stand in status.exports: converted models as they are described, and nothing that only looks like it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecloud.api.status import TrainingJobStatus
from edgecloud_operator.core.exports import MAX_ENTRIES, accepted
from tests.unit.core.test_status import EXPORT


def test_what_an_export_reports_is_taken_as_it_is() -> None:
    for entries in ([EXPORT], [EXPORT | {"node": "edge-1"}, EXPORT | {"format": "pt2"}], [EXPORT] * MAX_ENTRIES):
        found = accepted({"exports": entries})
        assert found is not None and list(found) == entries
        assert TrainingJobStatus.parse({"exports": list(found)}).exports == found


@pytest.mark.parametrize(
    "forged",
    [
        {"format": "exe"},
        {"gate": "perhaps"},
        {"accuracy": 1.5},
        {"accuracy": "0.9"},
        {"bytes": -1},
        {"bytes": 2**60},
        {"sha256": "../../etc/passwd"},
        {"path": "x" * 2000},
        {"path": ""},
        {"path": "\x1b[2Jmodel.onnx"},
        {"path": "model.onnx\nall is well"},
        {"path": "\u202exnno.ledom"},
        {"node": "edge\x1b[8m"},
        {"latency": {"p50": 1.0}},
        {"latency": {"p50": 1.0, "p90": 1.0, "p99": -1.0}},
        {"parity": None},
        {"node": "n" * 300},
        {"more": "of it"},
    ],
)
def test_one_forged_entry_spoils_the_list(forged: dict[str, Any]) -> None:
    assert accepted({"exports": [EXPORT, EXPORT | forged]}) is None


@pytest.mark.parametrize(
    "said", [None, {}, [], "exports", {"exports": None}, {"exports": []}, {"exports": {}}, {"exports": [7]},
             {"exports": [EXPORT] * (MAX_ENTRIES + 1)}, {"exports": [{k: v for k, v in EXPORT.items() if k != "gate"}]}]
)  # fmt: skip
def test_what_is_no_list_of_exports(said: Any) -> None:
    assert accepted(said) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*EXPORT, "x"]), inner, max_size=4),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*EXPORT, "node"]), JSON, max_size=4))
def test_whatever_is_taken_can_be_written(change: dict[str, Any]) -> None:
    found = accepted({"exports": [EXPORT | change]})
    if found is not None:
        text = json.dumps(found, allow_nan=False)
        assert len(text) < 4096
        TrainingJobStatus.parse({"exports": json.loads(text)})
