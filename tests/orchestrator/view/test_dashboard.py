"""The dashboard: what it says at every width, and that it draws whatever the log holds."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from orchestrator.log.events import (
    AnyEvent,
    Cancelled,
    Checkpointed,
    Closed,
    Diverged,
    DriverEnded,
    DriverStarted,
    Failed,
    Finished,
    Leased,
    Preempted,
    Reported,
    Started,
    Stopped,
    Submitted,
    Suggested,
)
from orchestrator.log.state import SweepState, fold
from orchestrator.log.sweep_status import sweep_status
from orchestrator.view import cells
from orchestrator.view.dashboard import ViewModel, frame, frame_lines, view_model
from orchestrator.view.live import LiveView
from orchestrator.view.marks import MARKS, segment_widths, status_bar
from tests.orchestrator.invented_sweep import (
    FACTS,
    START_AT,
    InventedSweep,
    config,
    end_driver,
    falling,
    sweep_in_all_states,
)

WIDTHS = (60, 80, 120, 200)


def model_of(sweep: InventedSweep) -> ViewModel:
    watched = sweep.watched()
    return view_model([(watched.facts, watched.log.state)], sweep.clock.now)


def text_of(model: ViewModel, width: int, height: int | None = None, **options: Any) -> str:
    return "\n".join(line.plain for line in frame_lines(model, width, height, **options))


@pytest.fixture
def model(tmp_path: Path) -> ViewModel:
    return model_of(sweep_in_all_states(tmp_path))


@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_is_wider_than_the_terminal(model: ViewModel, width: int) -> None:
    for ascii_only in (False, True):
        for line in frame_lines(model, width, ascii_only=ascii_only):
            assert line.cell_len <= width


@pytest.mark.parametrize("width", WIDTHS)
def test_every_width_says_what_matters(model: ViewModel, width: int) -> None:
    text = text_of(model, width)
    for said in ("9 of 16 done", "3 finished", "3 stopped", "1 diverged", "1 failed", "3 running"):
        assert said in text
    for said in ("4 queued", "slots 3 of 4", "$0.80/h", "t0009", "0.450", "1:58", "spot notice"):
        assert said in text


def test_80_columns_show_the_whole_configuration_and_the_next_cutoff(model: ViewModel) -> None:
    text = text_of(model, 80)
    assert "batchtopk 2048  16 3e-3" in text
    assert "24k \u22640.400" in text
    assert "\u2588\u2583\u2581\u2581" in text
    assert "10.0.0.4" not in text


def test_a_wide_terminal_shows_every_column(model: ViewModel) -> None:
    text = text_of(model, 200)
    for title in ("arch", "d_sae", "on", "of 64k tok", "fvu", "L0", "dead", "next rung", "ETA"):
        assert title in text
    assert "10.0.0.4 cpu" in text


def test_events_tell_value_and_cutoff(model: ViewModel) -> None:
    text = text_of(model, 120)
    assert "fvu 0.660 at 8k, cutoff 0.410 against 3 (asha)" in text
    assert "loss is not finite at 6k tokens" in text
    assert "ValueError: k=4096 exceeds d_sae=1024; the last attempt" in text


@pytest.mark.parametrize("height", [1, 10, 24, 40])
def test_a_frame_fits_the_height_and_keeps_the_top(model: ViewModel, height: int) -> None:
    lines = frame_lines(model, 80, height)
    assert len(lines) <= height
    assert lines[0].plain.startswith("saeq")


def test_24_lines_keep_running_waiting_and_events(model: ViewModel) -> None:
    text = text_of(model, 80, 24)
    for said in ("t0009", "t0010", "t0011", "not suggested yet", "preempted"):
        assert said in text


def test_ascii_terminals_get_ascii(model: ViewModel) -> None:
    assert text_of(model, 120, ascii_only=True).isascii()


def test_statuses_differ_without_colour() -> None:
    assert len({mark.block for mark in MARKS.values()}) == len(MARKS)
    assert len({mark.ascii_block for mark in MARKS.values()}) == len(MARKS)
    bar = status_bar({"finished": 2, "failed": 1, "queued": 3}, 12)
    assert bar.plain == "\u2588" * 4 + "\u2573" * 2 + "\u00b7" * 6


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=8), st.integers(8, 200))
def test_a_bar_is_as_wide_as_asked_and_shows_every_status(counts: list[int], width: int) -> None:
    widths = segment_widths(counts, width)
    assert sum(widths) == (width if sum(counts) else 0)
    assert all((cell > 0) == (count > 0) for cell, count in zip(widths, counts, strict=True))


def test_what_is_not_known_is_a_dash(tmp_path: Path) -> None:
    sweep = InventedSweep.under(tmp_path)
    sweep.begin(usd_per_hour=0.0)
    sweep.suggest(0, config(0))
    model = model_of(sweep)
    assert model.header.units_per_second is None
    assert model.header.eta_s is None
    text = text_of(model, 120)
    assert "SAE tokens -" in text
    assert "ETA -" in text
    assert "nan" not in text.replace("finance", "")


def test_rates_and_etas_come_from_measurements(tmp_path: Path) -> None:
    sweep = InventedSweep.under(tmp_path, num_trials=1)
    sweep.begin()
    trial = sweep.suggest(0, config(0))
    sweep.report(trial, config(0), falling(0.3, 32_000))  # four reports of 8k, 2 s each
    model = model_of(sweep)
    assert model.header.units_per_second == pytest.approx(4000)
    assert model.header.lm_tokens_per_second == 2840
    assert model.running[0].eta_s == pytest.approx(8)
    assert model.header.eta_s == pytest.approx(8)


def test_a_pack_counts_once_for_the_language_model(model: ViewModel) -> None:
    assert len(model.running) == 3
    assert model.header.lm_tokens_per_second == 2840


def test_a_long_silence_is_said(tmp_path: Path) -> None:
    sweep = sweep_in_all_states(tmp_path)
    sweep.clock.now += 600
    text = text_of(model_of(sweep), 120)
    assert "no word for 10m" in text
    assert "silent" in text


def test_why_trials_wait(tmp_path: Path) -> None:
    sweep = InventedSweep.under(tmp_path)
    assert "nobody has begun" in model_of(sweep).waiting[0].reason
    sweep.begin()
    for number in range(4):
        sweep.suggest(number, config(number))
    assert model_of(sweep).waiting[0].reason == "all 4 slots are busy"
    end_driver(sweep)
    waiting = model_of(sweep).waiting
    assert "its driver ended: asked to stop; nobody works on it" in waiting[0].reason
    assert waiting[-1].parameters == "12 not suggested yet"


def test_several_sweeps_get_a_line_each(tmp_path: Path) -> None:
    pairs = []
    for name in ("alpha", "beta", "gamma"):
        watched = sweep_in_all_states(tmp_path / name, id=name).watched()
        pairs.append((watched.facts, watched.log.state))
    text = text_of(view_model(pairs, START_AT + 200), 120)
    assert all(name in text for name in ("alpha", "beta", "gamma"))
    assert text.count("9/16") == 3


# Any state draws

names = st.text(max_size=6)
numbers = st.one_of(st.integers(-(10**12), 10**12), st.integers(0, 20))
reals = st.floats(allow_nan=True, allow_infinity=True)
metrics = st.dictionaries(st.sampled_from(["fvu", "l0", "dead_fraction", "[red]x"]),
                          st.none() | reals, max_size=4)  # fmt: skip
configs = st.dictionaries(
    st.sampled_from(["architecture", "k", "lr", "d_sae", "hook"]),
    st.none() | numbers | reals | names | st.lists(numbers, max_size=2),
    max_size=5,
)
trial_ids = st.fixed_dictionaries(
    {
        "trial": st.sampled_from(["t0000", "t0001", "[b]t2", "\x1b[31m"]),
        "epoch": st.integers(0, 3),
    }
)


def _trial_events() -> st.SearchStrategy[Any]:
    def of(kind: Any, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.builds(lambda head, tail: kind(**head, **tail), trial_ids,
                         st.fixed_dictionaries(fields))  # fmt: skip

    return st.one_of(
        of(Suggested, number=numbers, config=configs, total_tokens=numbers),
        of(Leased),
        of(Started, node=names, device=names, pack=names, tokens=numbers, usd_per_hour=reals),
        of(Reported, tokens=numbers, metrics=metrics, busy_seconds=reals,
           rung=st.none() | st.sampled_from([8_000, 24_000]), stratum=st.none() | names,
           cutoff=st.none() | reals,
           at_place=st.dictionaries(st.sampled_from(["pack", "lm_tokens_per_second"]),
                                    names | reals, max_size=2)),
        of(Checkpointed, tokens=numbers),
        of(Stopped, rule=names, rung=st.none() | numbers, metric=names, value=st.none() | reals,
           cutoff=st.none() | reals, against=numbers, reason=names, tokens=numbers),
        of(Diverged, rule=names, reason=names, tokens=numbers),
        of(Preempted, reason=names, tokens=numbers),
        of(Failed, reason=names, traceback=names, final=st.booleans()),
        of(Finished, artefact=names, metrics=metrics, tokens=numbers, busy_seconds=reals),
        of(Cancelled, by=names),
    )  # fmt: skip


sweep_events = st.one_of(
    st.builds(Submitted, spec_sha256=names, by=names),
    st.builds(DriverStarted, host=names, pid=numbers, num_nodes=st.integers(0, 9),
              num_gpus=reals, num_cpus=reals, slots=numbers, usd_per_hour=reals),
    st.builds(DriverEnded, driver=st.sampled_from(["w0", "w1"]), reason=names),
    st.builds(Closed, reason=names),
)  # fmt: skip


@st.composite
def states(draw: st.DrawFn) -> SweepState:
    events: list[AnyEvent] = []
    for seq, event in enumerate(draw(st.lists(_trial_events() | sweep_events, max_size=25))):
        at = draw(st.sampled_from([0.0, START_AT, START_AT + 9]) | reals.filter(math.isfinite))
        writer = draw(st.sampled_from(["w0", "w1"]))
        events.append(event.model_copy(update={"seq": seq, "writer": writer, "at": at}))
    return fold(events)


@settings(max_examples=150, deadline=None)
@given(states(), st.integers(1, 220), st.none() | st.integers(0, 60), st.booleans())
def test_any_state_draws(
    state: SweepState, width: int, height: int | None, ascii_only: bool
) -> None:
    model = view_model([(FACTS, state), (FACTS, state)], START_AT + 30)
    for line in frame_lines(model, width, height, ascii_only=ascii_only):
        assert line.cell_len <= max(width, 20)
        assert "\n" not in line.plain
        assert "\x1b" not in line.plain
    console = Console(file=io.StringIO(), width=max(width, 20), force_terminal=True)
    console.print(frame(model, width, height, ascii_only=ascii_only))
    assert sweep_status(FACTS.num_trials, state) in {
        "queued", "running", "interrupted", "finished", "failed", "cancelled"
    }  # fmt: skip


# Status


def test_the_status_of_a_sweep_follows_its_life(tmp_path: Path) -> None:
    sweep = InventedSweep.under(tmp_path, num_trials=1)

    def status() -> str:
        return sweep_status(1, sweep.watched().log.state)

    assert status() == "queued"
    sweep.begin()
    assert status() == "running"
    trial = sweep.suggest(0, config(0))
    end_driver(sweep)
    assert status() == "interrupted"
    sweep.say(Cancelled(trial=trial, epoch=1, by="ada"))
    assert status() == "cancelled"


@pytest.mark.parametrize(
    ("ends", "status"),
    [
        (["finished", "failed"], "finished"),
        (["stopped", "stopped"], "finished"),
        (["failed", "diverged"], "failed"),
        (["cancelled", "failed"], "cancelled"),
    ],
)
def test_the_status_of_a_sweep_that_is_over(ends: list[Any], status: str) -> None:
    state = SweepState()
    for number, end in enumerate(ends):
        trial = fold([Suggested(trial=str(number), number=number, config={}, total_tokens=1)])
        state.trials.update(trial.trials)
        state.trials[str(number)].status = end
    assert sweep_status(2, state) == status
    assert sweep_status(3, state) == "interrupted"


# Live view


def test_a_pipe_gets_plain_lines_and_summaries(tmp_path: Path) -> None:
    sweep = InventedSweep.under(tmp_path)
    sweep.begin()
    out = io.StringIO()
    console = Console(file=out, width=80)
    with LiveView([sweep.watched()], console, clock=sweep.clock, summary_every_s=5) as view:
        sweep.suggest(0, config(0))
        sweep.clock.now += 1
        view.update()
        sweep.clock.now += 5
        view.update()
        view.say("[bold] is not markup")
        sweep.say(Preempted(trial="t0000", epoch=1, reason="spot notice", tokens=0))
    lines = out.getvalue().splitlines()
    assert "started t0000 on 10.0.0.4/cpu" in lines[1]
    assert sum("demo: running" in line for line in lines) == 3
    assert "[bold] is not markup" in lines
    assert "preempted t0000 spot notice; 0 tokens are safe" in lines[-2]
    assert "\x1b" not in out.getvalue()


def test_a_terminal_gets_frames_and_keeps_the_last(tmp_path: Path) -> None:
    sweep = sweep_in_all_states(tmp_path)
    out = io.StringIO()
    console = Console(file=out, width=100, height=30, force_terminal=True)
    with LiveView([sweep.watched()], console, plain=False, clock=sweep.clock) as view:
        sweep.clock.now += 2
        view.update()
    assert "\x1b[?1049h" in out.getvalue()
    after = out.getvalue().rpartition("\x1b[?1049l")[2]
    assert "9 of 16 done" in after


# Cells


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), "x", True, object()])
def test_no_cell_shows_what_is_no_number(value: Any) -> None:
    for cell in (cells.number, cells.percent, cells.tokens, cells.rate, cells.duration, cells.usd):
        assert cell(value) == "-"


@given(st.one_of(reals, st.integers(), st.none()))
def test_every_cell_is_one_short_word(value: Any) -> None:
    for cell in (cells.number, cells.percent, cells.tokens, cells.rate, cells.countdown):
        text = cell(value)
        assert text
        assert "nan" not in text
        assert "\n" not in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3e-3, "3e-3"),
        (1e-5, "1e-5"),
        (0.03, "3e-2"),
        (0.5, "0.5"),
        (1024, "1024"),
        ("topk", "topk"),
    ],
)
def test_parameters_are_short(value: Any, text: str) -> None:
    assert cells.parameter(value) == text


def test_sparklines_have_blocks_and_an_ascii_form() -> None:
    curve = [0.9, 0.5, None, 0.2, 0.2]
    assert cells.sparkline(curve) == "\u2588\u2584!\u2581\u2581"
    assert cells.sparkline(curve, ascii_only=True).isascii()
    assert cells.sparkline([0.4]) == ""


@given(reals.filter(math.isfinite), reals.filter(math.isfinite), st.integers(1, 30))
def test_progress_bars_have_their_width(done: float, total: float, width: int) -> None:
    assert cell_len(cells.progress_bar(done, total, width)) == width
    assert len(cells.progress_bar(done, total, width, ascii_only=True)) == width
