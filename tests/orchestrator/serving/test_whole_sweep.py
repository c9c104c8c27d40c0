"""One sweep from its file to its artefacts, by the real command, and what it leaves behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from orchestrator.log.events import Reported
from tests.orchestrator.running import RunningSweep

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sweep(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> RunningSweep:
    """Eight trials on four slots, half of them with a learning rate that learns nothing."""
    sweep = RunningSweep(
        tmp_path_factory.mktemp("whole"),
        tiny_model,
        name="whole",
        tokens="102400",
        lrs="1.0e-6, 3.0e-3, 2.0e-6, 1.0e-3",
        early_stop="{scheduler: asha, grace: 20480, reduction: 3}",
        report="10240",
    )
    assert sweep.run() == 0, sweep.output[-3000:]
    return sweep


def command(sweep: RunningSweep, *arguments: str) -> Any:
    """Standard output of a command on the sweep's store, as JSON."""
    line = [sys.executable, "-m", "orchestrator.cli", *arguments, "--store", sweep.store.url]
    return json.loads(subprocess.run(line, capture_output=True, check=True, text=True).stdout)


def test_bad_trials_are_stopped_and_good_ones_finish(sweep: RunningSweep) -> None:
    state = sweep.state()
    assert len(state.trials) == 8
    for trial in state.trials.values():
        bad = trial.config["lr"] < 1e-4
        assert trial.status == ("stopped" if bad else trial.status), trial
        assert trial.status in ("stopped", "finished")
    assert {t.config["k"] for t in state.trials.values() if t.status == "finished"} == {4, 8}


def test_a_stop_says_rung_value_cutoff_and_against_how_many(sweep: RunningSweep) -> None:
    stops = [t.stop for t in sweep.state().trials.values() if t.stop]
    assert stops
    for stop in stops:
        assert stop.rung in (20480, 61440)
        assert stop.value is not None and stop.cutoff is not None and stop.value > stop.cutoff
        assert stop.against >= 1


def test_results_json_is_the_contract(sweep: RunningSweep) -> None:
    results = command(sweep, "results", "whole", "--json")
    assert (results["sweep"], results["state"]) == ("whole", "finished")
    needed = {"trial", "state", "config", "tokens", "metrics", "stopped", "artefact"}
    for trial in results["trials"]:
        assert needed | {"seconds", "usd"} <= set(trial)
        assert {"fvu", "l0"} <= set(trial["metrics"])
        assert (trial["artefact"] is None) == (trial["state"] != "finished")
        if trial["state"] == "stopped":
            assert {"rung", "value", "cutoff", "against"} <= set(trial["stopped"])


def test_artefacts_load_in_sae_lens_with_the_recorded_numbers(sweep: RunningSweep) -> None:
    from sae_lens import SAE

    artefacts = command(sweep, "artefacts", "--json")
    finished = [t for t in sweep.state().trials.values() if t.status == "finished"]
    assert {a["trial"] for a in artefacts} == {t.id for t in finished}
    for artefact in artefacts:
        loaded = SAE.load_from_disk(artefact["path"], device="cpu")
        assert loaded.cfg.d_sae == 64
        record = json.loads(Path(artefact["path"], "record.json").read_text())
        evals = record["record"]["sae_lens_evals"]
        metrics = artefact["metrics"]
        assert evals["explained_variance"] == pytest.approx(metrics["explained_variance"], abs=0.01)
        assert evals["l0"] == pytest.approx(metrics["l0"], rel=0.02)


def test_a_trial_trained_alone_from_its_record_has_the_same_weights(
    sweep: RunningSweep, tmp_path: Path
) -> None:
    from sae.export import export_member
    from sae.replay import train_from_record
    from sae.stream import ActivationStream
    from sae.stream_spec import StreamSpec

    artefact = command(sweep, "artefacts", "--json")[0]
    record = json.loads(Path(artefact["path"], "record.json").read_text())
    setup = record["setup"]
    spec = StreamSpec.model_validate(
        {name: setup[name] for name in ("model", "data", "hooks", "batch_tokens")}
        | {"held_out_tokens": setup["held_out_tokens"], "seed": setup["stream_seed"]}
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(record["record"]["stream"]["num_threads"])
    try:
        source = ActivationStream(spec, device=torch.device("cpu"))
        member = train_from_record(record["record"], source)
    finally:
        torch.set_num_threads(threads)
    export_member(member, source, tmp_path)
    ours = load_file(tmp_path / "sae_weights.safetensors")
    theirs = load_file(Path(artefact["path"], "sae_weights.safetensors"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_trials_do_not_miss_batches_while_their_reports_travel(sweep: RunningSweep) -> None:
    """Between two rungs a member is fed every batch: its record has a gap at rungs alone."""
    rungs = 2
    for artefact in command(sweep, "artefacts", "--json"):
        record = json.loads(Path(artefact["path"], "record.json").read_text())["record"]
        assert len(record["segments"]) <= rungs + 1
        reports = [e for e in sweep.events() if isinstance(e, Reported)]
        assert len([e for e in reports if e.trial == artefact["trial"]]) >= 10


def test_running_it_again_shows_the_results_and_runs_nothing(sweep: RunningSweep) -> None:
    before = len(sweep.events())
    assert sweep.run(timeout_s=60) == 0
    assert len(sweep.events()) == before
    assert "is over already: finished" in sweep.output
