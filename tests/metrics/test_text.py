"""Texts: values against sacrebleu, rouge-score, jiwer, torchmetrics, SQuAD's definition, and tables of distances."""

import random
from collections.abc import Sequence
from itertools import pairwise, zip_longest
from typing import Any

import jiwer
import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
from sacrebleu.tokenizers.tokenizer_zh import TokenizerZh
from torchmetrics.functional.text import char_error_rate, edit_distance, word_error_rate

from service.metrics.alignments import common, edits
from service.metrics.tokens import TOKENIZERS
from tests.client import Client
from tests.metrics.helpers import (
    assert_rows_depend_on_their_sample_alone,
    each_of,
    reason,
    selected,
    value_of,
)

WORDS = [
    *(
        "the",
        "The",
        "a",
        "cat",
        "cats",
        "sat",
        "on",
        "mat",
        "it's",
        "3.14",
        "1,000",
        "U.S.",
        "(well)",
        "end.",
        "&amp;",
        "&lt;b>",
    ),
    *(
        "他在",
        "北京。",
        "ｆｕｌｌ",
        "über",
        "Straße",
        "don't",
        "--",
        "5-6",
        "x-ray",
        "\u00a0",
        "\u2028",
        "<skipped>",
        "-\n",
        "𠀀",
        "e\u0301",
    ),
]
SCORED = ("bleu", "chrf", "rouge", "wer", "cer", "edit_distance")


def sentence(rng: random.Random, most: int = 14) -> str:
    """Return a few words with single, double or no spaces between them."""
    return "".join(
        rng.choice(WORDS) + rng.choice((" ", " ", " ", "  ", "")) for _ in range(rng.randint(0, most))
    )


def changed(rng: random.Random, text: str) -> str:
    """Return a text with some of its words replaced, moved or left out."""
    words = [
        rng.choice(WORDS) if rng.random() < 0.2 else word for word in text.split(" ") if rng.random() < 0.9
    ]
    return " ".join(words)


def corpus(seed: int, size: int = 20, most: int = 14) -> dict[str, list[str]]:
    rng = random.Random(seed)
    targets = ["the " + sentence(rng, most) for _ in range(size)]
    return {"predictions": [changed(rng, text) for text in targets], "targets": targets}


def with_references(seed: int, size: int = 20) -> dict[str, Any]:
    """Return a corpus with one to three references a text, some of them as a single string."""
    rng, inputs = random.Random(seed), corpus(seed, size)
    targets: list[Any] = []
    for text in inputs["targets"]:
        others = [changed(rng, text) for _ in range(rng.randint(0, 2))]
        targets.append([text, *others] if others or rng.random() < 0.5 else text)
    return {"predictions": inputs["predictions"], "targets": targets}


def streams(targets: Sequence[str | list[str]]) -> list[Any]:
    """Return references as sacrebleu has them: the first of each text, the second, and so on."""
    return [*map(list, zip_longest(*([one] if isinstance(one, str) else one for one in targets)))]


@pytest.mark.parametrize("lowercase", [False, True])
@pytest.mark.parametrize("tokenize", TOKENIZERS)
def test_bleu_equals_sacrebleu(tokenize: str, lowercase: bool) -> None:
    peer = BLEU(tokenize=tokenize, lowercase=lowercase)
    for seed in range(6):
        for inputs in (corpus(seed, 3, 5), with_references(seed)):
            expected = peer.corpus_score(inputs["predictions"], streams(inputs["targets"])).score / 100
            value = value_of("bleu", inputs, tokenize=tokenize, lowercase=lowercase)
            assert value == pytest.approx(expected, rel=1e-12), (seed, inputs)


@pytest.mark.parametrize(("char_order", "word_order", "beta"), [(6, 0, 2), (6, 2, 2), (3, 1, 1), (1, 0, 3)])
def test_chrf_equals_sacrebleu(char_order: int, word_order: int, beta: int) -> None:
    peer = CHRF(char_order=char_order, word_order=word_order, beta=beta)
    for seed in range(6):
        for inputs in (corpus(seed, 3, 5), with_references(seed)):
            expected = peer.corpus_score(inputs["predictions"], streams(inputs["targets"])).score / 100
            value = value_of("chrf", inputs, char_order=char_order, word_order=word_order, beta=float(beta))
            assert value == pytest.approx(expected, rel=1e-12)


