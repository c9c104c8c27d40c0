"""A trial of `steer`, in its actor's own process: answers to prompts, a batch a step.

The strength is chosen on the first half of the prompts and reported on the second, as AxBench does
(Wu et al. 2025, section 5.2). The answers so far are the state.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.kind import Progress, TrialContext, TrialFailed
from jobs.runners.in_process import InProcessRunner
from jobs.runners.language_models import model_of
from jobs.steer_parameters import SteerParameters, parameters_by_method
from jobs.steer_setup import SteerSetup

if TYPE_CHECKING:
    from jobs.runners.steer_answers import Answering
    from steering.measures.answers import AnswerRow, AnswerTable, Half
    from steering.steerers import Steerer

STATE = "answers.jsonl"
NO_ANSWER_PERPLEXITY = 1e6
"""Reported where not one answer has a token: worse than any text."""


class SteerRunner(InProcessRunner):
    """One direction at one place; see `InProcessRunner`."""

    artefact_kind = "vectors"

    def __init__(self, context: TrialContext) -> None:
        super().__init__(context)
        self._setup = SteerSetup.model_validate(context.setup)
        self._parameters = parameters_of(context.config)
        own = self._parameters.strength
        self._strengths = self._setup.strengths if own is None else (own,)
        self._rows: list[AnswerRow] = []
        self._num_done = 0
        self._until = self._setup.count
        self._answering: Answering | None = None
        self._steerer: Steerer | None = None
        self._found: Mapping[str, Any] = {}

    def open(self) -> None:
        from jobs.runners.steer_answers import Answering
        from jobs.runners.steer_source import effect_of, instruction_of, steerer_of

        setup = self._setup
        prompts = prompts_of(setup)
        meter = effect_of(setup, self.context.inputs)  # its faults are said before a model is there
        instruction = instruction_of(setup, self.context.inputs)
        lm = model_of(setup.model.model_dump_json(), self.context.device)
        seed = setup.generation.seed + self._parameters.seed
        self._answering = Answering(
            lm=lm,
            setup=setup,
            spec=setup.generation.model_copy(update={"seed": seed}),
            prompts=prompts,
            instruction=instruction,
            meter=meter,
        )
        self._steerer, self._found = steerer_of(
            lm, setup, self._parameters, prompts, self.context.inputs
        )

    @property
    def units_done(self) -> int:
        """Prompts."""
        return self._num_done

    def advance(self, until_tokens: int, run_on_to: int, max_seconds: float) -> Progress:
        self._until = until_tokens
        return super().advance(until_tokens, run_on_to, max_seconds)

    def step(self) -> None:
        """Some prompts of one half, at every strength that is asked for."""
        assert self._answering is not None
        assert self._steerer is not None
        first, split = self._num_done, self._setup.num_selection
        half: Half = "selection" if first < split else "test"
        strengths = self._strengths if half == "selection" else (self._best_strength(),)
        room = max(1, self._setup.generation.rows // len(strengths))
        end = min(first + room, max(self._until, first + 1), split if first < split else 10**9)
        places = list(range(first, min(end, self._setup.count)))
        rows = self._answering.baselines(half, places)
        unsteered = rows[: len(places)]
        rows += self._answering.steered(half, places, self._steerer, strengths, unsteered)
        if half == "test":
            other = self._steerer.random(self._setup.split_seed + self._parameters.seed)
            rows += self._answering.steered(half, places, other, strengths, unsteered, "random")
        self._rows += rows
        self._num_done = first + len(places)

    def measure(self) -> Mapping[str, float]:
        strength = self._best_strength()
        steered = self._table.of("steered", "selection", strength)
        found = _scores(steered, self._table.of("unsteered", "selection"))
        means = steered.measured.fluency.mean()
        return {
            **found,
            "perplexity": _finite(means.perplexity),
            "distinct_2": means.distinct_2,
            "repeated_3grams": means.repeated_3grams,
            "best_strength": strength,
        }

    def write_state(self, folder: Path) -> None:
        from steering.measures.answers import write_answers

        write_answers(folder / STATE, self._rows)

    def read_state(self, folder: Path) -> None:
        from steering.measures.answers import read_answers

        self._rows = read_answers(folder / STATE)
        self._num_done = len({row.prompt for row in self._rows})

    def export(self, folder: Path) -> tuple[Mapping[str, float], Mapping[str, Any]]:
        """Write vectors with the strength that was chosen, and load them back."""
        from jobs.runners.steer_results import notes_of, results_of
        from steering.measures.answers import write_answers
        from steering.measures.curves import curve_points, write_trial_report
        from steering.vectors import load_vectors, save_vectors

        assert self._answering is not None
        assert self._steerer is not None
        strength, table = self._best_strength(), self._table
        points = curve_points(table, "selection")
        hook = self._steerer.hook
        curve = tuple(asdict(point) for point in points)
        vectors = self._steerer.vectors.only(hook).with_suggestion(hook, strength, curve)
        save_vectors(folder, vectors)
        if load_vectors(folder).sha256 != vectors.sha256:
            raise TrialFailed("export differs from what was made: other vectors when loaded")
        write_answers(folder / STATE, self._rows)
        tested, said = results_of(table, strength)
        metrics = {**self.measure(), **tested}
        prompts, notes = self._answering.prompts, notes_of(self._found, hook)
        write_trial_report(folder / "report", points, table, said, strength, prompts, notes)
        composition = self._found.get("composition")
        if composition is not None:
            text = f"{composition['report']}\n"
            (folder / "report" / "composition.txt").write_text(text, encoding="utf-8")
        record = {
            **said,
            "strength": strength,
            "strength_chosen_on": len(self._strengths) > 1,
            "curve": list(curve),
            "steering": dict(self._steerer.record),
            "direction": dict(self._found),
            "effect": dict(self._answering.meter.record),
            "instruction": self._answering.instruction,
            "generation": self._answering.spec.model_dump(mode="json"),
            "prompts": list(prompts),
            "num_selection": self._setup.num_selection,
            "vectors_sha256": vectors.sha256,
        }
        return metrics, record

    def close(self) -> None:
        self._answering = self._steerer = None

    @property
    def _table(self) -> AnswerTable:
        from steering.measures.answers import AnswerTable

        return AnswerTable(self._rows)

    def _best_strength(self) -> float:
        """By overall on the selection half; of equals the smallest."""
        if len(self._strengths) == 1:
            return self._strengths[0]
        reference = self._table.of("unsteered", "selection")
        by_strength = {
            strength: _scores(self._table.of("steered", "selection", strength), reference)
            for strength in self._strengths
        }
        return min(by_strength, key=lambda s: (-by_strength[s]["overall"], abs(s)))


def parameters_of(config: Mapping[str, Any]) -> SteerParameters:
    """A trial's configuration, defaults filled in."""
    model = parameters_by_method()[config.get("method", "mean_difference")]
    found = model.model_validate(dict(config))
    assert isinstance(found, SteerParameters)
    return found


def prompts_of(setup: SteerSetup) -> tuple[str, ...]:
    """The prompts, those to choose a strength on in front.

    Raises:
        BadSteeringInput: there are fewer than asked for, or the file cannot be read.
    """
    from steering.errors import BadSteeringInput
    from steering.prompt_banks import find_bank

    if isinstance(setup.prompts, str):
        texts = [prompt.text for prompt in find_bank(setup.prompts).first(setup.count).prompts]
    else:
        texts = list(setup.prompts[: setup.count])
    empty = [place for place, text in enumerate(texts) if not text.strip()]
    if empty:
        raise BadSteeringInput(f"prompt {empty[0]} is empty; leave it out")
    random.Random(setup.split_seed).shuffle(texts)
    return tuple(texts)


def _scores(steered: AnswerTable, unsteered: AnswerTable) -> dict[str, float]:
    from steering.measures import scores

    return asdict(scores(steered.measured, unsteered.measured))


def _finite(perplexity: float) -> float:
    return (
        min(perplexity, NO_ANSWER_PERPLEXITY)
        if math.isfinite(perplexity)
        else (NO_ANSWER_PERPLEXITY)
    )


__all__: Sequence[str] = ("SteerRunner", "parameters_of", "prompts_of")
