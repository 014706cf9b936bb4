"""Who is let in, how much they may send, and what a page may load: all of it before any bundle is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from components.core.settings import Settings, load_settings
from serving.app import PAGES, create_app
from serving.network import address_of, host_name, is_loopback
from serving.state import ServiceState

KEY = "a-long-secret"


class NobodyKnown:
    def read(self, user_id: str, *, now: object) -> None:
        return None

    read_at_once = read

    def read_many(self, user_ids: list[str], *, now: object) -> list[None]:
        return [None for _ in user_ids]


def client_of(settings: Settings, *, host: str = "127.0.0.1", caller: str = "127.0.0.1") -> TestClient:
    app = create_app(settings, state=ServiceState(settings), reader=NobodyKnown())
    # Not entered, so nothing is loaded: the guards come first.
    return TestClient(app, base_url=f"http://{host}", client=(caller, 50_000))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path)


@pytest.fixture
def with_key(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path, serve={"api_keys": ["another", KEY]})


@pytest.fixture
def local(settings: Settings) -> TestClient:
    return client_of(settings)


GUARDED = [
    ("POST", "/recommend"),
    ("POST", "/similar"),
    ("GET", "/model"),
    ("GET", "/items?q=milk"),
    ("GET", "/users/1/history"),
]


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_a_service_with_keys_answers_401_403_and_then_the_request(with_key: Settings, method: str, path: str) -> None:
    client = client_of(with_key, host="shop.example", caller="10.1.2.3")
    body = {"item_id": "a"} if path == "/similar" else {}

    def status(**headers: str) -> int:
        return client.request(method, path, json=body if method == "POST" else None, headers=headers).status_code

    assert status() == 401
    assert status(Authorization=f"Basic {KEY}") == 401
    assert status(Authorization=f"Bearer {KEY}x") == 403
    assert status(Authorization=f"Bearer {KEY}") == 503  # let in; no bundle is loaded here


def test_a_401_says_how_to_send_a_key(with_key: Settings) -> None:
    answer = client_of(with_key).post("/recommend", json={})
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.json() == {"detail": "Send an API key: 'Authorization: Bearer KEY'.", "fields": []}


@pytest.mark.parametrize("path", ["/livez", "/metrics", "/", "/openapi.json", "/docs.json", "/pages/page.js"])
def test_probes_metrics_and_the_pages_files_need_no_key(with_key: Settings, path: str) -> None:
    assert client_of(with_key, caller="10.1.2.3").get(path).status_code == 200


@pytest.mark.parametrize(
    ("host", "caller"),
    [("shop.example", "127.0.0.1"), ("127.0.0.1", "10.1.2.3"), ("127.0.0.1.evil.example", "127.0.0.1")],
)
def test_without_keys_strangers_and_foreign_names_are_refused(settings: Settings, host: str, caller: str) -> None:
    answer = client_of(settings, host=host, caller=caller).post("/recommend", json={"user_id": "1"})
    assert answer.status_code == 403
    assert answer.json()["detail"] == "Without API keys the service answers on 127.0.0.1 and localhost alone."


@pytest.mark.parametrize("host", ["localhost", "localhost:3000", "127.0.0.1:3000", "[::1]:3000"])
def test_without_keys_this_machine_is_let_in(settings: Settings, host: str) -> None:
    assert client_of(settings, host=host).post("/recommend", json={}).status_code == 503


def test_a_body_that_says_it_is_too_long_is_refused(tmp_path: Path) -> None:
    local = client_of(load_settings(home=tmp_path, serve={"max_body_bytes": 2000}))
    assert local.post("/recommend", json={"exclude": ["x" * 100] * 10}).status_code == 503
    answer = local.post("/recommend", json={"exclude": ["x" * 100] * 30})
    assert answer.status_code == 413
    assert answer.json()["detail"] == "The request body may have at most 2000 bytes."


def test_a_body_of_unsaid_length_is_refused_as_it_grows(tmp_path: Path) -> None:
    local = client_of(load_settings(home=tmp_path, serve={"max_body_bytes": 2000}))
    chunks = (b" " * 500 for _ in range(10))
    answer = local.post("/recommend", content=chunks, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("body", "field", "problem"),
    [
        ({"usr_id": "1"}, "usr_id", "this field is unknown"),
        ({"user_id": 1}, "user_id", "Input should be a valid string"),
        ({"user_id": ""}, "user_id", "String should have at least 1 character"),
        ({"k": 0}, "k", "Input should be greater than or equal to 1"),
        ({"k": "5"}, "k", "Input should be a valid integer"),
        ({"include_seen": 1}, "include_seen", "Input should be a valid boolean"),
        ({"exclude": "a"}, "exclude", "Input should be a valid list"),
    ],
)
def test_a_bad_field_is_named(local: TestClient, body: dict[str, object], field: str, problem: str) -> None:
    answer = local.post("/recommend", json=body)
    assert answer.status_code == 422
    assert answer.json() == {"detail": f"{field}: {problem}.", "fields": [{"field": field, "problem": problem}]}


@pytest.mark.parametrize("item", [{"item_id": "a", "weight": -1}, {"item_id": "a", "age": 3}, 7, {}])
def test_a_bad_recent_item_is_refused(local: TestClient, item: object) -> None:
    assert local.post("/recommend", json={"items": [item]}).status_code == 422


@pytest.mark.parametrize("body", [b"{", b"[]", b"null", b'{"k": NaN}', b"\xff\xfe", b'{"user_id": "\\ud800"}'])
def test_a_body_that_is_no_request_is_422(local: TestClient, body: bytes) -> None:
    answer = local.post("/recommend", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.json()["detail"]


def test_a_validation_error_does_not_repeat_the_input(local: TestClient) -> None:
    assert "household-77" not in local.post("/recommend", json={"user_id": ["household-77"]}).text


def test_before_a_bundle_is_loaded_the_service_lives_and_is_not_ready(local: TestClient) -> None:
    assert local.get("/livez").json() == {"alive": True}
    ready = local.get("/readyz")
    assert ready.status_code == 503
    assert ready.json() == {"ready": False, "bundle": None, "reason": "The bundle is being loaded.", "workers": {}}


@pytest.mark.parametrize("path", ["/", "/livez", "/nope", "/openapi.json"])
def test_every_answer_forbids_foreign_scripts(local: TestClient, path: str) -> None:
    policy = local.get(path).headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self';")
    assert "unsafe" not in policy


def test_the_pages_files_name_no_other_site() -> None:
    for file in PAGES.iterdir():
        urls = set(re.findall(r"https?://[^\s\"'`)]+", file.read_text())) - {"http://www.w3.org/2000/svg"}
        assert urls == set(), file.name


def test_the_page_never_sets_html_from_data() -> None:
    script = (PAGES / "page.js").read_text()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", script)


def test_the_framework_s_own_doc_pages_are_off(local: TestClient) -> None:
    assert local.get("/docs").status_code == local.get("/redoc").status_code == 404


def test_the_description_lists_the_api_and_its_refusals(local: TestClient) -> None:
    description = local.get("/openapi.json").json()
    assert local.get("/docs.json").json() == description
    assert set(description["paths"]) == {
        "/livez",
        "/readyz",
        "/recommend",
        "/recommend/batch",
        "/events",
        "/similar",
        "/items",
        "/users/{user_id}/history",
        "/model",
        "/status.json",
    }
    assert {"200", "401", "403", "413", "422", "503"} <= set(description["paths"]["/recommend"]["post"]["responses"])


def test_host_headers_and_addresses_are_read_with_their_ports_and_brackets() -> None:
    assert [host_name(text) for text in ("a:1", "a", "[::1]:80", "")] == ["a", "a", "::1", ""]
    assert [is_loopback(host) for host in ("::1", "127.9.9.9", "localhost", "0.0.0.0", "")] == [
        True,
        True,
        True,
        False,
        False,
    ]
    assert address_of("localhost") == "127.0.0.1"
