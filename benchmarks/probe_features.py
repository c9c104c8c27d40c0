"""Features of probes: time and memory of extracting SAE latents, against the forward pass alone.

A random language model and random top-k SAEs, made in a temporary folder; nothing is downloaded.
Each way runs in a process of its own, so that its peak memory is its own.

python -m benchmarks.probe_features            60k tokens, one SAE of 24,576 latents: minutes
python -m benchmarks.probe_features --memory   does memory grow with the number of tokens?
python -m benchmarks.probe_features --full     1M tokens: hours on two cores
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.report import save_report

TOKENS_A_TEXT = 128
WAYS = ("pass", "latents", "pooled")


def build_model(folder: Path, d_model: int, num_layers: int) -> None:
    """A random Llama; of its layers all but the last are before the hook."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.sae.tiny_model import build_tiny_model

    build_tiny_model(folder)  # for its tokenizer
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=d_model,
        num_hidden_layers=num_layers,
        num_attention_heads=d_model // 64,
        num_key_value_heads=d_model // 64,
        intermediate_size=4 * d_model,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=1,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)


def random_sae(d_in: int, d_sae: int, k: int, hook: str, seed: int) -> Any:
    import torch
    from sae_lens import TopKSAE, TopKSAEConfig
    from sae_lens.saes.sae import SAEMetadata

    from sae.trained_sae import TrainedSae

    metadata = SAEMetadata(hook_name=hook)
    sae = TopKSAE(TopKSAEConfig(d_in=d_in, d_sae=d_sae, k=k, device="cpu", metadata=metadata))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        sae.W_dec.copy_(torch.randn(d_sae, d_in, generator=generator) / d_in**0.5)
        sae.W_enc.copy_(sae.W_dec.T)
    return TrainedSae(sae.eval(), f"random {seed}")


def texts_of(num_texts: int) -> list[str]:
    """Of some 128 tokens each, no two alike."""
    import random

    from tests.sae.tiny_model import TEXT

    words, rng = TEXT.split(), random.Random(0)
    return [" ".join(rng.choices(words, k=45)) for _ in range(num_texts)]


def measure(way: str, work: dict[str, Any]) -> None:
    """One way, in this process: prints its seconds, tokens and peak memory."""
    import numpy as np

    from sae.language_model import LanguageModel
    from sae.stream_spec import ModelSpec
    from steering.probes.data import LabelledTexts
    from steering.probes.features import ExtractSettings, FeatureSpec, extract
    from steering.reading import read_activations

    lm = LanguageModel.load(ModelSpec(name=work["model"]), "cpu")
    texts = texts_of(work["num_texts"])
    hook = f"resid_post.{work['layer']}"
    saes = {
        str(n): random_sae(work["d_model"], work["d_sae"], work["k"], hook, n)
        for n in range(work["num_saes"])
    }
    before_gib = peak_gib()
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    num_tokens, stored_gib = 0, 0.0
    if way == "pass":
        for batch, _ in read_activations(lm, texts, [hook]):
            num_tokens += int(batch.is_text_NT.sum())
    else:
        y_N1 = np.arange(len(texts))[:, None] % 2 == 0
        data = LabelledTexts(texts, [str(n) for n in range(len(texts))], y_N1, ("y",), "binary")
        poolings = ["tokens"] if way == "latents" else ["mean", "max", "last"]
        specs = [FeatureSpec(sae=name, pooling=p) for name in saes for p in poolings]
        with tempfile.TemporaryDirectory() as cache:
            table = extract(lm, saes, data, specs, Path(cache), settings=ExtractSettings())
            taken_s, cpu_s = time.perf_counter() - start_s, time.process_time() - start_cpu_s
            num_tokens = sum(table.matrix(spec).nnz for spec in specs) // work["k"]
            stored_gib = sum(f.stat().st_size for f in Path(cache).rglob("*.npy")) / 2**30
    if way == "pass":
        taken_s, cpu_s = time.perf_counter() - start_s, time.process_time() - start_cpu_s
    found = {"s": taken_s, "cpu_s": cpu_s, "tokens": num_tokens, "stored_gib": stored_gib}
    found |= {"before_gib": before_gib, "peak_gib": peak_gib()}
    print(json.dumps(found))


