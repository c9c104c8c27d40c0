"""Who announces that a machine will go. One module here is one source; importing finds them."""

from importlib import import_module
from pkgutil import iter_modules

from orchestrator.providers.notices.base import (
    Announcer,
    BadNotices,
    Notice,
    NoticeSource,
    NoticesUnavailable,
    find_source,
    notice_source,
)

__all__ = [
    "Announcer",
    "BadNotices",
    "Notice",
    "NoticeSource",
    "NoticesUnavailable",
    "find_source",
    "notice_source",
]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
