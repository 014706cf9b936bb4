"""A disk that is full from any write on: one sentence, nothing half written, and with space again the same content."""

from __future__ import annotations

from typing import Any

import pytest
from needs import missing
from small_shop import SmallShop

from components.core.command import KINDS, PIPELINE
from components.core.errors import is_full_disk

PAGE = 4096


@pytest.fixture
def small_disk(shop: SmallShop) -> SmallShop:
    if shop.filler is None:
        missing("No small disk can be mounted here: neither root nor a user namespace may.")
    return shop


@pytest.mark.slow
@pytest.mark.parametrize("step", PIPELINE)
def test_a_full_disk_is_one_sentence_at_every_write_and_spoils_nothing(
    small_disk: SmallShop, undisturbed: dict[str, dict[str, Any]], step: str
) -> None:
    shop, whole = small_disk, undisturbed[step]
    shop.before(step)
    ahead = shop.look()["content"]
    refused = 0
    # Each kind of file once; what one full disk leaves is there when the next comes.
    for number, (write, moment) in enumerate(whole["writes"].items()):
        # Every other time a page is left, so that a file begins and cannot be ended.
        end = shop.run(step, full_at=moment, filler=str(shop.filler), leave=PAGE * (number % 2))
        shop.empty_disk()
        seen = shop.look()
        assert (seen["problems"], seen["staging"]) == ([], []), write
        if end["status"] == 0:  # all that still had to be written fitted
            assert seen["content"] == whole["content"], write
            shop.before(step)
            continue
        refused += 1
        assert end["status"] == 1, (write, end)
        assert "Traceback" not in end["err"], (write, end["err"])
        assert (
            end["err"]
            .splitlines()[-1]
            .startswith(
                f"basketweave: The disk is full, so {step} stopped and nothing of it was kept. Free some space under "
            )
        ), (write, end["err"])
        assert seen["content"].get(KINDS[step]) == ahead.get(KINDS[step]), write
    assert refused > len(whole["writes"]) / 2
    again = shop.run(step)
    assert again["status"] == 0, again["err"]
    assert shop.look()["content"] == whole["content"]


@pytest.mark.parametrize(
    ("error", "is_full"),
    [
        (OSError(28, "No space left on device"), True),
        (OSError(122, "Disk quota exceeded"), True),
        (RuntimeError("I/O error: No space left on device (os error 28)"), True),
        (ValueError("database or disk is full"), True),
        (OSError(13, "Permission denied"), False),
        (ValueError("the shelf is full"), False),
    ],
)
def test_what_says_that_the_disk_is_full(error: Exception, is_full: bool) -> None:
    outer = RuntimeError("could not write")
    outer.__cause__ = error
    assert is_full_disk(error) is is_full
    assert is_full_disk(outer) is is_full
