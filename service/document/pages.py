"""The catalogue as Markdown that GitHub renders: a page for each family of losses, and an index by task."""

import re
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

import orjson

from service.catalogue.declare import REQUIRED, Param
from service.catalogue.dims import show_dims
from service.catalogue.registry import AnyLoss, Catalogue
from service.catalogue.spec import Form
from service.wire import describe
from service.wire.json import show
from service.wire.params import wanted

MARK = "<!-- Written by `lossd docs` from the declarations of the losses. -->"
"""The first line of every page. A page that has it is removed when its family is gone."""

INDEX = """\
# Losses

{count} losses, a page for each family:

{families}

## How to read a page

A shape such as `[N, C, ...]` gives sizes: a letter stands for the same size wherever it returns in a loss, `...` for any number
of further sizes or none, and `[]` is a single number. As a rule `N` counts samples, `C` classes, `D` features, `T` steps in time,
`H` and `W` pixels. Where there are several shapes, the first that fits all tensors together is taken.

*Predictions* are what a model gives, and are differentiated unless the request's `gradients` says otherwise; *targets* are where it
names them. A *gradient* is exact where it is the derivative of the value; a surrogate is another one, by design.

The examples ask a server on this machine, which `make serve` starts. What all requests have in common, such as
`reduction` and `sample_weight`, is in the [README](../../README.md#a-request).

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
"""What is more than words: blocks, which stay as they are, perhaps the name of a loss, and formulas."""


def write_pages(catalogue: Catalogue, directory: Path) -> None:
    """Write all pages into a directory, and remove those of families that are gone."""
    directory.mkdir(parents=True, exist_ok=True)
    for path in directory.glob("*.md"):
        if path.read_text(encoding="utf-8").startswith(MARK):
            path.unlink()
    for name, text in pages(catalogue).items():
        (directory / name).write_text(f"{MARK}\n{text}", encoding="utf-8")


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
    """Return the page that leads to all others."""
    family_rows = [
        (f"[{_title(name)}]({name}.md)", _about(members[0]), str(len(members)))
        for name, members in families.items()
    ]
    tasks = sorted({task for loss in catalogue.values() for task in loss.tasks})
    tables: list[str] = []
    for task in tasks:
        rows = [(_link(loss), loss.prose.summary) for loss in catalogue.values() if task in loss.tasks]
        tables.append(f"### {_title(task)}\n\n{_table(('loss', 'what it is'), rows)}")
    return INDEX.format(
        count=len(catalogue),
        families=_table(("family", "what it holds", "losses"), family_rows),
        contents=" · ".join(f"[{_title(task)}](#{task.replace('_', '-')})" for task in tasks),
        tasks="\n\n".join(tables),
    )


def _page(catalogue: Catalogue, family: str, losses: list[AnyLoss]) -> str:
    """Return the page of a family: a table of its losses, then a section for each."""
    head = ("loss", "what it is", "also called", "gradient")
    rows = [(_link(loss), loss.prose.summary, _codes(loss.aliases), _gradient(loss)) for loss in losses]
    page = PAGE.format(title=_title(family), about=_about(losses[0]), table=_table(head, rows))
    return page + "".join(_with_links(catalogue, loss, _section(loss)) for loss in losses)


def _section(loss: AnyLoss) -> str:
    """Return all that is told of one loss."""
    told = loss.prose.arguments
    inputs = [
        (f"`{name}`", spec.role + ", optional" * spec.optional, _forms(spec.forms, values=True), told[name])
        for name, spec in loss.inputs.items()
    ]
    params = [(f"`{name}`", *_takes(param), told[name]) for name, param in loss.params.items()]
    return SECTION.format(
        loss=loss,
        prose=loss.prose,
        aliases=f", also called {_codes(loss.aliases)}" if loss.aliases else "",
        # GitHub refuses \operatorname
        formula=re.sub(r"\\operatorname\*?\{(\w+)\}", r"\\mathop{\\mathrm{\1}}", loss.prose.formula),
        inputs=_table(("input", "role", "values", "what it is"), inputs),
        params=_table(("param", "takes", "default", "what it is"), params) if params else "It has no params.",
        outputs=_outputs(loss),
        body=shlex.quote(orjson.dumps(describe.example(loss)).decode()),
        sources="\n".join(
            "- " + re.sub(r"^(.*), (https?://\S+)$", r"[\1](<\2>)", source) for source in loss.prose.sources
        ),
    )


def _outputs(loss: AnyLoss) -> str:
    """Return what comes back, and in which way it is more than an element-wise loss and its derivative."""
    rows = [("`value` with `reduction` none", _forms(loss.unreduced.forms))]
    rows += [
        (f"`aux.{n}`", _forms(output.forms)) for n, output in loss.outputs.items() if output.role == "aux"
    ]
    remarks = {
        "divisor": "The mean divides by the sum of the loss's own weights (0 for what is left out), not by the number "
        "of elements.",
        "mean_terms": "The mean is not of the unreduced loss, but of terms made from it.",
        "surrogate": "The gradient is, by design, not the derivative of the value.",
        "none": "It has no useful gradient, and none is returned.",
    }
    holds = {_gradient(loss), *(output.role for output in loss.outputs.values())}
    remarked = " ".join(remark for key, remark in remarks.items() if key in holds)
    said = " ".join(filter(None, (_bounded(loss), _scaled(loss), remarked)))
    return _table(("output", "shape"), rows) + (f"\n\n{said}" if said else "")


def _bounded(loss: AnyLoss) -> str:
    """Say between which numbers the unreduced loss lies."""
    words = describe.range_in_words(loss)
    return f"The unreduced loss is {words}." if words else ""


def _scaled(loss: AnyLoss) -> str:
    """Say how the loss scales with its inputs."""
    if (law := loss.scales) is None:
        return ""
    first = f"the first {law.entries} entries of " if law.entries else ""
    factor = f"With {first}{_codes((*law.inputs, *law.along))} times a factor"
    given = " and ".join(f"`{name}` {show(value)}" for name, value in law.params.items())
    grows = "stays the same" if law.degree == 0 else f"is multiplied by its power {law.degree:g}"
    return f"{factor}{f', {given},' if given else ''} the loss {grows}."


def _gradient(loss: AnyLoss) -> str:
    """Say in a word which gradient a loss has."""
    return "none" if not loss.differentiable else "exact" if loss.exact_gradient else "surrogate"


def _forms(forms: Iterable[Form], *, values: bool = False) -> str:
    """Return the shapes that a tensor may have, a line each, and perhaps the values that it takes then."""
    lines = [
        (f"{form.domain.kind} " if values else "")
        + f"`{show_dims(form.dims)}`"
        + (f" where {form.when.text}" if form.when.text else "")
        + (f": {form.describe()}" if values else "")
        for form in forms
    ]
    return "<br>".join(dict.fromkeys(lines))


def _takes(param: Param) -> tuple[str, str]:
    """Return what a param may be, and its default."""
    listed = param.values and f" (`{show_dims(param.values.dims)}`, {param.values.domain.describe()})"
    default = "required" if param.default is REQUIRED else f"`{show(param.default)}`"
    return wanted(param.annotation) + (listed or ""), default


def _with_links(catalogue: Catalogue, loss: AnyLoss, section: str) -> str:
    """Link the other losses that a section names, and set the formulas in its prose."""
    others = set(catalogue) - {loss.name, *loss.inputs, *loss.params, *loss.outputs}

    def replaced(found: re.Match[str]) -> str:
        if found["formula"]:
            return f"${found['formula']}$"
        return _link(catalogue[found["name"]]) if found["name"] in others else found[0]

    return IN_PROSE.sub(replaced, section)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Return a table. A bar within a cell would end it."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)


def _link(loss: AnyLoss) -> str:
    return f"[`{loss.name}`]({family_of(loss)}.md#{loss.name})"


def _codes(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _title(name: str) -> str:
    """Write the name of a family or task as a heading. One of three letters is an abbreviation."""
    return name.upper() if len(name) <= 3 else name.replace("_", " ").capitalize()


def family_of(loss: AnyLoss) -> str:
    """Return the name below ``service.losses`` of the module or package that declares a loss."""
    return loss.function.__module__.split(".")[2]


def _about(loss: AnyLoss) -> str:
    """Return what the module or package of a loss's family says of itself."""
    package = ".".join(loss.function.__module__.split(".")[:3])
    return (sys.modules[package].__doc__ or "").partition("\n")[0]
