"""Where the next configuration comes from: one module here is one sampler, found by being here.

No optuna at import: the command line checks every sweep file with these classes.
"""

from importlib import import_module
from pkgutil import iter_modules

from orchestrator.samplers.base import Sampler, SamplerConfig, parse_sampler, sampler_class

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

by_sampler = SamplerConfig.by_sampler

__all__ = ["Sampler", "SamplerConfig", "by_sampler", "parse_sampler", "sampler_class"]
