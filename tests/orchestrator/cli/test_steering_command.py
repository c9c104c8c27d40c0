"""`saeq steer`: refused before torch is there where it can be; answers side by side."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from orchestrator.cli import main
from orchestrator.store import Store
from steering.vectors import About, SteeringVectors, save_vectors
from tests.sae.tiny_model import D_MODEL, build_tiny_model

PROMPT = "The river ran past the old mill"


@pytest.fixture(autouse=True)
def no_store_of_mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAEQ_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("SAEQ_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny"))


def write_vectors(folder: Path, suggested: float | None = None) -> Path:
    about = About(suggested_hook="resid_post.1", suggested_strength=suggested)
    vectors = SteeringVectors(
        torch.randn(1, D_MODEL, generator=torch.manual_seed(0)),
        ("resid_post.1",),
        torch.ones(1),
        about,
    )
    save_vectors(folder, vectors)
    return folder


def saeq(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["steer", *arguments])
    return int(ended.value.code or 0)


def ask(model: Path, *arguments: str) -> int:
    short = ("--model", str(model), "--no-chat", "--max-tokens", "8", "--temperature", "0")
    return saeq(*short, *arguments)


def test_both_answers_are_printed_and_differ(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_vectors(tmp_path / "v", suggested=30.0)
    assert ask(model, "--vector", str(folder), "--json", PROMPT) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["prompt"] == PROMPT
    assert found["steering"] == [f"{folder} at resid_post.1, strength 30"]
    assert found["steered"]["text"] != found["unsteered"]["text"]
    assert found["steered"]["perplexity"] > found["unsteered"]["perplexity"]


def test_without_a_terminal_the_answers_stand_below_each_other(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_vectors(tmp_path / "v")
    assert ask(model, "--vector", str(folder), "--strength", "30", PROMPT) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "--- unsteered"
    assert any(line.startswith("--- steered: ") for line in lines)
    assert sum("perplexity" in line for line in lines) == 2


def test_strength_zero_is_the_unsteered_answer(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_vectors(tmp_path / "v")
    assert ask(model, "--vector", str(folder), "--strength", "0", "--json", PROMPT) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["steered"] == found["unsteered"]


def test_an_artefact_of_the_store_is_found_by_its_id(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store.open()
    folder = write_vectors(tmp_path / "v", suggested=1.0)
    (folder / "record.json").write_text("{}")
    store.put_files(folder, store.layout.artefact("vectors", "formal-t0003"))
    assert ask(model, "--vector", "formal-t0003", "--json", PROMPT) == 0
    capsys.readouterr()
    assert ask(model, "--vector", "formal-t003", PROMPT) == 2
    said = capsys.readouterr().err
    assert "is called 'formal-t003'" in said
    assert "Did you mean 'formal-t0003'?" in said


def write_sae(folder: Path, *, broken: bool = False) -> Path:
    from sae_lens import StandardSAE, StandardSAEConfig

    config = StandardSAEConfig(d_in=D_MODEL, d_sae=2 * D_MODEL)
    config.metadata["hook_name"] = "blocks.1.hook_resid_post"
    sae = StandardSAE(config)
    rows_FD = torch.cat([torch.eye(D_MODEL), -torch.eye(D_MODEL)])
    sae.W_enc.data, sae.W_dec.data = rows_FD.T.contiguous(), rows_FD.clone() * (9 if broken else 1)
    sae.b_enc.data.zero_()
    sae.b_dec.data.zero_()
    sae.save_model(folder)
    return folder


def test_a_latent_is_set(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sae(tmp_path / "sae")
    assert ask(model, "--latent", f"{tmp_path / 'sae'}:3=50", "--json", PROMPT) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["steering"] == [f"{tmp_path / 'sae'} latent 3 = 50"]
    assert found["steered"]["text"] != found["unsteered"]["text"]
    assert ask(model, "--latent", f"{tmp_path / 'sae'}:99=0", PROMPT) == 2
    assert "latent 99 is not one of" in capsys.readouterr().err


def test_an_sae_that_does_not_fit_is_refused_unless_it_is_asked_for(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    latent = f"{write_sae(tmp_path / 'sae', broken=True)}:3=50"
    assert ask(model, "--latent", latent, PROMPT) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "does not explain these prompts" in said
    assert "steer all the same with --no-sae-check" in said
    assert "sae_limits" not in said
    assert ask(model, "--latent", latent, "--no-sae-check", "--json", PROMPT) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["steered"]["text"] != found["unsteered"]["text"]


def test_a_prompt_comes_from_stdin(
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = write_vectors(tmp_path / "v", suggested=1.0)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{PROMPT}\n"))
    assert ask(model, "--vector", str(folder), "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["prompt"] == PROMPT


FAULTS = {
    "nothing": (["--model", "m", "hello"], "nothing to steer with; give --vector"),
    "no_model": (["--vector", "V", "hello"], "--model is missing: smollm2-135m"),
    "no_strength": (["--model", "m", "--vector", "V", "hello"], "--strength is missing, and"),
    "too_many": (
        ["--model", "m", "--vector", "V", "--strength", "1", "--strength", "2", "hello"],
        "2 strengths for 1 vectors",
    ),
    "latent": (["--model", "m", "--latent", "sae-123", "hello"], "write SAE:123=0"),
    "latent_strength": (
        ["--model", "m", "--latent", "a/b:1=0", "--strength", "1", "hello"],
        "--strength is of vectors",
    ),
    "no_latent": (
        ["--model", "m", "--vector", "V", "--no-sae-check", "hello"],
        "--no-sae-check is of latents, and none is given",
    ),
    "no_prompt": (["--model", "m", "--vector", "V", " "], "the prompt is empty"),
    "unknown": (["--model", "m", "--vector", "nope", "hello"], "it holds none"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_is_refused_with_a_way_out(
    fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, said = FAULTS[fault]
    strength = None if fault == "no_strength" else 1.0
    folder = write_vectors(tmp_path / "v", suggested=strength)
    assert saeq(*(str(folder) if one == "V" else one for one in arguments)) == 2
    assert said in capsys.readouterr().err


def test_a_wrong_request_imports_no_torch(tmp_path: Path) -> None:
    folder = write_vectors(tmp_path / "v")
    code = (
        "import sys\nfrom orchestrator.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n    assert end.code == 2\n"
        "assert 'torch' not in sys.modules and 'ray' not in sys.modules"
    )
    arguments = ["steer", "--model", "m", "--vector", str(folder), "hello"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--strength is missing" in done.stderr


class Terminal(io.StringIO):
    """What stderr is where somebody looks."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    return terminal


