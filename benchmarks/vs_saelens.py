"""Eight topk SAEs on SmolLM2: SAELens one by one, SAELens together, ours; the same text and step.

All three start from a loaded model and end with trained SAEs: no evaluation, no export, no logging.
Each way first trains two batches that are not timed; then the ways alternate and medians count.

Rows: `2048` (d_sae 2048, k 16 to 72), `8192` (d_sae 8192, k 32, SAELens together only), and `pack`:
a whole pack against the slower of its halves, the bare forward pass and the steps alone.

    python -m benchmarks.vs_saelens --repeats 3
    python -m benchmarks.vs_saelens --row 8192
    python -m benchmarks.vs_saelens --row 2048 --repeats 1 --tokens 4096 --only ours --no-save

Shape suffixes: C = contexts, T = context length.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pydoc_data.topics import topics
from typing import Any

import torch
from datasets import Dataset
from sae_lens import (
    LanguageModelSAERunnerConfig,
    LanguageModelSAETrainingRunner,
    LoggingConfig,
    MultiSAETrainingRunner,
    MultiSAETrainingRunnerConfig,
    TopKTrainingSAEConfig,
)
from sae_lens.load_model import HookedProxyLM

from benchmarks.report import save_report
from sae.architectures import parse_architecture
from sae.language_model import LanguageModel, resolve_device
from sae.pack import Pack
from sae.stream import ActivationStream
from sae.stream_spec import DEFAULT_BLOCK_BATCHES, DataSpec, ModelSpec, StreamSpec

HOOK = "model.layers.10"
LR = 3e-4
CONTEXT = 128
BATCH_TOKENS = 1024
LM_BATCH_CONTEXTS = 16
WARM_UP_BATCHES = 2
IDLE_LOAD = 1.0
"""Processes already running when we start, above which wall-clock times mean little."""

SINGLE, MULTI, OURS, FORWARD, STEPS = "single", "multi", "ours", "forward", "steps"
NAMES = {
    SINGLE: "SAELens LanguageModelSAETrainingRunner, 8 runs",
    MULTI: "SAELens MultiSAETrainingRunner",
    FORWARD: "the language model's forward pass alone",
    STEPS: "the SAEs' steps alone, on ready activations",
}


@dataclass(frozen=True)
class Row:
    """Eight SAEs, and the ways they are trained in."""

    d_sae: int
    k: tuple[int, ...]
    ways: tuple[str, ...]

    @property
    def work(self) -> str:
        sparsity = f"k {self.k[0]}" + (f"..{self.k[-1]}" if len(set(self.k)) > 1 else "")
        return f"{len(self.k)} topk SAEs, d_sae {self.d_sae}, {sparsity}, SmolLM2-135M layer 10"


ROWS = {
    "2048": Row(2048, tuple(range(16, 73, 8)), (SINGLE, MULTI, OURS)),
    "8192": Row(8192, (32,) * 8, (MULTI, OURS)),
    "pack": Row(2048, tuple(range(16, 73, 8)), (FORWARD, STEPS, OURS)),
}


@dataclass(frozen=True)
class Setting:
    """What the ways share."""

    row: Row
    language_model: LanguageModel
    dataset: Dataset
    device: str
    hook: str = HOOK
    batch_tokens: int = BATCH_TOKENS
    autocast: bool = False

    @property
    def d_in(self) -> int:
        return self.language_model.d_in(self.hook)


def shared_arguments(setting: Setting, num_tokens: int) -> dict[str, Any]:
    """What both SAELens runners are told; everything else is their default."""
    return {
        "model_name": "smollm2-135m",
        "model_class_name": "AutoModelForCausalLM",
        "dataset_path": "python-docs",
        "streaming": False,
        "context_size": CONTEXT,
        "prepend_bos": True,
        "training_tokens": num_tokens,
        "train_batch_size_tokens": setting.batch_tokens,
        "store_batch_size_prompts": LM_BATCH_CONTEXTS,
        "lr": LR,
        "device": setting.device,
        "dtype": "float32",
        "autocast": setting.autocast,
        "n_checkpoints": 0,
        "checkpoint_path": None,
        "output_path": None,
        # Their evaluation comes after so many steps: never here.
        "logger": LoggingConfig(log_to_wandb=False, eval_every_n_wandb_logs=10**9),
    }


def sae_config(setting: Setting, k: int) -> TopKTrainingSAEConfig:
    return TopKTrainingSAEConfig(
        d_in=setting.d_in, d_sae=setting.row.d_sae, k=k, device=setting.device
    )


def train_single(setting: Setting, num_tokens: int) -> None:
    """One run of SAELens's runner after the other."""
    for k in setting.row.k:
        with proxy(setting) as model:
            config = LanguageModelSAERunnerConfig(
                sae=sae_config(setting, k),
                hook_name=setting.hook,
                verbose=False,
                **shared_arguments(setting, num_tokens),
            )
            LanguageModelSAETrainingRunner(
                config, override_dataset=setting.dataset, override_model=model
            ).run()


