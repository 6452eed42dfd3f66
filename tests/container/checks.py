"""Properties of the running image: read-only, without capabilities, as an arbitrary user."""

import json
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.container.container import IMAGE, READY_S, Container, free_port, running
from tests.container.engine import ROOT, Engine, called, engine


@pytest.fixture(scope="module")
def built() -> Generator[Engine]:
    with engine() as engine_:
        arguments = ("--build-arg", f"PYTHON_IMAGE={engine_.base}", "--build-arg", "REVISION=0123abc")
        called(*engine_.build, *arguments, "--tag", IMAGE, str(ROOT))
        yield engine_
        engine_.call("rmi", "--force", IMAGE)


@pytest.fixture(scope="module")
def container(built: Engine) -> Generator[Container]:
    with running(built) as container:
        container.ready_within(READY_S)
        yield container


@pytest.fixture(scope="module")
def inside(container: Container) -> dict[str, Any]:
    return container.look()


def test_its_size(built: Engine, tell: Callable[[str], None]) -> None:
    size = int(built.call("image", "inspect", "--format", "{{.Size}}", IMAGE))
    tell(f"{size / 1e9:.2f} GB on {built.base}")
    assert size < 2e9


def test_it_is_ready_within_seconds(built: Engine, tell: Callable[[str], None]) -> None:
    with running(built) as container:
        tell(f"ready {container.ready_within(READY_S):.1f} s after its start")


def test_it_evaluates(container: Container) -> None:
    body = {"inputs": {"predictions": [1, 2], "targets": [3, 2]}, "gradients": ["predictions"]}
    answer = httpx.post(f"{container.url}/v1/losses/mse", json=body)
    assert answer.status_code == 200
    assert answer.json()["value"] == 2
    assert answer.json()["gradients"] == {"predictions": [-2, 0]}


def test_its_health_check_passes(built: Engine, container: Container) -> None:
    command = json.loads(built.call("image", "inspect", "--format", "{{json .Config.Healthcheck}}", IMAGE))
    container.run(*command["Test"][1:])


def test_only_tmp_is_writable(inside: dict[str, Any]) -> None:
    assert inside["writable"] == ["/tmp"]


def test_no_program_raises_its_rights(inside: dict[str, Any]) -> None:
    assert inside["raising"] == []


def test_it_runs_as_any_user_without_rights(inside: dict[str, Any]) -> None:
    status = inside["status"]
    assert status["Uid"] == ["12345"] * 4
    assert {int(status[f"Cap{of}"][0], 16) for of in ("Eff", "Prm", "Bnd", "Inh", "Amb")} == {0}
    assert status["NoNewPrivs"] == ["1"]


def test_its_log_tells_that_it_runs(container: Container) -> None:
    assert "startup complete" in container.engine.logs(container.name)


def test_it_lists_what_is_installed(built: Engine, container: Container) -> None:
    listed = json.loads(container.run("cat", "/opt/lossd/sbom.cdx.json"))
    versions = {component["name"]: component["version"] for component in listed["components"]}
    assert listed["bomFormat"] == "CycloneDX"
    assert listed["metadata"]["component"]["name"] == "lossd"
    for name in ("torch", "fastapi"):
        assert versions[name].split("+")[0] == version(name).split("+")[0]
    installed = container.python(
        "from importlib.metadata import distributions; print(*(each.name for each in distributions()))"
    )
    assert sorted([*versions, "lossd"]) == sorted(installed.split())


def test_it_says_what_it_is(built: Engine) -> None:
    labels = json.loads(built.call("image", "inspect", "--format", "{{json .Config.Labels}}", IMAGE))
    oci = {key.rpartition(".image.")[2]: value for key, value in labels.items()}
    assert oci["version"] == version("lossd")
    assert (oci["revision"], oci["licenses"], oci["base.name"]) == ("0123abc", "MIT", built.base)


def test_it_needs_no_shell(built: Engine) -> None:
    shells = ("--volume", "/dev/null:/bin/dash:ro", "--volume", "/dev/null:/bin/bash:ro")
    with running(built, *shells) as container:
        container.ready_within(READY_S)
        with pytest.raises(AssertionError, match=r"(?i)permission denied"):
            container.run("/bin/sh", "-c", "true")
        container.run("lossd", "health")
        assert container.stop() == 0


def test_a_stream_in_flight_is_answered_before_it_ends(built: Engine, tell: Callable[[str], None]) -> None:
    line = b'{"loss": "mse", "inputs": {"predictions": [1], "targets": [3]}}\n'
    arrived, ending = threading.Event(), threading.Event()

    def lines() -> Generator[bytes]:
        yield line
        arrived.set()
        assert ending.wait(READY_S)
        time.sleep(2)
        yield line

    with running(built) as container, ThreadPoolExecutor() as pool:
        container.ready_within(READY_S)
        headers = {"content-type": "application/x-ndjson"}
        url = f"{container.url}/v1/batch"
        answer = pool.submit(httpx.post, url, content=lines(), headers=headers, timeout=60)
        assert arrived.wait(READY_S)
        ending.set()
        started = time.monotonic()
        assert container.stop() == 0
        tell(f"ended {time.monotonic() - started:.1f} s after SIGTERM, with a stream of 2 s in flight")
        assert [json.loads(result)["value"] for result in answer.result().text.splitlines()] == [4, 4]


def test_several_workers_share_a_read_only_root(built: Engine) -> None:
    with running(built, "--env", "LOSSD_WORKERS=2") as container:
        container.ready_within(READY_S)
        end = time.monotonic() + READY_S
        while container.engine.logs(container.name).count("startup complete") < 2:
            assert time.monotonic() < end
            time.sleep(0.1)
        container.run("lossd", "health")
        assert container.stop() == 0


def test_the_kubernetes_manifest_runs(built: Engine, tmp_path: Path) -> None:
    if built.command == "docker":
        pytest.skip("Docker plays no manifests")
    port = free_port()
    manifest = (ROOT / "deploy/kubernetes/lossd.yaml").read_text()
    # in the host's network a port has one pod, and none is mapped
    for line, instead in {
        "  replicas: 2": "  replicas: 1",
        "            - { name: http, containerPort: 8000 }": "",
        "          image: lossd": f"          image: {IMAGE}\n          env: [{{ name: LOSSD_PORT, value: '{port}' }}]",
    }.items():
        assert f"{line}\n" in manifest
        manifest = manifest.replace(f"{line}\n", f"{instead}\n")
    path = tmp_path / "lossd.yaml"
    path.write_text(manifest)
    built.call("play", "kube", "--network", "host", str(path))
    pod = Container(built, "lossd-pod-0-lossd", f"http://127.0.0.1:{port}")
    pod.ready_within(READY_S)
    inside = pod.look()
    assert inside["writable"] == ["/tmp"]
    assert inside["status"]["Uid"] == ["65532"] * 4
    assert int(inside["status"]["CapBnd"][0], 16) == 0
    assert inside["status"]["NoNewPrivs"] == ["1"]
    assert pod.stop() == 0


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Print a number that is worth knowing, whether or not the test passes."""

    def telling(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}")

    return telling
