"""A lock on an S3 store: one small object that its holder made first and renews, by S3's conditional writes.

A local lock is the kernel's and dies with its holder; here a holder that died leaves its object, which anyone may take
over once it was not renewed for `LEASE_SECONDS`. Both times compared are the store's own, so no client's clock counts.
Conditional writes: `If-None-Match: *` makes an object only where there is none, `If-Match` replaces the very one seen
(docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html; MinIO, Ceph and SeaweedFS have them too).
"""

from __future__ import annotations

import contextlib
import email.utils
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

logger = logging.getLogger(__name__)

LEASE_SECONDS = 60.0
POLL_SECONDS = 0.5


class LeaseTakenError(Exception):
    """Somebody else holds the lease and renews it."""


class Lease:
    """A held lease; `renew` keeps it, `release` gives it back."""

    def __init__(self, fs: Any, path: str, *, lease_seconds: float = LEASE_SECONDS) -> None:
        """`fs` is an s3fs file system, `path` 'bucket/key'."""
        self._fs = fs
        self._bucket, _, self._key = path.partition("/")
        self._lease_seconds = lease_seconds
        # The object's ETag is a hash of its bytes, so what each holder writes must differ.
        self._holder = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex}"
        self._turn = 0
        self._etag: str | None = None

    def acquire(self) -> None:
        """Make the object, or replace one that is not renewed any more; raises LeaseTakenError."""
        if self._put(IfNoneMatch="*"):
            return
        try:
            seen = self._fs.call_s3("head_object", Bucket=self._bucket, Key=self._key)
        except FileNotFoundError:
            raise LeaseTakenError from None  # given back this moment: the next try gets it
        now = email.utils.parsedate_to_datetime(seen["ResponseMetadata"]["HTTPHeaders"]["date"])
        renewed: datetime = seen["LastModified"]
        if (now - renewed).total_seconds() <= self._lease_seconds or not self._put(IfMatch=seen["ETag"]):
            raise LeaseTakenError
        logger.warning("A lock that nobody renewed for %.0f s was taken over: %s", self._lease_seconds, self._key)

    def renew(self) -> bool:
        """Whether the lease is still ours."""
        assert self._etag is not None
        return self._put(IfMatch=self._etag)

    def release(self) -> None:
        """Delete the object, if it is still ours."""
        with contextlib.suppress(OSError):
            self._fs.call_s3("delete_object", Bucket=self._bucket, Key=self._key, IfMatch=self._etag)

    def _put(self, **condition: str) -> bool:
        """Write the object under a condition; False where it does not hold."""
        self._turn += 1
        body = json.dumps({"holder": self._holder, "turn": self._turn}).encode()
        try:
            written = self._fs.call_s3("put_object", Bucket=self._bucket, Key=self._key, Body=body, **condition)
        except OSError as error:
            if _status(error) in (404, 409, 412):  # gone, another write at this moment, another object
                return False
            raise
        self._etag = written["ETag"]
        return True


@contextmanager
def held(fs: Any, path: str, *, timeout_seconds: float, lease_seconds: float = LEASE_SECONDS) -> Iterator[None]:
    """Hold the lease at `path` in the block, renewed by a thread; raises LeaseTakenError after `timeout_seconds`."""
    lease = Lease(fs, path, lease_seconds=lease_seconds)
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            lease.acquire()
            break
        except LeaseTakenError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(POLL_SECONDS)
    ended = threading.Event()

    def keep() -> None:
        while not ended.wait(lease_seconds / 4):
            try:
                if not lease.renew():
                    # What the holder commits is named by its content and its manifest comes last: no harm is done.
                    logger.warning("The lock %s was taken over by another process.", path)
                    return
            except OSError as error:
                logger.warning("The lock %s could not be renewed: %s", path, error)

    thread = threading.Thread(target=keep, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        lease.release()


def _status(error: BaseException | None) -> int | None:
    """HTTP status of the answer that an s3fs error stands for."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return int(status) if status is not None else None
        error = error.__cause__
    return None