def test_a_rows_own_value_is_that_of_its_sentence() -> None:
    inputs = with_references(1)
    pairs = list(
        zip(inputs["predictions"], [[t] if isinstance(t, str) else t for t in inputs["targets"]], strict=True)
    )
    scores = [BLEU(effective_order=True).sentence_score(text, refs).score / 100 for text, refs in pairs]
    np.testing.assert_allclose(each_of("bleu", inputs), scores, rtol=1e-12)
    scores = [CHRF().sentence_score(text, refs).score / 100 for text, refs in pairs]
    np.testing.assert_allclose(each_of("chrf", inputs), scores, rtol=1e-12)


def test_tokens_equal_sacrebleus_at_every_character() -> None:
    western, chinese = Tokenizer13a(), TokenizerZh()
    characters = [chr(code) for code in range(0x10000) if not 0xD800 <= code < 0xE000]
    text = "".join(f"a{one}1{one} {one}b" for one in [*characters, "𠀀", "\U0002f800", "😀"])
    assert TOKENIZERS["zh"](text) == chinese(text).split()
    assert TOKENIZERS["13a"](text) == western(text).split()
    rng = random.Random(0)
    for _ in range(300):
        text = sentence(rng)
        assert TOKENIZERS["13a"](text) == western(text).split()
        assert TOKENIZERS["zh"](text) == chinese(text).split()


def test_rouge_equals_rouge_score() -> None:
    names = ("rouge1", "rouge2", "rougeL")
    peer = RougeScorer(list(names))
    for inputs in (corpus(0, 40), corpus(1, 40, 2)):
        scores = [peer.score(*pair) for pair in zip(inputs["targets"], inputs["predictions"], strict=True)]
        value = value_of("rouge", inputs)
        for name in names:
            expected = np.mean([one[name] for one in scores], axis=0)
            np.testing.assert_allclose([*value[name].values()], expected, rtol=1e-13)
        np.testing.assert_allclose(each_of("rouge", inputs), [one["rougeL"].fmeasure for one in scores])


def test_rouge_leaves_out_texts_without_words_on_both_sides(client: Client) -> None:
    texts = {"predictions": ["a b", "", "", "c"], "targets": ["a c", "?!", "d", ""]}
    answer = client.post("/v1/metrics/rouge", json={"inputs": texts}).json()
    # a third of the scores of the first text, as the others that count have 0
    assert answer["value"]["rouge1"] == dict.fromkeys(("precision", "recall", "f1"), pytest.approx(0.5 / 3))
    assert answer["undefined"] == {"samples": "left out 1: neither text nor reference has words"}
    empty = client.post("/v1/metrics/rouge", json={"inputs": {"predictions": [""], "targets": ["-"]}}).json()
    assert empty["value"]["rougeL"] == dict.fromkeys(("precision", "recall", "f1"))
    assert empty["undefined"]["rougeL/f1"] == "no text or reference has a word"
    assert np.isnan(each_of("rouge", texts)).tolist() == [False, True, False, False]


def test_error_rates_equal_torchmetrics_and_jiwer() -> None:
    for seed in range(5):
        inputs = corpus(seed, 30)
        predictions, targets = inputs["predictions"], inputs["targets"]
        assert value_of("wer", inputs) == pytest.approx(
            word_error_rate(predictions, targets).item(), rel=1e-6
        )
        assert value_of("cer", inputs) == pytest.approx(
            char_error_rate(predictions, targets).item(), rel=1e-6
        )
        mean = edit_distance(predictions, targets, reduction="mean").item()
        assert value_of("edit_distance", inputs) == pytest.approx(mean, rel=1e-6)
        plain = {key: [" ".join(text.split()) or "x" for text in texts] for key, texts in inputs.items()}
        # jiwer splits at ASCII spaces, and cuts them from the ends
        assert value_of("wer", plain) == jiwer.wer(plain["targets"], plain["predictions"])
        assert value_of("cer", plain) == jiwer.cer(plain["targets"], plain["predictions"])


def distances(first: Sequence[Any], second: Sequence[Any]) -> tuple[int, int]:
    """Return the edit distance and the longest common subsequence from tables of all prefixes."""
    row, lengths = [*range(len(second) + 1)], [0] * (len(second) + 1)
    for place, one in enumerate(first):
        known, shared = row, lengths
        row, lengths = [place + 1], [0]
        for column, other in enumerate(second):
            row.append(min(row[-1] + 1, known[column + 1] + 1, known[column] + (one != other)))
            lengths.append(shared[column] + 1 if one == other else max(lengths[-1], shared[column + 1]))
    return row[-1], lengths[-1]


