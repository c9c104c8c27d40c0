"""The whole study with made-up generators: what it finds is what was planted."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from steering.errors import BadSteeringInput
from steering.prompt_banks.bank import Bank, Prompt
from steering.table.conditions import CONDITIONS, PromptTexts, condition_named
from steering.table.grid import Asked, Grid, Question, check_seeds, halves
from steering.table.kept_answers import (
    Answer,
    KeptAnswers,
    key_of,
    read_answers,
    write_answers,
)
from steering.table.measuring import Table
from steering.table.metrics import GroupSpace
from steering.table.page import csv_text, latex, markdown
from steering.table.study import StrengthPoint, StudySpec, TableStudy, best_strength

Array = np.ndarray[Any, Any]
GROUPS = ("ada", "bob", "cyd", "dan")
SPACE = GroupSpace(np.eye(4), "euclidean")
FLUENT = {
    "log_perplexity": 2.0,
    "distinct_1": 0.9,
    "distinct_2": 1.0,
    "repeated_3grams": 0.0,
    "zlib_ratio": 0.8,
    "num_tokens": 20.0,
}
BANK = Bank("plain", tuple(Prompt(f"q{n}", f"question {n}") for n in range(16)))

Say = Callable[[Asked], str]
"""A generator: its answers are the names of groups."""


class Pretender:
    """Stands for a language model."""

    def __init__(self, say: Say, broken_at: float = 9.0) -> None:
        self.kept = KeptAnswers()
        self._say = say
        self._broken_at = broken_at

    def key(self, asked: Asked) -> str:
        names = [asked.condition, asked.question.id, asked.target, asked.seed, asked.strength]
        return key_of({"all": names})

    def answer(self, batch: Sequence[Asked]) -> None:
        for one in batch:
            high = {"log_perplexity": 8.0} if one.strength >= self._broken_at else {}
            self.kept.add({self.key(one): Answer(self._say(one), True, {**FLUENT, **high})})


def embed(texts: Sequence[str]) -> Array:
    return np.stack([SPACE.point_GE[GROUPS.index(text)] for text in texts])


def by_dice(asked: Asked) -> str:
    """Ignores target and condition; another seed gives another answer."""
    return GROUPS[asked.sampling_seed % 4]


def study_of(say: Say, bank: Bank = BANK, **more: Any) -> TableStudy:
    spec = StudySpec((bank,), GROUPS, (0, 1, 2), (0.1, 0.5), rows=7)
    return TableStudy(replace(spec, **more), SPACE, Pretender(say), embed)


def run(study: TableStudy) -> Table:
    while study.units_done < study.num_units:
        study.step()
    (table,) = study.tables()
    return table


def test_an_oracle_brings_every_answer_to_its_target() -> None:
    def oracle(asked: Asked) -> str:
        return asked.target if asked.target is not None and asked.strength else by_dice(asked)

    table = run(study_of(oracle))
    steered = table.row("C5").shift
    assert steered.conditional.estimate == 1.0
    assert steered.num_lost == 0
    assert table.row("C5").right_group.estimate == 1.0
    assert steered.direction["towards"].distance.estimate == pytest.approx(0.0, abs=1e-9)
    assert steered.direction["towards"].hit.estimate == 1.0
    # What was there already did not move, and the number of these is said.
    assert steered.direction["towards"].num_excluded == steered.num_cells - steered.num_gained
    better = {(one.first, one.second): one for one in table.comparisons}
    assert better["C5", "C2"].verdict == "first"
    assert better["C5", "C2"].test.p_value < 1e-6
    assert better["C5", "C2"].test.only_second == 0
    pure = table.row("C6").pure
    assert pure is not None
    assert pure.before == "C2"
    assert pure.conditional.estimate == 1.0


def test_a_generator_that_ignores_all_conditions_changes_as_asking_again_does() -> None:
    def ignores(asked: Asked) -> str:  # and throws its dice anew for each answer
        said = f"{asked.condition} {asked.question.id} {asked.target} {asked.seed}"
        return GROUPS[int(key_of({"x": said}), 16) % 4]

    table = run(study_of(ignores))
    floor = table.row("C1").shift.changed
    assert 0.5 < floor.estimate < 0.95
    for name in ("C2", "C5", "C8"):
        found = table.row(name).shift
        assert found.changed.low - 0.05 <= floor.high
        assert found.changed.high + 0.05 >= floor.low
        assert found.net.low <= 0.05
        assert found.net.high >= -0.05
        assert found.conditional.estimate == pytest.approx(1 / 4, abs=0.15)


def test_the_same_dice_for_all_conditions_show_what_a_condition_does_and_nothing_else() -> None:
    table = run(study_of(by_dice))
    assert table.row("C5").shift.num_changed == 0
    assert np.isnan(table.row("C5").shift.direction["literal"].distance.estimate)
    assert table.row("C1").shift.num_changed > 0  # asked again, with another seed
    assert all(one.test.only_first == 0 for one in table.comparisons if one.second != "C1b")


def test_the_strength_that_works_is_chosen_unless_its_answers_are_broken() -> None:
    def works_at_half(asked: Asked) -> str:
        return asked.target if asked.target and asked.strength == 0.5 else by_dice(asked)

    study = study_of(works_at_half)
    assert run(study).strength == 0.5
    assert study.strength_points()[1].m2_gain > 0.5
    broken = TableStudy(study.spec, SPACE, Pretender(works_at_half, broken_at=0.5), embed)
    assert run(broken).strength == 0.1


def test_among_equals_the_smaller_strength_and_without_fluent_ones_the_least_perplexing() -> None:
    point = StrengthPoint(0.4, 0.2, 0.1, 0.1, 1.0, 0.25, 9.0, 2.0, 0.0, 20.0)
    smaller = replace(point, strength=0.2)
    assert best_strength([point, smaller], 3.0) == smaller
    worse = replace(point, strength=0.8, perplexity_ratio=9.0, m2_net=0.9)
    bad = replace(point, perplexity_ratio=4.0)
    assert best_strength([smaller, worse], 3.0) == smaller
    assert best_strength([worse, bad], 3.0) == bad


def test_the_prompts_of_the_table_are_not_those_that_the_strength_was_chosen_on() -> None:
    mixed = Bank("mixed", tuple(Prompt(str(n), f"q {n}", GROUPS[n % 4]) for n in range(16)))
    choosing, reporting = halves([mixed, BANK])
    assert not {one.id for one in choosing} & {one.id for one in reporting}
    assert len(choosing) == len(reporting) == 16
    for group in GROUPS:
        both = [sum(one.prompt.group == group for one in half) for half in (choosing, reporting)]
        assert both == [2, 2]
    with pytest.raises(BadSteeringInput, match="at least four"):
        halves([Bank("short", BANK.prompts[:3])])


def test_a_prompt_about_a_group_is_not_steered_to_that_group() -> None:
    about = Question("b", Prompt("1", "what?", "bob"))
    grid = Grid((about, Question("b", Prompt("2", "why?"))), GROUPS, (0, 1, 2))
    assert grid.targets(about) == ["ada", "cyd", "dan"]
    (first, *_, last) = list(grid.to_report(0.2))
    assert len(first) == 2 + 7 * 3  # C1 and C1b serve all targets
    assert len(last) == 2 + 7 * 4
    assert {one.strength for one in first if condition_named_steers(one)} == {0.2}
    assert {one.strength for one in first if not condition_named_steers(one)} == {0.0}


def condition_named_steers(asked: Asked) -> bool:
    return asked.condition != "C1b" and condition_named(asked.condition).steer


def test_fewer_than_three_seeds_are_refused_with_the_reason() -> None:
    with pytest.raises(BadSteeringInput, match="needs at least 3.*add seeds"):
        check_seeds((0, 1))
    with pytest.raises(BadSteeringInput, match="one twice"):
        check_seeds((0, 1, 1))


def test_an_interrupted_study_goes_on_where_it_was() -> None:
    whole = study_of(by_dice)
    expected = run(whole)
    first = study_of(by_dice)
    for _ in range(20):
        first.step()
    second = study_of(by_dice)
    answers = first._answerer.kept.some(first.keys_there())  # noqa: SLF001
    second._answerer.kept.add(answers)  # noqa: SLF001
    assert second.units_done == first.units_done > 0
    found = run(second)
    assert csv_text([found]) == csv_text([expected])


def test_prompts_say_what_their_condition_says() -> None:
    texts = PromptTexts(group="Be like {group}.", names={"ada": "Ada"})
    sentences = ["You joke.", "You rhyme."]
    said = {one.name: texts.prompt(one, "Why?", "ada", sentences) for one in CONDITIONS}
    assert said["C1"] == said["C5"] == "Why?"
    assert said["C2"] == said["C6"] == "Be like Ada.\n\nWhy?"
    assert said["C3"] == said["C7"] == "You joke. You rhyme.\n\nWhy?"
    assert said["C4"] == said["C8"] == "Be like Ada. You joke. You rhyme.\n\nWhy?"
    after = texts.model_copy(update={"place": "after"})
    assert after.prompt(condition_named("C2"), "Why?", "bob", ()) == "Why?\n\nBe like bob."
    assert [one.unsteered.name for one in CONDITIONS[4:]] == ["C1", "C2", "C3", "C4"]
    with pytest.raises(ValueError, match=r"has no \{group\} in it"):
        PromptTexts(group="Be nice.")


def test_answers_without_text_count_as_changed_and_are_told() -> None:
    def silent(asked: Asked) -> str:
        return " " if asked.strength else by_dice(asked)

    table = run(study_of(silent))
    assert table.row("C5").shift.changed.estimate == 1.0
    assert table.row("C5").shift.num_gained == 0


def test_pages_hold_every_condition_and_what_was_not_measured_is_a_dash() -> None:
    study = study_of(by_dice)
    table = run(study)
    (leak,) = study.leaks()
    page = markdown(table, leak, ["a remark"])
    assert "- a remark" in page
    for condition in CONDITIONS:
        assert f"| {condition.name} | {condition.label} |" in page
    assert " | - | " in page  # no direction where nothing moved
    tex = latex(replace(table, bank="my_bank 50%"))
    assert "my\\_bank 50\\%" in tex
    assert tex.count("\\\\\n") == 9
    rows = list(csv.DictReader(io.StringIO(csv_text([table]))))
    net = [r for r in rows if r["condition"] == "C5" and r["measure"] == "m2_net"]
    assert [one["before"] for one in net] == ["C1", "C1"]


def test_kept_answers_are_shared_and_survive_a_torn_line(tmp_path: Any) -> None:
    file = tmp_path / "answers.jsonl"
    one, other = KeptAnswers(file), KeptAnswers(file)
    one.add({"a": Answer("x", True, {"num_tokens": 1.0})})
    other.add({"b": Answer("y", False, {"log_perplexity": None})})
    with file.open("a") as out:
        out.write('{"key": "c", "te')
    assert set(read_answers(file)) == {"a", "b"}
    assert KeptAnswers(file)["b"] == Answer("y", False, {"log_perplexity": None})
    write_answers(tmp_path / "copy.jsonl", one.some(["a", "not there"]))
    assert list(read_answers(tmp_path / "copy.jsonl")) == ["a"]


def test_few_prompts_give_no_verdict_and_say_so() -> None:
    study = study_of(by_dice, Bank("few", BANK.prompts[:8]))
    table = run(study)
    (leak,) = study.leaks()
    assert {one.verdict for one in table.comparisons} == {None}
    assert "4 prompts are too few for a verdict" in markdown(table, leak)
