"""Faults: their wording, their places in the file, and pydantic's complaints in plain words."""

from __future__ import annotations

import pickle
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.spec.faults import Fault, SpecFaults, closest, show
from orchestrator.spec.pydantic_faults import model_faults
from orchestrator.spec.units import Tokens, Usd
from orchestrator.spec.yaml_positions import parse_yaml


def syntax_refusal(text: str) -> str:
    with pytest.raises(SpecFaults) as caught:
        parse_yaml(text, "s.yaml")
    return str(caught.value)


def test_a_fault_says_place_rule_value_and_way_out() -> None:
    fault = Fault(("space", "lr", "choice", 1), "must be above 0", -1, "raise it", "lr", line=12)
    assert fault.worded("sweep.yaml") == (
        "sweep.yaml:12: space.lr.choice[1]: must be above 0; got -1; raise it. Did you mean 'lr'?"
    )


def test_faults_come_in_the_order_of_lines_once_each_and_counted() -> None:
    late, early = Fault(("b",), "late", line=9), Fault(("a",), "early", line=2)
    error = SpecFaults([late, early, late], "s.yaml")
    assert str(error) == "s.yaml:2: a: early\ns.yaml:9: b: late\n2 faults in s.yaml"
    assert [f["where"] for f in error.as_json()] == ["a", "b"]


def test_faults_cross_processes() -> None:
    error = SpecFaults([Fault(("a",), "missing", line=1), Fault(("b",), "r", [1, 2])], "s.yaml")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert again.faults == error.faults


def test_long_values_are_cut() -> None:
    assert len(show("x" * 1000)) < 100
    assert show([1, "a"]) == '[1, "a"]'
    assert show("a") == "'a'"


@pytest.mark.parametrize(
    ("given", "meant"),
    [("lrr", "lr"), ("LR", "lr"), ("batch-tokens", "batch_tokens"), ("arch", "architecture")],
)
def test_a_near_name_is_suggested(given: str, meant: str) -> None:
    assert closest(given, ["lr", "batch_tokens", "architecture", "k"]) == meant


def test_nothing_is_suggested_where_nothing_is_near() -> None:
    assert closest("zzz", ["lr", "k"]) is None


@pytest.mark.parametrize(
    ("text", "wording"),
    [
        ("", "s.yaml:1: is empty; start with `name: my-sweep`"),
        ("# only a remark\n", "is empty"),
        ("- a\n- b\n", "must hold `key: value` lines"),
        ("just text", "must hold `key: value` lines"),
        ("a: 1\nb: [1, 2\nc: 3\n", "is not valid YAML"),
        ("a: 1\n\tb: 2\n", "s.yaml:2: is not valid YAML"),
        ("a: {b: 1\n", "is not valid YAML"),
        ("a: 1\n---\nb: 2\n", "keep one sweep a file"),
        ("a: &x [*x]\n", "its aliases never end"),
        ("a: \x00\n", "is not a text file of YAML"),
        ("a: !!python/object:os.system x\n", "is not valid YAML"),
    ],
)
def test_what_is_no_sweep_file_is_refused_in_one_sentence(text: str, wording: str) -> None:
    told = syntax_refusal(text)
    assert wording in told
    assert told.endswith("1 fault in s.yaml")


def test_aliases_that_multiply_are_refused_quickly() -> None:
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    assert "its aliases never end" in syntax_refusal("\n".join(lines))


def test_duplicate_keys_are_found_at_every_depth() -> None:
    document = parse_yaml("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\na: 2\n", "s.yaml")
    assert [(f.where, f.line) for f in document.faults] == [("b.c", 5), ("a", 6)]
    assert "stands twice, first on line 3; keep one" in document.faults[0].worded()


def test_positions_are_those_of_keys_and_list_items() -> None:
    document = parse_yaml("a: 1\nb:\n  c:\n    - x\n    - y\n", "s.yaml")
    assert document.positions["b", "c"] == (3, 3)
    assert document.positions["b", "c", 1] == (5, 7)
    assert document.place(Fault(("b", "c", 1, "z"), "r")).line == 5
    assert document.place(Fault(("nowhere",), "r")).line == 1


def test_values_are_plain_and_numbers_are_yaml_1_2() -> None:
    data = parse_yaml("a: 1e-5\nb: yes\nc: {1: on}\nd: &x {e: 5}\nf: {<<: *x}\n", "s").data
    assert data == {"a": 1e-5, "b": "yes", "c": {"1": "on"}, "d": {"e": 5}, "f": {"e": 5}}


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    size: int = Field(ge=2)
    """How large."""


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    count: int
    """How many."""
    share: float = Field(default=0.5, gt=0, lt=1)
    tokens: Tokens = 5
    usd: Usd | None = None
    mode: Literal["fast", "slow"] = "fast"
    flag: bool = False
    names: str | list[str] = "x"
    inner: Inner | None = None
    inners: tuple[Inner, ...] = ()


@pytest.mark.parametrize(
    ("data", "wording"),
    [
        ({}, "count: is missing (How many); write count: a whole number"),
        ({"count": 1, "moed": "fast"}, "moed: unknown key; rename or remove it. Did you mean"),
        ({"count": 1, "zzzz": 1}, "zzzz: unknown key; known here: count, flag, inner"),
        ({"count": "x"}, "count: must be a whole number (How many); got 'x'; write 16"),
        ({"count": 1.5}, "count: must be a whole number (How many); got 1.5; write 16"),
        ({"count": 1, "share": 1}, "share: must be below 1; got 1; lower it"),
        ({"count": 1, "share": 0}, "share: must be above 0; got 0; raise it"),
        ({"count": 1, "tokens": "5x"}, "tokens: must be a whole number of tokens; units are"),
        ({"count": 1, "tokens": 0}, "tokens: must be above 0; got 0; raise it"),
        ({"count": 1, "usd": "lots"}, "usd: must be an amount of US dollars; got 'lots'; write 60"),
        ({"count": 1, "mode": "slwo"}, "mode: must be one of fast, slow; got 'slwo'. Did you mean"),
        ({"count": 1, "flag": 7}, "flag: must be true or false; got 7; write true"),
        ({"count": 1, "names": 5}, "names: must be text or a list; got 5; write 'name' or"),
        ({"count": 1, "inner": 5}, "inner: must be `key: value` pairs; got 5; write {key: value}"),
        ({"count": 1, "inner": {"size": 1}}, "inner.size: must be at least 2; got 1; raise it"),
        ({"count": 1, "inner": {"szie": 3}}, "inner.szie: unknown key; rename or remove it. Did"),
        ({"count": 1, "inners": [{"size": 3}, {}]}, "inners[1].size: is missing"),
        ({"count": 1, "inners": [{"size": "a"}]}, "inners[0].size: must be a whole number"),
    ],
)
def test_pydantic_complaints_become_plain_words(data: Any, wording: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(data)
    told = [fault.worded() for fault in model_faults(caught.value, Outer, data)]
    assert any(line.startswith(wording) for line in told), told