def train_multi(setting: Setting, num_tokens: int) -> None:
    """SAELens's runner of several SAEs on one forward pass."""
    with proxy(setting) as model:
        config = MultiSAETrainingRunnerConfig(
            saes={f"sae{n}": sae_config(setting, k) for n, k in enumerate(setting.row.k)},
            hook_names=setting.hook,
            **shared_arguments(setting, num_tokens),
        )
        MultiSAETrainingRunner(config, override_dataset=setting.dataset, override_model=model).run()


def our_stream(setting: Setting, num_tokens: int) -> ActivationStream:
    spec = StreamSpec(
        model=ModelSpec(builtin="smollm2-135m"),
        data=DataSpec(builtin="python-docs", context=CONTEXT),
        hooks=(HOOK,),
        batch_tokens=BATCH_TOKENS,
        # The default, but in a short trial run no activations that nobody trains on.
        buffer_tokens=min(DEFAULT_BLOCK_BATCHES * BATCH_TOKENS, num_tokens),
        lm_batch_contexts=LM_BATCH_CONTEXTS,
        device=setting.device,
    )
    return ActivationStream(spec, setting.device, language_model=setting.language_model)


def train_ours(setting: Setting, num_tokens: int) -> None:
    """A pack on our stream; SAELens's normalisation and initial bias, so that steps are equal."""
    train_pack(our_stream(setting, num_tokens), setting, num_tokens)


def train_pack(source: Any, setting: Setting, num_tokens: int) -> None:
    pack = Pack(source, setting.device)
    for number, k in enumerate(setting.row.k):
        config = parse_architecture(
            {
                "architecture": "topk",
                "d_sae": setting.row.d_sae,
                "k": k,
                "lr": LR,
                "normalize_activations": "none",
                "b_dec_init": "zeros",
            }
        )
        pack.attach(f"sae{number}", config, num_tokens)
        pack.set_target(f"sae{number}", num_tokens)
    while pack.run_step():
        pass


class ReadyActivations:
    """A stream's first batches over and over, as if somebody else had made them."""

    def __init__(self, stream: ActivationStream, num_batches: int = 2) -> None:
        self._stream = stream
        self._batches = [stream.batch_at(number) for number in range(num_batches)]

    def batch_at(self, position: int) -> dict[str, torch.Tensor]:
        return self._batches[position % len(self._batches)]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


_ready: dict[str, ReadyActivations] = {}


def steps_alone(setting: Setting, num_tokens: int) -> None:
    """The same SAEs, the same steps, no language model; made ready in the untimed round."""
    if setting.device not in _ready:
        _ready[setting.device] = ReadyActivations(our_stream(setting, 2 * BATCH_TOKENS))
    train_pack(_ready[setting.device], setting, num_tokens)


