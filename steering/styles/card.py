"""The README.md of a finished embedding: what it is, what it was made from, how good it is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from steering.styles.encoder_files import encoder_files
from steering.styles.model import StyleModel

__all__ = ["CARD", "card_of", "write_card"]

CARD = "README.md"
SHOWN_GROUPS = 40
SHOWN_DROPPED = 10


def write_card(folder: Path, model: StyleModel) -> Path:
    """Write it into the artefact's folder."""
    path = folder / CARD
    path.write_text(card_of(model), encoding="utf-8")
    return path


def card_of(model: StyleModel) -> str:
    """Markdown with a YAML header, as model hubs read it."""
    parts = [*_header(model), *_about(model), *_numbers(model.config), *_loading(model)]
    return "\n".join(parts) + "\n"


def _header(model: StyleModel) -> Iterator[str]:
    spec = model.encoder_spec
    yield "---"
    if not spec.features:
        yield "library_name: sentence-transformers"
        yield "pipeline_tag: sentence-similarity"
        yield f"base_model: {_quoted(spec.hf or spec.sentence_transformer or _MINILM)}"
    yield "tags:"
    yield from (f"- {tag}" for tag in ("style-embedding", "saeq"))
    score = model.config.get("metrics", {}).get("test_macro_accuracy")
    if score is not None:
        yield "model-index:"
        yield "- name: style-embedding"
        yield "  results:"
        yield "  - task: {type: text-classification, name: nearest group centroid}"
        yield f"    dataset: {{type: custom, name: {_quoted(_data(model.config))}}}"
        yield f"    metrics: [{{type: accuracy, name: test macro accuracy, value: {score:.4f}}}]"
    yield "---"
    yield ""


def _about(model: StyleModel) -> Iterator[str]:
    config, spec = model.config, model.encoder_spec
    recipe = config.get("recipe", {})
    widths = " -> ".join(map(str, model.head.widths))
    tuned = {"frozen": "frozen", "whole": "all weights trained", "lora": "LoRA"}[spec.tune]
    yield f"# Style embedding: {len(model.groups)} groups in {model.head.widths[-1]} dimensions"
    yield ""
    source = "given style vectors" if spec.features else f"texts, read by `{spec.name}` ({tuned})"
    yield f"From {source}, by a perceptron {widths}{', to length one' * model.head.normalize}."
    yield f"Compare embeddings by {model.distance} distance."
    yield ""
    yield "| made from | |"
    yield "|---|---|"
    for name, value in _facts(config, recipe):
        yield f"| {name} | {_cell(value)} |"
    yield ""


