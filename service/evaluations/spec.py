"""What an evaluation computes, and from which columns: its spec, with every default filled in."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

from service.catalogue.metric import AnyMetric
from service.catalogue.spec import Params
from service.problems import Conflict, Fault, pointer

Duplicates = Literal["refuse", "first"]
SHOWN = 200
"""Most characters of a member in messages."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A metric of an evaluation, or a loss as one: its name in results, its params, and the column of each of its inputs."""

    name: str
    kind: Literal["metric", "loss"]
    metric: AnyMetric
    params: Params
    inputs: Mapping[str, str]

    @property
    def signature(self) -> str:
        """What two evaluations must share so that their values can be compared."""
        return self.metric.signature(self.params)

    @property
    def document(self) -> dict[str, Any]:
        """The measure as it is stored."""
        return {
            "name": self.name,
            self.kind: self.metric.name,
            "params": _lists(self.params),
            "inputs": dict(self.inputs),
        }


@dataclass(frozen=True)
class Spec:
    """A valid spec. ``id``, ``slices`` and ``weight`` are names of columns; without ``id``, ids are places in parts."""

    measures: tuple[Measure, ...]
    id: str | None = None
    slices: tuple[str, ...] = ()
    weight: str | None = None
    expect: int | None = None
    expires_s: float | None = None
    duplicates: Duplicates = "refuse"

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The names of all columns of a part."""
        inputs = [column for measure in self.measures for column in measure.inputs.values()]
        others = [name for name in (self.id, *self.slices, self.weight) if name is not None]
        return tuple(dict.fromkeys([*others, *inputs]))

    @cached_property
    def by_name(self) -> Mapping[str, Measure]:
        """The measures by their names."""
        return {measure.name: measure for measure in self.measures}

    @cached_property
    def document(self) -> dict[str, Any]:
        """The spec as it is stored and compared."""
        return {
            "columns": {"id": self.id, "slices": list(self.slices), "weight": self.weight},
            "metrics": [measure.document for measure in self.measures],
            "expect": self.expect,
            "expires_s": self.expires_s,
            "duplicates": self.duplicates,
        }


def refuse_difference(there: Mapping[str, Any], sent: Mapping[str, Any]) -> None:
    """Compare two specs as they are stored.

    Raises:
        Conflict: they differ; says in what.
    """
    if faults := _differences(there, sent, ()):
        raise Conflict("Another spec is there under this name; delete it, or choose another name.", *faults)


def _differences(there: Any, sent: Any, where: tuple[str | int, ...]) -> list[Fault]:
    """Return a fault for each member that differs."""
    here, other = _members(there), _members(sent)
    if here is not None and other is not None and (isinstance(there, Mapping) or len(here) == len(other)):
        names = dict.fromkeys([*here, *other])
        return [
            fault for name in names for fault in _differences(here.get(name), other.get(name), (*where, name))
        ]
    if there == sent:
        return []
    return [Fault(pointer(*where), "differs", f"Expected {_shown(there)}, as is there; got {_shown(sent)}.")]


def _members(value: Any) -> Mapping[str | int, Any] | None:
    """Return the members of an object, or the elements of a list by their places; None of other values."""
    if isinstance(value, Mapping):
        return cast(Mapping[str | int, Any], value)
    return dict(enumerate(cast(list[Any], value))) if isinstance(value, list) else None


def _shown(value: Any) -> str:
    """Return a member for messages."""
    text = "null" if value is None else str(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _lists(value: Any) -> Any:
    """Return params as they are stored: tuples are lists."""
    if isinstance(value, Mapping):
        return {name: _lists(one) for name, one in cast(Mapping[str, Any], value).items()}
    return [_lists(one) for one in cast(tuple[Any, ...], value)] if isinstance(value, tuple) else value