def forward_alone(setting: Setting, num_tokens: int) -> None:
    """The pass up to the hook over as many contexts as have so many tokens beside their first."""
    num_contexts = -(-num_tokens // (CONTEXT - 1))
    starts = range(0, num_contexts, LM_BATCH_CONTEXTS)
    for start in starts:
        rows = setting.dataset[start : min(num_contexts, start + LM_BATCH_CONTEXTS)]["input_ids"]
        tokens_CT = torch.tensor(rows, device=setting.device)
        setting.language_model.activations(tokens_CT, (HOOK,))


WAYS: dict[str, Callable[[Setting, int], None]] = {
    SINGLE: train_single,
    MULTI: train_multi,
    OURS: train_ours,
    FORWARD: forward_alone,
    STEPS: steps_alone,
}


@contextmanager
def proxy(setting: Setting) -> Iterator[HookedProxyLM]:
    """SAELens's wrapper of our model, with the hooks it leaves for good taken off again."""
    model = setting.language_model.model
    module = model.get_submodule(setting.hook)
    before = set(module._forward_hooks)
    try:
        yield HookedProxyLM(model, setting.language_model.tokenizer, hook_names=[setting.hook])
    finally:
        for handle in set(module._forward_hooks) - before:
            del module._forward_hooks[handle]


def tokenized(language_model: LanguageModel, texts: Sequence[str] = ()) -> Dataset:
    """Texts in contexts of SAELens's form: each starts with BOS, nothing is left over.

    Args:
        texts: python-docs unless given.
    """
    tokenizer = language_model.tokenizer
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    texts = texts or [topics[name] for name in sorted(topics)]
    token_ids = [
        token
        for document in tokenizer(list(texts), verbose=False)["input_ids"]
        for token in (*document, eos)
    ]
    starts = range(0, len(token_ids) - CONTEXT + 2, CONTEXT - 1)
    return Dataset.from_dict(
        {"input_ids": [[bos, *token_ids[start : start + CONTEXT - 1]] for start in starts]}
    )


def timed(way: str, setting: Setting, num_tokens: int) -> float:
    """Seconds of one training of all SAEs."""
    wait(setting.device)
    start = time.perf_counter()
    WAYS[way](setting, num_tokens)
    wait(setting.device)
    return time.perf_counter() - start


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def measure(
    setting: Setting, ways: Sequence[str], *, num_tokens: int, repeats: int
) -> dict[str, list[float]]:
    """Seconds of every way at every repeat; they take turns, so that all see the same machine."""
    for way in ways:
        timed(way, setting, WARM_UP_BATCHES * BATCH_TOKENS)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for repeat in range(repeats):
        for way in ways:
            seconds[way].append(timed(way, setting, num_tokens))
            print(f"{setting.row.work}, repeat {repeat + 1}: {way} {seconds[way][-1]:.2f} s")
    return seconds


def reported(row: Row, seconds: Mapping[str, Sequence[float]], num_tokens: int) -> list[Any]:
    """One line against each way, or against the slower half of a pack."""
    median = {way: statistics.median(times) for way, times in seconds.items()}
    against = [way for way in row.ways if way != OURS and way in median]
    if row is ROWS["pack"]:
        against = [max(against, key=lambda way: median[way])] if against else []
    if OURS not in median:
        return []
    return [
        {
            "work": f"{row.work}, {num_tokens} tokens each",
            "against": NAMES[way],
            "ours": round(median[OURS], 3),
            "theirs": round(median[way], 3),
            "unit": "s",
            "ratio": round(median[way] / median[OURS], 3),
            "runs": {name: [round(run, 3) for run in times] for name, times in seconds.items()},
        }
        for way in against
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--row", choices=list(ROWS), action="append", default=[])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=16 * BATCH_TOKENS, help="for each SAE")
    parser.add_argument("--only", choices=list(WAYS), action="append", default=[])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--no-save", action="store_true", help="print the rows only")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    if load > IDLE_LOAD:
        print(f"the machine is busy (load {load:.1f}): these figures compare its neighbours")
    logging.getLogger("sae_lens").setLevel(logging.ERROR)
    device = resolve_device(arguments.device).type
    language_model = LanguageModel.load(ModelSpec(builtin="smollm2-135m"), device, (HOOK,))
    dataset = tokenized(language_model)
    rows = []
    for name in arguments.row or ROWS:
        row = ROWS[name]
        ways = [way for way in row.ways if way in (arguments.only or row.ways)]
        setting = Setting(row, language_model, dataset, device)
        seconds = measure(setting, ways, num_tokens=arguments.tokens, repeats=arguments.repeats)
        rows += reported(row, seconds, arguments.tokens)
    rows = [{**row, "load_at_start": round(load, 2)} for row in rows]
    bench = "-".join(["vs_saelens", *arguments.row])
    save_report(bench, device, rows, keep=not arguments.no_save)


if __name__ == "__main__":
    main()
