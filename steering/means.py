"""Means and variances of activations and latents over any number of tokens, in one pass.

What mean ablation and firing rates need; parts that machines computed apart can be merged. A torch
module where it reads. Shape suffixes: N = tokens, D = width of a hook or number of latents.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from steering.errors import BadSteeringInput

if TYPE_CHECKING:
    from sae.language_model import LanguageModel
    from sae.trained_sae import TrainedSae

__all__ = ["Means", "Moments", "load_means", "merge_means", "read_means", "save_means"]

Array = np.ndarray[Any, Any]
OnProgress = Callable[[int, int], None]
FORMAT = 1
ENCODED_TOKENS = 512


@dataclass(frozen=True)
class Moments:
    """Count, mean and spread of vectors; float64."""

    count: int
    mean_D: Array
    m2_D: Array
    """Sum of squared distances from the mean."""
    active_D: Array
    """How many of the vectors were not zero there, int64."""

    @classmethod
    def empty(cls, width: int) -> Moments:
        """Of no vectors."""
        return cls(0, np.zeros(width), np.zeros(width), np.zeros(width, dtype=np.int64))

    @classmethod
    def of(cls, x_ND: Array) -> Moments:
        """Of these vectors."""
        x_ND = np.asarray(x_ND)
        if not len(x_ND):
            return cls.empty(x_ND.shape[1])
        mean_D = x_ND.mean(axis=0, dtype=np.float64)
        m2_D = np.square(x_ND - mean_D).sum(axis=0)
        return cls(len(x_ND), mean_D, m2_D, np.count_nonzero(x_ND, axis=0).astype(np.int64))

    def merged(self, other: Moments) -> Moments:
        """Of both (Chan, Golub and LeVeque 1979, equation 1.5)."""
        count = self.count + other.count
        if not self.count or not other.count:
            return self if self.count else other
        apart_D = other.mean_D - self.mean_D
        return Moments(
            count,
            self.mean_D + apart_D * (other.count / count),
            self.m2_D + other.m2_D + np.square(apart_D) * (self.count * other.count / count),
            self.active_D + other.active_D,
        )

    @property
    def variance_D(self) -> Array:
        """With n - 1; zeros for fewer than two vectors."""
        return self.m2_D / max(1, self.count - 1)

    @property
    def active_rate_D(self) -> Array:
        """Share of the vectors that are not zero there: of latents the firing rate."""
        return self.active_D / max(1, self.count)


@dataclass(frozen=True)
class Means:
    """Moments of several hooks and SAEs, over the same tokens."""

    moments: Mapping[str, Moments]
    """By hook; of latents by the name of the SAE."""
    about: Mapping[str, Any]
    """What they were read from, as JSON: parts are merged only if it is the same."""
    texts: int
    """Texts that were read."""

    def __getitem__(self, name: str) -> Moments:
        if name not in self.moments:
            raise BadSteeringInput(
                f"there are no means of {name!r}; there is {', '.join(self.moments)}"
            )
        return self.moments[name]


def merge_means(parts: Sequence[Means]) -> Means:
    """One of several that were read from other texts, by the same model at the same places.

    Raises:
        BadSteeringInput: none are given, or they are of different things.
    """
    if not parts:
        raise BadSteeringInput("there are no means to merge; name at least one")
    first = parts[0]
    for other in parts[1:]:
        if dict(other.about) != dict(first.about):
            differs = sorted(
                key
                for key in {*first.about, *other.about}
                if first.about.get(key) != other.about.get(key)
            )
            raise BadSteeringInput(
                f"means of different things cannot be merged: they differ in {', '.join(differs)}"
            )
    moments = dict(first.moments)
    for other in parts[1:]:
        moments = {name: own.merged(other.moments[name]) for name, own in moments.items()}
    return Means(moments, first.about, sum(part.texts for part in parts))


def read_means(
    lm: LanguageModel,
    texts: Sequence[str],
    hooks: Sequence[str] = (),
    saes: Mapping[str, TrainedSae] | None = None,
    *,
    max_tokens: int = 512,
    batch_tokens: int = 4096,
    state: Path | None = None,
    texts_a_part: int = 256,
    on_progress: OnProgress | None = None,
) -> Means:
    """Moments over the texts' own tokens (BOS and padding aside), one pass for all places.

    Args:
        saes: by name; read at the hooks that they were trained at.
        state: a folder in which what is done is kept after each part, so that a call with the
            same arguments goes on there; also the result.
        on_progress: told after each part: texts done, and of how many.

    Raises:
        BadSteeringInput: nothing to read, an SAE that does not fit, or a `state` of something else.
    """
    from steering.probes.features.identity import model_identity, sae_identity
    from steering.probes.features.sae_hooks import path_of_sae

    saes = dict(saes or {})
    if not hooks and not saes:
        raise BadSteeringInput("give hooks or SAEs to take the means of")
    path_by_hook = {hook: lm.path_of(hook) for hook in hooks}
    path_by_sae = {name: path_of_sae(lm, sae) for name, sae in saes.items()}
    identity = model_identity(lm)
    identity = {key: identity[key] for key in ("weights_sha256", "revision", "dtype")}
    about = {
        "format": FORMAT,
        "model": identity,
        "hooks": path_by_hook,
        "saes": {name: [path_by_sae[name], sae_identity(sae)] for name, sae in saes.items()},
        "max_tokens": max_tokens,
    }
    moments: dict[str, Moments] = {}
    done, digest = 0, _digest(texts)
    if state is not None and (kept := _kept(state, about, digest, len(texts))) is not None:
        moments, done = dict(kept.moments), kept.texts
    for start in range(done, len(texts), texts_a_part):
        part = texts[start : start + texts_a_part]
        read = _of_part(lm, part, path_by_hook, path_by_sae, saes, max_tokens, batch_tokens)
        moments = {n: moments[n].merged(one) if n in moments else one for n, one in read.items()}
        if state is not None:
            _save(state, Means(moments, about, start + len(part)), digest)
        if on_progress is not None:
            on_progress(start + len(part), len(texts))
    return Means(moments, about, len(texts))


def save_means(folder: Path, means: Means) -> None:
    """Write `means.json`, and a safetensors file that it names with its hash."""
    _save(folder, means, "")


def load_means(folder: Path) -> Means:
    """Read what `save_means` wrote. Raises BadSteeringInput if it is not there or damaged."""
    return _load(folder)[0]


def _of_part(
    lm: LanguageModel,
    texts: Sequence[str],
    path_by_hook: Mapping[str, str],
    path_by_sae: Mapping[str, str],
    saes: Mapping[str, TrainedSae],
    max_tokens: int,
    batch_tokens: int,
) -> dict[str, Moments]:
    import torch

    from steering.reading import read_activations

    found: dict[str, Moments] = {}

    def add(name: str, x_ND: Array) -> None:
        own = Moments.of(x_ND)
        found[name] = found[name].merged(own) if name in found else own

    paths = sorted({*path_by_hook.values(), *path_by_sae.values()})
    limits = {"max_tokens": max_tokens, "batch_tokens": batch_tokens}
    for batch, acts in read_activations(lm, texts, paths, **limits):
        is_text_NT = batch.is_text_NT
        own = {path: acts_NTD[is_text_NT.to(acts_NTD.device)] for path, acts_NTD in acts.items()}
        for hook, path in path_by_hook.items():
            add(hook, own[path].float().cpu().numpy())
        for name, path in path_by_sae.items():
            for part in torch.split(own[path], ENCODED_TOKENS):
                add(name, saes[name].encode(part).float().cpu().numpy())
    return found


def _digest(texts: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(f"{len(encoded)}:".encode() + encoded)
    return digest.hexdigest()


def _kept(state: Path, about: Mapping[str, Any], digest: str, num_texts: int) -> Means | None:
    if not (state / "means.json").is_file():
        return None
    means, of_texts = _load(state)
    if of_texts != digest or means.texts > num_texts or dict(means.about) != dict(about):
        raise BadSteeringInput(
            f"{state} holds means of other texts, places or another model; name another folder, "
            "or delete it"
        )
    return means


def _save(folder: Path, means: Means, texts_sha256: str) -> None:
    """The arrays under a name of their own, then the JSON that names them: never half of each."""
    from safetensors.numpy import save

    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Array] = {}
    for place, one in enumerate(means.moments.values()):
        arrays |= {f"{place}.mean": one.mean_D, f"{place}.m2": one.m2_D}
        arrays[f"{place}.active"] = one.active_D
    data = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    sha256 = hashlib.sha256(data).hexdigest()
    name = f"means-{sha256[:12]}.safetensors"
    _replace(folder / name, data)
    said = {
        "about": dict(means.about),
        "texts": means.texts,
        "texts_sha256": texts_sha256,
        "moments": [{"name": key, "count": one.count} for key, one in means.moments.items()],
        "file": name,
        "sha256": sha256,
    }
    _replace(folder / "means.json", json.dumps(said, indent=1).encode())
    for old in folder.glob("means-*.safetensors"):
        if old.name != name:
            old.unlink(missing_ok=True)


def _load(folder: Path) -> tuple[Means, str]:
    from safetensors.numpy import load

    try:
        said = json.loads((folder / "means.json").read_text())
        data = (folder / said["file"]).read_bytes()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadSteeringInput(
            f"{folder} holds no means that can be read ({error}); name a folder that save_means "
            "wrote"
        ) from error
    if hashlib.sha256(data).hexdigest() != said["sha256"]:
        raise BadSteeringInput(f"{folder}/{said['file']} is damaged; compute the means again")
    arrays = load(data)
    moments = {
        one["name"]: Moments(
            one["count"],
            arrays[f"{place}.mean"],
            arrays[f"{place}.m2"],
            arrays[f"{place}.active"],
        )
        for place, one in enumerate(said["moments"])
    }
    return Means(moments, said["about"], said["texts"]), said["texts_sha256"]


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".writing-{uuid.uuid4().hex}")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
