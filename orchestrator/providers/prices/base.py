"""What a provider of machines is asked: the price of a node, now and over its life."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import ClassVar

from orchestrator.money.price_history import PriceHistory
from orchestrator.store import Store


class PriceUnavailable(ValueError):
    """A provider could not say what a node costs."""


@dataclass(frozen=True)
class ProviderPrice:
    """Price of a node as a whole."""

    history: PriceHistory
    source: str
    """Names the history, so that `PriceProvider.recalled` finds it again."""


class PriceProvider(ABC):
    """One provider; a subclass is found by its `name`, which a node's label gives."""

    name: ClassVar[str]
    by_name: ClassVar[dict[str, type[PriceProvider]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.name in PriceProvider.by_name:
            raise ValueError(f"two providers are named {cls.name!r}; rename one")
        PriceProvider.by_name[cls.name] = cls

    @abstractmethod
    def price(self, labels: Mapping[str, str], store: Store, now: float) -> ProviderPrice | None:
        """Price of the node with these labels; None where this provider has none for it.

        May ask the provider over the network, for seconds at most, and keeps the answer in the
        store. Raises PriceUnavailable.
        """

    @abstractmethod
    def recalled(self, source: str, store: Store) -> PriceHistory | None:
        """What the store holds under a source noted earlier. Asks nobody."""


def provider_named(name: str) -> PriceProvider:
    """The provider of that name. Raises PriceUnavailable, with the names there are."""
    if name in PriceProvider.by_name:
        return PriceProvider.by_name[name]()
    known = sorted(PriceProvider.by_name)
    near = get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise PriceUnavailable(
        f"provider {name!r} of a node is unknown; known providers: {', '.join(known)}.{hint}"
    )


def recalled_history(source: str, store: Store) -> PriceHistory | None:
    """The history that a price's source names, whosoever it is; None if it names none."""
    found = (provider().recalled(source, store) for provider in PriceProvider.by_name.values())
    return next((history for history in found if history is not None), None)
