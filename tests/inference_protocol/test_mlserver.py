"""MLServer's batch client, `mlserver infer`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.inference_protocol.calls import LOGITS, TARGETS, VALUE

pytestmark = [pytest.mark.server, pytest.mark.filterwarnings("ignore")]
COMMAND = Path(sys.executable).with_name("mlserver")
if not COMMAND.exists():
    pytest.skip("no mlserver: make test-clients", allow_module_level=True)


@pytest.mark.parametrize("options", [[], ["--binary-data"]], ids=["json", "binary"])
def test_a_file_of_requests(server: str, tmp_path: Path, options: list[str]) -> None:
    line = {
        "inputs": [
            {"name": "logits", "shape": [32, 10], "datatype": "FP32", "data": LOGITS.ravel().tolist()},
            {"name": "targets", "shape": [32], "datatype": "INT64", "data": TARGETS.tolist()},
        ]
    }
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for _ in range(5)))
    command = [str(COMMAND), "infer", "-u", server.removeprefix("http://"), "-m", "cross_entropy", "-s", "1"]
    done = subprocess.run(
        [*command, "-i", str(source), "-o", str(target), *options],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(answer) for answer in target.read_text().splitlines()]
    assert len(answers) == 5
    for answer in answers:
        assert answer["outputs"][0]["data"] == [pytest.approx(VALUE)], answer