def peak_gib() -> float:
    """Largest resident memory of this process so far."""
    # Not ru_maxrss: on Linux it starts from what the process that started this one had.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 2**20 for line in lines if line.startswith("VmHWM"))


def run(way: str, work: dict[str, Any]) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.probe_features", "--way", way]
    answer = subprocess.run(
        [*command, "--work", json.dumps(work)], check=True, capture_output=True, text=True
    )
    found: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    print(
        f"{way}: {found['s']:.1f} s, {found['cpu_s']:.1f} s of the processor, "
        f"peak {found['peak_gib']:.2f} GiB",
        flush=True,
    )
    return found


def rows_of(work: dict[str, Any], repeats: int) -> list[dict[str, Any]]:
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(repeats):
        for way in WAYS:
            found[way].append(run(way, work))
    what = (
        f"{work['num_texts']} texts of about {TOKENS_A_TEXT} tokens, {work['num_saes']} topk SAE "
        f"of {work['d_sae']} latents, k {work['k']}"
    )
    rows: list[dict[str, Any]] = []
    for way, name in (("latents", "a row a token"), ("pooled", "mean, max and last a text")):
        base = {"work": f"{what}: {name}", "against": "the forward pass to the hook alone"}
        for unit, key in (("s", "s"), ("s of the processor", "cpu_s"), ("GiB, peak", "peak_gib")):
            ours = median(one[key] for one in found[way])
            theirs = median(one[key] for one in found["pass"])
            row = {**base, "ours": ours, "theirs": theirs, "unit": unit, "ratio": ours / theirs}
            rows.append(row)
        rows[-1] |= {key: found[way][0][key] for key in ("before_gib", "stored_gib")}
    load = os.getloadavg()[0]
    return [{**row, "load": round(load, 1), **work, "model": "random Llama"} for row in rows]


def memory_rows(work: dict[str, Any]) -> list[dict[str, Any]]:
    """The peak of four times the texts, against that of the texts; a tiny model, to be quick."""
    less, more = (
        run("latents", {**work, "num_texts": times * work["num_texts"]}) for times in (1, 4)
    )
    what = f"topk, {work['d_sae']} latents, a row a token: {more['tokens']} tokens"
    row: dict[str, Any] = {"work": what, "against": f"{less['tokens']} tokens", "unit": "GiB, peak"}
    row |= {"ours": more["peak_gib"], "theirs": less["peak_gib"]}
    row |= {"ratio": more["peak_gib"] / less["peak_gib"], "before_gib": more["before_gib"]}
    return [{**row, "stored_gib": more["stored_gib"], **work, "model": "random Llama"}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="1M tokens")
    parser.add_argument("--memory", action="store_true", help="at two sizes, with a tiny model")
    parser.add_argument("--texts", type=int, default=470, help="of about 128 tokens each")
    parser.add_argument("--d-sae", type=int, default=24_576)
    parser.add_argument("--saes", type=int, default=1)
    parser.add_argument("--d-model", type=int, default=768)
    parser.add_argument("--layers", type=int, default=10, help="of the model; read behind the last")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--trial", action="store_true", help="results/ is left alone")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        measure(arguments.way, json.loads(arguments.work))
        return
    with tempfile.TemporaryDirectory() as folder:
        build_model(Path(folder), arguments.d_model, arguments.layers)
        work = {
            "model": folder,
            "num_texts": 8000 if arguments.full else arguments.texts,
            "d_model": arguments.d_model,
            "layer": arguments.layers - 1,
            "d_sae": arguments.d_sae,
            "num_saes": arguments.saes,
            "k": 32,
        }
        rows = memory_rows(work) if arguments.memory else rows_of(work, arguments.repeats)
    name = "probe_features_memory" if arguments.memory else "probe_features"
    save_report(name, "cpu", rows, keep=not arguments.trial)


if __name__ == "__main__":
    main()
