"""The losses, one module or package for each family. They need torch and the catalogue's language only."""

import importlib
import pkgutil

from service.catalogue.registry import Catalogue

CATALOGUE = Catalogue(
    *(importlib.import_module(found.name) for found in pkgutil.walk_packages(__path__, f"{__name__}."))
)
"""Every loss that a module of this package declares: a new module is found without being named here."""
