"""The catalogue as Markdown that GitHub renders: a page for each family of losses, and an index by task."""

import re
import shlex

import orjson

from service.catalogue.registry import AnyLoss, Catalogue
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
from service.wire import describe
from service.wire.json import show

INDEX = """\
# Losses

{count} losses, a page for each family:

{families}

## How to read a page

A shape such as `[N, C, ...]` gives sizes: the same letter is the same size throughout a loss, `...` stands for any number of further
sizes or none, and `[]` is a single number. `N` usually counts samples, `C` classes, `D` features, `T` time steps, `H` and `W` pixels.
If several shapes are listed, the first one that fits all tensors together applies.

*Predictions* are the output of a model, and are differentiated unless the request's `gradients` says otherwise; *targets* are
differentiated only if it names them. An *exact* gradient is the derivative of the value; a *surrogate* differs from it by design.

The examples call a server on this machine, which `make serve` starts. Options that all requests share, such as
`reduction` and `sample_weight`, are described in the [README](../../README.md#a-request).

## Shards of a batch

A mean of means is not the mean: shards divide by different numbers. Ask for the `sum` of each shard, add values, gradients and `divisor`s, and
divide once; or send the whole batch's divisor to each shard as `divide_by`, and add. Gradients of inputs that all shards share, such as
prototypes, are added too; those of the samples are put together. Each loss says below its outputs whether its shards add up, and along which dimension.

They do not add up for losses whose elements depend on other samples, or whose mean is of all samples at once: {whole}.

They add up only under some params for {unless}.

With `divide_by` they add up, but their sums do not, for {known}, whose mean is not of the elements summed.

## By task

{contents}

{tasks}
"""

PAGE = """\
# {title}

{about} [How to read this page](README.md#how-to-read-a-page) · [all losses](README.md)

{table}
"""

SECTION = """
## {loss.name}

**{loss.title}**{aliases}

{prose.summary}

```math
{formula}
```

**Use when.** {prose.use_when}

**Pitfalls.** {prose.pitfalls}

{inputs}

{params}

{outputs}

```sh
curl http://127.0.0.1:8000/v1/losses/{loss.name} -H 'Content-Type: application/json' \\
  -d {body}
```

Sources:
{sources}
"""

IN_PROSE = re.compile(
    r"```.*?```|`(?P<name>[^`]+)`|(?P<formula>\\[a-z]+(?: \\[a-z]+)*(?: [a-z]\b(?:\^\d)?)?)", re.DOTALL
)
"""Markup in prose: code blocks, which stay as they are, code that may name a loss, and formulas."""


def pages(catalogue: Catalogue) -> dict[str, str]:
    """Return the text of each page by the name of its file."""
    losses = catalogue.values()
    families = {
        name: [loss for loss in losses if family_of(loss) == name]
        for name in sorted(set(map(family_of, losses)))
    }
    found = {f"{name}.md": _page(catalogue, name, members) for name, members in families.items()}
    return {"README.md": _index(catalogue, families), **found}


def _index(catalogue: Catalogue, families: dict[str, list[AnyLoss]]) -> str:
    """Return the index page."""
    family_rows = [
        (f"[{heading(name)}]({name}.md)", about_family(members[0]), str(len(members)))
        for name, members in families.items()
    ]
    tasks = sorted({task for loss in catalogue.values() for task in loss.tasks})
    tables: list[str] = []
    for task in tasks:
        rows = [(_link(loss), loss.prose.summary) for loss in catalogue.values() if task in loss.tasks]
        tables.append(f"### {heading(task)}\n\n{markdown_table(('loss', 'description'), rows)}")
    return INDEX.format(
        count=len(catalogue),
        families=markdown_table(("family", "contents", "losses"), family_rows),
        **_shards(catalogue),
        contents=" · ".join(f"[{heading(task)}](#{task.replace('_', '-')})" for task in tasks),
        tasks="\n\n".join(tables),
    )


def _shards(catalogue: Catalogue) -> dict[str, str]:
    """Return the losses for which shards of a batch do not add up in every way."""
    losses = catalogue.values()
    whole = [_link(loss) for loss in losses if loss.batch_dim is None]
    unless = [
        f"{_link(loss)} (not if {' or '.join(loss.not_adding_up)})" for loss in losses if loss.not_adding_up
    ]
    known = [_link(loss) for loss in losses if loss.batch_dim and not loss.averages_itself]
    return {"whole": ", ".join(whole), "unless": ", ".join(unless), "known": ", ".join(known)}


