"""From the text of a sweep file to a SweepSpec, gathering every fault on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError, create_model

from jobs import JobKind
from orchestrator.samplers import SamplerConfig
from orchestrator.spec.checks import Parts, cross_faults
from orchestrator.spec.faults import Fault, KeyPath, SpecFaults, closest, listed, unknown_key
from orchestrator.spec.pydantic_faults import model_faults
from orchestrator.spec.space import Space
from orchestrator.spec.space_faults import kind_faults
from orchestrator.spec.sweep import SweepSpec
from orchestrator.spec.yaml_positions import parse_yaml
from orchestrator.stopping import StoppingConfig

MAX_FILE_BYTES = 10 * 2**20
MAX_DEFAULT_GRID = 200
"""Points up to which a space without `search` is gone through as a grid."""
_SECTIONS_WITH_RULES = ("job", "setup", "space", "search", "early_stop")
"""Fields of SweepSpec that are not validated as they stand in the file."""

T = TypeVar("T")


def read_text(path: Path) -> str:
    """The file's text. Raises SpecFaults if there is none to be had."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise _unreadable(path, "is too large for a sweep file", "name a sweep file")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _unreadable(path, "is not UTF-8 text", "save it as UTF-8") from error
    except FileNotFoundError as error:
        folder = path.parent if path.parent.is_dir() else Path()
        near = closest(path.name, [p.name for p in folder.iterdir() if p.suffix in _SUFFIXES])
        raise _unreadable(path, "there is no such file", "check the path", near) from error
    except IsADirectoryError as error:
        raise _unreadable(path, "is a folder", "name a sweep file in it") from error
    except OSError as error:
        raise _unreadable(path, f"cannot be read: {error.strerror}", "check the path") from error


_SUFFIXES = (".yaml", ".yml")


def _unreadable(path: Path, rule: str, way_out: str, suggestion: str | None = None) -> SpecFaults:
    return SpecFaults([Fault((), rule, way_out=way_out, suggestion=suggestion)], str(path))


def parse(text: str, source: str) -> SweepSpec:
    """Check the text of a sweep file. Raises SpecFaults with everything that is wrong."""
    document = parse_yaml(text, source)
    reader = _Reader(document.data)
    reader.faults.extend(document.faults)
    spec = reader.read()
    if spec is None or reader.faults:
        raise SpecFaults(document.all_placed(reader.faults), source)
    return spec


