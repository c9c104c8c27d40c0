"""Prompt banks: those that are here, files of one's own, and the topic that leaks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from steering.errors import BadSteeringInput
from steering.prompt_banks import Bank, Prompt, builtin_banks, find_bank
from steering.prompt_banks.leak import topic_leak

GROUPS = ("ada", "bob", "cyd", "dan")


def test_the_neutral_bank_has_forty_prompts_about_nobody() -> None:
    bank = find_bank("neutral")
    assert len(bank) >= 40
    assert all(prompt.group is None for prompt in bank.prompts)


def test_the_topic_bank_names_the_groups_of_the_embedding_example() -> None:
    from steering.styles.manual import manual_rows

    rows = manual_rows()
    large = {group for group in rows.groups if rows.groups.count(group) >= 40}
    assert {prompt.group for prompt in find_bank("python-docs").prompts} == large


def test_own_banks_are_read_from_lines_and_from_json_lines(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("# my questions\nWhy?\n\nWho?\n")
    (tmp_path / "mine.jsonl").write_text('{"prompt": "Why?", "group": "ada", "id": "a"}\n')
    assert [prompt.text for prompt in find_bank("mine.txt", tmp_path).prompts] == ["Why?", "Who?"]
    assert find_bank("mine.jsonl", tmp_path).prompts == (Prompt("a", "Why?", "ada"),)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.jsonl", '{"question": "Why?"}\n', "a.jsonl, line 1: .*prompt"),
        ("a.jsonl", '{"prompt": "Why?"}\nWhy\n', "a.jsonl, line 2: is no JSON"),
        ("a.jsonl", '{"prompt": " "}\n', "line 1: the prompt is empty"),
        ("a.txt", "Why?\nwhy? \n", "same prompt more than once: 'why\\?'"),
        ("a.txt", "\n", "is empty"),
        ("a.md", "Why?\n", "ends in .txt or .jsonl; built-in ones: neutral, python-docs"),
    ],
)
def test_what_is_no_bank_is_refused_with_the_line(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BadSteeringInput, match=said):
        find_bank(name, tmp_path)


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSteeringInput, match="cannot be read"):
        find_bank("none.txt", tmp_path)
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(BadSteeringInput, match="is not UTF-8"):
        find_bank("latin.txt", tmp_path)


def test_the_first_prompts_are_dealt_out_over_the_groups() -> None:
    prompts = tuple(Prompt(f"{g}{n}", f"{g} {n}", g) for g in GROUPS for n in range(5))
    bank = Bank("b", prompts)
    assert [one.group for one in bank.first(6).prompts].count("dan") == 1
    some = bank.first(4, ("ada", "dan"))
    assert sorted(one.id for one in some.prompts) == ["ada0", "ada1", "dan0", "dan1"]
    with pytest.raises(BadSteeringInput, match="has 10 prompts about ada, dan, and 11"):
        bank.first(11, ("ada", "dan"))


def test_a_topic_that_decides_the_group_leaks_fully() -> None:
    bank = Bank("b", tuple(Prompt(str(n), f"q{n}", GROUPS[n % 4]) for n in range(12)))
    ids = [str(n) for n in range(12) for _ in range(3)]
    leak = topic_leak(bank, GROUPS, ids, [int(one) % 4 for one in ids])
    assert leak.score == 4.0
    assert leak.accuracy is not None
    assert leak.accuracy.low == 1.0
    assert leak.warning is not None
    assert "the topic leaks" in leak.warning


def test_answers_that_do_not_know_their_topic_do_not_leak() -> None:
    random = np.random.default_rng(0)
    bank = Bank("b", tuple(Prompt(str(n), f"q{n}", GROUPS[n % 4]) for n in range(40)))
    ids = [str(n) for n in range(40) for _ in range(6)]
    leak = topic_leak(bank, GROUPS, ids, random.integers(0, 4, len(ids)).tolist())
    assert leak.score == pytest.approx(1.0, abs=0.3)
    assert leak.warning is None
    assert leak.agreement is not None
    assert leak.agreement.estimate == pytest.approx(leak.agreement_by_chance, abs=0.06)


def test_neutral_prompts_that_decide_the_group_are_told_too() -> None:
    bank = Bank("b", tuple(Prompt(str(n), f"q{n}") for n in range(12)))
    ids = [str(n) for n in range(12) for _ in range(3)]
    leak = topic_leak(bank, GROUPS, ids, [int(one) % 4 for one in ids])
    assert leak.score is None
    assert leak.warning is not None
    assert "the prompt tells the group" in leak.warning


def test_every_built_in_bank_has_its_own_name() -> None:
    assert set(builtin_banks()) == {"neutral", "python-docs"}
