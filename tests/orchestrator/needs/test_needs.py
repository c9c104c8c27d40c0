"""A sweep that takes artefacts of another: when it starts, with which, and what it is given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.kind import Finished as FinishedFiles
from jobs.kind import TrialFailed
from jobs.sae_train import SaeTrain
from orchestrator.needs.at_submit import need_faults, refuse_needs_that_cannot_be_met
from orchestrator.needs.inputs import input_artefacts, inputs_of, with_files
from orchestrator.needs.readiness import Needs, Waiting
from orchestrator.serving.free_work import FreeWork
from orchestrator.spec.faults import SpecFaults
from orchestrator.store import Damaged
from orchestrator.trials.artefacts import register_artefact
from orchestrator.trials.desk import Desk, Done
from orchestrator.trials.ticket import Ticket
from orchestrator.view.facts import WatchedSweep
from orchestrator.view.model import why_it_waits
from tests.orchestrator.needs.family import NEEDS, PARENT, Family, needing, spec_of


@pytest.fixture
def family(tmp_path: Path) -> Family:
    return Family(tmp_path)


def free_work(family: Family, sweep: str) -> FreeWork:
    from orchestrator.queue import Queue

    return FreeWork(family.store, Queue(family.store).get(sweep), family.log(sweep))


def ids(found: object) -> list[str]:
    assert isinstance(found, list), found
    return [one["id"] for one in found]


# Waiting


def test_a_sweep_waits_and_says_for_what(family: Family) -> None:
    family.submit(needing("child", "parent", "{kind: sae, best: fvu}"))
    family.finish(0)
    work = free_work(family, "child")
    assert not work.is_there()
    assert work.why_not == "waits for parent: interrupted, 1 of 3 trials ended"
    assert not work.is_hopeless
    watched = WatchedSweep.open(family.store, "child")
    assert why_it_waits(watched.facts, watched.log.state) == work.why_not


def test_it_starts_when_the_other_is_over_and_its_choice_stays(family: Family) -> None:
    queued = family.submit(needing("child", "parent", "{kind: sae, best: fvu}"))
    for number in range(3):
        family.finish(number)
    work = free_work(family, "child")
    assert work.is_there() and work.why_not == ""
    key = family.store.layout.inputs("child")
    chosen = family.store.read_json(key)["artefacts"]
    assert ids(chosen) == ["parent-t0001"]
    assert free_work(family, "child").is_there()
    desk = Desk(family.store, "child", queued.spec, family.log("child"), max_members=4)
    ticket = desk.next()
    assert isinstance(ticket, Ticket)
    assert [dict(one) for one in ticket.inputs] == chosen
    assert Ticket.from_json(json.loads(json.dumps(ticket.to_json()))) == ticket


def test_a_desk_hands_out_nothing_before_the_choice_is_made(family: Family) -> None:
    queued = family.submit(needing("child", "parent", "{kind: sae}"))
    desk = Desk(family.store, "child", queued.spec, family.log("child"), max_members=4)
    assert isinstance(desk.next(), Done)


def test_two_who_choose_at_once_go_by_one_choice(family: Family) -> None:
    family.submit(needing("child", "parent", "{kind: sae}"))
    for number in range(3):
        family.finish(number)
    logs = [family.log("child"), family.log("child")]
    needs = needing("child", "parent", "{kind: sae}").needs
    first = {"artefacts": [{"id": "parent-t0002", "kind": "sae", "sweep": "parent", "sha256": "0"}]}
    family.store.create_json(family.store.layout.inputs("child"), first)
    for log in logs:
        assert Needs(family.store, "child", needs).settle(log) is None
    state = family.log("child").state
    assert state.needs_met is not None
    assert [dict(one) for one in state.needs_met.artefacts] == first["artefacts"]


def test_what_can_never_start_says_so_and_how_to_help_it(family: Family) -> None:
    family.submit(needing("child", "parent", '{kind: sae, best: fvu, where: "l0 < 2"}'))
    for number in range(3):
        family.finish(number)
    work = free_work(family, "child")
    assert not work.is_there() and work.is_hopeless
    assert work.why_not == (
        "waits for parent: finished without an artefact where l0 < 2, so this never starts; "
        "cancel it or extend that sweep"
    )


def test_a_parent_that_failed_gives_nothing(family: Family) -> None:
    family.submit(needing("child", "parent", "{kind: sae}"))
    for number in range(3):
        family.fail(number)
    work = free_work(family, "child")
    assert not work.is_there() and work.is_hopeless
    assert "parent: failed without an artefact" in work.why_not


def test_an_artefact_that_is_not_whole_is_not_given(family: Family) -> None:
    family.submit(needing("child", "parent", "{kind: sae, best: fvu}"))
    for number in range(3):
        family.finish(number)
    family.store.delete_files(family.store.layout.artefact("sae", "parent-t0001"))
    work = free_work(family, "child")
    assert not work.is_there() and work.is_hopeless
    assert "parent-t0001 is not whole in the store" in work.why_not


# Choosing


@pytest.mark.parametrize(
    ("select", "chosen"),
    [
        ("{kind: sae, best: fvu}", [1]),
        ("{kind: sae, best: explained_variance}", [2]),
        ("{kind: sae, top: 2}", [1, 2]),
        ("{kind: sae, all: true}", [0, 1, 2]),
        ("{kind: sae}", [0, 1, 2]),
        ("{kind: sae, pareto: true}", [0, 1]),
        ('{kind: sae, where: "k > 4"}', [1, 2]),
        ('{kind: sae, best: fvu, where: "l0 < 8"}', [0]),
        ("{kind: sae, top: 9}", [1, 2, 0]),
    ],
)
def test_the_asked_for_are_chosen(family: Family, select: str, chosen: list[int]) -> None:
    for number, variance in enumerate((0.2, 0.3, 0.9)):
        family.finish(number, explained_variance=variance)
    found = Needs(family.store, "child", needing("child", "parent", select).needs).look()
    assert ids(found) == [f"parent-t{number:04d}" for number in chosen]


def test_a_number_that_is_not_finite_is_never_the_best(family: Family) -> None:
    family.finish(0, fvu=float("nan"))
    for number in (1, 2):
        family.finish(number)
    needs = needing("child", "parent", "{kind: sae, top: 3}").needs
    assert ids(Needs(family.store, "child", needs).look()) == ["parent-t0001", "parent-t0002"]


# At submit


@pytest.mark.parametrize(
    ("sweep", "select", "message"),
    [
        ("parnet", "{kind: sae}", "needs[0].sweep: no sweep of that name is in the store"),
        ("parent", "{kind: sae, best: fuv}", "Did you mean 'fvu'?"),
        ("parent", "{kind: sae, best: l0}", "is no metric of sae_train by which one is better"),
        ("parent", '{kind: sae, where: "l00 < 3"}', "l00 is neither a metric nor a parameter"),
    ],
)
def test_what_cannot_be_met_is_refused(
    family: Family, sweep: str, select: str, message: str
) -> None:
    faults = list(need_faults(needing("child", sweep, select), family.store))
    assert len(faults) == 1 and message in faults[0].worded(), [f.worded() for f in faults]


def test_a_fault_names_the_line_of_the_file(family: Family, tmp_path: Path) -> None:
    text = PARENT.format(name="child") + NEEDS.format(sweep="parnet", select="{kind: sae}")
    file = tmp_path / "child.yaml"
    file.write_text(text)
    with pytest.raises(SpecFaults, match=r"child.yaml:11: needs\[0\].sweep: .*'parent'"):
        refuse_needs_that_cannot_be_met(
            needing("child", "parnet", "{kind: sae}"), family.store, file
        )


def test_a_circle_of_needs_is_refused(family: Family) -> None:
    family.submit(needing("middle", "last", "{kind: sae}"))
    family.submit(needing("last", "first", "{kind: sae}"))
    faults = list(need_faults(needing("first", "middle", "{kind: sae}"), family.store))
    assert [fault.rule for fault in faults] == [
        "needs a sweep that needs this one (first -> middle -> last -> first): neither would start"
    ]


def test_a_sweep_may_need_two_that_need_the_same(family: Family) -> None:
    family.submit(needing("left", "parent", "{kind: sae}"))
    family.submit(needing("right", "parent", "{kind: sae}"))
    needs = "needs: [{sweep: left, select: {kind: sae}}, {sweep: right, select: {kind: sae}}]\n"
    assert not list(need_faults(spec_of("child", needs), family.store))


# What a trial is given


def ticket_with(family: Family, *numbers: int) -> Ticket:
    needs = needing("child", "parent", "{kind: sae}").needs
    found = Needs(family.store, "child", needs).look()
    assert not isinstance(found, Waiting)
    return Ticket(
        sweep="child",
        trial="t0000",
        epoch=1,
        config={},
        total_tokens=1,
        report_points=(),
        rungs=(),
        max_members=1,
        inputs=tuple(found[number] for number in numbers),
    )


def test_a_trial_is_given_records_and_files_only_where_its_kind_wants_them(
    family: Family, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SAEQ_CACHE", str(tmp_path / "cache"))
    for number in range(3):
        family.finish(number)
    ticket = ticket_with(family, 1, 2)
    plain = inputs_of(family.store, ticket, SaeTrain())
    assert [one.record["trial"] for one in plain] == ["t0001", "t0002"]
    assert all(one.folder is None for one in plain)
    monkeypatch.setattr(SaeTrain, "takes_input_files", True)
    given = inputs_of(family.store, ticket, SaeTrain())
    folder = tmp_path / "cache" / "artefacts" / given[0].sha256
    assert given[0].folder == folder
    assert (folder / "weights").read_text() == "weights of parent-t0001"


def test_files_are_fetched_once_and_appear_whole(family: Family, tmp_path: Path) -> None:
    for number in range(3):
        family.finish(number)
    (artefact,) = input_artefacts(family.store, ticket_with(family, 0).inputs)
    cache = tmp_path / "cache"
    first = with_files(family.store, artefact, cache)
    family.store.delete_files(family.store.layout.artefact("sae", artefact.id))
    assert with_files(family.store, artefact, cache) == first
    assert [path.name for path in cache.iterdir()] == [artefact.sha256]


def test_damaged_files_are_not_kept(family: Family, tmp_path: Path) -> None:
    for number in range(3):
        family.finish(number)
    (artefact,) = input_artefacts(family.store, ticket_with(family, 0).inputs)
    key = family.store.layout.artefact("sae", artefact.id) + "weights"
    family.store.backend.put(key, b"something else")
    with pytest.raises(Damaged):
        with_files(family.store, artefact, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_input_that_is_gone_fails_the_trial_at_once(family: Family) -> None:
    for number in range(3):
        family.finish(number)
    ticket = ticket_with(family, 0)
    family.store.delete_files(family.store.layout.artefact("sae", "parent-t0000"))
    with pytest.raises(TrialFailed, match="this input is gone") as failed:
        inputs_of(family.store, ticket, SaeTrain())
    assert failed.value.final


def test_a_record_names_its_parents_by_hash(family: Family, tmp_path: Path) -> None:
    for number in range(3):
        family.finish(number)
    ticket = ticket_with(family, 1)
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "weights").write_text("x")
    record = {"lineage": {"segments": [[0, 1]], "parents": [{"id": "own", "sha256": "1"}]}}
    made = FinishedFiles(kind="sae", metrics={}, record=record, busy_seconds=1.0)
    artefact = register_artefact(
        family.store, ticket, {"setup": {}, "usd_per_hour": 0.0}, made, folder
    )
    lineage = family.store.read_json(family.store.layout.artefact("sae", artefact) + "record.json")[
        "lineage"
    ]
    parent = {"id": "parent-t0001", "sha256": ticket.inputs[0]["sha256"]}
    assert lineage == {"segments": [[0, 1]], "parents": [parent, {"id": "own", "sha256": "1"}]}
