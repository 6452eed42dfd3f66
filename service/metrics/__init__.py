"""The metrics, one module for each family. They need torch, numpy and the catalogue's language only."""

import importlib
import pkgutil

from service.catalogue.registry import MetricCatalogue

METRICS = MetricCatalogue(
    *(importlib.import_module(found.name) for found in pkgutil.walk_packages(__path__, f"{__name__}."))
)
"""Every metric that a module of this package declares: a new module is found without being named here."""
