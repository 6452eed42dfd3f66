"""The store of evaluations: nothing is reported as stored before it is committed, and every row counts once."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import orjson
import sqlalchemy as sql
from sqlalchemy import Connection

from service.catalogue.rounds import go_on
from service.engine.kept import Kept
from service.evaluations.block import Block, decode_rows, encode_rows, layout_of
from service.evaluations.database import Database, evaluations, give_space_back, parts
from service.evaluations.identity import id_hashes
from service.evaluations.known import Known
from service.evaluations.merge import NOTHING, Merged, Placed
from service.evaluations.part import PartContent
from service.evaluations.rows import Rows, bytes_as_texts
from service.evaluations.spec import Spec, refuse_difference
from service.evaluations.writer import Transaction, Writer
from service.problems import MOST_FAULTS, Conflict, Fault, NotFound, TooLarge, pointer, quoted

MOST_SPEC_BYTES = 1 << 20
READ_TOGETHER = 32
"""Blocks that are read from the database at once."""
COLUMNS = [column for column in evaluations.c if column.name != "owner"]


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """The limits of the store: bytes of an evaluation before compression, bytes of its caches, seconds that specs may omit."""

    evaluation_bytes: int
    cache_bytes: int
    expires_s: float


@dataclass(frozen=True, slots=True)
class EvaluationEntry:
    """An evaluation as it is at one moment. ``parts`` is the number of its last part; times are in seconds since 1970."""

    id: int
    name: str
    spec: str
    layout: str | None
    parts: int
    rows: int
    bytes: int
    created_at: float
    expires_at: float

    @property
    def document(self) -> dict[str, Any]:
        """The spec as it was stored."""
        return orjson.loads(self.spec)


class Created(NamedTuple):
    """An evaluation, and whether it is new."""

    entry: EvaluationEntry
    new: bool


class Stored(NamedTuple):
    """A stored part: its rows, how many of them count from now on, and whether the part is new."""

    rows: int
    new: int
    first: bool


class Store:
    """Evaluations of all owners. Methods that change something return futures; the others read, and take their time.

    All methods and futures raise `Unavailable` if the database cannot be reached.
    """

    def __init__(self, database: Database, limits: StoreLimits, now: Callable[[], float] = time.time) -> None:
        self._database = database
        self._limits = limits
        self._now = now
        self._writer = Writer(database, self._purge)
        self._known = Kept[int, Known](limits.cache_bytes)
        self._merged = Kept[int, Merged](limits.cache_bytes)

    def start(self) -> None:
        """Delete expired evaluations from now on, if there may be any."""
        if self._database.is_there:
            self._writer.start()

    def close(self) -> None:
        """Finish what was submitted, and close the database."""
        self._writer.close()
        self._database.close()

    def create(self, owner: str, name: str, spec: Spec) -> "Future[Created]":
        """Create an evaluation, unless it is there.

        The future raises `Conflict` if it is there with another spec, `TooLarge` if the spec is too large.
        """
        text = orjson.dumps(spec.document).decode()
        kept = self._limits.expires_s if spec.expires_s is None else spec.expires_s
        return self._writer.submit(partial(self._create, owner, name, text, kept), owner, name)

    def entry(self, owner: str, name: str) -> EvaluationEntry:
        """Return an evaluation.

        Raises:
            NotFound: its owner has none of that name.
        """
        with self._database.reading() as connection:
            return self._found(connection, owner, name)

    def listing(self, owner: str, after: str, most: int) -> list[EvaluationEntry]:
        """Return an owner's evaluations, at most some, in the order of their names after one of them."""
        statement = (
            sql.select(*COLUMNS)
            .where(evaluations.c.owner == owner, evaluations.c.expires_at > self._now())
            .where(evaluations.c.name > after)
            .order_by(evaluations.c.name)
            .limit(most)
        )
        with self._database.reading() as connection:
            return [_entry(row) for row in connection.execute(statement)]

    def delete(self, owner: str, name: str) -> "Future[None]":
        """Delete an evaluation with all that is stored of it; the future raises `NotFound` if there is none."""

        def work(transaction: Transaction) -> None:
            entry = self._found(transaction.connection, owner, name, lock=True)
            self._remove(transaction, [entry.id])

        return self._writer.submit(work, owner, name)

    def put(
        self, owner: str, entry: EvaluationEntry, spec: Spec, key: str, part: PartContent
    ) -> "Future[Stored]":
        """Store a part; call it in a thread.

        The future raises `Conflict` if the key has other content, or an id, and `TooLarge` over the limit of an evaluation.
        """
        block = encode_rows(part.rows)
        if spec.id is not None and not self._is_fresh(entry):
            with self._database.reading() as connection:
                known = self._known_now(connection, entry.id, entry.parts)
                self._known.keep(entry.id, known, known.bytes)
        work = partial(self._put, owner, entry, spec, key, part, block)
        return self._writer.submit(work, owner, entry.name)

    def merged(self, entry: EvaluationEntry) -> Merged:
        """Return all rows of an evaluation as it is in an entry, or as it has become since.

        Raises:
            NotFound: it has been deleted.
        """
        found = self._merged.find(entry.id) or NOTHING
        if found.parts >= entry.parts:
            return found
        with self._database.reading() as connection:
            placed = self._placed(connection, entry.id, found.parts, entry.parts)
        if len(placed) < entry.parts - found.parts:
            raise _not_found(entry.name)
        found = found.extended(placed)
        self._merged.keep(entry.id, found, found.bytes)
        return found

    def _create(self, owner: str, name: str, spec: str, kept: float, transaction: Transaction) -> Created:
        """Create an evaluation in a transaction."""
        if len(spec) > MOST_SPEC_BYTES:
            raise TooLarge(f"Expected a spec of at most {MOST_SPEC_BYTES} bytes; got {len(spec)}.")
        connection, now = transaction.connection, self._now()
        there = self._look(connection, owner, name, lock=True)
        if there is not None and there.expires_at > now:
            refuse_difference(there.document, orjson.loads(spec))
            return Created(there, new=False)
        if there is not None:
            self._remove(transaction, [there.id])
        values: dict[str, Any] = {"spec": spec, "created_at": now, "expires_at": now + kept}
        values |= {"name": name, "layout": None, "parts": 0, "rows": 0, "bytes": 0}
        done = connection.execute(evaluations.insert().values(owner=owner, **values))
        assert done.inserted_primary_key is not None
        return Created(EvaluationEntry(id=done.inserted_primary_key[0], **values), new=True)

    def _put(
        self,
        owner: str,
        seen: EvaluationEntry,
        spec: Spec,
        key: str,
        part: PartContent,
        block: Block,
        transaction: Transaction,
    ) -> Stored:
        """Store a part in a transaction; the lock on the evaluation's row makes its parts follow each other."""
        connection, count = transaction.connection, part.rows.count
        entry = self._found(connection, owner, seen.name, lock=True)
        if entry.id != seen.id:
            raise Conflict("The evaluation was deleted and created again meanwhile; send the part again.")
        of_key = sql.select(parts.c.digest).where(parts.c.evaluation == entry.id, parts.c.key == key)
        if (digest := connection.scalar(of_key)) is not None:
            if digest != part.digest:
                raise Conflict(f"Other content is there under the key {quoted(key)}; choose another key.")
            return Stored(count, 0, first=False)
        size = entry.bytes + block.size
        if size > (most := self._limits.evaluation_bytes):
            expected = f"Expected an evaluation of at most {most} bytes (LOSSD_EVALUATION_MAX_BYTES)"
            raise TooLarge(f"{expected}; got {size} with this part.")
        layout = _shared_layout(entry, part.rows)
        new = count
        if spec.id is not None:
            new = self._compare(transaction, entry, spec, part)
        number = entry.parts + 1
        row = {"evaluation": entry.id, "number": number, "key": key, "digest": part.digest}
        connection.execute(parts.insert().values(**row, rows=count, block=block.data))
        change = {"parts": number, "rows": entry.rows + new, "bytes": size, "layout": layout}
        connection.execute(evaluations.update().where(evaluations.c.id == entry.id).values(**change))
        return Stored(count, new, first=True)

    def _compare(
        self, transaction: Transaction, entry: EvaluationEntry, spec: Spec, part: PartContent
    ) -> int:
        """Compare a part with all rows that are there; return the number of its new rows.

        Raises:
            Conflict: an id has another content.
        """
        known: Known = transaction.found.get(entry.id) or self._known_now(
            transaction.connection, entry.id, entry.parts
        )
        compared = known.compare(part.hashes, part.contents)
        if spec.duplicates == "refuse" and compared.differs.any():
            raise _differing(spec.id or "", part, np.flatnonzero(compared.differs).tolist())
        known = known.extended(part.hashes[compared.new], part.contents[compared.new])
        transaction.found[entry.id] = known
        transaction.committed.append(partial(self._known.keep, entry.id, known, known.bytes))
        return int(compared.new.sum())

    def _is_fresh(self, entry: EvaluationEntry) -> bool:
        """Return whether the ids of an evaluation are known."""
        known = self._known.find(entry.id) or Known()
        return known.parts >= entry.parts

    def _known_now(self, connection: Connection, evaluation: int, last: int) -> Known:
        """Return the ids of the first parts of an evaluation, up to the last one."""
        known = self._known.find(evaluation) or Known()
        for _, rows in self._blocks(connection, evaluation, known.parts, last):
            if rows.ids is None or rows.contents is None:
                known = known.extended(*_NOTHING)
                continue
            hashes = id_hashes(bytes_as_texts(rows.ids))
            new = known.compare(hashes, rows.contents).new
            known = known.extended(hashes[new], rows.contents[new])
        return known

    def _placed(self, connection: Connection, evaluation: int, first: int, last: int) -> list[Placed]:
        """Return the parts of an evaluation after the first ones, up to the last one."""
        return [Placed(key, rows) for key, rows in self._blocks(connection, evaluation, first, last)]

    def _blocks(self, connection: Connection, evaluation: int, first: int, last: int) -> Any:
        """Yield the keys and rows of an evaluation's parts after the first ones, up to the last one, in order."""
        for start in range(first, last, READ_TOGETHER):
            go_on()
            statement = (
                sql.select(parts.c.key, parts.c.block)
                .where(parts.c.evaluation == evaluation, parts.c.number > start)
                .where(parts.c.number <= min(start + READ_TOGETHER, last))
                .order_by(parts.c.number)
            )
            for key, block in connection.execute(statement):
                yield key, decode_rows(block)

    def _look(
        self, connection: Connection, owner: str, name: str, *, lock: bool = False
    ) -> EvaluationEntry | None:
        """Return an evaluation, also an expired one; with a lock until the end of the transaction."""
        statement = sql.select(*COLUMNS).where(evaluations.c.owner == owner, evaluations.c.name == name)
        row = connection.execute(statement.with_for_update() if lock else statement).first()
        return None if row is None else _entry(row)

    def _found(self, connection: Connection, owner: str, name: str, *, lock: bool = False) -> EvaluationEntry:
        """Return an evaluation.

        Raises:
            NotFound: there is none, or it has expired.
        """
        entry = self._look(connection, owner, name, lock=lock)
        if entry is None or entry.expires_at <= self._now():
            raise _not_found(name)
        return entry

    def _purge(self, transaction: Transaction) -> None:
        """Delete expired evaluations."""
        expired = sql.select(evaluations.c.id).where(evaluations.c.expires_at <= self._now())
        self._remove(transaction, [*transaction.connection.scalars(expired)])

    def _remove(self, transaction: Transaction, ids: Sequence[int]) -> None:
        """Delete evaluations by their ids, and give their space back."""
        if not ids:
            return
        connection = transaction.connection
        connection.execute(parts.delete().where(parts.c.evaluation.in_(ids)))
        connection.execute(evaluations.delete().where(evaluations.c.id.in_(ids)))
        if connection.dialect.name == "sqlite":
            give_space_back(connection)
        for one in ids:
            transaction.committed += [partial(self._known.drop, one), partial(self._merged.drop, one)]


