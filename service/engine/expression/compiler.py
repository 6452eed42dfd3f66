"""Compile the source of an expression: Python's own parser, then a whitelist of its nodes."""

import ast
from collections.abc import Callable
from difflib import get_close_matches
from math import isinf
from typing import Any, NamedTuple

from service.engine.expression.arguments import bound, index_of, whole
from service.engine.expression.operations import (
    FUNCTIONS,
    INDEXED,
    INDEXING,
    INVERTED,
    MOVING,
    NEGATIVE,
    OPERATORS,
    Operation,
    Scalar,
)
from service.engine.expression.program import Program, folded, step_of
from service.engine.expression.refused import BadExpression
from service.engine.expression.tokens import check_tokens
from service.problems import quoted

LARGEST_WHOLE = 2**53
"""Larger integers become floating: arithmetic on constants is done in float64."""
_SIGNS: dict[type[ast.AST], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.Pow: "**",
    ast.MatMult: "@",
    ast.BitAnd: "&",
    ast.BitOr: "|",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}
_PREFIXES: dict[type[ast.AST], Operation] = {ast.USub: NEGATIVE, ast.Invert: INVERTED}
_WHITE = str.maketrans("\t\r\n", "   ")


def compiled(source: str, most: int) -> Program:
    """Compile a source of at most so many characters.

    Raises:
        BadExpression: it is not of the language; says where and what is expected.
    """
    if len(source) > most:
        detail = f"Expected at most {most} characters (LOSSD_MAX_EXPRESSION); got {len(source)}."
        raise BadExpression(detail, most + 1, "length")
    if not source.strip(" \t\r\n"):
        raise BadExpression("Expected an expression; got none.", 1)
    check_tokens(source)
    return _Compiler(source).program(_parsed(source))


def _parsed(source: str) -> ast.expr:
    """Return the tree of a scanned source. Its first line starts with its first character that is not white."""
    try:
        return ast.parse(source.translate(_WHITE).strip(), mode="eval").body
    except SyntaxError as error:
        column = min(_indent(source) + max(error.offset or 1, 1), len(source) + 1)
        got = quoted(source[column - 1 :][:20]) if column <= len(source) else "the end"
        detail = f"Expected an operator, an operand or a bracket; got {got}."
        raise BadExpression(detail, column) from None
    except (RecursionError, MemoryError, ValueError, OverflowError):
        raise BadExpression("Expected a shorter expression; got one too deep.", 1, "length") from None


def _indent(source: str) -> int:
    return len(source) - len(source.lstrip(" \t\r\n"))


class _Raw(NamedTuple):
    """An operation on values by their numbers, before all values are known."""

    operation: Operation
    arguments: tuple[int, ...]
    statics: tuple[Any, ...]
    column: int