def test_edits_and_common_subsequences_equal_the_table_of_all_prefixes() -> None:
    rng = random.Random(0)
    for _ in range(400):
        first, second = ("".join(rng.choices("abcd", k=rng.randint(0, 40))) for _ in range(2))
        assert (edits(first, second), common(first, second)) == distances(first, second)
        words = [list(text) for text in (first, second)]
        assert (edits(*words), common(*words)) == distances(first, second)
    for first, second in pairwise("".join(rng.choices("ab", k=300)) for _ in range(5)):
        assert (edits(first, second), common(first, second)) == distances(first, second)


def test_squad_takes_the_best_answer_after_normalising() -> None:
    inputs = {
        "predictions": ["The  Eiffel-Tower!", "in 1889", "", "Paris", "", "the"],
        "targets": [["eiffeltower", "tower"], ["1889", "year of 1889"], [], [], ["Rome"], ["a", "x"]],
    }
    np.testing.assert_allclose(each_of("squad", inputs), [1, 2 / 3, 1, 0, 0, 0], rtol=1e-15)
    assert value_of("squad", inputs) == {"exact_match": 2 / 6, "f1": pytest.approx((1 + 2 / 3 + 1) / 6)}


@pytest.mark.parametrize("name", [*SCORED, "squad"])
def test_weights_repeat_rows_and_rows_depend_on_their_sample_alone(name: str) -> None:
    inputs: dict[str, Any] = corpus(3, 25)
    if name in ("bleu", "chrf"):
        inputs = with_references(3, 25)
    if name == "squad":
        inputs["targets"] = [[text, text[:5]] for text in inputs["targets"]]
    weights = np.random.default_rng(0).integers(0, 4, 25)
    repeated = selected(inputs, np.repeat(np.arange(25), weights))
    weighted, expected = value_of(name, inputs, weights=weights), value_of(name, repeated)
    assert flat(weighted) == pytest.approx(flat(expected), rel=1e-13)
    assert_rows_depend_on_their_sample_alone(name, inputs)


def flat(value: Any) -> list[float]:
    """Return the numbers of a value."""
    return [number for one in value.values() for number in flat(one)] if isinstance(value, dict) else [value]


def test_what_has_no_value_is_undefined() -> None:
    empty: dict[str, Any] = {"predictions": [], "targets": []}
    blank = {"predictions": ["", " "], "targets": ["", " "]}
    for name in ("bleu", "chrf", "edit_distance"):
        assert reason(value_of(name, empty)) == "there are no samples"
    assert reason(value_of("wer", empty)) == reason(value_of("wer", blank)) == "no reference has a word"
    assert reason(value_of("cer", {"predictions": ["a"], "targets": [""]})) == "no reference has a character"
    assert reason(value_of("bleu", blank)) == "no text or reference has a token"
    assert reason(value_of("chrf", blank)) == "no reference has a character"
    assert all(reason(one) for one in flat(value_of("rouge", empty)) + flat(value_of("squad", empty)))
    np.testing.assert_array_equal(
        each_of("wer", {"predictions": ["a", ""], "targets": ["", "a"]}), [np.nan, 1]
    )
    for name, expected in (("bleu", 0), ("chrf", 0), ("wer", 1), ("cer", 1)):
        assert value_of(name, {"predictions": [""], "targets": ["a b c d"]}) == expected


def test_long_texts_take_time_in_proportion_to_their_bits() -> None:
    rng = random.Random(0)
    first, second = ("".join(rng.choices("abcdefgh ", k=20_000)) for _ in range(2))
    assert 0 < edits(first, second) < 20_000
    assert 0 < common(first, second) < 20_000


def test_texts_that_take_too_long_to_align_are_refused(client: Client) -> None:
    inputs = {"predictions": ["ab" * 200_000], "targets": ["ba" * 200_000]}
    for name in ("cer", "wer", "edit_distance", "rouge"):
        answer = client.post(f"/v1/metrics/{name}", json={"inputs": inputs})
        assert answer.status_code == 413, name
        assert "LOSSD_MAX_WORK" in answer.json()["detail"]
