"""The file of API keys: who may call, told by digests alone, and how much each may ask for.

One JSON object a line: ``{"name": "ci", "sha256": "…", "rate": 50, "concurrency": 8}``, the last two only where a key
has limits of its own. Keys are 256 random bits: there is nothing to guess, so a plain SHA-256 keeps them as well as a
slow hash would, at a cost that each request can bear.
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
"""Least seconds between two looks at the file."""
MOST_BYTES = 4 << 20
"""Largest file of keys, of about 40,000: it is read on the event loop."""


class Key(BaseModel):
    """A key's name, the digest of the key, and its own limits: requests a second, and at once; 0 is without."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=NAME)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    rate: Annotated[float | None, Field(ge=0, allow_inf_nan=False)] = None
    concurrency: Annotated[int | None, Field(ge=0)] = None


class KeyFile:
    """The keys of a file, read again when it changes; a broken file leaves the keys there were."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp = _stamp(path)
        self._keys = _with_digests(load(path))
        self._next_look = time.monotonic() + CHECK_S

    @property
    def count(self) -> int:
        """How many keys there are."""
        return len(self._keys)

    def find(self, presented: bytes) -> Key | None:
        """Return the key that was presented, if it is one; the time taken does not tell which is near."""
        self._refresh()
        digest = sha256(presented).digest()
        found = None
        for known, key in self._keys:
            if compare_digest(known, digest):
                found = key
        return found

    def _refresh(self) -> None:
        """Read the file again if it is another one than before."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + CHECK_S
        stamp = _stamp(self.path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = _with_digests(load(self.path))
        except ValueError as error:
            logger.error("the keys stay as they were: %s", error)
        else:
            logger.info("%s now has %d keys", self.path, len(self._keys))


def load(path: Path) -> list[Key]:
    """Read a file of keys.

    Raises:
        ValueError: it cannot be read, or a line of it is not a key; says which.
    """
    try:
        lines = _content(path).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"LOSSD_API_KEYS_FILE: Expected a file of keys, as `lossd key new` writes; {error}."
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
    """Return what a file holds.

    Raises:
        OSError: it cannot be read, is no file but, say, a pipe that would be waited on for ever, or is too large.
    """
    # opening a pipe otherwise waits for whoever writes to it
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
    """Add a key to a file, which is made if there is none, and return the key, which is kept nowhere else.

    Raises:
        ValueError: the name is not a label or is taken, or the file is not one of keys or cannot be written.
    """
    if not re.fullmatch(NAME, name):
        raise ValueError(f"Expected a name of 1 to 64 letters, digits, '.', '_' or '-'; got {name!r}.")
    # what a symbolic link leads to is replaced, not the link
    path = path.resolve()
    try:
        with _locked(path.parent):
            keys = load(path) if path.exists() else []
            if any(key.name == name for key in keys):
                raise ValueError(f"Expected a name that no key of {path} has; got {name!r}.")
            token = f"lossd_{secrets.token_urlsafe(32)}"
            _replace(path, [*keys, Key(name=name, sha256=sha256(token.encode()).hexdigest())])
    except OSError as error:
        raise ValueError(f"LOSSD_API_KEYS_FILE: Expected a file that can be written; {error}.") from None
    return token


def _parse(line: str, where: str) -> Key:
    """Read one line."""
    try:
        return Key.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        member = "".join(f" at {place}" for place in first["loc"])
        raise ValueError(f"LOSSD_API_KEYS_FILE: {where} is not a key{member}: {first['msg']}.") from None


def _with_digests(keys: list[Key]) -> list[tuple[bytes, Key]]:
    """Pair keys with what they are compared by."""
    return [(bytes.fromhex(key.sha256), key) for key in keys]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Return what differs between versions of a file; None where there is no file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_ino, found.st_size)


def _replace(path: Path, keys: list[Key]) -> None:
    """Write a file as a whole: whoever reads it sees the old keys or the new. Its mode and owner stay."""
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
    """Keep others who add a key in a directory waiting: of two at once, one would be lost."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
