"""Compare the nesting of the elements of a JSON array: if it is equal, checking the arrays of one element is enough.

Converting each element to Python lists, to check it, would take ten times as long.
"""

NUMBERS = b"0123456789.+-Ee \t\r\n"
"""Characters of numbers and white space. Only some letters of true and false are among them."""


def nested_alike(text: bytes, count: int) -> bool:
    r"""Return whether ``count`` elements, separated by commas, have the same brackets, commas and strings in the same order.

    Strings may differ in their characters; an array of one number in one element may be empty in another. A text with
    escapes is never alike.

    >>> nested_alike(b'{"a":[1,[2,3]]},{"b":[4.5,[-6,1e7]]}', 2)
    True
    >>> nested_alike(b'[[1,2],3],[1,[2,3]]', 2), nested_alike(b'[1],[null]', 2), nested_alike(b'["\\""],[""]', 2)
    (False, False, False)
    """
    if b"\\" in text:
        return False
    bare = b'"'.join(text.split(b'"')[::2]).translate(None, NUMBERS)
    length, rest = divmod(len(bare) + 1, count)
    return not rest and bare == b",".join([bare[: length - 1]] * count)
