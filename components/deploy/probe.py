"""Asking the running service, over HTTP, whether it answers with a bundle."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from pydantic import SecretStr

from components.core.errors import SettingsError, StopError
from components.core.live import ServiceRecord
from components.core.settings import Settings

TIMEOUT_SECONDS = 5.0
POLL_SECONDS = 0.25
# A loopback service is never reached through a proxy, whatever the environment says.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class ServiceClient:
    """The few calls that `deploy` makes. JSON in, JSON out."""

    def __init__(self, settings: Settings, record: ServiceRecord) -> None:
        self.url = local_url(record)
        key = own_key(settings)
        self._headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key is not None else {}

    def get(self, path: str) -> tuple[int, Any]:
        return self._send(urllib.request.Request(self.url + path, headers=self._headers))  # noqa: S310  # our own URL

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        headers = {**self._headers, "Content-Type": "application/json"}
        data = json.dumps(body).encode()
        return self._send(urllib.request.Request(self.url + path, data=data, headers=headers))  # noqa: S310

    def _send(self, request: urllib.request.Request) -> tuple[int, Any]:
        try:
            with _OPENER.open(request, timeout=TIMEOUT_SECONDS) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _json_or_none(error.read())


def own_key(settings: Settings) -> SecretStr | None:
    """The key that the pipeline's own commands send; None where the service asks for none.

    Raises SettingsError where the service has keys, and all that is known of them are digests.
    """
    if settings.deploy.api_key is not None:
        return settings.deploy.api_key
    plain = [key for key in settings.serve.api_keys if isinstance(key, SecretStr)]
    if not plain and settings.serve.api_keys:
        raise SettingsError(
            "serve.api_keys holds digests alone, so the pipeline has no key to ask the service with. "
            "Set deploy.api_key to one that has the role 'recommend'."
        )
    return plain[0] if plain else None


def local_url(record: ServiceRecord) -> str:
    """The service's URL as seen from this machine: one that listens everywhere is asked on loopback."""
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # compared, not bound
    return record.model_copy(update={"host": everywhere.get(record.host, record.host)}).url


def wait_until_ready(
    client: ServiceClient,
    *,
    sha256: str,
    workers: int,
    timeout_seconds: float,
    still_runs: Callable[[], bool],
) -> float:
    """Wait until every worker answers with the bundle; returns the seconds it took.

    Raises StopError when the service ends or the time is up, with the reason that the service gives.
    """
    started = time.monotonic()
    reason = "it does not answer"
    while time.monotonic() - started < timeout_seconds:
        if not still_runs():
            raise StopError("The service ended before it answered.")
        try:
            _, answer = client.get("/readyz")
        except OSError as error:
            reason = f"it does not answer ({error})"
        else:
            if isinstance(answer, dict) and answer.get("bundle") == sha256 and answer["workers"] == {sha256: workers}:
                return time.monotonic() - started
            reason = (answer or {}).get("reason") or "it still answers with another bundle"
        time.sleep(POLL_SECONDS)
    raise StopError(f"The service at {client.url} did not take up the bundle in {timeout_seconds:.0f} s: {reason}")


def _json_or_none(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None