class _Compiler:
    """Turns a tree into a program, operands before their operators, without recursion.

    Equal operations on equal operands are computed once. Operations on constants alone are computed here.
    """

    def __init__(self, source: str) -> None:
        self.indent = _indent(source)
        stripped = source.translate(_WHITE).strip()
        self.encoded = None if stripped.isascii() else stripped.encode()
        self.constants: dict[int, Scalar | None] = {}
        self.names: dict[int, str] = {}
        self.columns: dict[str, int] = {}
        self.raw: dict[int, _Raw] = {}
        self.numbers: dict[Any, int] = {}
        self.done: list[int] = []

    def program(self, tree: ast.expr) -> Program:
        """Compile a tree."""
        todo: list[ast.expr | Callable[[], None] | None] = [tree]
        while todo:
            node = todo.pop()
            if node is None or isinstance(node, ast.expr):
                finish, operands = self._opened(node)
                todo.append(finish)
                todo += reversed(operands)
            else:
                node()
        [result] = self.done
        return self._arranged(result)

    def column(self, node: ast.AST) -> int:
        """Return the column of a node in characters: Python counts bytes of UTF-8."""
        offset: int = getattr(node, "col_offset", 0)
        if self.encoded is not None:
            offset = len(self.encoded[:offset].decode(errors="replace"))
        return self.indent + offset + 1

    def _opened(self, node: ast.expr | None) -> tuple[Callable[[], None], list[ast.expr | None]]:
        """Return what finishes a node once its operands are done, and its operands."""
        match node:
            case None:
                return lambda: self._push_constant(None), []
            case ast.Constant(value=value):
                constant = self._constant(node, value)
                return lambda: self._push_constant(constant), []
            case ast.Name(id=name):
                return lambda: self._push_name(name, node), []
            case ast.BinOp(left=left, op=op, right=right):
                return self._operator(node, op, [left, right])
            case ast.UnaryOp(op=op, operand=operand) if type(op) in _PREFIXES:
                return self._finish(_PREFIXES[type(op)], 1, (), node), [operand]
            case ast.UnaryOp():
                raise BadExpression("Expected an operand; got '+'.", self.column(node))
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                return self._operator(node, op, [left, right])
            case ast.Compare():
                detail = "Expected one comparison, or several as (a < b) & (b < c); got a chain."
                raise BadExpression(detail, self.column(node))
            case ast.Call():
                return self._call(node)
            case ast.Subscript(value=value, slice=index):
                key = index_of(index, self.column)
                return self._finish(INDEXED, 1, (key,), node), [value]
            case _:
                raise BadExpression(f"Expected one value; got {_described(node)}.", self.column(node))

    def _constant(self, node: ast.Constant, value: object) -> Scalar:
        """Return the value of a number in the source."""
        if isinstance(value, bool):
            detail = f"Expected {value} only as the value of keepdim; got it elsewhere."
            raise BadExpression(detail, self.column(node))
        if not isinstance(value, int | float):
            got = "None" if value is None else "..." if value is ... else "another constant"
            raise BadExpression(f"Expected a number; got {got}, which only an index has.", self.column(node))
        try:
            number = float(value)
        except OverflowError:
            number = float("inf")
        if isinf(number):
            raise BadExpression(
                "Expected a number within float64; got one beyond it.", self.column(node), "range"
            )
        return value if isinstance(value, int) and value <= LARGEST_WHOLE else number

    def _operator(
        self, node: ast.expr, op: ast.operator | ast.cmpop, operands: list[ast.expr | None]
    ) -> tuple[Callable[[], None], list[ast.expr | None]]:
        """Open an operator of two operands. The scan leaves no sign that is not among `_SIGNS`."""
        return self._finish(OPERATORS[_SIGNS[type(op)]], 2, (), node), operands

    def _call(self, node: ast.Call) -> tuple[Callable[[], None], list[ast.expr | None]]:
        """Open a call."""
        if not isinstance(node.func, ast.Name):
            raise BadExpression("Expected the name of a function before (; got a value.", self.column(node))
        name = node.func.id
        if name not in FUNCTIONS:
            close = get_close_matches(name, FUNCTIONS, n=1)
            expected = close[0] if close else f"one of {', '.join(FUNCTIONS)}"
            raise BadExpression(f"Expected {expected}; got {quoted(name)}.", self.column(node), "unknown")
        if name in ("max", "min") and len(node.args) == 2 and not node.keywords and _is_value(node.args[1]):
            name += "imum"
        operation = FUNCTIONS[name]
        operands, statics = bound(operation, node, self.column)
        return self._finish(operation, len(operands), statics, node), operands

    def _finish(
        self, operation: Operation, count: int, statics: tuple[Any, ...], node: ast.expr
    ) -> Callable[[], None]:
        """Return what replaces the last values by the result of an operation on them."""

        def finish() -> None:
            arguments = tuple(self.done[-count:])
            del self.done[-count:]
            if operation.folds and all(number in self.constants for number in arguments):
                operands = [self.constants[number] for number in arguments]
                self._push_constant(folded(operation, operands, self.column(node)))
            else:
                raw = _Raw(operation, arguments, statics, self.column(node))
                number = self._number((operation.name, arguments, repr(statics)))
                self.raw.setdefault(number, raw)
                self.done.append(number)

        return finish

    def _push_constant(self, constant: Scalar | None) -> None:
        number = self._number(("constant", type(constant), repr(constant)))
        self.constants[number] = constant
        self.done.append(number)

    def _push_name(self, name: str, node: ast.Name) -> None:
        number = self._number(("name", name))
        self.names[number] = name
        self.columns.setdefault(name, self.column(node))
        self.done.append(number)

    def _number(self, key: Any) -> int:
        """Return the number of a value, a new one for a new key."""
        return self.numbers.setdefault(key, len(self.numbers))

    def _arranged(self, result: int) -> Program:
        """Order the values: constants, names, results of steps."""
        needed = {result, *(number for raw in self.raw.values() for number in raw.arguments)}
        constants = [number for number in self.constants if number in needed]
        order = {number: place for place, number in enumerate([*constants, *self.names, *self.raw])}
        fixed = {order[number]: self.constants[number] for number in constants}
        steps = [
            step_of(raw.operation, tuple(order[n] for n in raw.arguments), raw.statics, raw.column, fixed)
            for raw in self.raw.values()
        ]
        values, indexing = (
            frozenset(name for number, name in self.names.items() if number in used)
            for used in self._uses(result)
        )
        return Program(
            tuple(fixed.values()), self.columns, indexing, indexing - values, tuple(steps), order[result]
        )

    def _uses(self, result: int) -> tuple[set[int], set[int]]:
        """Return what is used as a value, and what as an index, also if it is brought into shape first."""
        values, indexing = {result}, set[int]()
        for number, raw in reversed(self.raw.items()):
            moves = raw.operation.name in MOVING
            for place, argument in enumerate(raw.arguments):
                if place == INDEXING.get(raw.operation.name):
                    indexing.add(argument)
                    continue
                if number in values or not moves:
                    values.add(argument)
                if number in indexing and moves:
                    indexing.add(argument)
        return values, indexing


def _is_value(node: ast.expr) -> bool:
    """Return whether the second argument of `max` or `min` is a value to compare with, not a dimension."""
    return whole(node) is None and not isinstance(node, ast.Tuple | ast.Starred)


def _described(node: ast.AST) -> str:
    """Name a construct of Python."""
    match node:
        case ast.Tuple():
            return "several, with a comma"
        case ast.List():
            return "a list"
        case ast.Starred():
            return "a *"
        case _:
            return "other Python"
