"""Generates and measures a steering trial's answers, batch by batch of prompts.

A torch module. Answers that do not depend on the trial (unsteered, asked for in words) are kept on
the local disk for all trials of the sweep.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from filelock import FileLock

from jobs.steer_setup import SteerSetup
from sae.language_model import LanguageModel
from sae.model_files import cache_dir
from steering.generation import Generated, generate
from steering.generation.spec import GenerationSpec
from steering.measures import EffectMeter, fluency, relevance
from steering.measures.answers import (
    AnswerRow,
    Condition,
    Half,
    read_answers,
    write_answers,
)
from steering.steerers import Steerer

__all__ = ["Answering"]

BASELINES: tuple[Condition, ...] = ("unsteered", "prompted")


@dataclass(frozen=True)
class Answering:
    """Everything that an answer depends on, but the direction and its strength."""

    lm: LanguageModel
    setup: SteerSetup
    spec: GenerationSpec
    prompts: tuple[str, ...]
    instruction: str
    meter: EffectMeter

    def baselines(self, half: Half, places: Sequence[int]) -> list[AnswerRow]:
        """Unsteered answers, and those asked for in words, to some prompts."""
        path = cache_dir() / "steering" / f"{self._baseline_key}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):  # one trial of the machine generates, the others wait
            kept = {
                (r.condition, r.prompt): r for r in (read_answers(path) if path.exists() else ())
            }
            missing = [p for p in places if any((c, p) not in kept for c in BASELINES)]
            if missing:
                made = self._make_baselines(half, missing)
                kept |= {(row.condition, row.prompt): row for row in made}
                part = path.with_suffix(".part")
                write_answers(part, list(kept.values()))
                part.replace(path)
        # Kept by a sweep that may have halved the same prompts otherwise.
        rows = [kept[condition, place] for condition in BASELINES for place in places]
        return [replace(row, half=half) for row in rows]

    def steered(
        self,
        half: Half,
        places: Sequence[int],
        steerer: Steerer,
        strengths: Sequence[float],
        unsteered: Sequence[AnswerRow],
        condition: Condition = "steered",
    ) -> list[AnswerRow]:
        """Answers of every strength to every prompt, in batches of mixed strengths.

        Args:
            unsteered: rows of the same prompts, which relevance may be measured against.
        """
        grid = [(place, strength) for strength in strengths for place in places]
        said = generate(
            self.lm,
            [self.prompts[place] for place, _ in grid],
            self.spec,
            edits=[steerer.edit([strength for _, strength in grid])],
            seeds=[place for place, _ in grid],
        )
        text_by_place = {row.prompt: row.text for row in unsteered}
        return self._measured(half, condition, grid, said, text_by_place)

    def _make_baselines(self, half: Half, places: Sequence[int]) -> list[AnswerRow]:
        grid = [(place, 0.0) for place in places]
        plain = [self.prompts[place] for place in places]
        asked = [f"{self.instruction}\n\n{prompt}" for prompt in plain]
        said = generate(self.lm, [*plain, *asked], self.spec, seeds=[*places, *places])
        unsteered, prompted = said[: len(places)], said[len(places) :]
        texts = {place: one.text for place, one in zip(places, unsteered, strict=True)}
        return [
            *self._measured(half, "unsteered", grid, unsteered, texts),
            *self._measured(half, "prompted", grid, prompted, texts),
        ]

    def _measured(
        self,
        half: Half,
        condition: Condition,
        grid: Sequence[tuple[int, float]],
        said: Sequence[Generated],
        unsteered: dict[int, str],
    ) -> list[AnswerRow]:
        prompts, texts = [self.prompts[place] for place, _ in grid], [one.text for one in said]
        fluent = fluency(self.lm, prompts, list(said), chat=self.spec.chat, system=self.spec.system)
        near = prompts
        if self.setup.relevance == "unsteered":
            near = [unsteered[place] for place, _ in grid]
        relevant_N, effect_N = relevance(texts, near), self.meter.score(texts)
        return [
            AnswerRow(
                half=half,
                prompt=place,
                condition=condition,
                strength=strength,
                text=one.text,
                tokens=one.tokens,
                ended=one.ended,
                effect=float(effect_N[row]),
                relevance=float(relevant_N[row]),
                log_perplexity=float(fluent.log_perplexity_N[row]) if one.tokens else None,
                distinct_1=float(fluent.distinct_1_N[row]),
                distinct_2=float(fluent.distinct_2_N[row]),
                repeated_3grams=float(fluent.repeated_3grams_N[row]),
                zlib_ratio=float(fluent.zlib_ratio_N[row]),
            )
            for row, ((place, strength), one) in enumerate(zip(grid, said, strict=True))
        ]

    @cached_property
    def _baseline_key(self) -> str:
        weights = self.lm.files.weights_sha256() or self.setup.model.model_dump_json()
        said = [
            weights,
            str(self.lm.dtype),
            self.lm.device.type,
            self.spec.model_dump(mode="json", exclude={"rows"}),
            list(self.prompts),
            self.setup.split_seed,
            self.instruction,
            self.setup.relevance,
            dict(self.meter.record),
        ]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]
