"""What is said of other tools' words leads to fields that there are."""

from __future__ import annotations

import re

import pytest

from edgecloud.api.job import TrainingJob
from edgecloud.api.synonyms import PATHS, REMEDIES
from edgecloud.problems.places import homes, place_at, plain


@pytest.mark.parametrize("path", sorted({f"spec.{target}" for target in PATHS.values()}))
def test_a_synonym_leads_to_a_field(path: str) -> None:
    assert place_at(TrainingJob, tuple(path.partition("[")[0].split("."))).options


@pytest.mark.parametrize("remedy", sorted(set(REMEDIES.values())))
def test_a_remedy_names_fields_that_there_are(remedy: str) -> None:
    for path in re.findall(r"spec(?:\.\w+)+", remedy):
        outer = path.partition("podTemplate.spec")
        assert place_at(TrainingJob, tuple("".join(outer[:2]).split("."))).options, path


def test_no_field_is_a_synonym_of_another() -> None:
    """Where it belongs is told by the models."""
    fields = {
        name
        for name, places in homes(TrainingJob).items()
        if any(not where.startswith("status") for _, where in places)
    }
    for name in (*PATHS, *REMEDIES):
        assert name == plain(name) or "/" in name
        assert name not in fields
