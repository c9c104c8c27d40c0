"""Keeping secrets out of what goes into the store: logs, tracebacks, records."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from urllib.parse import quote

SECRET_WORDS = ("TOKEN", "SECRET", "KEY", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIAL", "AUTH")
"""A variable is secret if a word of its name ends so: HF_TOKEN, PGPASSWORD, AWS_SECRET_KEYS."""

MIN_SECRET_CHARACTERS = 6
"""Shorter values, such as `true`, would be replaced in the middle of ordinary words."""

RECORDED_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "HF_DATASETS_OFFLINE",
    "HF_HOME",
    "HF_HUB_OFFLINE",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "PYTORCH_CUDA_ALLOC_CONF",
    "RAY_ADDRESS",
    "SAEQ_BACKEND",
    "SAEQ_CACHE",
    "SAEQ_KERNELS",
    "SAEQ_STORE",
    "SLURM_JOB_ID",
    "TOKENIZERS_PARALLELISM",
    "TRANSFORMERS_OFFLINE",
)
"""Variables that change what a trial does. A record names those that are set, never a value."""

_SECRET_NAME = re.compile(rf"(?:{'|'.join(SECRET_WORDS)})S?(?:_|$)", re.IGNORECASE)
_USERINFO = re.compile(r"\b([a-z][a-z0-9+.-]*://)[^\s/?#@'\"<>]+@", re.IGNORECASE)
_SIGNED = re.compile(
    r"([?&](?:X-Amz-(?:Signature|Credential|Security-Token)|AWSAccessKeyId|Signature|sig|token|"
    r"access_token|api_key|key)=)[^&\s'\"<>]+",
    re.IGNORECASE,
)
_BEARER = re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/=-]{8,}")
_WELL_KNOWN = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|(?:AKIA|ASIA)[A-Z0-9]{16}"
    r"|sk-[A-Za-z0-9_-]{20,})\b"
)


class Redactor:
    """Replaces secrets in text: values of secret variables by `<NAME>`, users in URLs, tokens.

    Args:
        environment: where the values are from; the process's own by default.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        environment = os.environ if environment is None else environment
        shown_as: dict[str, str] = {}
        for name in sorted(environment):
            if is_secret_name(name):
                for form in _forms(environment[name]):
                    shown_as.setdefault(form, f"<{name}>")
        self._shown_as = shown_as
        longest_first = sorted(shown_as, key=len, reverse=True)
        self._values = re.compile("|".join(map(re.escape, longest_first))) if shown_as else None

    def __call__(self, text: str) -> str:
        """The text without what must not be seen."""
        if self._values is not None:
            text = self._values.sub(lambda found: self._shown_as[found[0]], text)
        text = _USERINFO.sub(r"\1<user>@", text)
        text = _SIGNED.sub(r"\1<secret>", text)
        text = _BEARER.sub(r"\1 <secret>", text)
        return _WELL_KNOWN.sub("<secret>", text)


def is_secret_name(name: str) -> bool:
    """Whether a variable of this name is taken to hold a secret."""
    return _SECRET_NAME.search(name) is not None


def redact(text: str) -> str:
    """The text without the secrets of this process's environment, as it is now."""
    return Redactor()(text)


def recorded_environment(environment: Mapping[str, str] | None = None) -> list[str]:
    """Names of the variables that are set and worth a word in a record."""
    environment = os.environ if environment is None else environment
    return [name for name in RECORDED_VARIABLES if name in environment]


def _forms(value: str) -> list[str]:
    """A secret as it is, as Python or JSON print it, as a URL carries it, and line by line."""
    value = value.strip()
    lines = [line.strip() for line in value.splitlines()]
    forms = [value, repr(value)[1:-1], quote(value, safe=""), *(lines if len(lines) > 1 else [])]
    return [form for form in dict.fromkeys(forms) if len(form) >= MIN_SECRET_CHARACTERS]