def _page(catalogue: Catalogue, family: str, losses: list[AnyLoss]) -> str:
    """Return the page of a family: a table of its losses, then a section for each."""
    head = ("loss", "description", "also called", "gradient")
    rows = [(_link(loss), loss.prose.summary, codes(loss.aliases), _gradient(loss)) for loss in losses]
    page = PAGE.format(title=heading(family), about=about_family(losses[0]), table=markdown_table(head, rows))
    return page + "".join(_with_links(catalogue, loss, _section(loss)) for loss in losses)


def _section(loss: AnyLoss) -> str:
    """Return the section about one loss."""
    descriptions = loss.prose.arguments
    inputs = [
        (
            f"`{name}`",
            spec.role + ", optional" * spec.optional,
            form_lines(spec.forms, values=True),
            descriptions[name],
        )
        for name, spec in loss.inputs.items()
    ]
    params = [(f"`{name}`", *taken_by(param), descriptions[name]) for name, param in loss.params.items()]
    return SECTION.format(
        loss=loss,
        prose=loss.prose,
        aliases=f", also called {codes(loss.aliases)}" if loss.aliases else "",
        formula=github_formula(loss.prose.formula),
        inputs=markdown_table(("input", "role", "values", "description"), inputs),
        params=markdown_table(("param", "type", "default", "description"), params)
        if params
        else "It has no params.",
        outputs=_outputs(loss),
        body=shlex.quote(orjson.dumps(describe.example(loss)).decode()),
        sources=source_list(loss.prose.sources),
    )


def _outputs(loss: AnyLoss) -> str:
    """Return the outputs, and notes where the mean or the gradient is unusual."""
    rows = [("`value` with `reduction` none", form_lines(loss.unreduced.forms))]
    rows += [
        (f"`aux.{n}`", form_lines(output.forms)) for n, output in loss.outputs.items() if output.role == "aux"
    ]
    remarks = {
        "divisor": "The mean divides by the sum of the loss's own weights (0 for ignored elements), not by the number "
        "of elements.",
        "mean_terms": "The mean is over terms made from the unreduced loss, not over its elements.",
        "surrogate": "The gradient differs from the derivative of the value, by design.",
        "none": "It has no useful gradient and returns none.",
    }
    holds = {_gradient(loss), *(output.role for output in loss.outputs.values())}
    remarked = " ".join(remark for key, remark in remarks.items() if key in holds)
    said = filter(None, (_bounded(loss), _scaled(loss), remarked, describe.shards_in_words(loss)))
    return f"{markdown_table(('output', 'shape'), rows)}\n\n{' '.join(said)}"


def _bounded(loss: AnyLoss) -> str:
    """Describe the bounds of the unreduced loss."""
    words = describe.range_in_words(loss)
    return f"The unreduced loss is {words}." if words else ""


def _scaled(loss: AnyLoss) -> str:
    """Describe how the loss scales with its inputs."""
    if (law := loss.scales) is None:
        return ""
    first = f"the first {law.entries} entries of " if law.entries else ""
    scaled = f"Multiplying {first}{codes((*law.inputs, *law.along))} by a factor"
    given = " and ".join(f"`{name}` {show(value)}" for name, value in law.params.items())
    effects = {0.0: "leaves the loss unchanged", 1.0: "multiplies the loss by that factor"}
    effect = effects.get(law.degree, f"multiplies the loss by that factor to the power {law.degree:g}")
    return f"{scaled}{f', with {given},' if given else ''} {effect}."


def _gradient(loss: AnyLoss) -> str:
    """Return the kind of gradient of a loss, in a word."""
    return "none" if not loss.differentiable else "exact" if loss.exact_gradient else "surrogate"


def _with_links(catalogue: Catalogue, loss: AnyLoss, section: str) -> str:
    """Link the other losses named in a section, and typeset the formulas in its prose."""
    others = set(catalogue) - {loss.name, *loss.inputs, *loss.params, *loss.outputs}

    def replaced(found: re.Match[str]) -> str:
        if found["formula"]:
            return f"${found['formula']}$"
        return _link(catalogue[found["name"]]) if found["name"] in others else found[0]

    return IN_PROSE.sub(replaced, section)


def _link(loss: AnyLoss) -> str:
    return f"[`{loss.name}`]({family_of(loss)}.md#{loss.name})"