def test_a_terminal_is_told_what_is_done_and_a_program_is_not(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_vectors(tmp_path / "v", suggested=1.0)
    terminal = on_terminal(monkeypatch)
    assert ask(model, "--vector", str(folder), PROMPT) == 0
    assert "measuring both answers" in terminal.getvalue()
    assert "--- steered" in capsys.readouterr().out
    program = on_terminal(monkeypatch)
    assert ask(model, "--vector", str(folder), "--json", PROMPT) == 0
    assert program.getvalue() == ""
    json.loads(capsys.readouterr().out)


def test_the_line_is_erased_and_never_in_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator.cli.doing import told_what_is_done

    terminal = on_terminal(monkeypatch)
    with told_what_is_done("reading") as say:
        say("checking the SAE [a]")
    assert "checking the SAE [a]" in terminal.getvalue()
    assert terminal.getvalue().endswith("\x1b[2K")
    logged = io.StringIO()
    monkeypatch.setattr("sys.stderr", logged)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with told_what_is_done("reading") as say:
        say("answering")
    assert logged.getvalue() == ""


def test_an_interruption_is_one_line(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: object, **named: object) -> None:
        del arguments, named
        raise KeyboardInterrupt

    folder = write_vectors(tmp_path / "v", suggested=1.0)
    monkeypatch.setattr("steering.generation.generate", interrupted)
    assert ask(model, "--vector", str(folder), PROMPT) == 130
    assert capsys.readouterr() == ("", "saeq: interrupted\n")
