"""SAEs on one GPU by their number: SAE-tokens a second, and what the chip would allow.

Two tables, both of topk SAEs. Whole: a GPT-2 small with random weights, its layer 8, contexts of
128 tokens, and the SAEs on it, against SAELens's single and multi-SAE runners. Steps: ready
activations of 768 and of 4096 columns (GPT-2 small, LLaMA-3-8B), against SAELens's
`SAETrainer.step` in a loop and sparsify's step, if that is installed. Nothing is downloaded.
SAELens and ours compute in float32 (--tf32: with TF32 products; --autocast: products in bfloat16,
weights, moments and gradients in float32), sparsify in bfloat16 autocast.

    python -m benchmarks.gpu                  # one GPU, under 8 minutes
    python -m benchmarks.gpu --only steps --tf32
    python -m benchmarks.gpu --only steps --autocast
    python -m benchmarks.gpu --dry-run        # tiny shapes on a CPU: tries the script out

Beside each of our figures stands its roofline: floating-point operations and bytes that a step
cannot do without, over the rates that this very chip reached in a matrix product and in a copy.

Shape suffixes: B = tokens in the batch, D = d_in, F = latents.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from benchmarks.attempts import FAILED, Clock, tried
from benchmarks.report import save_report
from benchmarks.roofline import DRY, FULL, Rates, Roofline, Scale, encoder_row, seconds
from benchmarks.vs_saelens import MULTI, SINGLE, Row, Setting, timed, tokenized, wait
from benchmarks.vs_sparsify import HOW_TO_GET_IT, sparsify_step
from sae.architectures import parse_architecture
from sae.batched.backend import BatchedBackend, BatchedStepper
from sae.language_model import LanguageModel
from sae.member import Member
from sae.pack import Pack
from sae.step_backend import MemberStepFailed, ReferenceBackend, StepBackend
from sae.stream import ActivationStream
from sae.stream_spec import DataSpec, ModelSpec, StreamSpec

NO_GPU = (
    "no CUDA device here: this benchmark needs one GPU; --dry-run runs tiny shapes on the CPU, "
    "to try the script out"
)
NUM_BATCHES = 4
SHORT_BATCHES = 5
CHARS_A_TOKEN = 3
"""More than a token of our small vocabulary has."""
LEAST_BATCHES = 10
"""By which SAELens's longer training is longer at least."""
SAELENS_SINGLE = "SAELens LanguageModelSAETrainingRunner, one SAE a run"
SAELENS_MULTI = "SAELens MultiSAETrainingRunner"
SAELENS_STEP = "SAELens SAETrainer.step in a loop"
SPARSIFY = "sparsify SparseCoder with Adam, one after the other"


def topk_config(scale: Scale, seed: int) -> Any:
    """SAELens's normalisation and initial bias, so that steps are equal."""
    return parse_architecture(
        {
            "architecture": "topk",
            "d_sae": scale.d_sae,
            "k": scale.k,
            "lr": 3e-4,
            "init_seed": seed,
            "normalize_activations": "none",
            "b_dec_init": "zeros",
            "autocast": scale.autocast,
        }
    )


def ready_batches(scale: Scale, d_in: int) -> list[Tensor]:
    """Activations, drawn once; steps take the same time whatever is in them."""
    generator = torch.Generator().manual_seed(0)
    shape = (scale.batch_tokens, d_in)
    return [torch.randn(shape, generator=generator).to(scale.device) for _ in range(NUM_BATCHES)]


def sparsify_seconds(scale: Scale, d_in: int, num_saes: int) -> float:
    """Of a step of so many."""
    step = sparsify_step(scale.d_sae, scale.device, d_in=d_in, num_saes=num_saes, k=scale.k)
    batches = cycle(ready_batches(scale, d_in))
    return seconds(lambda: step(next(batches), 0), scale)


class ReadySteps:
    """SAEs on activations that are there already; the same ones for either backend."""

    def __init__(self, scale: Scale, d_in: int) -> None:
        self._scale, self._d_in, self._position = scale, d_in, 0
        self._members: dict[str, Member] = {}
        self._batches = cycle(ready_batches(scale, d_in))

    def grow(self, num_members: int) -> None:
        for seed in range(len(self._members), num_members):
            self._members[str(seed)] = Member(
                topk_config(self._scale, seed),
                hook="ready",
                d_in=self._d_in,
                total_tokens=10**6 * self._scale.batch_tokens,
                batch_tokens=self._scale.batch_tokens,
                scale=1.0,
                mean_D=torch.zeros(self._d_in),
                device=self._scale.device,
            )

    def seconds(self, num_members: int, backend: StepBackend) -> float:
        """Of a step of so many."""
        self.grow(num_members)
        try:
            return seconds(lambda: self._step(backend), self._scale)
        finally:
            for member in self._members.values():
                member.drop_gradients()

    def _step(self, backend: StepBackend) -> None:
        self._position += 1
        failures: dict[str, MemberStepFailed] = backend.step(
            self._members, next(self._batches), self._position
        )
        for failure in failures.values():
            raise failure


