"""Search finds what a learner asks for, best match first."""

from typing import Any

import pytest

from service.catalogue.search import search
from service.catalogue.tasks import TASKS
from service.losses import CATALOGUE
from service.metrics import METRICS
from tests.waiting import within_cpu_s


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


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("bounding box", {"giou", "ciou"}),
        ("object detection", {"giou", "ciou"}),
        ("RLHF", {"dpo"}),
        ("preference optimization", {"dpo"}),
        ("perceptual similarity", {"ssim"}),
        ("face recognition", {"arcface"}),
        ("speech recognition", {"ctc"}),
        ("ASR", {"ctc"}),
        ("OCR", {"ctc"}),
        ("anomaly detection", {"mse", "ssim"}),
        ("imbalanced", {"sigmoid_focal", "logit_adjusted_cross_entropy"}),
        ("medical image segmentation", {"dice", "tversky"}),
        ("tumor", {"dice"}),
        ("language model", {"token_cross_entropy"}),
        ("LLM fine-tuning", {"token_cross_entropy", "dpo"}),
        ("machine translation", {"token_cross_entropy"}),
        ("named entity recognition", {"crf_nll"}),
        ("NER", {"crf_nll"}),
        ("recommendation", {"bpr"}),
        ("collaborative filtering", {"bpr"}),
        ("learning to rank", {"lambdarank", "listnet"}),
        ("click-through rate", {"binary_cross_entropy_with_logits"}),
        ("robust regression", {"huber"}),
        ("uncertainty", {"gaussian_nll", "quantile"}),
        ("time series", {"quantile", "smape"}),
        ("SVM", {"hinge"}),
        ("image generation", {"gan_generator_nonsaturating"}),
        ("super-resolution", {"charbonnier"}),
        ("denoising", {"total_variation", "ssim"}),
        ("depth estimation", {"silog"}),
        ("pose estimation", {"oks", "heatmap_mse"}),
        ("face landmarks", {"wing"}),
        ("person re-identification", {"batch_hard_triplet"}),
        ("image retrieval", {"triplet_margin"}),
        ("contrastive learning", {"info_nce", "ntxent"}),
        ("self-supervised", {"barlow_twins"}),
        ("knowledge graph", {"self_adversarial"}),
        ("word embeddings", {"skipgram_negative_sampling"}),
        ("calibration", {"brier"}),
        ("hard negative mining", {"ohem_cross_entropy"}),
        ("actor critic", {"ppo_clip"}),
        ("accuracy", {"zero_one"}),
        ("mean absolute error", {"l1"}),
    ],
)
def test_what_a_stranger_types_finds_what_it_stands_for(query: str, first: set[str]) -> None:
    assert first <= set(names(query)[:8])


def test_a_name_comes_before_what_only_has_its_letters() -> None:
    assert names("BCE")[:2] == ["binary_cross_entropy", "binary_cross_entropy_with_logits"]
    assert "sub_center_arcface" not in names("BCE")
    assert names("NER")[0] == "crf_nll"
    assert not {"gan_generator_minimax", "energy_distance"} & set(names("NER"))
    assert names("clip")[0] == "clip"
    assert names("iou")[0] == "iou" and "xiou" in names("iou")


@pytest.mark.parametrize("query", ["survival", "blockchain", "TTS", "fairness"])
def test_where_there_is_nothing_nothing_is_found(query: str) -> None:
    assert names(query) == []


def test_what_pitfalls_mention_counts_only_where_nothing_else_does() -> None:
    assert set(names("few-shot")) == {n for n, one in CATALOGUE.items() if "few-shot" in one.keywords}


def test_every_task_has_words_that_lead_to_it() -> None:
    declared: set[str] = set()
    catalogues: tuple[Any, ...] = (CATALOGUE, METRICS)
    for catalogue in catalogues:
        tasks = {task for one in catalogue.values() for task in one.tasks}
        for task in tasks:
            found = (search(catalogue, query=TASKS[task].split(",")[0]), search(catalogue, task))
            assert {one.name for one in found[0]} & {one.name for one in found[1]}
        declared |= tasks
    assert declared == TASKS.keys()


def test_keywords_are_words_that_a_query_can_have() -> None:
    for loss in CATALOGUE.values():
        for phrase in loss.keywords:
            assert loss.name in names(phrase), phrase


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
    with within_cpu_s(0.5):
        assert names("outliers " * 10_000) == names("outliers")
        assert names("ies" * 20_000) == names("a" * 60_000) == []
