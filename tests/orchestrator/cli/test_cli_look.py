"""The command line: what it prints, its exit codes, and how it words mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.cli.errors import exit_code_of, is_for_the_user
from orchestrator.queue import Queue, UnknownSweep
from orchestrator.spec.sweep import parse_sweep
from orchestrator.store import Store, StoreError
from tests.orchestrator.cli.conftest import Saeq
from tests.orchestrator.invented_sweep import InventedSweep, sweep_in_all_states

SWEEP = """
name: demo
job: sae_train
model: {builtin: smollm2-135m}
data: {builtin: python-docs}
hooks: [model.layers.10]
tokens: 64k
batch_tokens: 256
space:
  architecture: {choice: [topk, batchtopk]}
  d_sae: {choice: [1024, 2048]}
  k: {choice: [16, 64]}
  lr: {choice: [1.0e-5, 3.0e-3]}
early_stop: {scheduler: asha, metric: fvu, strata: [k], grace: 8k, reduction: 3}
"""


@pytest.fixture
def sweep(tmp_path: Path) -> InventedSweep:
    folder = tmp_path / "store"
    Queue(Store.open(str(folder))).submit(parse_sweep(SWEEP, "demo.yaml"), SWEEP)
    return sweep_in_all_states(folder)


def test_help_names_the_three_commands_to_start_with(saeq: Saeq) -> None:
    for arguments in ([], ["--help"]):
        code, out, _ = saeq(*arguments)
        assert code == 0
        for said in ("saeq plan", "saeq run", "saeq results", "watch", "artefacts", "130"):
            assert said in out


@pytest.mark.parametrize("name", ["watch", "ls", "show", "results", "artefacts", "logs"])
def test_every_command_explains_itself_with_an_example(saeq: Saeq, name: str) -> None:
    code, out, _ = saeq(name, "--help")
    assert code == 0
    assert f"saeq {name}" in out.partition("Options")[0].partition("\n\n")[2]
    assert "--store" in out
    assert any(line.strip().startswith(f"saeq {name}") for line in out.splitlines())


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    program = (
        "import sys; from orchestrator.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'ray', 'transformers', 'sae_lens', 'matplotlib', 'pydantic'}\n"
        "sys.exit(3 if heavy & set(sys.modules) else 0)"
    )
    seconds = []
    for _ in range(3):
        start = time.monotonic()
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
        seconds.append(time.monotonic() - start)
        assert done.returncode == 0
    assert min(seconds) < 0.5


def test_a_misspelt_command_gets_a_suggestion(saeq: Saeq) -> None:
    code, out, err = saeq("wach")
    assert (code, out) == (2, "")
    assert "there is no command 'wach'" in err
    assert "Did you mean 'watch'?" in err


def test_a_misspelt_option_is_one_clear_message(saeq: Saeq) -> None:
    code, _, err = saeq("ls", "--jsn")
    assert code == 2
    assert "--jsn" in err
    assert "saeq ls --help" in err
    assert "Traceback" not in err


def test_version(saeq: Saeq) -> None:
    code, out, _ = saeq("--version")
    assert code == 0
    assert out.startswith("saeq ")


def test_ls_and_watch_json_agree(saeq: Saeq, sweep: InventedSweep) -> None:
    assert sweep.facts.id == "demo"
    code, out, _ = saeq("ls", "--json")
    (row,) = json.loads(out)
    assert code == 0
    assert (row["sweep"], row["state"], row["done"], row["trials"]) == ("demo", "running", 9, 16)
    (same,) = json.loads(saeq("watch", "--json")[1])
    row.pop("age_seconds"), same.pop("age_seconds")
    assert same == row
    assert "9/16" in saeq("ls")[1]


def test_watch_once_prints_one_plain_frame(saeq: Saeq, sweep: InventedSweep) -> None:
    assert sweep.facts.id == "demo"
    code, out, _ = saeq("watch", "demo", "--once")
    assert code == 0
    assert "9 of 16 done" in out
    assert "batchtopk 2048  16 3e-3" in out
    assert "\x1b" not in out


def test_results_prints_and_writes_its_files(
    saeq: Saeq, sweep: InventedSweep, tmp_path: Path
) -> None:
    assert sweep.facts.id == "demo"
    code, out, _ = saeq("results", "demo")
    assert code == 0
    assert "early stopping saved" in out
    assert "best of k=16: store/artefacts/sae/demo-t0000" in out
    for name in ("results.csv", "frontier.png", "frontier.html"):
        assert (tmp_path / "demo-results" / name).stat().st_size > 100


def test_results_json_writes_nothing(saeq: Saeq, sweep: InventedSweep, tmp_path: Path) -> None:
    assert sweep.facts.id == "demo"
    found = json.loads(saeq("results", "demo", "--json")[1])
    assert found["state"] == "running"
    assert len(found["trials"]) == 13
    assert not (tmp_path / "demo-results").exists()


def test_show_takes_a_sweep_or_a_trial(saeq: Saeq, sweep: InventedSweep) -> None:
    assert sweep.facts.id == "demo"
    assert "16 trials, grid over" in saeq("show", "demo")[1]
    assert saeq("show", "demo/t0004")[1] == saeq("show", "demo", "4")[1]
    assert json.loads(saeq("show", "demo/4", "--json")[1])["trial"] == "t0004"
    code, _, err = saeq("show", "demo/t0004", "t0005")
    assert code == 2
    assert "two trials are named" in err


def test_logs_print_output_and_tracebacks(saeq: Saeq, sweep: InventedSweep) -> None:
    assert "no driver has printed" in saeq("logs", "demo")[2]
    sweep.store.backend.append(sweep.store.layout.output("demo") + "d.log", b"hello\n")
    assert saeq("logs", "demo")[1] == "==> d.log <==\nhello\n"
    assert "line 3, in step" in saeq("logs", "demo", "t0007")[1]


def test_an_unknown_sweep_is_said_without_a_traceback(saeq: Saeq, sweep: InventedSweep) -> None:
    assert sweep.facts.id == "demo"
    for command in (["show", "demmo"], ["results", "demmo"], ["watch", "demmo"], ["logs", "demmo"]):
        code, out, err = saeq(*command)
        assert (code, out) == (2, "")
        assert err.count("\n") == 1
        assert "Did you mean 'demo'?" in err


def test_an_empty_store_is_no_error(saeq: Saeq) -> None:
    for command in ("ls", "watch", "artefacts"):
        code, out, err = saeq(command)
        assert (code, err) == (0, "")
        assert out.startswith("no ")


def test_a_store_that_cannot_be_is_said(saeq: Saeq) -> None:
    code, _, err = saeq("ls", "--store", "ftp://somewhere")
    assert code == 2
    assert "ftp://" in err


# Errors become exit codes


def raising(error: BaseException) -> Callable[[], None]:
    def call() -> None:
        raise error

    return call


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (StoreError("the disk is full; free space"), 2, "saeq: the disk is full; free space\n"),
        (UnknownSweep("x", [], "s"), 2, "sweep 'x' is not in the store"),
        (PermissionError(13, "Permission denied", "t.csv"), 2, "t.csv"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ZeroDivisionError("division by zero"), 1, "this is a bug: traceback in "),
        (ValueError("nobody worded this"), 1, "this is a bug: traceback in "),
    ],
)
def test_errors_become_a_message_and_an_exit_code(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, said: str
) -> None:
    assert exit_code_of(raising(error)) == code
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err
    if "this is a bug" in err:
        path = Path(err.rpartition("traceback in ")[2].strip())
        assert type(error).__name__ in path.read_text()
        path.unlink()


def test_a_reader_that_went_away_is_no_failure() -> None:
    """rich leaves with SystemExit(1) from inside a BrokenPipeError: not our exit code 1."""

    def piped_into_head() -> None:
        try:
            raise BrokenPipeError
        except BrokenPipeError:
            raise SystemExit(1)  # noqa: B904 - exactly what rich does

    assert exit_code_of(piped_into_head) == 141


def test_only_our_own_wording_counts_as_the_users_error() -> None:
    assert is_for_the_user(UnknownSweep("x", [], "s"))
    assert not is_for_the_user(ValueError("x"))
    assert not is_for_the_user(UnicodeDecodeError("utf-8", b"", 0, 1, "bad"))


def test_an_exit_code_that_a_command_returns_is_passed_on() -> None:
    assert exit_code_of(lambda: 130) == 130
    assert exit_code_of(lambda: None) == 0
    assert exit_code_of(lambda: True) == 0
