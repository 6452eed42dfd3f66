"""The one exception of the expression language."""


class BadExpression(Exception):
    """An expression that cannot be read, or that does not fit its inputs.

    ``detail`` is a sentence "Expected ...; got ...". ``column`` counts characters from 1. ``code`` is ``syntax``, ``unknown``
    (a name), ``shape``, ``type``, ``range`` (a number) or ``length``.
    """

    def __init__(self, detail: str, column: int, code: str = "syntax") -> None:
        super().__init__(detail)
        self.detail = detail
        self.column = column
        self.code = code
