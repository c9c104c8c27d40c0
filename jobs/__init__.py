"""What one trial does: one module a job kind. Importing the folder finds every kind."""

from importlib import import_module
from pkgutil import iter_modules

from jobs.kind import JobKind as JobKind

for _module in iter_modules(__path__):
    if not _module.ispkg and not _module.name.startswith("_"):
        import_module(f"{__name__}.{_module.name}")
