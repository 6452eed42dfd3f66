"""Tokens: how texts are cut into pieces before they are compared, as sacrebleu, rouge-score and SQuAD cut them."""

import re
import string
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Literal

Tokenizer = Literal["13a", "zh", "char", "none"]

_PUNCTUATION = re.compile(r"([{-~\[-` -&(-+:-@/])")
_AFTER_NO_DIGIT = re.compile(r"([^0-9])([.,])")
_BEFORE_NO_DIGIT = re.compile(r"([.,])([^0-9])")
_DASH_AFTER_DIGIT = re.compile(r"([0-9])(-)")
_ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))
# sacrebleu writes the supplementary planes with four digits and one more character, which makes them U+2001 to U+2A6D and
# U+2F81 to U+2FA1; scores are comparable only so
_CHINESE = re.compile(
    "([\u2001-\u2a6d\u2e80-\u2fdf\u2ff0-\u303f\u3100-\u312f\u31a0-\u31bf\u31c0-\u31ef\u3200-\u4db5\u4e00-\u9fbb"
    "\uf900-\ufa2d\ufa30-\ufa6a\ufa70-\ufad9\ufe10-\ufe1f\ufe30-\ufe4f\uff00-\uffef])"
)
_ENGLISH = re.compile(r"[a-z0-9]+")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def international(text: str) -> list[str]:
    """Return tokens as mteval-v13a: words, numbers, and punctuation apart."""
    text = text.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, character in _ENTITIES:
        text = text.replace(entity, character)
    return _western(f" {text} ")


def chinese(text: str) -> list[str]:
    """Return each Chinese character as a token, and the rest as `international` without its entities."""
    return _western(_CHINESE.sub(r" \1 ", text.strip()))


def _western(text: str) -> list[str]:
    """Cut punctuation from words, except between digits."""
    text = _PUNCTUATION.sub(r" \1 ", text)
    text = _AFTER_NO_DIGIT.sub(r"\1 \2 ", text)
    text = _BEFORE_NO_DIGIT.sub(r" \1 \2", text)
    return _DASH_AFTER_DIGIT.sub(r"\1 \2 ", text).split()


TOKENIZERS: dict[Tokenizer, Callable[[str], list[str]]] = {
    "13a": international,
    "zh": chinese,
    "char": lambda text: " ".join(text).split(),
    "none": str.split,
}


def english(text: str) -> list[str]:
    """Return the runs of letters and digits in lower case, as rouge-score without its stemmer.

    >>> english("Don't panic!")
    ['don', 't', 'panic']
    """
    return _ENGLISH.findall(text.lower())


def normalized(text: str) -> str:
    """Return a text as SQuAD compares it: in lower case, without punctuation, articles and spare spaces.

    >>> normalized(" The  Answer, 42.")
    'answer 42'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_WITHOUT_PUNCTUATION)).split())


def words_apart(text: str) -> list[str]:
    """Return words, each without the punctuation mark at its end, or else its start, as chrF++ does.

    >>> words_apart("(hi) there, you")
    ['(hi', ')', 'there', ',', 'you']
    """
    found: list[str] = []
    for word in text.split():
        if len(word) > 1 and word[-1] in string.punctuation:
            found += [word[:-1], word[-1]]
        elif len(word) > 1 and word[0] in string.punctuation:
            found += [word[0], word[1:]]
        else:
            found.append(word)
    return found


def runs(tokens: Sequence[str], order: int) -> Counter[Hashable]:
    """Return how often each run of ``order`` tokens, or of characters of a text, occurs.

    >>> runs("abab", 2)["ab"], runs(["to", "be", "or"], 2)["to", "be"]
    (2, 1)
    """
    if isinstance(tokens, str):
        return Counter([tokens[start : start + order] for start in range(len(tokens) - order + 1)])
    return Counter(zip(*(tokens[start:] for start in range(order)), strict=False))


def shared(first: Counter[Hashable], second: Counter[Hashable]) -> int:
    """Return how many runs two texts share, each as often as it occurs in both."""
    return sum(min(count, second[run]) for run, count in first.items() if run in second)


def most_of(counts: Iterable[Counter[Hashable]]) -> Counter[Hashable]:
    """Return how often each run occurs in the text that has it most often."""
    first, *others = counts
    for one in others:
        first |= one
    return first


def characters(inputs: Mapping[str, Any]) -> int:
    """Return the number of characters of all texts and references."""
    return sum(map(_length, inputs["predictions"])) + sum(map(_length, inputs["targets"]))


def _length(value: str | list[str]) -> int:
    """Return the number of characters of a text, or of a list of them."""
    return len(value) if isinstance(value, str) else sum(map(len, value))
