"""The metrics as Markdown that GitHub renders: a page for each family, and an index by task."""

import shlex
from collections.abc import Mapping
from typing import Any

import orjson

from service.catalogue.metric import AnyMetric, Listed
from service.catalogue.registry import MetricCatalogue
from service.document.markdown import (
    about_family,
    codes,
    family_of,
    form_lines,
    github_formula,
    heading,
    markdown_table,
    source_list,
    taken_by,
)
from service.wire import describe_metric
from service.wire.json import show

INDEX = """\
# Metrics

{count} metrics, a page for each family:

{families}

## How to read a page

`N` counts samples, `C` classes, `L` labels, `D` outputs. Texts, tags and objects are JSON lists with one value a sample. A score is a
fraction, never a percentage. All averages that follow from the same counts are returned together; a number that does not exist is
`null`, and `undefined` has the reason. `like` chooses the conventions of another library where they differ.

Every metric takes `sample_weight`, `slices` (a result for each value of a column) and `interval` (a level such as 0.95; bootstrap
intervals are the same for the same samples, seed and `replicates`; curves and matrices have none).

## By task

{tasks}
"""

PAGE = """\
# {title}

{about} [How to read this page](README.md#how-to-read-a-page) · [all metrics](README.md)

{table}
"""

SECTION = """
## {metric.name}

**{metric.title}**{aliases}

{prose.summary}

```math
{formula}
```

**Use when.** {prose.use_when}

**Pitfalls.** {prose.pitfalls}

{inputs}

{params}

{remarks}

```sh
curl http://127.0.0.1:8000/v1/metrics/{metric.name} -H 'Content-Type: application/json' \\
  -d {body}
```

Sources:
{sources}
"""


def metric_pages(catalogue: MetricCatalogue) -> dict[str, str]:
    """Return the text of each page by the name of its file."""
    families: dict[str, list[AnyMetric]] = {}
    for metric in catalogue.values():
        families.setdefault(family_of(metric), []).append(metric)
    found = {f"{name}.md": _page(name, families[name]) for name in sorted(families)}
    return {"README.md": _index(catalogue, families), **found}


def _index(catalogue: MetricCatalogue, families: dict[str, list[AnyMetric]]) -> str:
    """Return the index page."""
    rows = [
        (f"[{heading(name)}]({name}.md)", about_family(families[name][0]), str(len(families[name])))
        for name in sorted(families)
    ]
    tables: list[str] = []
    for task in sorted({task for metric in catalogue.values() for task in metric.tasks}):
        listed = [(_link(one), one.prose.summary) for one in catalogue.values() if task in one.tasks]
        tables.append(f"### {heading(task)}\n\n{markdown_table(('metric', 'description'), listed)}")
    families_table = markdown_table(("family", "contents", "metrics"), rows)
    return INDEX.format(count=len(catalogue), families=families_table, tasks="\n\n".join(tables))


def _page(family: str, metrics: list[AnyMetric]) -> str:
    """Return the page of a family: a table of its metrics, then a section for each."""
    rows = [(_link(metric), metric.prose.summary, codes(metric.aliases)) for metric in metrics]
    table = markdown_table(("metric", "description", "also called"), rows)
    page = PAGE.format(title=heading(family), about=about_family(metrics[0]), table=table)
    return page + "".join(map(_section, metrics))


def _section(metric: AnyMetric) -> str:
    """Return the section about one metric."""
    descriptions = metric.prose.arguments
    inputs = [
        (
            f"`{name}`",
            spec.role + ", optional" * spec.optional,
            f"{_one_value(describe_metric.value_schema(spec))} a sample"
            if isinstance(spec, Listed)
            else form_lines(spec.forms, values=True) + "; or a list of strings" * spec.texts,
            descriptions[name],
        )
        for name, spec in metric.inputs.items()
    ]
    params = [(f"`{name}`", *taken_by(param), descriptions[name]) for name, param in metric.params.items()]
    return SECTION.format(
        metric=metric,
        prose=metric.prose,
        aliases=f", also called {codes(metric.aliases)}" if metric.aliases else "",
        formula=github_formula(metric.prose.formula),
        inputs=markdown_table(("input", "role", "values", "description"), inputs),
        params=markdown_table(("param", "type", "default", "description"), params)
        if params
        else "It has no params.",
        remarks=_remarks(metric),
        body=shlex.quote(orjson.dumps(describe_metric.metric_example(metric)).decode()),
        sources=source_list(metric.prose.sources),
    )


def _one_value(schema: Mapping[str, Any]) -> str:
    """Describe the value of a sample: an object by its members, others by their JSON Schema."""
    if schema.get("type") != "object":
        return f"`{show(schema)}`"
    optional = [name for name in schema["properties"] if name not in schema["required"]]
    return f"an object with {codes(schema['required'])}" + (
        f", optionally {codes(optional)}," * bool(optional)
    )


def _remarks(metric: AnyMetric) -> str:
    """Describe intervals, values a sample, and peers."""
    texts = [
        "Intervals are analytic where a sample has one decision (Wilson), otherwise bootstrapped."
        if metric.interval
        else "Intervals are bootstrapped.",
        f"The bootstrap draws the rows of one `{metric.unit}` together." if metric.unit else "",
        "Each sample has a value." if metric.each else "",
        f"`like` takes {codes(metric.likes)}." if metric.likes else "",
    ]
    return " ".join(filter(None, texts))


def _link(metric: AnyMetric) -> str:
    return f"[`{metric.name}`]({family_of(metric)}.md#{metric.name})"
