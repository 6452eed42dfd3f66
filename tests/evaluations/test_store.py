"""The store: every row counts once, whatever servers race, and results do not depend on order or partition."""

import sqlite3
import uuid
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sql
from sqlalchemy import event

from service.evaluations import database
from service.evaluations.database import Database, evaluations, migrate, parts
from service.evaluations.store import Store
from service.problems import Conflict, NotFound, Problem, TooLarge, Unavailable
from tests.evaluations.parts import answer_of, part_of, rows_of, spec_of, store_at

WITHOUT_IDS = {"predictions": "logits", "targets": "label", "slices": ["group"], "weight": "w"}


@pytest.fixture
def store(database_url: str) -> Generator[Store]:
    found = store_at(database_url)
    yield found
    found.close()


@pytest.fixture
def name() -> str:
    """A name that no other test has: they share a PostgreSQL server."""
    return uuid.uuid4().hex


def outcome(future: object) -> object:
    """Return the result of a future, or its problem."""
    try:
        return future.result()  # pyright: ignore[reportAttributeAccessIssue]
    except Problem as problem:
        return problem


def test_results_are_the_same_to_the_bit_for_any_order_and_partition(
    store: Store, database_url: str, name: str
) -> None:
    spec, found = spec_of(), set[bytes]()
    rng = np.random.default_rng(7)
    for attempt in range(6):
        one = f"{name}.{attempt}"
        entry = store.create("", one, spec).result().entry
        order = rng.permutation(60)
        for key, ids in enumerate(np.array_split(order, attempt * 3 + 1)):
            # every part brings some rows that others bring too
            some = [*ids.tolist(), *rng.choice(60, 5).tolist()]
            store.put("", entry, spec, str(key), part_of(spec, str(key), rows_of(some))).result()
        found.add(answer_of(store, "", one, spec).replace(one.encode(), b""))
        fresh = store_at(database_url)
        found.add(answer_of(fresh, "", one, spec).replace(one.encode(), b""))
        fresh.close()
    assert len(found) == 1


def test_without_ids_the_order_of_parts_does_not_matter(store: Store, name: str) -> None:
    spec, found = spec_of(columns=WITHOUT_IDS), set[bytes]()
    for attempt, order in enumerate(([0, 1, 2], [2, 0, 1], [1, 2, 0])):
        one, answer = f"{name}.{attempt}", b""
        entry = store.create("", one, spec).result().entry
        for key in order:
            part = part_of(spec, str(key), rows_of(range(10 * key, 10 * key + 7)))
            store.put("", entry, spec, str(key), part).result()
            # merged again after each part
            answer = answer_of(store, "", one, spec)
        found.add(answer.replace(one.encode(), b""))
    assert len(found) == 1


def test_two_servers_never_store_two_contents_of_an_id(database_url: str, name: str) -> None:
    spec = spec_of()
    servers = [store_at(database_url) for _ in range(2)]
    entry = servers[0].create("", name, spec).result().entry
    sent: list[object] = []

    def send(server: int) -> None:
        for start in range(0, 60, 5):
            # the two servers disagree about every other row
            mine = rows_of(range(start, start + 5), seed=server if start % 2 else 0)
            key = f"{server}.{start}"
            sent.append(outcome(servers[server].put("", entry, spec, key, part_of(spec, key, mine))))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(send, range(2)))
    refused = [one for one in sent if isinstance(one, Conflict)]
    stored = [one for one in sent if not isinstance(one, Problem)]
    assert len(refused) == 6 and len(stored) == 18
    assert sum(one.new for one in stored) == 60  # pyright: ignore[reportAttributeAccessIssue]
    answers = {answer_of(server, "", name, spec) for server in servers}
    assert len(answers) == 1
    assert servers[0].entry("", name).rows == 60
    for server in servers:
        server.close()


