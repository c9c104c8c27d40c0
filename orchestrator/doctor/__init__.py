"""What `saeq doctor` looks at: one module here is one check; importing the folder finds them."""

from importlib import import_module
from pkgutil import iter_modules

from orchestrator.doctor.base import Check, Finding, Level

__all__ = ["Check", "Finding", "Level"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
