"""Look at the characters of an expression before Python's parser does: its recursion is bounded, and nothing strange reaches it."""

import keyword
import re
import unicodedata

from service.engine.expression.refused import BadExpression
from service.problems import quoted

MOST_NESTED = 64
"""Most levels of brackets, powers and signs in each other: Python's parser and compiler recurse."""
_TOKEN = re.compile(
    r"(?P<space>[ \t\r\n]+)"
    r"|(?P<number>0[xX][\da-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][+-]?\d+)?)"
    r"|(?P<name>[^\W\d]\w*)"
    r"|(?P<dots>\.\.\.)"
    r"|(?P<open>[(\[])|(?P<close>[)\]])"
    r"|(?P<sign>\*\*|<=|>=|==|!=|[-+*/@<>&|~,:=])"
)
_HINTS = {
    "and": "& between masks in parentheses",
    "or": "| between masks in parentheses",
    "not": "~ before a mask",
    "if": "where(condition, x, y)",
    "else": "where(condition, x, y)",
    "//": "floor(x / y)",
    "%": "x - floor(x / y) * y",
    "^": "** for a power",
    "<<": "a product with a power of 2",
    ">>": "a quotient by a power of 2",
    ":=": "the expression itself, wherever it is needed",
}
_LITERALS = {"True", "False", "None"}
_CLOSES = {"(": ")", "[": "]"}


def check_tokens(source: str) -> None:
    """Check that a source has only tokens of the language, balanced brackets and bounded nesting.

    Raises:
        BadExpression: it has not; says where.
    """
    nesting, operand, position = _Nesting(), False, 0
    while position < len(source):
        found = _TOKEN.match(source, position)
        if found is None or source[position : position + 2] in _HINTS:
            raise _strange(source, position)
        text, column = found.group(), position + 1
        match found.lastgroup:
            case "number" | "name" | "dots":
                _check_word(source, found)
                operand = True
            case "open":
                nesting.open(text, column)
                operand = False
            case "close":
                nesting.close(text, column)
                operand = True
            case "sign":
                nesting.sign(text, column, prefix=not operand)
                operand = False
            case _:
                pass
        position = found.end()
    nesting.end()
    if not operand:
        raise BadExpression("Expected an operand; got the end.", len(source) + 1)


def _check_word(source: str, found: re.Match[str]) -> None:
    """Check a number or a name."""
    text, start, end = found.group(), found.start(), found.end()
    if found.lastgroup == "number" and re.match(r"[\w.]", source[end : end + 1]):
        number = re.compile(r"[\w.]+").match(source, start)
        assert number is not None
        raise BadExpression(f"Expected a real number; got {quoted(number.group())}.", start + 1)
    if found.lastgroup == "number" and not _is_number(text):
        detail = "Expected a number without leading zeros, and with single _ between digits"
        raise BadExpression(f"{detail}; got {quoted(text)}.", start + 1)
    if found.lastgroup != "name":
        return
    if keyword.iskeyword(text) and text not in _LITERALS:
        raise BadExpression(f"Expected {_HINTS.get(text, 'an expression')}; got {quoted(text)}.", start + 1)
    if source[end : end + 1] in ("'", '"'):
        raise BadExpression("Expected numbers and names; got a string.", start + 1)
    if unicodedata.normalize("NFKC", text) != text:
        # Python's parser would read another name
        raise BadExpression(
            f"Expected a name in the normal form NFKC; got {text[:100]!a}.", start + 1, "unknown"
        )


def _is_number(text: str) -> bool:
    """Return whether Python reads digits with `_` and `.` as a number."""
    plain = re.sub(r"(?<=[\da-fA-FxXoO])_(?=[\da-fA-F])", "", text)
    return "_" not in plain and not re.fullmatch(r"0+[1-9]\d*", plain)


def _strange(source: str, position: int) -> BadExpression:
    """Return the refusal of a character that starts no token."""
    column = position + 1
    for length in (2, 1):
        text = source[position : position + length]
        if text in _HINTS:
            return BadExpression(f"Expected {_HINTS[text]}; got {quoted(text)}.", column)
    match source[position]:
        case "'" | '"':
            return BadExpression("Expected numbers and names; got a string.", column)
        case ".":
            return BadExpression("Expected no attributes; got a dot.", column)
        case strange:
            return BadExpression(
                f"Expected numbers, names, + - * / ** @ < <= > >= == != & | ~ and brackets; got {strange!a}.",
                column,
            )


class _Nesting:
    """The depth of brackets, and of powers and signs whose right operand is not complete."""

    def __init__(self) -> None:
        self.open_brackets: list[tuple[str, int, int]] = []
        self.pending = 0

    def open(self, bracket: str, column: int) -> None:
        self.open_brackets.append((bracket, column, self.pending))
        self._deeper(column)

    def close(self, bracket: str, column: int) -> None:
        if not self.open_brackets or _CLOSES[self.open_brackets[-1][0]] != bracket:
            raise BadExpression(f"Expected no {bracket} here; got one that closes nothing.", column)
        self.pending = self.open_brackets.pop()[2]

    def sign(self, sign: str, column: int, *, prefix: bool) -> None:
        if sign == "**" or (prefix and sign in "+-~"):
            self._deeper(column)
        else:
            self.pending = self.open_brackets[-1][2] + 1 if self.open_brackets else 0

    def end(self) -> None:
        if self.open_brackets:
            bracket, column, _ = self.open_brackets[-1]
            raise BadExpression(f"Expected {_CLOSES[bracket]} after this {bracket}; got none.", column)

    def _deeper(self, column: int) -> None:
        self.pending += 1
        if self.pending > MOST_NESTED:
            raise BadExpression(
                f"Expected at most {MOST_NESTED} levels of brackets, powers and signs; got more.",
                column,
                "length",
            )
