"""What stands for a user wherever the service writes one down: a keyed hash, the same on every worker and pod.

Without the key nobody can tell by trying which user it is, which a plain hash of an id would allow.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from pathlib import Path

from components.core.settings import Settings
from components.core.store import write_file_whole
from serving.fresh import redis_url

KEY_FILE = "pseudonym.key"


class Pseudonyms:
    """user id -> 32 hex digits, by BLAKE2b with a key (RFC 7693)."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def of_settings(cls, settings: Settings) -> Pseudonyms:
        given, url = settings.serve.pseudonym_key, redis_url(settings)
        if given is not None:
            return cls(_derived(given.get_secret_value()))
        if url is not None:
            return cls(_derived(url))
        return cls(_kept(settings.project_home / KEY_FILE))

    def of(self, user_id: str) -> str:
        return hashlib.blake2b(user_id.encode(), key=self._key, digest_size=16).hexdigest()


def _derived(secret: str) -> bytes:
    return hashlib.sha256(b"basketweave pseudonyms " + secret.encode()).digest()


def _kept(path: Path) -> bytes:
    """The key in the project's home, made by whichever worker comes first."""
    if not path.is_file():
        made = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        write_file_whole(made, secrets.token_bytes(32), mode=0o600)
        with contextlib.suppress(FileExistsError):
            os.link(made, path)
        made.unlink()
    return path.read_bytes()
