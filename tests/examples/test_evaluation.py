"""The example of an evaluation: killed in the middle, as a gate, and as a Job."""

import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy.special import logsumexp
from sklearn.metrics import accuracy_score, f1_score

from tests.evaluations.test_crashes import Killed

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "evaluation"
DIGITS = ROOT / "examples" / "data" / "digits.csv"
SOURCE = (FOLDER / "evaluate.go").read_text()
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Generator[Killed]:
    """A server with a new store."""
    server = Killed(tmp_path_factory.mktemp("store"))
    yield server
    server.kill()


@pytest.fixture(scope="module")
def start(compiled: Callable[[str], Path], killed: Killed) -> Start:
    """Start the program for an evaluation of this name."""
    program = compiled("evaluation/evaluate.go")

    def started(name: str, *options: str) -> subprocess.Popen[str]:
        command = [program, "-server", killed.url, "-data", DIGITS, "-name", name, *options]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    return started


def ended(process: subprocess.Popen[str]) -> str:
    """Wait for the program, and return the rest of what it printed."""
    with process:
        assert process.stdout is not None
        printed = process.stdout.read()
    assert process.returncode == 0, printed
    return printed


def stored(process: subprocess.Popen[str], count: int) -> str:
    """Wait until as many parts are stored, and return what it printed."""
    assert process.stdout is not None
    printed = ""
    while printed.count("seen before") < count:
        line = process.stdout.readline()
        assert line, printed
        printed += line
    return printed


def numbers(printed: str) -> str:
    """Return the result, each number with all its digits."""
    return printed.split("\n\n")[1]


@pytest.mark.server
@pytest.mark.timeout(400)
def test_a_program_and_a_server_killed_in_the_middle_change_no_bit(start: Start, killed: Killed) -> None:
    expected = numbers(ended(start("undisturbed")))
    with start("disturbed", "-pause", "200ms") as first:
        stored(first, 8)
        first.kill()
    assert first.returncode == -signal.SIGKILL
    second = start("disturbed", "-pause", "200ms")
    printed = stored(second, 16)
    killed.kill()
    killed.start()
    printed += ended(second)
    assert "again in" in printed
    assert printed.count(" 0 new rows, 10 seen before") >= 8
    assert printed.count("seen before") == 36
    assert numbers(printed) == expected


@pytest.mark.server
@pytest.mark.timeout(400)
def test_its_numbers_are_those_of_the_definitions(start: Start) -> None:
    found = [float(number) for number in re.findall(r"[01]\.\d+", numbers(ended(start("defined"))))]
    accuracy, f1, _, _, cross_entropy = found
    digits = np.loadtxt(DIGITS, int, delimiter=",")
    grey, labels = 16 * digits[:, :-1], digits[:, -1]
    means = np.stack(
        [grey[:1000][labels[:1000] == one].sum(0) // (labels[:1000] == one).sum() for one in range(10)]
    )
    logits = -((grey[-360:, None] - means) ** 2).sum(-1) / 2**16
    targets, predicted = labels[-360:], logits.argmax(1)
    assert accuracy == accuracy_score(targets, predicted)
    assert f1 == pytest.approx(float(f1_score(targets, predicted, average="macro")), rel=1e-14)
    each = logsumexp(logits, axis=1) - logits[np.arange(360), targets]
    assert cross_entropy == pytest.approx(each.mean(), rel=1e-13)


@pytest.mark.server
@pytest.mark.timeout(400)
@pytest.mark.skipif(
    None in map(shutil.which, ("curl", "jq")), reason="there is no curl or jq on this machine"
)
@pytest.mark.parametrize(
    ("options", "status"),
    [(("-train", "1437"), 0), (("-train", "20"), 1), (("-index", "0"), 1)],
    ids=["as-good", "worse", "incomplete"],
)
def test_the_gate_fails_if_macro_f1_drops(
    start: Start, killed: Killed, options: tuple[str, ...], status: int
) -> None:
    ended(start("baseline"))
    name = "digits" + "".join(options)
    ended(start(name, *options))
    command = ["sh", str(FOLDER / "gate.sh"), name, "baseline", killed.url]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == status, found.stdout + found.stderr
    assert '"interval"' in found.stdout


@pytest.mark.server
@pytest.mark.timeout(400)
def test_the_workers_of_a_job_are_those_of_one_program(start: Start) -> None:
    printed = [ended(start("pods", "-index", str(index))) for index in range(4)]
    assert ["of 360 rows are there" in one for one in printed] == [True, True, True, False]
    assert numbers(printed[-1]) == numbers(ended(start("program")))


def test_the_job_starts_a_worker_for_each_index() -> None:
    job = yaml.safe_load((ROOT / "deploy/kubernetes/evaluation-job.yaml").read_text())
    spec, container = job["spec"], container_of(job)
    options = dict(zip(container["args"][::2], container["args"][1::2], strict=True))
    flags = {f"-{name}" for name in re.findall(r'flag\.\w+\("(\w+)"', SOURCE)}
    assert options.keys() <= flags
    assert spec["completionMode"] == "Indexed"
    assert [spec["completions"], spec["parallelism"]] == [int(options["-workers"])] * 2
    # Kubernetes sets the first one in each pod of such a Job
    known = {*re.findall(r'os\.Getenv\("(\w+)"\)', SOURCE)}
    assert known == {"JOB_COMPLETION_INDEX", *(one["name"] for one in container["env"])}
    [entrypoint] = re.findall(r"(?m)^ENTRYPOINT (.*)", (FOLDER / "Dockerfile").read_text())
    assert {one for one in yaml.safe_load(entrypoint) if one.startswith("-")} <= flags


def test_the_job_has_no_more_rights_than_the_service() -> None:
    job = yaml.safe_load((ROOT / "deploy/kubernetes/evaluation-job.yaml").read_text())
    deployment, service = yaml.safe_load_all((ROOT / "deploy/kubernetes/lossd.yaml").read_text())
    assert f"http://{service['metadata']['name']}" in container_of(job)["args"]
    pods = [one["spec"]["template"]["spec"] for one in (job, deployment)]
    for name in ("automountServiceAccountToken", "securityContext"):
        assert pods[0][name] == pods[1][name]
    assert container_of(job)["securityContext"] == container_of(deployment)["securityContext"]
    assert "memory" in container_of(job)["resources"]["limits"]


def container_of(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the only container of a pod."""
    [container] = manifest["spec"]["template"]["spec"]["containers"]
    return container
