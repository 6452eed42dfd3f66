"""The file of API keys: digests of the keys, and the limits of each.

One JSON object a line: ``{"name": "ci", "sha256": "…", "rate": 50, "concurrency": 8}``; the last two are optional and
override the server's limits. Keys are 256 random bits and cannot be guessed, so a plain SHA-256 protects them as well
as a slow hash would, and is cheap enough for every request.
"""

import fcntl
import logging
import os
import re
import secrets
import stat
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

logger = logging.getLogger("lossd")
NAME = r"^[A-Za-z0-9._-]{1,64}$"
CHECK_S = 1.0
"""Shortest time between checks of the file."""
MOST_BYTES = 4 << 20
"""Largest file of keys, about 40,000 of them: it is read on the event loop."""


class Key(BaseModel):
    """A key's name and digest, and its own limits: requests a second and concurrent requests; 0 means unlimited."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=NAME)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    rate: Annotated[float | None, Field(ge=0, allow_inf_nan=False)] = None
    concurrency: Annotated[int | None, Field(ge=0)] = None


class KeyFile:
    """The keys in a file, reloaded when it changes; if the new file is broken, the old keys stay."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp = _stamp(path)
        self._keys = _with_digests(read(path))
        self._next_look = time.monotonic() + CHECK_S

    @property
    def count(self) -> int:
        """The number of keys."""
        return len(self._keys)

    def find(self, presented: bytes) -> Key | None:
        """Return the matching key, or None; the time taken does not depend on how close a guess is."""
        self._refresh()
        digest = sha256(presented).digest()
        found = None
        for known, key in self._keys:
            if compare_digest(known, digest):
                found = key
        return found

    def _refresh(self) -> None:
        """Reload the file if it has changed."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + CHECK_S
        stamp = _stamp(self.path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = _with_digests(read(self.path))
        except ValueError as error:
            logger.error("the old keys stay in use: %s", error)
        else:
            logger.info("%s now has %d keys", self.path, len(self._keys))


def read(path: Path) -> list[Key]:
    """Read a file of keys.

    Raises:
        ValueError: it cannot be read, or a line is not a key; the message names the line.
    """
    try:
        lines = _content(path).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"LOSSD_API_KEYS_FILE: Expected a file of keys, as `lossd key new` writes it; {error}."
        ) from None
    keys: dict[str, Key] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            key = _parse(line, f"line {number} of {path}")
            if key.name in keys:
                raise ValueError(f"LOSSD_API_KEYS_FILE: line {number} of {path} names {key.name!r} again.")
            keys[key.name] = key
    return list(keys.values())


def _content(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        OSError: it cannot be read, is too large, or is not a regular file (a pipe could block for ever).
    """
    # without O_NONBLOCK, opening a pipe waits for a writer
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path} is not a regular file")
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(MOST_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(content) > MOST_BYTES:
        raise OSError(f"{path} is larger than {MOST_BYTES} bytes")
    return content


def new(path: Path, name: str) -> str:
    """Add a key to a file, which is created if needed, and return the key, shown only once.

    Raises:
        ValueError: the name is invalid or taken, or the file is not a file of keys or not writable.
    """
    if not re.fullmatch(NAME, name):
        raise ValueError(f"Expected a name of 1 to 64 letters, digits, '.', '_' or '-'; got {name!r}.")
    # replace the target of a symbolic link, not the link
    path = path.resolve()
    try:
        with _locked(path.parent):
            keys = read(path) if path.exists() else []
            if any(key.name == name for key in keys):
                raise ValueError(f"Expected a name that is not yet in {path}; got {name!r}.")
            token = f"lossd_{secrets.token_urlsafe(32)}"
            _replace(path, [*keys, Key(name=name, sha256=sha256(token.encode()).hexdigest())])
    except OSError as error:
        raise ValueError(f"LOSSD_API_KEYS_FILE: Expected a writable file; {error}.") from None
    return token


def _parse(line: str, where: str) -> Key:
    """Parse one line."""
    try:
        return Key.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        member = "".join(f" at {place}" for place in first["loc"])
        raise ValueError(f"LOSSD_API_KEYS_FILE: {where} is not a key{member}: {first['msg']}.") from None


def _with_digests(keys: list[Key]) -> list[tuple[bytes, Key]]:
    """Pair keys with their digests as bytes."""
    return [(bytes.fromhex(key.sha256), key) for key in keys]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Return a stamp that changes with the file; None if there is no file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_ino, found.st_size)


def _replace(path: Path, keys: list[Key]) -> None:
    """Replace a file atomically: readers see the old keys or the new ones. Mode and owner stay."""
    text = "".join(f"{key.model_dump_json(exclude_none=True)}\n" for key in keys)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if path.exists():
                before = path.stat()
                os.fchmod(file.fileno(), before.st_mode & 0o777)
                os.fchown(file.fileno(), before.st_uid, before.st_gid)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


@contextmanager
def _locked(directory: Path) -> Generator[None]:
    """Lock a directory, so that of two keys added at the same time neither is lost."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
