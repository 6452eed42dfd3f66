"""The table of routes and the application agree on paths and methods."""

import pytest

from service.routes import ROUTES
from tests.client import Client

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW")
NAMES = {"/docs": "reference.js", "/v1/metrics": "accuracy"}
"""What stands for {name} in paths that begin so."""
TEMPLATES = sorted({route.template for route in ROUTES})


def taken(template: str) -> set[str]:
    """Return the methods of a path in the table."""
    methods = {route.method for route in ROUTES if route.template == template}
    return methods | ({"HEAD"} if "GET" in methods else set())


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_path_takes_the_methods_of_the_table_and_lists_them_to_others(
    client: Client, template: str
) -> None:
    name = next((name for start, name in NAMES.items() if template.startswith(start)), "mse")
    path = template.replace("{name}", name).replace("{model}", "mse").replace("{version}", "1")
    for method in METHODS:
        answer = client.request(method, path)
        if method in taken(template):
            # the route is there, the evaluation is not
            absent = answer.status_code == 404 and (
                "There is no evaluation" in answer.text or (method == "HEAD" and "evaluations" in template)
            )
            assert absent or answer.status_code not in (404, 405, 500), answer.text
        else:
            assert answer.status_code == 405
            assert answer.headers["allow"] == ", ".join(sorted(taken(template)))
            detail = f"Expected {answer.headers['allow']}; got {method}."
            assert answer.text == "" if method == "HEAD" else answer.json()["detail"] == detail