class _Reader:
    """Goes through the sections; a section with faults is left out of what follows."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.faults: list[Fault] = []
        self.names: tuple[str, ...] | None = None
        """Parameters of the space, also of one with faults."""

    def read(self) -> SweepSpec | None:
        kind = self._kind()
        self._refuse_unknown_keys(kind)
        rest = self._plain_sections()
        setup = self._setup(kind) if kind else None
        search = self._registered("search", "sampler", SamplerConfig.by_sampler)
        space = self._space(kind, setup, complete=not getattr(search, "configs", ()))
        if "search" not in self.data and space is not None:
            search = self._default_search(space)
        early_stop = self._early_stop()
        parts = Parts(kind, setup, space, self.names, search, early_stop, rest)
        self.faults.extend(cross_faults(parts))
        self.faults = without_misspelt(self.faults)
        if self.faults or None in (kind, setup, space, search, early_stop, rest):
            return None
        return SweepSpec(
            **{name: getattr(rest, name) for name in _sections_model().model_fields},
            job=self.data["job"],
            setup=setup,
            space=space,
            search=search,
            early_stop=early_stop,
        )

    def _kind(self) -> JobKind | None:
        known = sorted(JobKind.by_name)
        if "job" not in self.data:
            self._fault(("job",), "is missing (the job kind)", f"write job: {listed(known)}")
            return None
        name = self.data["job"]
        if not isinstance(name, str) or name not in JobKind.by_name:
            rule, near = f"unknown job kind; known: {listed(known)}", closest(name, known)
            self.faults.append(Fault(("job",), rule, name, "use one of these", near))
            return None
        return JobKind.by_name[name]()

    def _refuse_unknown_keys(self, kind: JobKind | None) -> None:
        own = [name for name in SweepSpec.model_fields if name != "setup"]
        kinds = [type(kind)] if kind else list(JobKind.by_name.values())
        known = [*own, *(field for each in kinds for field in each.Setup.model_fields)]
        for key in self.data:
            if key not in known:
                self.faults.append(unknown_key((key,), known))

    def _plain_sections(self) -> BaseModel | None:
        model = _sections_model()
        given = {name: self.data[name] for name in model.model_fields if name in self.data}
        return self._validated(model, given)

    def _setup(self, kind: JobKind) -> BaseModel | None:
        fields = kind.Setup.model_fields
        return self._validated(kind.Setup, {k: self.data[k] for k in fields if k in self.data})

    def _space(self, kind: JobKind | None, setup: Any, *, complete: bool) -> Space | None:
        if "space" not in self.data:
            if complete:
                example = "write space: with lines such as `k: {choice: [16, 32]}`"
                self._fault(("space",), "is missing (what may be tried)", example)
                return None
            self.data["space"] = {}
        implied = kind.implied_space(setup) if kind and setup is not None else {}
        space, faults = Space.read(self.data["space"], implied)
        if kind is not None and setup is None:
            # What the setup would have added to the space is not known: no fault of the space.
            own = {name for model in kind.parameters().values() for name in model.model_fields}
            faults = [
                f for f in faults if not ("when" in f.path and f.path[-1] in own - {*space.names})
            ]
        if kind is not None:
            found = kind_faults(space, kind, complete=complete, setup_is_known=setup is not None)
            faults = [*faults, *found]
            if not faults:
                space, faults = space.narrowed_to(kind)
        self.names = space.names
        self.faults.extend(fault.under(("space",)) for fault in faults)
        return None if faults else space

    def _default_search(self, space: Space) -> SamplerConfig | None:
        size = space.grid_size()
        if size is not None and size <= MAX_DEFAULT_GRID:
            return SamplerConfig.by_sampler["grid"].model_validate({"sampler": "grid"})
        why = f"the space has {size} points" if size else "the space has ranges"
        rule = f"is missing, and {why}, too many to go through one by one"
        self._fault(("search",), rule, "write search: {sampler: random, trials: 50, seed: 0}")
        return None

    def _early_stop(self) -> StoppingConfig | None:
        registry = StoppingConfig.by_scheduler
        found = self._registered("early_stop", "scheduler", registry)
        if found is not None:
            return found
        section = self.data.get("early_stop")
        given = section if isinstance(section, Mapping) else {}
        kept = {key: given[key] for key in ("metric", "strata") if key in given}
        return _salvaged(registry["none"], {"scheduler": "none", **kept}, ())

    def _registered(self, section: str, key: str, registry: Mapping[str, type[T]]) -> T | None:
        """A section whose class one of its keys picks."""
        if section not in self.data:
            return None
        value = self.data[section]
        way_out = f"write {section}: {{{key}: {sorted(registry)[0]}, ...}}"
        if not isinstance(value, Mapping):
            self.faults.append(Fault((section,), f"must be a mapping with {key}", value, way_out))
        elif key not in value:
            self._misspelt_or_missing(section, key, value, registry)
        elif not isinstance(value[key], str) or value[key] not in registry:
            rule = f"unknown {key}; known: {listed(sorted(registry))}"
            near = closest(value[key], registry)
            self.faults.append(Fault((section, key), rule, value[key], "use one of these", near))
        else:
            model: Any = registry[value[key]]
            found: T | None = self._validated(model, value, (section,))
            return found
        return None

    def _misspelt_or_missing(
        self, section: str, key: str, value: Mapping[str, Any], registry: Mapping[str, Any]
    ) -> None:
        near = next((k for k in value if closest(k, [key])), None)
        if near is not None:
            self.faults.append(unknown_key((section, near), [key]))
        else:
            rule = f"is missing; it is one of {listed(sorted(registry))}"
            self._fault((section, key), rule, f"write {key}: {sorted(registry)[0]}")

    def _validated(self, model: type[Any], data: Any, prefix: KeyPath = ()) -> Any:
        """The section; with faults, what is left without the faulty keys, for the other checks."""
        try:
            return model.model_validate(data)
        except ValidationError as error:
            told = model_faults(error, model, data)
            self.faults.extend(fault.under(prefix) for fault in told)
            return _salvaged(model, data, [fault.path[0] for fault in told if fault.path])

    def _fault(self, path: KeyPath, rule: str, way_out: str) -> None:
        self.faults.append(Fault(path, rule, way_out=way_out))


@cache
def _sections_model() -> type[BaseModel]:
    """The fields of SweepSpec that are validated as they stand in the file, as a model."""
    fields: dict[str, Any] = {
        name: (field.annotation, field)
        for name, field in SweepSpec.model_fields.items()
        if name not in _SECTIONS_WITH_RULES
    }
    return create_model("Sections", __config__=SweepSpec.model_config, **fields)


def _salvaged(model: type[Any], data: Any, faulty: Sequence[object]) -> Any:
    """The section without its faulty keys, or None where it cannot be without them."""
    try:
        return model.model_validate({k: v for k, v in data.items() if k not in faulty})
    except (ValidationError, AttributeError):
        return None


def without_misspelt(faults: list[Fault]) -> list[Fault]:
    """The faults without the missing keys that another fault found misspelt."""
    misspelt = {(*f.path[:-1], f.suggestion) for f in faults if f.suggestion and f.path}
    return [f for f in faults if not (f.rule.startswith("is missing") and f.path in misspelt)]
