"""A sweep of one trial that takes seconds anywhere: a random language model, written without torch.

For `saeq doctor --slurm`: a job has to come to its first report without a download.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from orchestrator.queue import Queue, QueuedSweep
from orchestrator.spec.sweep import parse_sweep
from orchestrator.store import Store

WIDTH, NUM_LAYERS, NUM_TOKENS, MLP_WIDTH = 32, 2, 257, 64
EOS = 256
SWEEP = """
name: doctor
job: sae_train
model: {{name: {model}}}
data: {{builtin: python-docs, context: 32}}
hooks: [model.layers.0]
tokens: 20k
batch_tokens: 256
held_out_tokens: 512
space: {{architecture: topk, d_sae: 64, k: 8, lr: 1.0e-3}}
search: {{sampler: grid}}
early_stop: {{scheduler: none}}
report: 5k
"""


def submit_tiny_sweep(store: Store, folder: Path) -> QueuedSweep:
    """Write the model into a folder and put a sweep of it into a store's queue."""
    write_tiny_model(folder)
    text = SWEEP.format(model=json.dumps(str(folder)))
    queued, _ = Queue(store).submit(parse_sweep(text), text)
    return queued


def write_tiny_model(folder: Path) -> None:
    """A LLaMA of two layers, width 32, a token a byte, with random weights."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(_weights(), folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": WIDTH,
        "intermediate_size": MLP_WIDTH,
        "num_hidden_layers": NUM_LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": NUM_TOKENS,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-6,
        "bos_token_id": EOS,
        "eos_token_id": EOS,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config))
    _write_tokenizer(folder)


def _weights() -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (NUM_TOKENS, WIDTH),
        "model.norm.weight": (WIDTH,),
        "lm_head.weight": (NUM_TOKENS, WIDTH),
    }
    for layer in range(NUM_LAYERS):
        block = f"model.layers.{layer}"
        shapes |= {f"{block}.self_attn.{name}_proj.weight": (WIDTH, WIDTH) for name in "qkvo"}
        shapes |= {f"{block}.mlp.{name}_proj.weight": (MLP_WIDTH, WIDTH) for name in ("gate", "up")}
        shapes[f"{block}.mlp.down_proj.weight"] = (WIDTH, MLP_WIDTH)
        shapes[f"{block}.input_layernorm.weight"] = (WIDTH,)
        shapes[f"{block}.post_attention_layernorm.weight"] = (WIDTH,)
    rng = np.random.default_rng(0)
    return {
        name: np.ones(shape, np.float32)
        if len(shape) == 1
        else rng.normal(0.0, 0.3, shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def _write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(letters)} | {"<eos>": EOS}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<eos>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<eos>",
        "eos_token": "<eos>",
        "model_max_length": 256,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
