"""What travels to a node: the code that runs here, and the versions of all that it stands on."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

PACKAGES = ("orchestrator", "jobs", "sae", "steering")
SUFFIXES = frozenset({".py", ".sh", ".cpp", ".h", ".typed"})
EXTRA = "s3"


class NotInstalled(ValueError):
    """saeq runs from a folder of sources: which versions it stands on is not known."""


@dataclass(frozen=True)
class CodeHere:
    """The packages of this saeq, as they are on this machine now."""

    root: Path
    """The folder that holds the packages."""
    version: str
    requires: tuple[str, ...]
    """As metadata have it, extras in markers."""

    @classmethod
    def find(cls) -> CodeHere:
        """In a folder of sources its pyproject.toml counts: what was installed once may be older.

        Raises NotInstalled.
        """
        root = Path(__file__).parents[2]
        project = root / "pyproject.toml"
        if project.is_file():
            return cls(root, *_declared(project.read_text(encoding="utf-8")))
        try:
            found = distribution("saeq")
        except PackageNotFoundError as error:
            raise NotInstalled(
                "saeq is not installed here, so the versions that a node needs are not known; "
                "`pip install '.[s3]'` in its folder, then call saeq of that environment"
            ) from error
        return cls(root, found.version, tuple(found.requires or ()))

    @cached_property
    def files(self) -> dict[str, bytes]:
        """Path below the packages' folder -> content; its metadata make it count as installed."""
        found = {
            path.relative_to(self.root).as_posix(): path.read_bytes()
            for package in PACKAGES
            for path in sorted((self.root / package).rglob("*"))
            if path.suffix in SUFFIXES and "__pycache__" not in path.parts
        }
        info = f"saeq-{self.version}.dist-info"
        found[f"{info}/METADATA"] = self._metadata.encode()
        found[f"{info}/RECORD"] = b""
        found[f"{info}/INSTALLER"] = b"saeq\n"
        return found

    @property
    def _metadata(self) -> str:
        lines = ["Metadata-Version: 2.1", "Name: saeq", f"Version: {self.version}"]
        lines += [f"Provides-Extra: {EXTRA}", *(f"Requires-Dist: {one}" for one in self.requires)]
        return "\n".join(lines) + "\n"

    @cached_property
    def sha256(self) -> str:
        """Of all files, with their names."""
        digest = hashlib.sha256()
        for name, content in sorted(self.files.items()):
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
        return digest.hexdigest()

    @property
    def requirements(self) -> list[str]:
        """What saeq itself needs, with boto3, as pip takes it."""
        wanted = (_without_extra(line) for line in self.requires)
        return sorted(line for line in wanted if line)

    @cached_property
    def constraints(self) -> list[str]:
        """`name==version` of everything that saeq stands on here."""
        versions = {
            name: dist.version.partition("+")[0] for name, dist in _closure(self.requirements)
        }
        return [f"{name}=={version}" for name, version in sorted(versions.items())]

    @property
    def torch(self) -> str:
        """Version of torch here, without the build's name."""
        return distribution("torch").version.partition("+")[0]


_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)")
_ONLY_EXTRA = re.compile(r"""extra\s*==\s*["']([^"']+)["']""")


def _without_extra(line: str) -> str:
    """The requirement, if it is asked for without an extra or with ours; else nothing."""
    wanted, _, marker = line.partition(";")
    extra = _ONLY_EXTRA.search(marker)
    if extra is None:
        return line.strip()
    return wanted.strip() if extra[1] == EXTRA else ""


def _declared(project: str) -> tuple[str, tuple[str, ...]]:
    """Version and requirements of a pyproject.toml; of the extras, ours alone."""
    table = tomllib.loads(project)["project"]
    extra = table.get("optional-dependencies", {}).get(EXTRA, [])
    marked = (f'{line}; extra == "{EXTRA}"' for line in extra)
    return table["version"], (*table["dependencies"], *marked)


def _closure(requirements: Iterable[str]) -> Iterator[tuple[str, Distribution]]:
    """Every distribution that is installed here and needed, directly or not, by name."""
    seen = {"saeq"}
    to_visit = list(requirements)
    while to_visit:
        found = _REQUIREMENT.match(to_visit.pop())
        name = re.sub(r"[-_.]+", "-", found[1]).lower() if found else "saeq"
        if name in seen:
            continue
        seen.add(name)
        try:
            dist = distribution(name)
        except PackageNotFoundError:
            continue  # of another platform, or of an extra that is not asked for
        yield name, dist
        # With what their extras bring, where it is here: more pins do no harm.
        to_visit += dist.requires or []
