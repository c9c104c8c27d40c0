"""What a lab writes down once: worker options from a TOML file, overruled by the command line."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orchestrator.slurm.options import WorkerOptions, keys
from orchestrator.spec.faults import Fault, closest, listed, unknown_key
from orchestrator.spec.pydantic_faults import model_faults

PROFILE_VARIABLE = "SAEQ_PROFILE"
"""A file that is read instead of the nearest one."""
FILES = ("saeq.toml", "pyproject.toml")
TABLE = ("tool", "saeq", "slurm")
HEADING = ".".join(TABLE)
PROFILES = "profiles"


class BadOptions(ValueError):
    """All that is wrong with options for workers, each with where it was said.

    Args:
        faults: one line each.
    """

    def __init__(self, faults: tuple[str, ...]) -> None:
        super().__init__(faults)
        self.faults = faults

    def __str__(self) -> str:
        return "\n".join(self.faults)


@dataclass(frozen=True)
class ProfileFile:
    """A file that has the table, read but not yet judged."""

    path: Path
    table: Mapping[str, Any]
    text: str

    @property
    def profiles(self) -> Mapping[str, Any]:
        """The named ones."""
        found = self.table.get(PROFILES, {})
        return found if isinstance(found, Mapping) else {}

    def values(self, profile: str | None) -> dict[str, Any]:
        """What holds for all, overruled by a named profile."""
        named = self.profiles.get(profile, {}) if profile else {}
        return {k: v for k, v in self.table.items() if k != PROFILES} | dict(named)

    def placed(self, fault: Fault, profile: str | None) -> Fault:
        """With the line of its key, where that can be found."""
        tables = [f"{HEADING}.{PROFILES}.{profile}"] if profile else []
        lines = (_line_of(self.text, table, str(fault.path[0])) for table in [*tables, HEADING])
        return replace(fault, line=next((line for line in lines if line), None))


def load_options(
    said: Mapping[str, Any], profile: str | Path | None = None, start: Path | None = None
) -> WorkerOptions:
    """The options of the command line over those of the profile file.

    Args:
        said: on the command line, by key (`orchestrator.slurm.options.keys`), without those that
            were not given.
        profile: a named one of the file, over what the file says for all; or another file
            (`lab.toml`), or a named one of that (`lab.toml:debug`).
        start: where the search for a file begins; the current folder by default.

    Raises:
        BadOptions: with every fault, its file, line, key, value and way out.
    """
    place, named = _split(profile)
    file = _given(place, "--profile") if place else find_file(start or Path.cwd())
    faults = list(_faults_of_file(file, named))
    written = file.values(named) if file is not None else {}
    written = _with_paths(written, file.path.parent if file is not None else Path())
    values = {name: _both(name, written, said) for name in {**written, **said}}
    known = {name: value for name, value in values.items() if name in keys()}
    faults += [_said(unknown_key((name,), keys())) for name in said if name not in keys()]
    options = None
    try:
        options = WorkerOptions.model_validate(known)
    except ValidationError as error:
        for fault in model_faults(error, WorkerOptions, known):
            faults.append(_worded(fault, file, named, said))
    faults += [_worded(f, file, named, said) for f in _missing_files(known)]
    if faults or options is None:
        raise BadOptions(tuple(faults))
    return options


def find_file(start: Path) -> ProfileFile | None:
    """$SAEQ_PROFILE, else the nearest file upward with the table, else ~/.config/saeq/config.toml.

    Raises BadOptions for one that is no TOML, and for a $SAEQ_PROFILE without the table.
    """
    given = os.environ.get(PROFILE_VARIABLE)
    if given:
        return _given(given, PROFILE_VARIABLE)
    start = start.absolute()
    places = [folder / name for folder in (start, *start.parents) for name in FILES]
    places.append(Path.home() / ".config" / "saeq" / "config.toml")
    return next((found for path in places if path.is_file() and (found := _read(path))), None)


def folder_in_profile(start: Path | None = None) -> Path | None:
    """Where the profile file has the jobs' files; None where it says nothing of that.

    Raises BadOptions for a file that is no TOML.
    """
    file = find_file(start or Path.cwd())
    found = _with_paths(file.table, file.path.parent).get("folder") if file is not None else None
    return Path(found) if isinstance(found, str) else None


def _split(profile: str | Path | None) -> tuple[str, str | None]:
    """File and name, either of them perhaps not there."""
    place, colon, name = str(profile or "").partition(".toml")
    if colon:
        return f"{place}.toml", name.removeprefix(":") or None
    return "", place or None


def _given(place: str, by: str) -> ProfileFile:
    found = _read(Path(place).expanduser().absolute())
    if found is None:
        raise BadOptions((f"{by}={place} has no [{HEADING}]; write it there, or leave it out",))
    return found


def _read(path: Path) -> ProfileFile | None:
    """None if it says nothing of SLURM."""
    try:
        text = path.read_text()
        data: Any = tomllib.loads(text)
    except OSError as error:
        raise BadOptions((f"{path} cannot be read: {error.strerror}; check the path",)) from error
    except ValueError as error:
        raise BadOptions((f"{path}: is no TOML: {error}; mend that line",)) from error
    if path.name != "pyproject.toml" and isinstance(data.get("slurm"), Mapping):
        raise BadOptions((f"{path}: [slurm] is read by nobody; write [{HEADING}]",))
    ours = data.get("tool", {}).get("saeq", {})
    if "slurm" not in ours:
        near = closest("slurm", ours) if isinstance(ours, Mapping) else None
        if near is None:
            return None
        raise BadOptions((f"{path}: [tool.saeq.{near}] is unknown. Did you mean [{HEADING}]?",))
    table = ours["slurm"]
    if not isinstance(table, Mapping):
        raise BadOptions((f"{path}: {HEADING} must be a table; write [{HEADING}]",))
    return ProfileFile(path, table, text)


def _faults_of_file(file: ProfileFile | None, profile: str | None) -> Iterator[str]:
    """A profile that is not there, and keys that nothing takes."""
    if profile is not None and (file is None or profile not in file.profiles):
        yield _no_such_profile(file, profile)
    if file is None:
        return
    if not isinstance(file.table.get(PROFILES, {}), Mapping):
        yield f"{file.path}: {PROFILES} must be tables; write [{HEADING}.{PROFILES}.NAME]"
    for name, table in file.profiles.items():
        if not isinstance(table, Mapping):
            yield f"{file.path}: {PROFILES}.{name} must be a table of options"
    for name in file.values(profile):
        if name not in keys():
            yield file.placed(unknown_key((name,), keys()), profile).worded(str(file.path))


def _no_such_profile(file: ProfileFile | None, profile: str) -> str:
    if file is None:
        way_out = f"write [{HEADING}.{PROFILES}.{profile}] into saeq.toml, or leave --profile out"
        return f"--profile {profile}: there is no file with profiles; {way_out}"
    near = closest(profile, file.profiles)
    hint = f" Did you mean {near!r}?" if near else ""
    known = listed(sorted(file.profiles)) or "none"
    return f"--profile {profile}: {file.path} has no such profile; it has: {known}.{hint}"


def _with_paths(written: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Paths in a file are as seen from that file."""
    values = dict(written)
    for name in ("setup", "folder"):
        if isinstance(values.get(name), str):
            values[name] = str(folder / Path(values[name]).expanduser())
    return values


