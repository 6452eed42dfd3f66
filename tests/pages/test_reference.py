"""The API reference works without the internet, and its text contains every operation."""

import re
from base64 import b64encode
from hashlib import sha384
from html.parser import HTMLParser
from pathlib import Path

import pytest

from service.app import create_app
from service.catalogue.registry import AnyLoss
from service.pages import reference
from service.settings import Settings
from tests.client import Client
from tests.conformance.cases import every_loss

STATIC = Path(reference.__file__).parent / "static"


class Elements(HTMLParser):
    """Collects the elements and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def page(client: Client) -> Elements:
    answer = client.get("/docs")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    return Elements(answer.text)


def test_whatever_the_page_loads_is_served_with_it(client: Client, page: Elements) -> None:
    asked = [attrs.get("src") or attrs.get("href") or "" for _, attrs in page.found]
    loaded = [path for path in asked if path.startswith("docs/")]
    assert {path.removeprefix("docs/") for path in loaded} == reference.FILES.keys()
    for path in loaded:
        assert client.get(f"/{path}").status_code == 200
    others = {path.partition("?")[0] for path in asked if path} - {*loaded}
    assert others == {"data:,", "docs", "openapi.json"}


def test_no_foreign_host_is_asked_whatever_the_files_say(client: Client) -> None:
    policy = client.get("/docs").headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "http" not in policy and "*" not in policy
    styles = client.get("/docs/swagger-ui.css").text
    assert {url[:5] for url in re.findall(r"url\([\"']?([^\"')]{5})", styles)} == {"data:"}
    assert "@import" not in styles
    own = [path.read_text() for path in STATIC.iterdir() if path.is_file()]
    assert not any(re.search(r"https?://|src=.//", text) for text in own)
    # otherwise it would send documents to a server elsewhere for validation
    assert "validatorUrl: null" in client.get("/docs/reference.js").text


@pytest.mark.parametrize("name", reference.INTEGRITY)
def test_a_copied_file_is_the_one_of_the_hash(client: Client, page: Elements, name: str) -> None:
    content = client.get(f"/docs/{name}").content
    assert reference.INTEGRITY[name] == f"sha384-{b64encode(sha384(content).digest()).decode()}"
    [attrs] = [a for _, a in page.found if (a.get("src") or a.get("href")) == f"docs/{name}"]
    assert attrs["integrity"] == reference.INTEGRITY[name]


def test_what_is_copied_keeps_its_licence_and_tells_its_version() -> None:
    folder = STATIC / "swagger-ui"
    assert "Apache License" in (folder / "LICENSE").read_text()
    assert "SmartBear" in (folder / "NOTICE").read_text()
    [version] = re.findall(r"Swagger UI (\d+\.\d+\.\d+), unchanged", (folder / "README.md").read_text())
    assert f':"{version}"' in (folder / "swagger-ui-bundle.js").read_text()


@every_loss
def test_each_operation_stands_in_the_text(page: Elements, loss: AnyLoss) -> None:
    assert f"POST /v1/losses/{loss.name} {loss.title}" in page.text
    assert ("a", {"href": f"docs?losses={loss.name}"}) in page.found


def test_what_is_collapsed_is_behind_buttons_that_say_so(page: Elements) -> None:
    lists = [attrs["id"] for tag, attrs in page.found if tag == "ul"]
    buttons = [attrs for tag, attrs in page.found if tag == "button"]
    assert [attrs["aria-controls"] for attrs in buttons] == lists
    assert {attrs["aria-expanded"] for attrs in buttons} == {"false"}
    assert all("hidden" in attrs for tag, attrs in page.found if tag == "ul")


def test_its_files_come_in_gzip_and_not_again_to_who_has_them(client: Client) -> None:
    answer = client.get("/docs/swagger-ui-bundle.js")
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.num_bytes_downloaded < 500_000
    again = client.get("/docs/swagger-ui-bundle.js", headers={"if-none-match": answer.headers["etag"]})
    assert again.status_code == 304


@pytest.mark.parametrize("name", ["nope", "reference.html", "..%2Freference.py", "%2e%2e%2freference.py"])
def test_nothing_else_is_served(client: Client, name: str) -> None:
    assert client.get(f"/docs/{name}").status_code == 404


def test_no_key_is_needed_to_read(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("")
    guarded = Client(create_app(Settings(device="cpu", api_keys_file=tmp_path / "keys")))
    for path in ("/docs", *(f"/docs/{name}" for name in reference.FILES)):
        assert guarded.get(path).status_code == 200
