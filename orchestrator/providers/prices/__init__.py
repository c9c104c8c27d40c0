"""Who rents machines out. One module here is one provider; importing the folder finds them."""

from importlib import import_module
from pkgutil import iter_modules

from orchestrator.providers.prices.base import (
    PriceProvider,
    PriceUnavailable,
    ProviderPrice,
    provider_named,
    recalled_history,
)

__all__ = [
    "PriceProvider",
    "PriceUnavailable",
    "ProviderPrice",
    "provider_named",
    "recalled_history",
]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
