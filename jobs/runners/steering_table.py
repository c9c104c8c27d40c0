"""A trial of `steering_table`, in its actor's own process. A step is a batch of answers.

Answers are kept on the local disk, where other trials of the machine find what they have in common:
all that is not steered, and the same vectors at the same strength.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.kind import TrialContext, TrialFailed
from jobs.runners.composed_groups import (
    composed,
    embedder,
    score_cache,
    texts_of_embedding,
)
from jobs.runners.in_process import InProcessRunner
from jobs.runners.language_models import model_of
from jobs.steering_table_setup import SteeringTableParameters, SteeringTableSetup
from steering.errors import BadSteeringInput

if TYPE_CHECKING:
    from sae.language_model import LanguageModel
    from steering.composition import GroupVectors
    from steering.styles.model import StyleModel
    from steering.styles.rows import Rows
    from steering.table.answering import Answerer, Way
    from steering.table.group_styles import GroupStyles
    from steering.table.measuring import Table
    from steering.table.study import TableStudy

ANSWERS, TABLES, VECTORS, REPORT = "answers.jsonl", "tables.json", "vectors", "report"

logger = logging.getLogger(__name__)


class SteeringTableRunner(InProcessRunner):
    """One table; see `InProcessRunner`."""

    artefact_kind = "steering_table"

    def __init__(self, context: TrialContext) -> None:
        super().__init__(context)
        self._setup = SteeringTableSetup.model_validate(context.setup)
        self._config = SteeringTableParameters.model_validate(context.config)
        self._study: TableStudy | None = None
        self._answerer: Answerer | None = None
        self._made: GroupVectors | None = None
        self._styles: GroupStyles | None = None

    def open(self) -> None:
        from steering.table.answering import Answerer
        from steering.table.group_styles import leading_attributes
        from steering.table.metrics import GroupSpace
        from steering.table.study import StudySpec, TableStudy

        setup, model = self._setup, self._style_model()
        groups = _groups(setup.groups, model)
        banks = setup.read_banks(groups)
        points_GE = model.centroid_GE[[model.groups.index(group) for group in groups]].numpy()
        space = GroupSpace(points_GE, model.distance)
        lm = model_of(setup.model.model_dump_json(), self.context.device)
        self._styles = self._group_styles(groups)
        leading = leading_attributes(self._styles, setup.prompt_attributes)
        way = self._way(lm, self._styles, leading)
        self._answerer = Answerer(lm, setup.generation, way, _kept())
        strength = self._config.strength
        spec = StudySpec(
            banks,
            groups,
            setup.seeds,
            setup.strengths if strength is None else (strength,),
            setup.generation.rows,
            setup.fluent_within,
        )
        self._study = TableStudy(spec, space, self._answerer, embedder(model, setup))

    @property
    def units_done(self) -> int:
        """Pairs of a prompt and a seed that have all their answers."""
        return self._the_study.units_done

    def step(self) -> None:
        self._the_study.step()

    def measure(self) -> Mapping[str, float]:
        point = asdict(self._the_study.chosen)
        names = ("m2_net", "m2_gain", "m1_rate", "m3_towards", "m3_hit", "perplexity_ratio")
        return {name: point[name] for name in (*names, "repeated_3grams", "strength")}

    def write_state(self, folder: Path) -> None:
        from steering.table.kept_answers import write_answers

        assert self._answerer is not None
        write_answers(folder / ANSWERS, self._answerer.kept.some(self._the_study.keys_there()))

    def read_state(self, folder: Path) -> None:
        from steering.table.kept_answers import read_answers

        assert self._answerer is not None
        self._answerer.kept.add(read_answers(folder / ANSWERS))

    def export(self, folder: Path) -> tuple[Mapping[str, float], Mapping[str, Any]]:
        """Tables, answers, vectors and a report; what was written is read back."""
        from steering.table.kept_answers import read_answers
        from steering.table.report import as_json, write_report

        assert self._answerer is not None
        assert self._made is not None
        study, answerer = self._the_study, self._answerer
        tables, leaks = study.tables(), study.leaks()
        self.write_state(folder)
        kept = answerer.kept.some(study.keys_there())
        if read_answers(folder / ANSWERS) != kept:
            raise TrialFailed("export differs from what was made: other answers when read back")
        self._export_vectors(folder / VECTORS)
        for leak in leaks:
            if leak.warning:
                logger.warning("%s", leak.warning)
        said = {
            "tables": [as_json(table) for table in tables],
            "leaks": [{**as_json(leak), "score": leak.score} for leak in leaks],
            "strengths": [asdict(point) for point in study.strength_points()],
            "strength": study.chosen.strength,
            "composition": self._made.rows(),
        }
        (folder / TABLES).write_text(json.dumps(said, indent=1, allow_nan=False) + "\n")
        write_report(
            folder / REPORT,
            study,
            tables,
            leaks,
            composition=self._made.report(),
            notes=self._notes(),
            prompts=[answerer.prompt(asked) for asked in study.all_asked()],
        )
        metrics = {**self.measure(), **_final(tables[0]), "topic_leak": leaks[0].score or 1.0}
        return metrics, {**said, **self._record()}

    def close(self) -> None:
        self._study = self._answerer = None

    @property
    def _the_study(self) -> TableStudy:
        assert self._study is not None
        return self._study

    def _style_model(self) -> StyleModel:
        from steering.styles import load

        return load(self._embedding_folder)

    @property
    def _embedding_folder(self) -> Path:
        needed = [one for one in self.context.inputs if one.kind == "embedding"]
        named = self._setup.embedding
        if (named is not None) + len(needed) != 1:
            raise BadSteeringInput(
                f"a table needs exactly one style embedding; got embedding={named!r} and "
                f"{len(needed)} from the sweeps it needs. Name a folder, or write needs: "
                "[{sweep: NAME, select: {kind: embedding, best: macro_accuracy}}]"
            )
        if named is not None:
            return Path(named)
        assert needed[0].folder is not None
        return needed[0].folder

    def _group_rows(self) -> Rows:
        """The groups' own texts: the table that is named, else the embedding's."""
        from steering.styles.rows import read_rows

        if self._setup.data is not None:
            return read_rows(self._setup.data)
        records = [one.record for one in self.context.inputs if one.kind == "embedding"]
        return read_rows(texts_of_embedding(self._embedding_folder, next(iter(records), None)))

    def _group_styles(self, groups: tuple[str, ...]) -> GroupStyles:
        from steering.table.group_styles import styles_of_groups

        return styles_of_groups(
            self._group_rows(),
            groups,
            self._setup.read_catalogue(),
            self._setup.scorer,
            self._config.aggregator,
            score_cache(),
            texts_per_group=self._setup.texts_per_group,
        )

    def _way(self, lm: LanguageModel, styles: GroupStyles, leading: Mapping[str, list[str]]) -> Way:
        """Vectors of the groups; their report is said before anything is generated."""
        from steering.directions.attributes import attribute_vectors
        from steering.table.answering import Way

        config, hook = self._config, self._config.hook
        attributes = attribute_vectors(lm, self._setup.read_catalogue(), [hook])
        self._made = composed(attributes, styles, config)
        sentence = dict(zip(attributes.ids, attributes.sentences, strict=True))
        said = {group: [sentence[one] for one in ids] for group, ids in leading.items()}
        return Way(
            self._setup.texts,
            said,
            self._made.by_group,
            hook,
            config.positions,
            config.preserve_norm,
        )

    def _export_vectors(self, folder: Path) -> None:
        from steering.vectors import load_vectors, save_vectors

        assert self._made is not None
        point = self._the_study.chosen
        for number, vectors in enumerate(self._made.by_group.values()):
            own = vectors.with_suggestion(self._config.hook, point.strength, (asdict(point),))
            save_vectors(folder / f"{number:03d}", own)
            if load_vectors(folder / f"{number:03d}").sha256 != own.sha256:
                raise TrialFailed("export differs from what was made: other vectors when read back")

    def _notes(self) -> list[str]:
        setup, config = self._setup, self._config
        answers = setup.generation
        composed = config.model_dump(mode="json", exclude={"layer", "site", "strength"})
        return [
            f"model {setup.model.label}, steered at {config.hook}; answers of at most "
            f"{answers.max_new_tokens} tokens at temperature {answers.temperature:g}",
            "vectors: " + ", ".join(f"{name} {value}" for name, value in composed.items()),
        ]

    def _record(self) -> dict[str, Any]:
        assert self._answerer is not None
        assert self._styles is not None
        banks = self._the_study.spec.banks
        way = self._answerer.way
        return {
            "groups": list(self._styles.groups),
            "num_texts": dict(self._styles.num_texts),
            "hook": way.hook,
            "sentences": {group: list(said) for group, said in way.sentences.items()},
            "vectors_sha256": {group: one.sha256 for group, one in way.vectors.items()},
            "catalogue_sha256": self._setup.read_catalogue().sha256,
            "banks": {bank.name: bank.sha256 for bank in banks},
            "num_answers": len(self._the_study.all_asked()),
        }


def _groups(asked: tuple[str, ...] | None, model: StyleModel) -> tuple[str, ...]:
    unknown = [group for group in asked or () if group not in model.groups]
    if unknown:
        raise BadSteeringInput(
            f"the embedding has no groups {', '.join(unknown)}; it has {', '.join(model.groups)}"
        )
    return asked or model.groups


def _kept() -> Any:
    from sae.model_files import cache_dir
    from steering.table.kept_answers import KeptAnswers

    folder = cache_dir() / "answers"
    folder.mkdir(parents=True, exist_ok=True)
    return KeptAnswers(folder / ANSWERS)


def _final(table: Table) -> dict[str, float]:
    net = {name: table.row(name).shift.net.estimate for name in ("C4", "C5", "C8")}
    return {
        "table_m2_net_steer": net["C5"],
        "table_m2_net_prompt": net["C4"],
        "table_m2_net_both": net["C8"],
        "table_m1_floor": table.row("C1").shift.changed.estimate,
    }
