"""The SAE architectures: one module here is one architecture, found by being in this folder.

No torch at import: the command line and the driver check every trial's parameters with these
classes, and only `build_sae` pays for torch and sae_lens.
"""

from importlib import import_module
from pkgutil import iter_modules

from sae.architectures.base import ArchitectureConfig, architecture_class, parse_architecture

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

by_architecture = ArchitectureConfig.by_architecture

__all__ = ["ArchitectureConfig", "architecture_class", "by_architecture", "parse_architecture"]
