"""Whether the elements of a JSON array are nested alike, so that what is proved of one array in them holds of all.

Python lists of the numbers, which prove the same of each, take ten times as long.
"""

NUMBERS = b"0123456789.+-Ee \t\r\n"
"""What numbers are spelled with, and what may stand between values: of true and false, other letters are left."""


def nested_alike(text: bytes, count: int) -> bool:
    r"""Tell whether so many elements, with commas between, have equal brackets, strings and numbers in equal places.

    An array of one number may be empty in another element. A text with escapes is not looked at.

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
