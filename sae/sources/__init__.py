"""Where text comes from. One module here is one source; importing the folder finds them all."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from sae.sources.base import Document, Source, builtin_names

if TYPE_CHECKING:
    from sae.stream_spec import DataSpec

__all__ = ["Document", "Source", "builtin_names", "open_source"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")


def open_source(data: DataSpec) -> Source:
    """Make the source that a sweep's data part asks for. Raises BadData if it cannot be had."""
    if data.builtin is not None:
        return Source.by_name[data.builtin](data)
    given = next(
        name
        for name, source in Source.by_name.items()
        if not source.is_builtin and getattr(data, name, None) is not None
    )
    return Source.by_name[given](data)
