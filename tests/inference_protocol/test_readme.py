"""The README's examples of the inference door run as printed."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.inference_protocol.calls import client

pytestmark = [pytest.mark.server, pytest.mark.filterwarnings("ignore")]
README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
SECTION = README.split("## Clients of Triton, KServe and MLServer\n")[1].split("\n## ")[0]


def run(language: str, command: list[str], server: str) -> str:
    """Run the section's snippet in a language against a server; return its output."""
    [snippet] = re.findall(rf"```{language}\n(.*?)```", SECTION, re.DOTALL)
    text = snippet.replace("http://127.0.0.1:8000", server).replace(
        "127.0.0.1:8000", server.removeprefix("http://")
    )
    ended = subprocess.run([*command, "-c", text], capture_output=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.decode("latin-1")


def test_the_python_snippet(server: str) -> None:
    client("tritonclient.http")
    assert run("python", [sys.executable], server).startswith("[0.4170")


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on this machine")
def test_the_curl_snippet(server: str) -> None:
    assert '"name":"grad.logits","shape":[1,3],"datatype":"FP32","data":[-0.3409' in run("sh", ["sh"], server)
