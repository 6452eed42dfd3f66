"""Elements are nested alike if they differ only in their strings and numbers."""

from typing import Any

import orjson
from hypothesis import example, given
from hypothesis import strategies as st

from service.wire.nesting import nested_alike

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats(allow_nan=False)
    | st.text('a[],{}"\\1', max_size=3)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab,[", max_size=2), inner, max_size=2)
    ),
)


@given(st.lists(values, min_size=1, max_size=4))
@example([[1], []])
@example([[1, [2, 3]], [[1, 2], 3]])
@example([{"a": "],["}, {"b": "}"}])
def test_elements_are_nested_alike_where_only_strings_and_numbers_differ(elements: list[Any]) -> None:
    text = orjson.dumps(elements)[1:-1]
    expected = b"\\" not in text and len({orjson.dumps(nesting(element)) for element in elements}) == 1
    assert nested_alike(text, len(elements)) == expected


def nesting(value: Any) -> Any:
    """Replace all strings and all numbers by one; an array of one number becomes empty."""
    if isinstance(value, dict):
        return [["of", "an", "object"], *map(nesting, value.values())]
    if isinstance(value, list):
        found = [*map(nesting, value)]
        return [] if found == [0] else found
    return {str: "", int: 0, float: 0}.get(type(value), repr(value))
