"""Read the arguments of calls and indices: what is no tensor has to be a literal."""

import ast
from collections.abc import Callable
from typing import Any

from service.engine.expression.operations import Operation, Parameter
from service.engine.expression.refused import BadExpression
from service.problems import quoted

MOST_LITERAL = 2**53
"""Largest integer as an argument or index."""
Column = Callable[[ast.AST], int]


def bound(
    operation: Operation, call: ast.Call, column: Column
) -> tuple[list[ast.expr | None], tuple[Any, ...]]:
    """Return the arguments of a call that are tensors, in order, and the values of the others.

    Raises:
        BadExpression: one is missing, there is one too many, or it is not of its kind.
    """
    given: dict[str, list[ast.expr]] = {}
    for place, node in enumerate(call.args):
        if isinstance(node, ast.Starred):
            raise BadExpression("Expected no * before an argument; got one.", column(node))
        parameter = _at(operation, place)
        if parameter is None:
            detail = f"Expected {_signature(operation)}; got {len(call.args)} arguments."
            raise BadExpression(detail, column(node))
        given.setdefault(parameter.name, []).append(node)
    for keyword in call.keywords:
        _check_keyword(operation, keyword, given, column)
        assert keyword.arg is not None
        given[keyword.arg] = [keyword.value]
    if missing := [p.name for p in operation.parameters if p.required and p.name not in given]:
        detail = f"Expected {_signature(operation)}; got no {missing[0]}."
        raise BadExpression(detail, column(call))
    return _split(operation, call, given, column)


def _at(operation: Operation, place: int) -> Parameter | None:
    """Return the parameter of a positional argument."""
    for index, parameter in enumerate(operation.parameters):
        if parameter.many or index == place:
            return parameter
    return None


def _check_keyword(
    operation: Operation, keyword: ast.keyword, given: dict[str, list[ast.expr]], column: Column
) -> None:
    """Check that a keyword is one of the function's, and comes once."""
    if keyword.arg is None:
        raise BadExpression("Expected no ** before an argument; got one.", column(keyword))
    names = [p.name for p in operation.parameters if p.keyword]
    if keyword.arg not in names:
        known = " or ".join(names) or "no keyword"
        detail = f"Expected {known} in {operation.name}; got {quoted(keyword.arg)}."
        raise BadExpression(detail, column(keyword))
    if keyword.arg in given:
        raise BadExpression(f"Expected {keyword.arg} once; got it twice.", column(keyword))


def _split(
    operation: Operation, call: ast.Call, given: dict[str, list[ast.expr]], column: Column
) -> tuple[list[ast.expr | None], tuple[Any, ...]]:
    """Tell tensors and literals apart."""
    tensors: list[ast.expr | None] = []
    statics: list[Any] = []
    for parameter in operation.parameters:
        nodes = given.get(parameter.name, [])
        if parameter.kind == "tensor":
            tensors += nodes or [None]
        elif parameter.many:
            statics += [_literal(operation, parameter, node, column) for node in nodes]
        else:
            statics.append(_literal(operation, parameter, nodes[0], column) if nodes else None)
    names = {p.name for p in operation.parameters}
    if "keepdim" in given and "dim" in names and "dim" not in given:
        raise BadExpression(f"Expected dim beside keepdim in {operation.name}; got none.", column(call))
    if operation.name == "clamp" and len(given) == 1:
        raise BadExpression("Expected min or max in clamp; got neither.", column(call))
    if operation.name == "reshape" and statics.count(-1) > 1:
        raise BadExpression("Expected at most one -1 in reshape; got several.", column(call), "shape")
    return tensors, tuple(statics)


_KINDS = {
    "dim": ("an integer", -MOST_LITERAL),
    "count": ("an integer from 1", 1),
    "size": ("an integer from 0, or -1,", -1),
}


def _literal(operation: Operation, parameter: Parameter, node: ast.expr, column: Column) -> Any:
    """Read an argument that is no tensor."""
    if parameter.kind == "flag":
        if isinstance(node, ast.Constant) and isinstance(node.value, bool):
            return node.value
        expected = "True or False"
    elif parameter.kind == "order":
        value = _number(node)
        if value is not None and abs(value) <= MOST_LITERAL:
            return value
        expected = "a number"
    else:
        expected, least = _KINDS[parameter.kind]
        value = _number(node)
        if isinstance(value, int) and least <= value <= MOST_LITERAL:
            return value
    name = "a size" if parameter.kind == "size" else parameter.name
    got = _written(node)
    raise BadExpression(f"Expected {expected} as {name} of {operation.name}; got {got}.", column(node))


def _number(node: ast.expr | None) -> int | float | None:
    """Return the value of a literal, with a minus sign or without, if it is one."""
    match node:
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return None if isinstance(value, bool) else -value
        case ast.Constant(value=int() | float() as value):
            return None if isinstance(value, bool) else value
        case _:
            return None


def whole(node: ast.expr | None) -> int | None:
    """Return the value of a literal integer, if it is one."""
    value = _number(node)
    return value if isinstance(value, int) else None


def _written(node: ast.expr) -> str:
    """Write an argument for an error."""
    value = _number(node)
    if value is not None:
        return f"{value:.6g}" if isinstance(value, float) or abs(value) > MOST_LITERAL else str(value)
    if isinstance(node, ast.Tuple):
        return "several: write one call for each"
    return quoted(node.id) if isinstance(node, ast.Name) else "another expression"


def index_of(node: ast.expr, column: Column) -> tuple[Any, ...]:
    """Return the key of an index: integers, slices, `...` and `None`.

    Raises:
        BadExpression: it has something else.
    """
    parts = node.elts if isinstance(node, ast.Tuple) else [node]
    if not parts:
        raise BadExpression("Expected an index; got none.", column(node))
    key = tuple(_part(part, column) for part in parts)
    if key.count(...) > 1:
        raise BadExpression("Expected at most one ... in an index; got several.", column(node), "shape")
    return key


def _part(node: ast.expr, column: Column) -> Any:
    """Read one part of an index."""
    if isinstance(node, ast.Slice):
        lower, upper, step = (_bound(part, column) for part in (node.lower, node.upper, node.step))
        if step is not None and step < 1:
            assert node.step is not None
            raise BadExpression(f"Expected a step from 1; got {step}.", column(node.step), "range")
        return slice(lower, upper, step)
    if isinstance(node, ast.Constant) and (node.value is None or node.value is ...):
        return node.value
    value = whole(node)
    if value is None or abs(value) > MOST_LITERAL:
        raise BadExpression(
            f"Expected integers, slices, ... or None as an index; got {_written(node)}.", column(node)
        )
    return value


def _bound(node: ast.expr | None, column: Column) -> int | None:
    """Read a bound or the step of a slice."""
    if node is None or (isinstance(node, ast.Constant) and node.value is None):
        return None
    value = whole(node)
    if value is None or abs(value) > MOST_LITERAL:
        raise BadExpression(f"Expected integers in a slice; got {_written(node)}.", column(node))
    return value


def _signature(operation: Operation) -> str:
    """Write how a function is called."""
    names = [f"{p.name}, ..." if p.many else p.name for p in operation.parameters]
    return f"{operation.name}({', '.join(names)})"