def test_two_servers_create_an_evaluation_once(database_url: str, name: str) -> None:
    servers = [store_at(database_url) for _ in range(2)]
    futures = [
        servers[place % 2].create("", f"{name}.{place // 4}", spec_of(expect=place // 4))
        for place in range(40)
    ]
    assert sum(future.result().new for future in futures) == 10
    with pytest.raises(Conflict):
        servers[0].create("", f"{name}.3", spec_of(expect=99)).result()
    for server in servers:
        server.close()


def test_the_same_part_from_two_servers_is_stored_once(database_url: str, name: str) -> None:
    spec = spec_of()
    servers = [store_at(database_url) for _ in range(2)]
    entry = servers[0].create("", name, spec).result().entry
    part = part_of(spec, "p", rows_of(range(9)))
    futures = [servers[place % 2].put("", entry, spec, "p", part) for place in range(8)]
    assert sum(future.result().first for future in futures) == 1
    assert servers[1].entry("", name).parts == 1
    for server in servers:
        server.close()


def test_an_evaluation_expires_with_all_that_is_stored_of_it(database_url: str, name: str) -> None:
    now = [1000.0]
    store, spec = store_at(database_url, lambda: now[0]), spec_of(expires_s=60)
    entry = store.create("", name, spec).result().entry
    store.put("", entry, spec, "p", part_of(spec, "p", rows_of(range(3)))).result()
    now[0] = 1061.0
    with pytest.raises(NotFound):
        store.entry("", name)
    assert all(one.name != name for one in store.listing("", "", 1000))
    with pytest.raises(NotFound):
        store.put("", entry, spec, "q", part_of(spec, "q", rows_of(range(3)))).result()
    # the name is free again, and what was there is gone
    assert store.create("", name, spec_of(expect=3)).result().new
    with closing(Database(database_url, Path("nowhere"))) as watch, watch.reading() as connection:
        left = sql.select(sql.func.count()).where(parts.c.evaluation == entry.id)
        assert connection.scalar(left) == 0
    store.close()


def test_expired_evaluations_are_deleted_while_nobody_asks(
    database_url: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.evaluations.writer.IDLE_S", 0.01)
    now = [1000.0]
    store = store_at(database_url, lambda: now[0])
    entry = store.create("", name, spec_of(expires_s=60)).result().entry
    now[0] = 1061.0
    there = sql.select(evaluations.c.id).where(evaluations.c.id == entry.id)
    gone = False
    with closing(Database(database_url, Path("nowhere"))) as watch:
        while not gone:
            with watch.reading() as connection:
                gone = connection.scalar(there) is None
    store.close()


def test_a_part_for_an_evaluation_created_again_is_refused(store: Store, name: str) -> None:
    spec = spec_of()
    entry = store.create("", name, spec).result().entry
    store.delete("", name).result()
    store.create("", name, spec).result()
    with pytest.raises(Conflict):
        store.put("", entry, spec, "p", part_of(spec, "p", rows_of(range(3)))).result()


def test_an_evaluation_is_bounded_in_bytes(database_url: str, name: str) -> None:
    store, spec = store_at(database_url, most=4000), spec_of()
    entry = store.create("", name, spec).result().entry
    keys = [*range(0, 200, 10)]
    made = [part_of(spec, str(key), rows_of(range(key, key + 10))) for key in keys]
    outcomes = [
        outcome(store.put("", entry, spec, str(key), part)) for key, part in zip(keys, made, strict=True)
    ]
    assert any(isinstance(one, TooLarge) for one in outcomes)
    assert 0 < store.entry("", name).bytes <= 4000
    store.close()


def test_parts_with_other_columns_are_refused(store: Store, name: str) -> None:
    from dataclasses import replace

    spec = spec_of()
    entry = store.create("", name, spec).result().entry
    part = part_of(spec, "p", rows_of(range(3)))
    store.put("", entry, spec, "p", part).result()
    other = part_of(spec, "q", rows_of(range(3, 6)))
    columns = {key: np.zeros((3, 2)) for key in other.rows.columns}
    wide = replace(other, rows=replace(other.rows, columns=columns))
    with pytest.raises(Conflict, match="as in the first part"):
        store.put("", entry, spec, "q", wide).result()


def test_changes_committed_together_fail_alone(store: Store, name: str) -> None:
    spec = spec_of()
    entry = store.create("", name, spec).result().entry
    good = [part_of(spec, str(key), rows_of(range(5 * key, 5 * key + 5))) for key in range(20)]
    bad = part_of(spec, "bad", rows_of(range(5), seed=1))
    futures = [store.put("", entry, spec, str(key), part) for key, part in enumerate(good)]
    futures.insert(10, store.put("", entry, spec, "bad", bad))
    outcomes = [outcome(future) for future in futures]
    assert [isinstance(one, Problem) for one in outcomes].count(True) == 1
    assert store.entry("", name).rows == 100


def test_a_schema_of_a_newer_server_is_refused(tmp_path: Path) -> None:
    database_ = Database("", tmp_path)
    with database_.writing() as connection:
        connection.execute(database.versions.update().values(version=99))
    with pytest.raises(Unavailable, match="upgrade"):
        Database("", tmp_path).opened()


def test_migrations_run_once_each_and_in_order(tmp_path: Path) -> None:
    taken: list[int] = []
    engine = sql.create_engine(f"sqlite:///{tmp_path}/one.sqlite")
    steps = [lambda connection, number=number: taken.append(number) for number in range(3)]
    for count in (1, 3, 3):
        with engine.begin() as connection:
            migrate(connection, steps[:count])
    assert taken == [0, 1, 2]
    engine.dispose()


def test_a_locked_file_is_a_problem_to_retry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "PATIENCE_S", 0.05)
    url = f"sqlite:///{tmp_path}/evaluations.sqlite"
    store, spec = store_at(url), spec_of()
    store.create("", "one", spec).result()
    with Database(url, tmp_path).writing():
        problem = outcome(store.create("", "two", spec))
        assert isinstance(problem, Unavailable) and problem.retry_after
        assert store.entry("", "one").rows == 0
    assert store.create("", "two", spec).result().new
    store.close()


def test_a_full_disk_is_a_problem_to_retry(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/evaluations.sqlite"
    store, spec = store_at(url), spec_of()
    entry = store.create("", "one", spec).result().entry
    store.put("", entry, spec, "small", part_of(spec, "small", rows_of(range(3)))).result()
    engine = store._database.opened()  # pyright: ignore[reportPrivateUsage]
    event.listen(engine, "checkout", lambda driver, *_: driver.execute("PRAGMA max_page_count=12"))
    problem = outcome(store.put("", entry, spec, "large", part_of(spec, "large", rows_of(range(2000)))))
    assert isinstance(problem, Unavailable) and "full" in problem.detail
    assert store.entry("", "one").rows == 3
    store.close()


def test_a_new_file_that_another_server_changes_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changing the journal of a file that another one reads fails at once: SQLite expects a deadlock."""
    waited: list[float] = []
    path = tmp_path / database.FILE
    with sqlite3.connect(path, isolation_level=None, check_same_thread=False) as other:
        other.execute("CREATE TABLE t (x)")
        other.execute("BEGIN IMMEDIATE")

        def let_go(seconds: float) -> None:
            waited.append(seconds)
            other.execute("COMMIT")

        monkeypatch.setattr(database, "sleep", let_go)
        Database("", tmp_path).opened()
    assert len(waited) == 1