def _both(name: str, written: Mapping[str, Any], said: Mapping[str, Any]) -> Any:
    """What is said counts; of tables, both do."""
    if name not in said or name not in written:
        return said.get(name, written.get(name))
    tables = written[name], said[name]
    if name == "sbatch":
        return [option for table in tables for option in _as_options(table)]
    if name == "environment" and all(isinstance(table, Mapping) for table in tables):
        return {**tables[0], **tables[1]}
    return said[name]


def _as_options(table: Any) -> list[str]:
    if not isinstance(table, Mapping):
        return list(table)
    return [name if given is True else f"{name}={given}" for name, given in table.items()]


def _missing_files(values: Mapping[str, Any]) -> Iterator[Fault]:
    setup = values.get("setup")
    if setup is not None and not Path(str(setup)).expanduser().is_file():
        yield Fault(("setup",), "there is no such file", str(setup), "name a shell file")


def _worded(
    fault: Fault, file: ProfileFile | None, profile: str | None, said: Mapping[str, Any]
) -> str:
    is_written = file is not None and fault.path and str(fault.path[0]) in file.values(profile)
    if file is None or not is_written or str(fault.path[0]) in said:
        return _said(fault)
    return file.placed(fault, profile).worded(str(file.path))


def _said(fault: Fault) -> str:
    """As the command line has it: `--array-throttle: ...`."""
    if not fault.path:
        return fault.worded()
    option = f"--{str(fault.path[0]).replace('_', '-')}"
    return replace(fault, path=(option, *fault.path[1:])).worded()


def _line_of(text: str, table: str, key: str) -> int | None:
    """Where a key is written in a table, or the heading of the table that it is; from 1."""
    current = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if heading := re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line):
            current = heading[1].replace('"', "")
            if current == f"{table}.{key}":
                return number
        elif current == table and re.match(rf"\s*\"?{re.escape(key)}\"?\s*[=.]", line):
            return number
    return None