def row_of(
    scale: Scale, work: str, against: str, num_saes: int, ours: float | str, theirs: float | str
) -> dict[str, Any]:
    """One comparison, in SAE-tokens a second; a reason where a figure is missing."""

    def rate(seconds_a_step: float | str) -> float | None:
        if isinstance(seconds_a_step, str):
            return None
        return round(num_saes * scale.batch_tokens / seconds_a_step, 1)

    both = not isinstance(ours, str) and not isinstance(theirs, str)
    reasons = {
        side: value
        for side, value in (("ours", ours), ("theirs", theirs))
        if isinstance(value, str)
    }
    return {
        "work": work,
        "against": against,
        "num_saes": num_saes,
        "ours": rate(ours),
        "theirs": rate(theirs),
        "unit": "SAE-tokens/s",
        "ratio": round(float(theirs) / float(ours), 3) if both else None,
        **({"missing": reasons} if reasons else {}),
    }


def step_rows(scale: Scale, rates: Rates, clock: Clock) -> list[dict[str, Any]]:
    """Steps on ready activations of each width."""
    return [
        row for d_in in scale.step_widths for row in step_rows_of_width(scale, d_in, rates, clock)
    ]


def step_rows_of_width(scale: Scale, d_in: int, rates: Rates, clock: Clock) -> list[dict[str, Any]]:
    """Every number of SAEs, against SAELens and sparsify."""
    roofline, encoder = Roofline.of(scale, d_in), encoder_row(scale, d_in, rates)
    work_by_count = {
        count: f"{count} topk SAEs, d_in {d_in}, d_sae {scale.d_sae}, k {scale.k}, steps alone"
        for count in scale.counts
    }
    ours_and_theirs = member_seconds(scale, d_in, work_by_count, clock)
    rows = []
    for count, work in work_by_count.items():
        ours, theirs = ours_and_theirs[count]
        limits: dict[str, Any] = {"encoder": encoder}
        if not isinstance(ours, str):
            limits["roofline"] = roofline.row(rates, ours / count)
        rows.append({**row_of(scale, work, SAELENS_STEP, count, ours, theirs), **limits})
        rival: float | str = HOW_TO_GET_IT
        if find_spec("sparsify") is not None:
            measure = partial(sparsify_seconds, scale, d_in, count)
            rival = tried(measure, f"{work}: sparsify", clock)
        rows.append(row_of(scale, work, SPARSIFY, count, ours, rival))
    return rows


def member_seconds(
    scale: Scale, d_in: int, work_by_count: Mapping[int, str], clock: Clock
) -> dict[int, tuple[float | str, float | str]]:
    """Ours and SAELens's, by the number of SAEs; what they hold is given back at the end."""
    ready, batched = ReadySteps(scale, d_in), BatchedBackend(scale.device)
    return {
        count: (
            tried(partial(ready.seconds, count, batched), f"{work}: ours", clock),
            tried(partial(ready.seconds, count, ReferenceBackend()), f"{work}: SAELens", clock),
        )
        for count, work in work_by_count.items()
    }


