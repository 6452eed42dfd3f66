"""The Poisson bootstrap: counts from a Poisson distribution that ids alone decide."""

from math import exp, factorial

import numpy as np

from service.engine import bootstrap
from service.engine.bootstrap import Asked, counts, keys_of, keys_of_unit


def test_counts_are_distributed_as_poisson_with_mean_1() -> None:
    keys = np.arange(200_000, dtype=np.uint64)
    [found] = counts(keys, Asked(0.95, 1))
    for count in range(6):
        share = exp(-1) / factorial(count)
        assert abs((found == count).mean() - share) < 5 * (share / len(keys)) ** 0.5


def test_the_table_gives_what_all_bits_of_a_hash_give() -> None:
    edges = bootstrap._THRESHOLDS  # pyright: ignore[reportPrivateUsage]
    near = np.concatenate([edges - np.uint64(1), edges, edges + np.uint64(1)])
    drawn = np.random.default_rng(0).integers(0, 2**64, 100_000, dtype=np.uint64)
    for hashes in (near, drawn):
        found = bootstrap._poisson(hashes)  # pyright: ignore[reportPrivateUsage]
        assert (found == np.searchsorted(edges, hashes, "right")).all()


def test_a_row_counts_the_same_in_any_company() -> None:
    keys = keys_of([f"image {n}" for n in range(70_000)])
    order = np.random.default_rng(0).permutation(len(keys))[:1000]
    asked = Asked(0.95, 3, seed=7)
    for whole, some in zip(counts(keys, asked), counts(keys[order], asked), strict=True):
        assert (whole[order] == some).all()


def test_replicates_and_seeds_differ_and_do_not_correlate() -> None:
    keys = np.arange(50_000, dtype=np.uint64)
    one, two = counts(keys, Asked(0.95, 2))
    [other] = counts(keys, Asked(0.95, 1, seed=1))
    for left, right in ((one, two), (one, other), (one[:-1], one[1:])):
        assert abs(np.corrcoef(left, right)[0, 1]) < 0.02


def test_rows_of_a_unit_are_drawn_together() -> None:
    keys = keys_of_unit(np.array(["a", "b", "a", "c"], dtype=object))
    assert keys[0] == keys[2] and len({*keys.tolist()}) == 3
    assert (keys_of_unit(np.array([2, 1, 2])) == keys_of([2, 1, 2])).all()
