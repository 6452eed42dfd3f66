"""Conditions on the sizes of images and windows for a loss to be defined."""

from service.catalogue.domains import Facts
from service.catalogue.spec import Condition, SizeRange

NOT_EMPTY = (SizeRange("H", least=1), SizeRange("W", least=1))
"""Sizes that an image needs for a filter that includes its border."""

DIFFERENCED = (SizeRange("H", least=2), SizeRange("W", least=2))
"""Sizes that an image needs to have neighbours in both directions."""

_MOST_HALVINGS = 62
"""No image comes near 2^62 pixels a side: beyond it messages name this many, so that they stay printable."""


def odd(param: str) -> Condition:
    """Return the condition that a window has a middle pixel."""
    return Condition(
        f"/params/{param}",
        f"an odd {param}",
        lambda facts: facts.params[param],
        lambda facts: facts.params[param] % 2 == 1,
    )


def window_fits(expected: str) -> Condition:
    """Return the condition that ``window_size`` fits into images, at every scale if there are ``weights``."""
    return Condition(
        "/inputs/predictions",
        expected,
        lambda facts: f"{_shown(facts)}, where at least {_least_side(facts)} are needed",
        lambda facts: min(_sides(facts)) >= _least_side(facts),
    )


def halvable(expected: str) -> Condition:
    """Return the condition that images can be halved ``levels`` times, each from 3 pixels or more."""
    return Condition(
        "/inputs/predictions",
        expected,
        lambda facts: (
            f"{_shown(facts)}, where multiples of {_step(facts)} from {2 * _step(facts)} on are needed"
        ),
        lambda facts: all(
            facts.size(side) % _step(facts) == 0 and facts.size(side) >= 2 * _step(facts) for side in "HW"
        ),
    )


def _sides(facts: Facts) -> list[int]:
    """Return the sides of an image, or of a volume."""
    return [facts.size(dim) for dim in "DHW" if dim in facts.sizes]


def _shown(facts: Facts) -> str:
    return " x ".join(map(str, _sides(facts)))


def _least_side(facts: Facts) -> int:
    """Return the side that the window needs at the finest scale, so that it fits at the coarsest."""
    halvings = max(0, len(facts.params.get("weights", (1.0,))) - 1)
    return facts.params["window_size"] << min(halvings, _MOST_HALVINGS)


def _step(facts: Facts) -> int:
    """Return the number that a side must be a multiple of; an even one of at least 3 pixels has 4, so two of these."""
    return 1 << min(facts.params["levels"], _MOST_HALVINGS)
