"""`saeq cancel`, `pause`, `resume`, `retry`, `priority`, `extend`: what they print and refuse."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.orchestrator.cli.conftest import Saeq
from tests.orchestrator.control.wanted import FAILED, Wanted, take


@pytest.fixture(autouse=True)
def wanted(tmp_path: Path) -> Wanted:
    return Wanted(tmp_path)


def test_each_command_says_in_one_line_what_it_did(saeq: Saeq, wanted: Wanted) -> None:
    desk = wanted.desk()
    failed, running = take(desk), take(desk)
    desk.on_result(failed, FAILED)
    for arguments, said in (
        (("pause", "steered/1"), "sweep steered: paused t0001; 1 trial that runs is checkpointed"),
        (("resume", "steered"), "sweep steered: resumed"),
        (("retry", "steered"), "sweep steered: to be tried again, each from its checkpoint"),
        (("priority", "steered", "7"), "sweep steered: priority 7, was 0"),
        (("priority", "steered", "--", "-7"), "sweep steered: priority -7, was 7"),
        (("extend", "steered", "--trials", "+2"), "sweep steered: extended to 6 trials (was 4)"),
        (("cancel", "steered", running.trial), "sweep steered: cancelled t0001"),
        (("cancel", "steered", "--yes"), "sweep steered: cancelled, 1 trial ended"),
    ):
        code, out, err = saeq(*arguments)
        assert (code, err) == (0, ""), arguments
        assert out.startswith(said) and out.count("\n") == 1, out


def test_json_says_what_was_done_to_which_trials_and_by_whom(saeq: Saeq, wanted: Wanted) -> None:
    take(wanted.desk())
    code, out, _ = saeq("cancel", "steered", "0", "--json")
    answer = json.loads(out)
    assert code == 0
    assert (answer["sweep"], answer["did"], answer["trials"]) == ("steered", "cancelled", ["t0000"])
    assert "@" in answer["by"]
    assert wanted.state().trials["t0000"].reason == f"cancelled by {answer['by']}"


def test_the_log_says_who_and_when_for_people(saeq: Saeq, wanted: Wanted) -> None:
    saeq("pause", "steered")
    code, out, _ = saeq("ls", "--json")
    row = json.loads(out)[0]
    assert code == 0 and row["state"] == "paused" and "paused by " in row["why"]
    assert wanted.state().recent[-1].at > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pause", "stered"), "Did you mean 'steered'?"),
        (("cancel", "steered", "t99"), "sweep 'steered' has no trials yet, so none is 't99'"),
        (("resume", "steered"), "only what is paused can be resumed"),
        (("extend", "steered"), "nothing to extend was named"),
        (("extend", "steered", "--tokens", "1k"), "more tokens than it has; got 1k, it has 90k"),
        (("priority", "steered", "high"), "Invalid value for 'N'"),
    ],
)
def test_nonsense_is_refused_with_the_way_out(
    saeq: Saeq, arguments: tuple[str, ...], message: str
) -> None:
    code, out, err = saeq(*arguments)
    assert code == 2 and out == ""
    assert message in err


def test_a_person_at_a_terminal_is_asked_before_a_cancel(
    saeq: Saeq, wanted: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", lambda question: "steered" not in question)
    code, _, err = saeq("cancel", "steered")
    assert code == 2 and "nothing was cancelled" in err
    assert wanted.state().closed is None


def test_steering_imports_neither_torch_nor_ray(wanted: Wanted) -> None:
    program = (
        "import sys; from orchestrator.cli import main\n"
        f"try: main(['pause', 'steered', '--store', {wanted.store.url!r}])\n"
        "except SystemExit: pass\n"
        "sys.exit(3 if {'torch', 'ray'} & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