@dataclass(frozen=True)
class Corpus:
    """A model with random weights, and more text than any way here reads."""

    model: Path
    text: Path
    texts: tuple[str, ...]

    @classmethod
    def make(cls, folder: Path, scale: Scale) -> Corpus:
        bpe = Tokenizer(models.BPE())
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        bpe.decoder = decoders.ByteLevel()
        documents = [topics[name] for name in sorted(topics)]
        trainer = trainers.BpeTrainer(
            vocab_size=500,
            special_tokens=["<bos>", "<eos>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        bpe.train_from_iterator(documents[:40], trainer)
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=bpe,
            bos_token="<bos>",
            eos_token="<eos>",
            model_max_length=scale.model.n_positions,
        )
        model, text = folder / "model", folder / "text.txt"
        tokenizer.save_pretrained(model)
        torch.manual_seed(0)
        GPT2LMHeadModel(scale.model).save_pretrained(model)
        num_batches = max(5 * scale.block_batches, 2 * SHORT_BATCHES + scale.saelens_batches)
        documents *= 1 + CHARS_A_TOKEN * scale.batch_tokens * num_batches // len("".join(documents))
        text.write_text("\n".join(documents), encoding="utf-8")
        return cls(model, text, tuple(documents))


class WholeRuns:
    """Language model and SAEs together."""

    def __init__(self, scale: Scale, folder: Path) -> None:
        self._scale = scale
        self._corpus = Corpus.make(folder, scale)
        self._spec = ModelSpec(name=str(self._corpus.model))
        self._model = LanguageModel.load(self._spec, scale.device, (scale.hook,))
        self._dataset = tokenized(self._model, self._corpus.texts)

    def our_seconds(self, num_saes: int) -> float:
        """Of a batch: a whole number of the language model's blocks, after one of them."""
        scale = self._scale
        pack = Pack(self._stream(), scale.device)
        for seed in range(num_saes):
            pack.attach(str(seed), topk_config(scale, seed), 10**6 * scale.batch_tokens)
            pack.set_target(str(seed), 10**6 * scale.batch_tokens)
        self._run(pack, scale.block_batches)
        return self._run(pack, 2 * scale.block_batches) / (2 * scale.block_batches)

    def their_seconds(self, way: str, num_saes: int) -> float | str:
        """Of a batch: what a longer training takes longer, over the batches it has more."""
        scale = self._scale
        row = Row(scale.d_sae, (scale.k,) * num_saes, (way,))
        shared = (scale.device, scale.hook, scale.batch_tokens, scale.autocast)
        setting = Setting(row, self._model, self._dataset, *shared)
        more = max(LEAST_BATCHES, scale.saelens_batches // num_saes)
        took_s = [
            timed(way, setting, num_batches * scale.batch_tokens)
            for num_batches in (SHORT_BATCHES, SHORT_BATCHES, SHORT_BATCHES + more)
        ]
        if took_s[2] <= took_s[1]:
            return f"{more} batches more took no longer: {took_s[1]:.3f} s and {took_s[2]:.3f} s"
        return (took_s[2] - took_s[1]) / more

    def _stream(self) -> ActivationStream:
        scale = self._scale
        spec = StreamSpec(
            model=self._spec,
            data=DataSpec(files=str(self._corpus.text), context=128),
            hooks=(scale.hook,),
            batch_tokens=scale.batch_tokens,
            buffer_tokens=scale.block_batches * scale.batch_tokens,
            device=scale.device,
        )
        return ActivationStream(spec, scale.device, language_model=self._model)

    def _run(self, pack: Pack, num_batches: int) -> float:
        wait(self._scale.device)
        start = time.perf_counter()
        for _ in range(num_batches):
            pack.run_step()
        for member_id in pack.members:
            pack.report(member_id)  # raises what parked a member
        wait(self._scale.device)
        return time.perf_counter() - start


def whole_rows(scale: Scale, clock: Clock) -> list[dict[str, Any]]:
    """A language model and so many SAEs on it."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        runs = WholeRuns(scale, Path(folder))
        # One SAE a run is as fast whatever their number.
        single = tried(partial(runs.their_seconds, SINGLE, 1), "whole, SAELens single", clock)
        for count in scale.counts:
            work = f"{count} topk SAEs on a random GPT-2, d_sae {scale.d_sae}, k {scale.k}, whole"
            ours = tried(partial(runs.our_seconds, count), f"{work}: ours", clock)
            multi = tried(
                partial(runs.their_seconds, MULTI, count), f"{work}: SAELens multi", clock
            )
            by_one = single if isinstance(single, str) else count * single
            rows.append(row_of(scale, work, SAELENS_SINGLE, count, ours, by_one))
            rows.append(row_of(scale, work, SAELENS_MULTI, count, ours, multi))
    return rows


def device_facts(scale: Scale, rates: Rates) -> dict[str, Any]:
    """What the figures hold for."""
    name = torch.cuda.get_device_name() if scale.device == "cuda" else "cpu"
    return {
        "gpu": name,
        "torch": torch.__version__,
        "kernels": BatchedStepper(torch.device(scale.device)).name,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "autocast": scale.autocast,
        "measured_float32_tflop_s": round(rates.flop_s / 1e12, 2),
        "measured_bf16_tflop_s": round(rates.bf16_flop_s / 1e12, 2),
        "measured_gbyte_s": round(rates.bytes_s / 1e9, 1),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=["whole", "steps"], default=None)
    parser.add_argument("--minutes", type=float, default=7.0, help="then rows are left out")
    parser.add_argument("--tf32", action="store_true", help="for both sides")
    parser.add_argument("--autocast", action="store_true", help="in bfloat16, both sides")
    parser.add_argument("--dry-run", action="store_true", help="tiny shapes on the CPU, not kept")
    options = parser.parse_args(arguments)
    if not options.dry_run and not torch.cuda.is_available():
        sys.exit(NO_GPU)
    logging.getLogger("sae_lens").setLevel(logging.ERROR)
    scale = replace(DRY if options.dry_run else FULL, autocast=options.autocast)
    clock = Clock(options.minutes)
    if options.tf32:
        torch.set_float32_matmul_precision("high")
    rates = Rates.measured(scale)
    facts = device_facts(scale, rates)
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    rows: list[dict[str, Any]] = []
    if options.only != "steps":
        rows += whole_rows(scale, clock)
    if options.only != "whole":
        rows += step_rows(scale, rates, clock)
    marks = [name for name in ("tf32", "autocast") if getattr(options, name)]
    bench = "-".join(["gpu", *([options.only] if options.only else []), *marks])
    rows = [{**row, "on": facts, "load_at_start": round(os.getloadavg()[0], 2)} for row in rows]
    save_report(bench, scale.device, rows, keep=not options.dry_run)
    if any(reason.startswith(FAILED) for row in rows for reason in row.get("missing", {}).values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
