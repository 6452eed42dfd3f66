"""The expression language: Python's arithmetic over tensors, whose shapes and work are known before memory is taken."""

from service.engine.expression.cache import CHARACTER_BYTES, Expressions
from service.engine.expression.compiler import compiled
from service.engine.expression.expression import Expression
from service.engine.expression.operations import FUNCTIONS
from service.engine.expression.refused import BadExpression
from service.engine.expression.tracing import Traced

__all__ = [
    "CHARACTER_BYTES",
    "FUNCTIONS",
    "BadExpression",
    "Expression",
    "Expressions",
    "Traced",
    "parse_expression",
]


def parse_expression(source: str, most: int) -> Expression:
    """Compile an expression of at most so many characters.

    Raises:
        BadExpression: it is not of the language; says where and what is expected.
    """
    return Expression(source, compiled(source, most))
