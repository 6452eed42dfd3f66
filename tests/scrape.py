"""Read /metrics as Prometheus does."""

import httpx
from prometheus_client.parser import text_string_to_metric_families

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parse(text: str) -> Samples:
    """Return the samples of an exposition by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    """Return the sum of the samples of a name whose labels include those given."""
    wanted = set(labels.items())
    return sum(number for (found, has), number in samples.items() if found == name and wanted <= has)


def scrape(server: str, **headers: str) -> Samples:
    """Ask a real server."""
    answer = httpx.get(f"{server}/metrics", headers=headers, timeout=30)
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parse(answer.text)
