"""An evaluation whose spec and data come in one request."""

from typing import Any, NamedTuple, cast

from service.catalogue.registry import Catalogues
from service.evaluations.known import Known
from service.evaluations.merge import NOTHING, Merged, Placed
from service.evaluations.results import Selection
from service.evaluations.spec import Spec
from service.problems import Conflict, Fault, Invalid, under
from service.wire import json
from service.wire.document import Document
from service.wire.evaluation_parts import PartLimits, part_of
from service.wire.evaluation_query import slices_of
from service.wire.evaluation_spec import SpecLimits, spec_of
from service.wire.metrics import read_interval
from service.wire.text import Body

DATA = "data"
OPTIONS = (DATA, "slices", "interval", "replicates", "seed")
"""Members beside those of a spec."""


class Stateless(NamedTuple):
    """An evaluation that is not stored: its spec, its rows, and what of it is asked for."""

    spec: Spec
    merged: Merged
    asked: Selection


def read_stateless(
    body: Body, catalogues: Catalogues, limits: SpecLimits, computed: PartLimits, most_slices: int
) -> Stateless:
    """Read a spec with its data.

    Raises:
        Unreadable: the body is not JSON.
        Invalid: it is not valid; lists every fault of the spec, or else of the data.
        Conflict: an id has two contents.
        TooLarge: it is over a limit.
    """
    document = Document(body)
    if not json.is_object(document.root):
        raise Invalid(Fault("", "type", json.no_object(document.root)))
    names = [*document.root.keys()]
    spec = spec_of(document, [name for name in names if name not in OPTIONS], catalogues, limits, OPTIONS)
    options, faults = document.given(document.root, names)
    options = {name: one for name, one in options.items() if name in OPTIONS}
    interval = read_interval(options, faults)
    if DATA not in options:
        faults.append(Fault("/data", "missing", "Expected an object of columns; got nothing."))
    if faults:
        raise Invalid(*faults)
    slices = slices_of(spec, _slices(document, options.get("slices"), spec))
    try:
        part = part_of(document, options[DATA], spec, DATA, computed)
    except Invalid as invalid:
        raise Invalid(*under(invalid.faults, DATA)) from None
    refuses = spec.id is not None and spec.duplicates == "refuse"
    if refuses and Known().compare(part.hashes, part.contents).differs.any():
        raise Conflict("An id has two contents in the data.")
    merged = NOTHING.extended([Placed(DATA, part.rows)])
    return Stateless(spec, merged, Selection(spec.measures, slices, interval, most_slices))


def _slices(document: Document, value: Any, spec: Spec) -> tuple[str, ...]:
    """Read the columns to slice by, all of the spec by default."""
    if value is None:
        return spec.slices
    plain = document.plain(value)
    names = cast(tuple[Any, ...], plain) if isinstance(plain, tuple) else (None,)
    if all(isinstance(name, str) for name in names):
        return tuple(dict.fromkeys(map(str, names)))
    detail = f"Expected a list of names of columns; got {json.show(value)}."
    raise Invalid(Fault("/slices", "type", detail))
