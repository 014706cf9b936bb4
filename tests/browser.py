"""A page in headless Chromium, and every address that it asks for."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from needs import program


def requests_of(page: str, folder: Path) -> list[str]:
    """All addresses that a page asks for in Chromium, whatever comes of it."""
    return open_page(page, folder)[1]


def open_page(page: str, folder: Path) -> tuple[str, list[str]]:
    """(the page's document after its scripts have run, all addresses that it asked for)."""
    folder.mkdir()
    log = folder / "net.json"
    command = [
        program("chromium", package="chromium"),
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions"),
        *("--no-proxy-server", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"),
        *(f"--user-data-dir={folder}/profile", f"--log-net-log={log}", "--virtual-time-budget=6000", "--dump-dom"),
        page,
    ]
    done = subprocess.run(command, capture_output=True, check=True, timeout=180)
    text = log.read_text()
    events = json.loads(text if text.rstrip().endswith("}") else text.rstrip().rstrip(",") + "]}")
    started = events["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    jobs = [event.get("params", {}) for event in events["events"] if event["type"] == started]
    found = [job["url"] for job in jobs if "url" in job and is_the_pages_own(job)]
    # A file is read without the network's part of the browser.
    return done.stdout.decode(), [*found, page] if page.startswith("file:") else found


def is_the_pages_own(job: dict[str, str]) -> bool:
    """A frame, or what something in a frame asks for; the browser itself asks its maker for the time, say."""
    return job["initiator"] != "not an origin" or job["request_type"] != "other"


def same_page(one: str, page: str) -> bool:
    return one.partition("#")[0] == page.partition("#")[0]


def stays_here(address: str) -> bool:
    parts = urlsplit(address)
    return parts.scheme in ("file", "data", "blob", "about", "chrome") or parts.hostname in ("127.0.0.1", "::1")
