"""Search finds what a learner asks for, best match first."""

import pytest

from service.catalogue.search import search
from service.losses import CATALOGUE


def names(query: str | None = None, task: str | None = None) -> list[str]:
    return [loss.name for loss in search(CATALOGUE, task, query)]


@pytest.mark.parametrize(
    ("query", "among_the_first"),
    [
        ("class imbalance", {"sigmoid_focal", "softmax_focal"}),
        ("rare classes", {"logit_adjusted_cross_entropy"}),
        ("label noise", {"generalized_cross_entropy", "symmetric_cross_entropy"}),
        ("pinball", {"quantile", "multi_quantile"}),
        ("earth mover's distance", {"cdf_wasserstein"}),
        ("outliers", {"huber", "geman_mcclure"}),
        ("heavy tails", {"student_t_nll"}),
        ("forecasting quantiles", {"multi_quantile", "quantile"}),
        ("graph link prediction", {"gae_reconstruction"}),
        ("variational autoencoder", {"vae_elbo", "vae_kl"}),
        ("a loss for knowledge distillation", {"distillation"}),
    ],
)
def test_what_a_learner_asks_for_is_among_the_first(query: str, among_the_first: set[str]) -> None:
    assert among_the_first <= set(names(query)[:8])


def test_without_a_query_all_are_listed_alphabetically() -> None:
    assert names() == names("") == names("a loss for") == list(CATALOGUE)


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_name_or_alias_finds_its_loss_first(name: str) -> None:
    for spelling in (name, name.replace("_", " "), *CATALOGUE[name].aliases):
        assert names(spelling)[0] == name


def test_a_class_name_of_torch_finds_its_loss() -> None:
    assert names("BCEWithLogitsLoss") == ["binary_cross_entropy_with_logits"]


def test_equally_good_losses_are_in_alphabetical_order() -> None:
    generator, discriminator = "gan_generator_minimax", "gan_discriminator"
    found = names("gan")
    assert found.index(discriminator) < found.index(generator)


@pytest.mark.parametrize(
    ("one", "other"), [("noisy", "noise"), ("Outliers", "outlier"), ("overlapping", "overlap")]
)
def test_endings_and_case_do_not_matter(one: str, other: str) -> None:
    assert names(one) == names(other) != []


def test_a_name_counts_more_than_what_is_said_in_passing() -> None:
    found = names("huber")
    assert found[0] == "huber"
    assert len(found) > 1


def test_a_word_that_nothing_mentions_does_no_harm() -> None:
    assert names("qwertyuiop outliers") == names("outliers")
    assert names("qwertyuiop asdfghjkl outliers") == names("qwertyuiop") == []


def test_a_task_is_all_of_its_losses_however_it_is_written() -> None:
    regression = names(task="regression")
    assert 0 < len(regression) < len(CATALOGUE)
    assert regression == names(task=" Regression") == sorted(regression)
    assert names("outliers", "regression") == [n for n in names("outliers") if n in regression]
    assert names(task="cooking") == names("outliers", "cooking") == []
    underscored = next(task for loss in CATALOGUE.values() for task in loss.tasks if "_" in task)
    assert names(task=underscored.replace("_", "-")) == names(task=underscored) != []


def test_a_query_of_any_length_and_script_is_answered() -> None:
    assert names("損失 ∂ <script> %00") == []
    assert names("outliers " * 10_000) == names("outliers")