def _entry(row: sql.Row[Any]) -> EvaluationEntry:
    """Return an evaluation from its row, which has the columns in order."""
    return EvaluationEntry(**{column.name: value for column, value in zip(COLUMNS, row, strict=True)})


_NOTHING = (np.empty(0, "S16"), np.empty(0, np.uint64))


def _shared_layout(entry: EvaluationEntry, rows: Rows) -> str | None:
    """Return the layout of an evaluation's columns, which its first rows decide.

    Raises:
        Conflict: these rows have another one.
    """
    if not rows.count:
        return entry.layout
    layout: Mapping[str, Any] = layout_of(rows)
    there = layout if entry.layout is None else orjson.loads(entry.layout)
    for name in there:
        if there[name] != layout.get(name):
            expected = f"Expected {name} of {there[name]}, as in the first part"
            raise Conflict(f"{expected}; got {layout.get(name)}: are there as many classes in all parts?")
    return orjson.dumps(there).decode()


def _differing(column: str, part: PartContent, places: Sequence[int]) -> Conflict:
    """Return the problem of ids that are there with another content."""
    assert part.rows.ids is not None
    shown = part.rows.ids.take(np.asarray(places[:MOST_FAULTS]))
    faults = [
        Fault(
            pointer("rows", int(place), column),
            "content",
            f"Expected the content that id {quoted(text.decode())} already has; got another.",
            part.lines[place] if place < len(part.lines) else None,
        )
        for place, text in zip(places[:MOST_FAULTS], bytes_as_texts(shown), strict=True)
    ]
    count = len(places)
    detail = f"{'An id is' if count == 1 else f'{count} ids are'} there already with another content."
    return Conflict(
        f'{detail} With "duplicates": "first" in the spec the first content would count.', *faults
    )


def _not_found(name: str) -> NotFound:
    """Return the problem of an evaluation that is not there."""
    return NotFound(f"There is no evaluation {quoted(name)} of this key.")
