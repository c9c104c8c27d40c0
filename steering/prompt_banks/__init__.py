"""Questions to ask a model: own ones and topic-neutral ones; one built-in bank a file."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from steering.prompt_banks.bank import Bank, Prompt
from steering.prompt_banks.reading import read_bank

__all__ = ["Bank", "Prompt", "builtin_banks", "find_bank", "read_bank"]

_NOT_BANKS = ("bank", "reading", "leak")


def builtin_banks() -> Mapping[str, Bank]:
    """The banks that are here, by name."""
    names = [one.name for one in iter_modules(__path__) if one.name not in _NOT_BANKS]
    banks = [import_module(f"{__name__}.{name}").BANK for name in names]
    return {bank.name: bank for bank in banks}


def find_bank(name: str, folder: Path = Path()) -> Bank:
    """A built-in bank, or one of a file (with an ending).

    Raises BadSteeringInput with what there is, or with the faulty line.
    """
    if (known := builtin_banks()).get(name) is not None:
        return known[name]
    return read_bank(folder / name, known=tuple(known))