def _facts(config: Mapping[str, Any], recipe: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "data", f"`{_data(config)}`"
    rows = config.get("rows") or {}
    yield "rows", ", ".join(f"{part} {count}" for part, count in rows.items())
    split = config.get("split") or {}
    data = config.get("data") or {}
    by = "rows, each an item of its own"
    if data.get("builtin"):
        by = "whole items of neighbouring paragraphs"
    elif data.get("item"):
        by = f"whole items of column `{data['item']}`"
    yield "split by", f"{by}, seed {split.get('seed', 0)}"
    dropped = list(config.get("dropped_groups") or ())
    if dropped:
        more = f" and {len(dropped) - SHOWN_DROPPED} more" if len(dropped) > SHOWN_DROPPED else ""
        yield "groups left out for being small", f"{', '.join(dropped[:SHOWN_DROPPED])}{more}"
    said = (f"{name} {recipe[name]}" for name in _of_recipe(recipe.get("loss")) if name in recipe)
    yield "recipe", ", ".join(said)
    yield "epochs", config.get("epochs")
    yield "centroid", config.get("centroid")
    yield "triplets that the pool allows", config.get("num_triplets")
    yield from _tuning_facts(config.get("tuning") or {})
    if config.get("catalogue_sha256"):
        yield "attribute catalogue (sha256)", f"`{config['catalogue_sha256']}`"


def _of_recipe(loss: str | None) -> Iterator[str]:
    """What matters to this loss."""
    yield "loss"
    if loss not in ("supcon", "multi_similarity"):
        yield "distance"
    if loss in ("triplet", "batch_hard", "semi_hard"):
        yield "margin"
    if loss == "supcon":
        yield "temperature"
    if loss in ("triplet", "soft_margin"):
        yield "pool"
    yield from ("lr", "weight_decay", "dropout", "batch", "seed")


def _tuning_facts(tuning: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    if not tuning:
        return
    trained, whole = tuning["trained_parameters"], tuning["parameters"]
    share = f"{trained:,} of {whole:,} ({trained / whole:.2%})"
    yield "encoder's parameters that were trained", share
    yield "encoder's learning rate", tuning["lr"]
    lora = tuning.get("lora")
    if lora:
        scale = f"alpha / r = {lora['alpha']:g} / {lora['r']} = {lora['scale']:g}"
        targets = lora["targets"]
        where = targets if isinstance(targets, str) else ", ".join(targets)
        yield "LoRA", f"{scale}, dropout {lora['dropout']:g}, at {where}"
    if tuning.get("cut_texts"):
        yield "texts that were cut for being long", tuning["cut_texts"]
    for said in tuning.get("fallbacks", ()):
        yield "fallback", said


def _numbers(config: Mapping[str, Any]) -> Iterator[str]:
    shares = config.get("report")
    if not shares:
        return
    intervals = shares.get("intervals", {})
    yield "## How well groups separate"
    yield ""
    yield "On test rows that nothing was trained or chosen on. Brackets: 95% over resampled items."
    yield f"Chance is {1 / len(shares['groups']):.3f}."
    yield ""
    yield "| | accuracy |"
    yield "|---|---|"
    rows = [("macro accuracy", shares["macro_accuracy"], "macro_accuracy")]
    if len(shares["parents"]) < len(shares["groups"]):
        rows.append(("of parents", shares["parent_accuracy"], "parent_accuracy"))
    rows += [(f"corpus {c}", v, f"corpus {c}") for c, v in shares["accuracy_by_corpus"].items()]
    for name, value, key in rows:
        low_high = intervals.get(key)
        said = f" [{low_high[0]:.3f}, {low_high[1]:.3f}]" if low_high else ""
        yield f"| {_cell(name)} | {value:.3f}{said} |"
    yield ""
    by_group = sorted(shares["accuracy_by_group"].items(), key=lambda pair: -pair[1])
    yield "| group | test rows | accuracy |"
    yield "|---|---|---|"
    for group, value in by_group[:SHOWN_GROUPS]:
        yield f"| {_cell(group)} | {shares['rows_by_group'][group]} | {value:.3f} |"
    yield ""
    if len(by_group) > SHOWN_GROUPS:
        yield f"{len(by_group) - SHOWN_GROUPS} more are in `report/accuracy.csv`."
        yield ""
    yield "![confusion](report/confusion.png) ![distances](report/distances.png)"
    yield ""


def _loading(model: StyleModel) -> Iterator[str]:
    spec = model.encoder_spec
    yield "## Loading it"
    yield ""
    yield "```python"
    yield "from steering.styles import load"
    yield ""
    yield 'model = load("FOLDER")'
    if spec.features:
        yield f"embeddings = model.embed(vectors)          # [rows, {model.head.widths[0]}]"
        yield "groups = model.nearest_group(vectors)"
        yield "```"
        yield ""
        yield "It reads vectors of the same scorer and catalogue that it was trained on, no texts."
        return
    yield "embeddings = model.embed_texts(texts)"
    yield "groups = model.nearest_group_of_texts(texts)"
    yield "```"
    yield ""
    yield "or, without saeq:"
    yield ""
    yield "```python"
    yield "from sentence_transformers import SentenceTransformer"
    yield ""
    yield 'embeddings = SentenceTransformer("FOLDER/sentence_transformers").encode(texts)'
    yield "```"
    yield ""
    if spec.tune == "whole" or spec.copy_encoder:
        yield "The encoder's weights are in that folder."
        return
    files = encoder_files(spec)
    where = "in this machine's folder" if files.is_folder else "under the name"
    yield f"The encoder itself is not in that folder: it is looked for {where}"
    yield f"`{files.place}`, by peft, which has to be installed."
    yield '`model.write_sentence_transformer("NEW")` writes a folder that needs neither.'


_MINILM = "sentence-transformers/all-MiniLM-L6-v2"


def _data(config: Mapping[str, Any]) -> str:
    data = config.get("data") or {}
    files = data.get("files")
    named = files if isinstance(files, str) else ", ".join(files or ())
    return data.get("dataset") or data.get("builtin") or named or "not recorded"


def _quoted(text: str) -> str:
    return json.dumps(text)


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
