"""What `saeq steer` is asked for: vectors, latents and where they are. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from orchestrator.cli.errors import RequestError
from orchestrator.store import Store
from sae.trained_sae import SaeSpec

__all__ = ["LatentChange", "VectorRequest", "check_asked", "latent_change", "vector_requests"]

VECTORS_JSON = "vectors.json"


@dataclass(frozen=True)
class VectorRequest:
    """Steering vectors to be added."""

    name: str
    folder: Path
    strength: float


@dataclass(frozen=True)
class LatentChange:
    """A latent to be set or scaled."""

    name: str
    sae: SaeSpec
    latent: int
    change: Literal["set", "scale"]
    value: float

    @property
    def label(self) -> str:
        """As a person would say it."""
        how = f"times {self.value:g}" if self.change == "scale" else f"= {self.value:g}"
        return f"{self.name} latent {self.latent} {how}"


def check_asked(
    vectors: Sequence[str] | None,
    latents: Sequence[str] | None,
    strengths: Sequence[float] | None,
    *,
    sae_check: bool = True,
) -> None:
    """Whether there is something to steer with. Raises RequestError."""
    if not vectors and not latents:
        raise RequestError(
            "nothing to steer with; give --vector ARTEFACT or --latent SAE:123=0 (`saeq artefacts` "
            "lists what the store holds)"
        )
    if strengths and not vectors:
        raise RequestError("--strength is of vectors; a latent's value stands behind its =")
    if not sae_check and not latents:
        raise RequestError("--no-sae-check is of latents, and none is given; leave it out")


def vector_requests(
    store: Store, names: Sequence[str], strengths: Sequence[float]
) -> list[VectorRequest]:
    """Find vectors, and a strength for each.

    Args:
        names: artefacts' ids or folders.
        strengths: one for all, one each, or none: what each suggests.

    Raises:
        RequestError: something is not there, or strengths do not fit.
    """
    if len(strengths) not in (0, 1, len(names)):
        raise RequestError(
            f"{len(strengths)} strengths for {len(names)} vectors; give --strength once for all of "
            "them, once for each, or not at all where the vectors suggest one"
        )
    found = []
    for place, name in enumerate(names):
        folder = _folder_of(store, name, "vectors", VECTORS_JSON)
        own = list(strengths) * len(names) if len(strengths) == 1 else list(strengths)
        strength = own[place] if own else _suggested(folder, name)
        found.append(VectorRequest(name, folder, strength))
    return found


def latent_change(store: Store, text: str) -> LatentChange:
    """Read `SAE:123=0` or `SAE:123=x2`; SAE is an artefact, a folder, or RELEASE/ID.

    Raises:
        RequestError: it cannot be read, or the SAE is not there.
    """
    name, _, rest = text.rpartition(":")
    latent, _, value = rest.partition("=")
    scales = value.startswith("x")
    try:
        number, amount = int(latent), float(value.removeprefix("x"))
    except ValueError:
        number, amount = -1, 0.0
    if not name or number < 0:
        raise RequestError(
            f"--latent {text!r} cannot be read; write SAE:123=0 to turn latent 123 off, =5 to set "
            "it to 5, =x2 to double it; SAE is an artefact's id, a folder, or RELEASE/ID"
        )
    return LatentChange(name, _sae_of(store, name), number, "scale" if scales else "set", amount)


def _sae_of(store: Store, name: str) -> SaeSpec:
    if Path(name).is_dir():
        return SaeSpec(folder=name)
    if "/" in name and not name.startswith((".", "/", "~")):
        release, _, sae_id = name.partition("/")
        return SaeSpec(release=release, id=sae_id)
    return SaeSpec(folder=str(_folder_of(store, name, "sae", "cfg.json")))


def _folder_of(store: Store, name: str, kind: str, file: str) -> Path:
    """A folder as it is, or an artefact's files on this machine."""
    from orchestrator.needs.inputs import input_artefacts, with_files

    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / file).is_file():
            raise RequestError(f"{name} has no {file}; name a folder or artefact of kind {kind}")
        return path
    files = store.files(store.layout.artefact(kind, name)) if _may_be_an_id(name) else None
    if files is None:
        raise RequestError(_not_there(store, name, kind))
    reference = {"kind": kind, "id": name, "sweep": "", "sha256": files.sha256}
    (found,) = input_artefacts(store, [reference])
    folder = with_files(store, found).folder
    assert folder is not None
    return folder


def _may_be_an_id(name: str) -> bool:
    return bool(name) and "/" not in name and not name.startswith(".")


def _not_there(store: Store, name: str, kind: str) -> str:
    known = sorted(store.backend.children(store.layout.artefact_kind(kind)))
    near = get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    listed = f"`saeq artefacts --kind {kind}` lists them" if known else "it holds none"
    return f"no folder and no {kind} of {store.url} is called {name!r}; {listed}.{hint}"


def _suggested(folder: Path, name: str) -> float:
    try:
        said: Any = json.loads((folder / VECTORS_JSON).read_text(encoding="utf-8"))
        strength = said["about"]["suggested_strength"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RequestError(
            f"{folder / VECTORS_JSON} is broken ({error}); fetch it again"
        ) from error
    if strength is None:
        raise RequestError(
            f"--strength is missing, and {name} suggests none; give a fraction of the residual "
            "norm, such as --strength 0.3 (negative steers away)"
        )
    return float(strength)
