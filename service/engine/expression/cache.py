"""Compiled expressions that are kept, within a bound in bytes: training sends the same ones with every step."""

from service.engine.expression.compiler import compiled
from service.engine.expression.expression import Expression
from service.engine.kept import Kept

MOST_BYTES = 16 << 20
"""Bytes of expressions that are kept."""
CHARACTER_BYTES = 512
"""Most bytes of a compiled expression for a character of its source."""
FIXED_BYTES = 16 << 10
"""Most bytes of an expression besides, with its traces."""


class Expressions:
    """Compiles expressions of at most so many characters, and keeps those used last. Threads may share it."""

    def __init__(self, most: int, most_bytes: int = MOST_BYTES) -> None:
        self.most = most
        self._kept = Kept[str, Expression](most_bytes)

    def parse(self, source: str) -> Expression:
        """Return an expression, compiled unless it is kept.

        Raises:
            BadExpression: it is not of the language; says where and what is expected.
        """
        if (kept := self._kept.find(source)) is not None:
            return kept
        made = Expression(source, compiled(source, self.most))
        self._kept.keep(source, made, _size(source))
        return made


def _size(source: str) -> int:
    """Return the most bytes of an expression by its source."""
    return FIXED_BYTES + CHARACTER_BYTES * len(source)
