"""The catalogue as Markdown that GitHub renders: a page for each family of losses, and an index by task."""

import re
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

import orjson

from service.catalogue.declare import REQUIRED, Param
from service.catalogue.dims import show as show_dims
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

A shape such as `[N, C, ...]` gives sizes: the same letter is the same size throughout a loss, `...` stands for any number of further
sizes or none, and `[]` is a single number. `N` usually counts samples, `C` classes, `D` features, `T` time steps, `H` and `W` pixels.
If several shapes are listed, the first one that fits all tensors together applies.

*Predictions* are the output of a model, and are differentiated unless the request's `gradients` says otherwise; *targets* are
differentiated only if it names them. An *exact* gradient is the derivative of the value; a *surrogate* differs from it by design.

The examples call a server on this machine, which `make serve` starts. Options that all requests share, such as
`reduction` and `sample_weight`, are described in the [README](../../README.md#a-request).

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


def write(catalogue: Catalogue, directory: Path) -> None:
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
    """Return the index page."""
    family_rows = [
        (f"[{_title(name)}]({name}.md)", _about(members[0]), str(len(members)))
        for name, members in families.items()
    ]
    tasks = sorted({task for loss in catalogue.values() for task in loss.tasks})
    tables: list[str] = []
    for task in tasks:
        rows = [(_link(loss), loss.prose.summary) for loss in catalogue.values() if task in loss.tasks]
        tables.append(f"### {_title(task)}\n\n{_table(('loss', 'description'), rows)}")
    return INDEX.format(
        count=len(catalogue),
        families=_table(("family", "contents", "losses"), family_rows),
        contents=" · ".join(f"[{_title(task)}](#{task.replace('_', '-')})" for task in tasks),
        tasks="\n\n".join(tables),
    )


def _page(catalogue: Catalogue, family: str, losses: list[AnyLoss]) -> str:
    """Return the page of a family: a table of its losses, then a section for each."""
    head = ("loss", "description", "also called", "gradient")
    rows = [(_link(loss), loss.prose.summary, _codes(loss.aliases), _gradient(loss)) for loss in losses]
    page = PAGE.format(title=_title(family), about=_about(losses[0]), table=_table(head, rows))
    return page + "".join(_with_links(catalogue, loss, _section(loss)) for loss in losses)


def _section(loss: AnyLoss) -> str:
    """Return the section about one loss."""
    descriptions = loss.prose.arguments
    inputs = [
        (
            f"`{name}`",
            spec.role + ", optional" * spec.optional,
            _forms(spec.forms, values=True),
            descriptions[name],
        )
        for name, spec in loss.inputs.items()
    ]
    params = [(f"`{name}`", *_takes(param), descriptions[name]) for name, param in loss.params.items()]
    return SECTION.format(
        loss=loss,
        prose=loss.prose,
        aliases=f", also called {_codes(loss.aliases)}" if loss.aliases else "",
        # GitHub refuses \operatorname
        formula=re.sub(r"\\operatorname\*?\{(\w+)\}", r"\\mathop{\\mathrm{\1}}", loss.prose.formula),
        inputs=_table(("input", "role", "values", "description"), inputs),
        params=_table(("param", "type", "default", "description"), params) if params else "It has no params.",
        outputs=_outputs(loss),
        body=shlex.quote(orjson.dumps(describe.example(loss)).decode()),
        sources="\n".join(
            "- " + re.sub(r"^(.*), (https?://\S+)$", r"[\1](<\2>)", source) for source in loss.prose.sources
        ),
    )


def _outputs(loss: AnyLoss) -> str:
    """Return the outputs, and notes where the mean or the gradient is unusual."""
    rows = [("`value` with `reduction` none", _forms(loss.unreduced.forms))]
    rows += [
        (f"`aux.{n}`", _forms(output.forms)) for n, output in loss.outputs.items() if output.role == "aux"
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
    said = " ".join(filter(None, (_bounded(loss), _scaled(loss), remarked)))
    return _table(("output", "shape"), rows) + (f"\n\n{said}" if said else "")


def _bounded(loss: AnyLoss) -> str:
    """Describe the bounds of the unreduced loss."""
    words = describe.range_in_words(loss)
    return f"The unreduced loss is {words}." if words else ""


def _scaled(loss: AnyLoss) -> str:
    """Describe how the loss scales with its inputs."""
    if (law := loss.scales) is None:
        return ""
    first = f"the first {law.entries} entries of " if law.entries else ""
    scaled = f"Multiplying {first}{_codes((*law.inputs, *law.along))} by a factor"
    given = " and ".join(f"`{name}` {show(value)}" for name, value in law.params.items())
    effects = {0.0: "leaves the loss unchanged", 1.0: "multiplies the loss by that factor"}
    effect = effects.get(law.degree, f"multiplies the loss by that factor to the power {law.degree:g}")
    return f"{scaled}{f', with {given},' if given else ''} {effect}."


def _gradient(loss: AnyLoss) -> str:
    """Return the kind of gradient of a loss, in a word."""
    return "none" if not loss.differentiable else "exact" if loss.exact_gradient else "surrogate"


def _forms(forms: Iterable[Form], *, values: bool = False) -> str:
    """Return the possible shapes of a tensor, a line each, with the values if asked for."""
    lines = [
        (f"{form.domain.kind} " if values else "")
        + f"`{show_dims(form.dims)}`"
        + (f" where {form.when.text}" if form.when.text else "")
        + (f": {form.describe()}" if values else "")
        for form in forms
    ]
    return "<br>".join(dict.fromkeys(lines))


def _takes(param: Param) -> tuple[str, str]:
    """Return the type of a param, and its default."""
    listed = param.values and f" (`{show_dims(param.values.dims)}`, {param.values.domain.describe()})"
    default = "required" if param.default is REQUIRED else f"`{show(param.default)}`"
    return wanted(param.annotation) + (listed or ""), default


def _with_links(catalogue: Catalogue, loss: AnyLoss, section: str) -> str:
    """Link the other losses named in a section, and typeset the formulas in its prose."""
    others = set(catalogue) - {loss.name, *loss.inputs, *loss.params, *loss.outputs}

    def replaced(found: re.Match[str]) -> str:
        if found["formula"]:
            return f"${found['formula']}$"
        return _link(catalogue[found["name"]]) if found["name"] in others else found[0]

    return IN_PROSE.sub(replaced, section)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Return a table, escaping bars in cells."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)


def _link(loss: AnyLoss) -> str:
    return f"[`{loss.name}`]({family_of(loss)}.md#{loss.name})"


def _codes(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _title(name: str) -> str:
    """Return a family's or task's name as a heading; three letters are an abbreviation."""
    return name.upper() if len(name) <= 3 else name.replace("_", " ").capitalize()


def family_of(loss: AnyLoss) -> str:
    """Return the name of a loss's family: its module or package below ``service.losses``."""
    return loss.function.__module__.split(".")[2]


def _about(loss: AnyLoss) -> str:
    """Return the docstring of a family's module or package."""
    package = ".".join(loss.function.__module__.split(".")[:3])
    return (sys.modules[package].__doc__ or "").partition("\n")[0]
