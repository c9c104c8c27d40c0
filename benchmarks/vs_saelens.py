"""Eight topk SAEs on SmolLM2: SAELens one by one, SAELens together, ours; the same text and step.

All three start from a loaded model and end with trained SAEs: no evaluation, no export, no logging.
Each way first trains two batches that are not timed; then the ways alternate and medians count.

    python -m benchmarks.vs_saelens --repeats 3
    python -m benchmarks.vs_saelens --repeats 1 --tokens 4096 --only ours

Shape suffixes: C = contexts, T = context length.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import time
from collections.abc import Callable, Iterator
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
K = tuple(range(16, 73, 8))
D_SAE = 2048
LR = 3e-4
CONTEXT = 128
BATCH_TOKENS = 1024
LM_BATCH_CONTEXTS = 16
WARM_UP_BATCHES = 2
IDLE_LOAD = 1.0
"""Processes already running when we start, above which wall-clock times mean little."""

WORK = f"8 topk SAEs, d_sae {D_SAE}, SmolLM2-135M layer 10"
SINGLE, MULTI, OURS = "single", "multi", "ours"
NAMES = {
    SINGLE: "SAELens LanguageModelSAETrainingRunner, 8 runs",
    MULTI: "SAELens MultiSAETrainingRunner",
}


@dataclass(frozen=True)
class Setting:
    """What the three ways share."""

    language_model: LanguageModel
    dataset: Dataset
    device: str

    @property
    def d_in(self) -> int:
        return self.language_model.d_in(HOOK)


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
        "train_batch_size_tokens": BATCH_TOKENS,
        "store_batch_size_prompts": LM_BATCH_CONTEXTS,
        "lr": LR,
        "device": setting.device,
        "dtype": "float32",
        "n_checkpoints": 0,
        "checkpoint_path": None,
        "output_path": None,
        # Their evaluation comes after so many steps: never here.
        "logger": LoggingConfig(log_to_wandb=False, eval_every_n_wandb_logs=10**9),
    }


def sae_config(setting: Setting, k: int) -> TopKTrainingSAEConfig:
    return TopKTrainingSAEConfig(d_in=setting.d_in, d_sae=D_SAE, k=k, device=setting.device)


def train_single(setting: Setting, num_tokens: int) -> None:
    """One run of SAELens's runner after the other."""
    for k in K:
        with proxy(setting) as model:
            config = LanguageModelSAERunnerConfig(
                sae=sae_config(setting, k),
                hook_name=HOOK,
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
            saes={f"k{k}": sae_config(setting, k) for k in K},
            hook_names=HOOK,
            **shared_arguments(setting, num_tokens),
        )
        MultiSAETrainingRunner(config, override_dataset=setting.dataset, override_model=model).run()


def train_ours(setting: Setting, num_tokens: int) -> None:
    """A pack on our stream; SAELens's normalisation and initial bias, so that steps are equal."""
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
    stream = ActivationStream(spec, setting.device, language_model=setting.language_model)
    pack = Pack(stream, setting.device)
    for k in K:
        config = parse_architecture(
            {
                "architecture": "topk",
                "d_sae": D_SAE,
                "k": k,
                "lr": LR,
                "normalize_activations": "none",
                "b_dec_init": "zeros",
            }
        )
        pack.attach(f"k{k}", config, num_tokens)
        pack.set_target(f"k{k}", num_tokens)
    while pack.run_step():
        pass


WAYS: dict[str, Callable[[Setting, int], None]] = {
    SINGLE: train_single,
    MULTI: train_multi,
    OURS: train_ours,
}


@contextmanager
def proxy(setting: Setting) -> Iterator[HookedProxyLM]:
    """SAELens's wrapper of our model, with the hooks it leaves for good taken off again."""
    model = setting.language_model.model
    module = model.get_submodule(HOOK)
    before = set(module._forward_hooks)
    try:
        yield HookedProxyLM(model, setting.language_model.tokenizer, hook_names=[HOOK])
    finally:
        for handle in set(module._forward_hooks) - before:
            del module._forward_hooks[handle]


def tokenized(language_model: LanguageModel) -> Dataset:
    """python-docs in contexts of SAELens's form: each starts with BOS, nothing is left over."""
    tokenizer = language_model.tokenizer
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    texts = [topics[name] for name in sorted(topics)]
    token_ids = [
        token
        for document in tokenizer(texts, verbose=False)["input_ids"]
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=16 * BATCH_TOKENS, help="for each SAE")
    parser.add_argument("--only", choices=list(WAYS), action="append", default=[])
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    if load > IDLE_LOAD:
        print(f"the machine is busy (load {load:.1f}): these figures compare its neighbours")
    logging.getLogger("sae_lens").setLevel(logging.ERROR)
    device = resolve_device(arguments.device).type
    language_model = LanguageModel.load(ModelSpec(builtin="smollm2-135m"), device, (HOOK,))
    setting = Setting(language_model, tokenized(language_model), device)
    ways = arguments.only or list(WAYS)
    for way in ways:
        timed(way, setting, WARM_UP_BATCHES * BATCH_TOKENS)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for repeat in range(arguments.repeats):
        for way in ways:
            seconds[way].append(timed(way, setting, arguments.tokens))
            print(f"repeat {repeat + 1}: {way} {seconds[way][-1]:.2f} s")
    median = {way: statistics.median(times) for way, times in seconds.items()}
    rows = [
        {
            "work": f"{WORK}, {arguments.tokens} tokens each",
            "against": name,
            "ours": round(median[OURS], 3),
            "theirs": round(median[way], 3),
            "unit": "s",
            "ratio": round(median[way] / median[OURS], 3),
            "load_at_start": round(load, 2),
            "runs": {each: [round(run, 3) for run in seconds[each]] for each in (OURS, way)},
        }
        for way, name in NAMES.items()
        if way in median and OURS in median
    ]
    save_report("vs_saelens", device, rows)


if __name__ == "__main__":
    main()
