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
    from huggingface_hub import HfApi, errors
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    # Of httpx or httpx2, whichever this version of the hub's library uses; it exports neither.
    transport_error: type[Exception] = vars(errors)["HTTPError"]

    api = HfApi()
    ask = api.model_info if kind == "model" else api.dataset_info
    try:
        return str(ask(name, revision=revision, timeout=TIMEOUT_S).sha)
    except HFValidationError:
        raise NotOnHub(f"{name!r} is neither a path that exists nor a hub id") from None
    except HfHubHTTPError as error:
        if error.response.status_code >= 500:
            return None
        raise NotOnHub(" ".join(str(error).split())) from error
    except (transport_error, OSError):
        return None
