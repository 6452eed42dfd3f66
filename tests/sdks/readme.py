"""The one example in a client's README."""

import re
from pathlib import Path

CLIENTS = Path(__file__).parents[2] / "clients"


def example(client: str, language: str) -> str:
    """Return the code of the README's only block in a language."""
    text = (CLIENTS / client / "README.md").read_text()
    (code,) = re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return code
