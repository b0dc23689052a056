"""When the operator counts as stuck, by how long it has been since things moved."""

from __future__ import annotations

import pytest

from edgecloud_operator.controller.workqueue import Backlog
from edgecloud_operator.kube.informer import Looked
from edgecloud_operator.kube.vitals import ailment


@pytest.mark.parametrize(
    ("backlog", "looked", "wrong"),
    [
        (Backlog(), Looked(), None),
        (Backlog(depth=9, oldest=4000, idle=300, stuck=300), Looked(heard_ago=1e6, tried_ago=600), None),
        (Backlog(depth=9, oldest=4000, idle=301), Looked(), "9 jobs wait, the first for 4000 s, and nothing moves"),
        (Backlog(stuck=301), Looked(), "a job has been worked on for 301 s without a write's having ended"),
        (
            Backlog(),
            Looked(tried_ago=601),
            "for 601 s the cluster was not heard of, and no attempt was made to list it",
        ),
    ],
)
def test_what_is_wrong(backlog: Backlog, looked: Looked, wrong: str | None) -> None:
    assert ailment(backlog, looked) == wrong
