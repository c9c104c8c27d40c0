"""Asks the Hugging Face hub which commit a name stands for, without minutes of retries."""

from __future__ import annotations

from typing import Literal

TIMEOUT_S = 10.0


class NotOnHub(LookupError):
    """The hub answered, and will not give this name out."""


def hub_commit(
    kind: Literal["model", "dataset"], name: str, revision: str | None = None
) -> str | None:
    """Find the commit that a hub name stands for now; None when the hub cannot be reached.

    Raises NotOnHub if the name or revision does not exist or may not be read. One request:
    the libraries' own look-up retries for 25 s when there is no network.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        HTTPError,  # type: ignore[attr-defined]  # of httpx or httpx2, whichever the hub uses
    )

    api = HfApi()
    ask = api.model_info if kind == "model" else api.dataset_info
    try:
        return str(ask(name, revision=revision, timeout=TIMEOUT_S).sha)
    except HFValidationError:
        raise NotOnHub(f"{name!r} is neither a path that exists nor a hub id") from None
    except HfHubHTTPError as error:
        raise NotOnHub(str(error).strip().splitlines()[-1]) from error
    except (HTTPError, OSError):
        return None
