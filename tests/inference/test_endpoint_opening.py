"""Opening a model behind a server: its name, its key, and the error messages."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftchat.errors import MissingExtraError, SftchatError, UsageError
from sftchat.inference.open import load_engine
from sftchat.inference.openai.engine import open_endpoint
from sftchat.inference.openai.limits import RequestFailed, Retries, parse_retry_after
from sftchat.inference.openai.server import Server, key_from_environment
from sftchat.models.reference import ModelReference, resolve
from tests.inference.endpoint_kit import URL

Handle = Callable[[httpx2.Request], httpx2.Response]


def listing(*names: str) -> Handle:
    """Server with these models that answers 404 to any other name."""

    def handle(request: httpx2.Request) -> httpx2.Response:
        if request.method == "GET":
            return httpx2.Response(200, json={"object": "list", "data": [{"id": name} for name in names]})
        wanted = json.loads(request.content)["model"]
        known = wanted in names or wanted == "unlisted"
        return (
            httpx2.Response(200, json={})
            if known
            else httpx2.Response(404, json={"error": {"message": f"The model `{wanted}` does not exist."}})
        )

    return handle


def opened(handle: Handle, address: str = URL, key: str = "") -> str:
    """The name of the model, or the error and its exit code."""
    try:
        return open_endpoint(address, key=key, transport=httpx2.MockTransport(handle)).model
    except SftchatError as error:
        return f"{error.exit_code}: {error}"


@pytest.mark.parametrize("address", [URL, f"{URL}/", f"{URL}#", f"{URL}#small"])
def test_the_name_may_be_left_out_when_there_is_one_model(address: str) -> None:
    assert opened(listing("small"), address) == "small"


def test_one_of_several_models_must_be_named() -> None:
    assert (
        opened(listing("base", "tuned"))
        == "2: the server at http://server.test/v1 has 2 models; add one to the address as #MODEL: base, tuned"
    )
    assert opened(listing("base", "tuned"), f"{URL}#tuned") == "tuned"


def test_a_wrong_name_is_refused_with_the_list() -> None:
    assert opened(listing("base", "tuned"), f"{URL}#tunde") == (
        "2: unknown model 'tunde'; did you mean 'tuned'? (available: base, tuned) at http://server.test/v1: HTTP 404: The model `tunde` does not exist."
    )


def test_an_unlisted_name_is_tested_because_some_servers_accept_such() -> None:
    assert opened(listing("base"), f"{URL}#unlisted") == "unlisted"


@pytest.mark.parametrize(
    ("response", "said"),
    [
        (httpx2.Response(404, json={"detail": "Not Found"}), "HTTP 404: Not Found"),
        (httpx2.Response(200, text="<html>"), "its answer is no list of models"),
        (httpx2.Response(200, json={"data": [{"name": "x"}]}), "its answer is no list of models"),
        (httpx2.Response(200, json={"data": []}), "its list is empty"),
    ],
)
def test_a_server_without_a_list_needs_a_name(response: httpx2.Response, said: str) -> None:
    assert opened(lambda request: response) == (
        f"3: the server at http://server.test/v1 does not list its models ({said}); the address usually ends in /v1, or add #MODEL"
    )


def test_a_missing_server_is_reported_at_once() -> None:
    def handle(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("[Errno 111] Connection refused")

    assert opened(handle) == (
        "3: no server answers at http://server.test/v1: [Errno 111] Connection refused; start it, or correct the address"
    )


def test_a_refused_key_is_not_shown() -> None:
    def handle(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(401, json={"error": {"message": f"bad key {request.headers['authorization']}"}})

    assert opened(handle, key="sk-secret") == (
        "3: the server at http://server.test/v1 refuses the key (HTTP 401: bad key Bearer ***); set SFTCHAT_API_KEY or OPENAI_API_KEY"
    )


@pytest.mark.parametrize(
    ("environment", "key"),
    [
        ({}, ""),
        ({"OPENAI_API_KEY": " a\n"}, "a"),
        ({"OPENAI_API_KEY": "a", "SFTCHAT_API_KEY": "b"}, "b"),
        ({"OPENAI_API_KEY": "a", "SFTCHAT_API_KEY": ""}, "a"),
    ],
)
def test_the_key_comes_from_the_environment(environment: dict[str, str], key: str) -> None:
    assert key_from_environment(environment) == key


@pytest.mark.parametrize("key", ["密钥", "a\nb"])
def test_a_key_that_is_no_valid_header_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(UsageError, match="^OPENAI_API_KEY contains characters that no key has; set it again$"):
        key_from_environment({"OPENAI_API_KEY": key})


def test_an_engine_does_not_show_its_key() -> None:
    assert "sk-secret" not in repr(Server(URL, "sk-secret"))


@pytest.mark.parametrize("text", ["http://localhost:8000/v1", "https://api.test/v1#org/name", "HTTP://[::1]:8000/v1#a:b"])
def test_an_address_is_a_model(text: str) -> None:
    reference = resolve(text)

    assert reference == ModelReference(text, text, scheme=text.split(":")[0].lower())
    assert (reference.served, reference.folder) == (True, None)


@pytest.mark.parametrize("text", ["http://me:sk-secret@host/v1", "https://sk-secret@host/v1", "https://host/v1?key=sk-secret"])
def test_an_address_with_a_key_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(UsageError) as error:
        resolve(text)

    assert str(error.value) == (
        "the address of a model has no place for keys; put the key into the environment as SFTCHAT_API_KEY or OPENAI_API_KEY"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("http://host:port/v1", "the address of the model is malformed; write http://HOST:PORT/v1#MODEL"),
        ("http:///v1", "model 'http:///v1' names no host; write http://HOST:PORT/v1#MODEL"),
    ],
)
def test_a_malformed_address_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        resolve(text)

    assert str(error.value) == said


def test_a_template_is_decided_by_the_server() -> None:
    with pytest.raises(UsageError, match="--template is for local models; the server of 'http://h/v1' renders prompts with its own"):
        load_engine("http://h/v1", {}, template="chatml")


def test_a_missing_extra_is_one_line_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx2", None)  # as if it were not installed

    with pytest.raises(MissingExtraError) as error:
        load_engine("http://h/v1", {})

    assert str(error.value) == "model 'http://h/v1' needs packages that are not installed: pip install 'sftchat[endpoint]'"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None), ("0", 0.0), ("1.5", 1.5), ("-3", 0.0), ("nan", None), ("inf", None), ("soon", None), ("", None),
        ("Thu, 01 Jan 1970 00:02:00 GMT", 20.0), ("Thu, 01 Jan 1970 00:01:00 GMT", 0.0),
    ],
)  # fmt: skip
def test_retry_after_is_a_number_or_a_date(header: str | None, seconds: float | None) -> None:
    assert parse_retry_after(header, now=100.0) == seconds


@given(attempt=st.integers(1, 40), luck=st.floats(0, 1, exclude_max=True), wait=st.none() | st.floats(0, 300))
def test_no_wait_is_shorter_than_requested_or_longer_than_the_cap_beyond_it(attempt: int, luck: float, wait: float | None) -> None:
    delay = Retries(attempts=50, random=lambda: luck).delay(attempt, RequestFailed("x", retryable=True, wait=wait))

    assert delay is not None
    assert 0 <= delay - (wait or 0.0) <= min(30.0, 0.5 * 2 ** (attempt - 1)) + 1e-9


@pytest.mark.parametrize("trouble", [RequestFailed("x"), RequestFailed("x", retryable=True, wait=301.0)])
def test_permanent_conditions_are_not_waited_for(trouble: Any) -> None:
    assert Retries().delay(1, trouble) is None
