"""Problems from models of every shape, also those that the API does not have today."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

import pytest
from pydantic import Field, JsonValue, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError, core_schema

from edgecloud.api.base import Model, Time
from edgecloud.problems import Problem, Source, explain
from edgecloud.validation import validate_bytes

CONTEXT = {
    "error": "reason",
    "pattern": "^a$",
    "expected": "'a' or 'b'",
    "discriminator": "'type'",
    "tag": "c",
    "expected_tags": "'a', 'b'",
    "gt": 1,
    "ge": 1,
    "lt": 1,
    "le": 1,
    "multiple_of": 2,
    "min_length": 2,
    "max_length": 1,
    "actual_length": 3,
    "field_type": "List",
    "class_name": "Thing",
    "class": "Thing",
    "method_name": "m",
    "attribute": "a",
    "function_name": "f",
    "encoding": "utf-8",
    "encoding_error": "e",
    "tz_expected": 0,
    "tz_actual": 60,
    "expected_schemes": "https",
    "expected_version": 4,
    "max_digits": 3,
    "decimal_places": 2,
    "whole_digits": 1,
    "type": "t",
    "expected_type": "t",
    "literal_error": "x",
    "max_depth": 3,
}
"""What pydantic's errors carry, all together."""


class Cat(Model):
    type: Literal["cat"]
    lives: int = 9


class Dog(Model):
    type: Literal["dog"]
    tricks: list[str] = Field(default_factory=list)


class Leaf(Model):
    wide_name: int = Field(description="How wide; in metres.")
    on_or_off: Literal["on", "off"] = "on"


class Tree(Model):
    """One field for each shape."""

    pet: Annotated[Cat | Dog, Field(discriminator="type")] | None = None
    either: Cat | Leaf | None = None
    number_or_texts: int | list[str] | None = None
    small_or_word: Annotated[int, Field(le=3)] | Annotated[str, Field(pattern="^[a-z]+$")] | None = None
    choice_or_leaf: Literal["none"] | Leaf | None = None
    pair: tuple[int, str] | None = None
    numbers: set[int] | None = None
    even: Annotated[int, Field(multiple_of=2)] = 0
    name: Annotated[str, Field(pattern="^[a-z]+$")] = "a"
    weights: dict[str, Annotated[float, Field(gt=0)]] | None = None
    leaves: list[Leaf] | None = None
    anything: JsonValue = None
    when: Time | None = None
    branches: list[Tree] | None = None

    @model_validator(mode="after")
    def _rules(self) -> Tree:
        if self.name == "bad":
            raise ValueError("this tree is bad")
        if self.name == "worse":
            context = {"message": "leaves are missing", "path": "branches.0.leaves", "remedy": "write leaves:"}
            raise PydanticCustomError("rule", "{message}", context)
        return self


def problems(content: str) -> list[Problem]:
    return list(validate_bytes(content.encode(), "tree.yaml", Tree).problems)


SENTENCES = """\
pet: {type: cow}
    pet: "cow" is not one of the choices for type: write one of cat, dog
pet: {lives: 3}
    pet: the field type is missing, which says what this is: write type:
pet: {type: cat, lives: x}
    pet.lives: the text "x" where a whole number is needed: write a whole number
pet: {type: dog, lives: 3}
    pet.lives: unknown field: leave it out; known here: type, tricks
either: 5
    either: the number 5 where a mapping is needed: write `key: value` lines below it, indented
either: {type: cat, live: 1}
    either.live: unknown field: did you mean lives?
either: {wideName: x}
    either.wideName: the text "x" where a whole number is needed: write a whole number
numberOrTexts: {}
    numberOrTexts: a mapping where a whole number or a list is needed: write a whole number
numberOrTexts: [1]
    numberOrTexts[0]: the number 1 where text is needed: put it in quotes: "1"
smallOrWord: 4
    smallOrWord: 4 is above the greatest value (3): write a value of at most 3
smallOrWord: A
    smallOrWord: "A" does not have the form that is needed: write a text that matches ^[a-z]+$
smallOrWord: yes
    smallOrWord: the boolean yes where a whole number or text is needed: write a whole number
choiceOrLeaf: {wideName: 1.5}
    choiceOrLeaf.wideName: the number 1.5 where a whole number is needed: write a whole number, such as 2
choiceOrLeaf: non
    choiceOrLeaf: the text "non" is not one of none: write none
pair: [1]
    pair[1]: this item is missing: write one more item
pair: [1, 2]
    pair[1]: the number 2 where text is needed: put it in quotes: "2"
numbers: [1, x]
    numbers[1]: the text "x" where a whole number is needed: write a whole number
even: 3
    even: 3 is no multiple of 2: write a multiple of 2
name: 5
    name: the number 5 where text is needed: write a text that matches ^[a-z]+$
weights: {a: 0}
    weights.a: 0 is not above 0: write a value above 0
leaves: [{}]
    leaves[0].wideName: this field is missing: write wideName: (how wide)
leaves: [{wideName: 1, onOrOff: on}]
    leaves[0].onOrOff: the boolean on where text is needed: put it in quotes: "on"
when: soon
    when: the text "soon" where a time is needed: write a time such as 2026-01-31T12:00:00Z
branches: [{branches: [{even: 1}]}]
    branches[0].branches[0].even: 1 is no multiple of 2: write a multiple of 2
wideName: 1
    wideName: unknown field here: wideName belongs to choiceOrLeaf or either or leaves[]
name: bad
    this tree is bad
name: worse
    branches[0].leaves: leaves are missing: write leaves:
[1]
    a list where a mapping is needed: write apiVersion:, kind:, metadata: and spec:
"""
"""A document, and below it the one problem that it has."""


@pytest.mark.parametrize(("content", "expected"), list(zip(*[iter(SENTENCES.splitlines())] * 2, strict=True)))
def test_sentence(content: str, expected: str) -> None:
    assert [str(problem) for problem in problems(content)] == [f"tree.yaml:1: {expected.strip()}"]


@pytest.mark.parametrize("value", [None, True, 5, 1.5, "text", [], {}], ids=repr)
def test_every_error_of_pydantic_has_a_sentence(value: Any) -> None:
    """Whatever types the models may come to use."""
    for kind in get_args(core_schema.ErrorType):
        _has_a_sentence(kind, value)


def _has_a_sentence(kind: str, value: Any) -> None:
    details = InitErrorDetails(type=kind, loc=("name",), input=value, ctx=CONTEXT)
    failed = ValidationError.from_exception_data("Tree", [details])
    source = Source(file="tree.yaml", line_of=lambda _: 3, text_of=lambda _: None)
    [problem], hidden = explain(failed, model=Tree, value={"name": value}, source=source)
    assert hidden == 0
    assert str(problem).startswith("tree.yaml:3: name: ")
    assert str(problem).isprintable()
    assert len(problem.message) > 5
    assert len(problem.remedy) > 5 or kind in ("value_error", "assertion_error")
