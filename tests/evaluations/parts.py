"""Specs and parts for tests of the store."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from service.catalogue.registry import Catalogues
from service.engine.bootstrap import Asked
from service.evaluations.database import Database
from service.evaluations.part import PartContent
from service.evaluations.results import Selection, results_of
from service.evaluations.spec import Spec
from service.evaluations.store import Store, StoreLimits
from service.losses import CATALOGUE
from service.metrics import METRICS
from service.wire.evaluation_answers import results_answer
from service.wire.evaluation_parts import PartLimits, decode_part
from service.wire.evaluation_spec import SpecLimits, read_spec

CATALOGUES = Catalogues(CATALOGUE, METRICS)
COLUMNS = {"predictions": "logits", "targets": "label", "id": "id", "slices": ["group"], "weight": "w"}


def spec_of(**changes: Any) -> Spec:
    """Return a spec of a metric and a loss."""
    members = {
        "task": "multiclass",
        "num_classes": 4,
        "columns": COLUMNS,
        "metrics": ["accuracy", {"loss": "cross_entropy"}],
        **changes,
    }
    return read_spec(json.dumps(members).encode(), CATALOGUES, SpecLimits(64, 1e6))


def rows_of(ids: Sequence[int], seed: int = 0) -> dict[str, list[Any]]:
    """Return rows as columns; a row follows from its id and the seed."""
    rng = [np.random.default_rng([seed, one]) for one in ids]
    return {
        "id": [f"row {one}" for one in ids],
        "logits": [one.standard_normal(4).tolist() for one in rng],
        "label": [int(one.integers(4)) for one in rng],
        "group": [f"g{one % 3}" for one in ids],
        "w": [float(one.random()) for one in rng],
    }


def part_of(spec: Spec, key: str, columns: dict[str, list[Any]]) -> PartContent:
    """Return columns as a part."""
    chosen = {name: columns[name] for name in spec.columns}
    limits = PartLimits(torch.device("cpu"), 2**30)
    return decode_part(spec, key, json.dumps(chosen).encode(), "json", limits)


def store_at(url: str, now: Callable[[], float] | None = None, most: int = 2**30) -> Store:
    """Return a store on a database."""
    from pathlib import Path

    database = Database(url, Path("nowhere"))
    limits = StoreLimits(most, 2**28, 1e6)
    return Store(database, limits) if now is None else Store(database, limits, now)


def answer_of(store: Store, owner: str, name: str, spec: Spec) -> bytes:
    """Return the results of an evaluation as bytes, with slices and intervals."""
    merged = store.merged(store.entry(owner, name))
    asked = Selection(spec.measures, spec.slices, Asked(0.9, 20), 100)
    return json.dumps(results_answer(name, spec, results_of(merged, asked))).encode()
