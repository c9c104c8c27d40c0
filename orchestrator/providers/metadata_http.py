"""Asking a cloud's metadata server, which answers on a link-local address, or does not exist."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

ADDRESS = "http://169.254.169.254"
"""Of every cloud that has one. By number: looking up a name can take longer than all else."""
MAX_ANSWER_BYTES = 65536

_opener = build_opener(ProxyHandler({}))  # a proxy would answer for a machine of its own


class NoAnswer(ValueError):
    """The metadata server is not there, or too slow."""


@dataclass(frozen=True)
class Answer:
    """What a metadata server said."""

    status: int
    text: str
    headers: Mapping[str, str]
    """Their names in lower case."""


def ask(url: str, headers: Mapping[str, str], timeout_s: float, method: str = "GET") -> Answer:
    """One request. An HTTP status other than 200 is an answer too. Raises NoAnswer.

    Args:
        timeout_s: for connecting, and for each wait for more of the answer.
    """
    request = Request(url, headers=dict(headers), method=method)
    try:
        with _opener.open(request, timeout=timeout_s) as response:
            text = response.read(MAX_ANSWER_BYTES).decode("utf-8", errors="replace")
            return Answer(response.status, text, _lowered(response.headers))
    except HTTPError as error:
        with error:
            return Answer(error.code, "", _lowered(error.headers))
    except URLError as error:
        raise NoAnswer(f"{url} does not answer: {error.reason}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NoAnswer(f"{url} does not answer: {type(error).__name__} {error}".rstrip()) from error


def _lowered(headers: Message) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
