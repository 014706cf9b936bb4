"""quality.html: self-contained, escaped, without a user in it."""

from __future__ import annotations

import re

import pytest
from judged_log import FIRST_DAY, good_log, good_row


@pytest.fixture
def page(shop):
    lines = good_log(3) + good_row(98, FIRST_DAY, item_id="<script>alert(1)</script>", quantity=0)
    lines += good_row(99, FIRST_DAY, timestamp="<b>soon</b>") + "a line,too short\n"
    return shop.validate(lines).path("quality.html").read_text()


def test_it_loads_nothing_from_outside(page):
    assert not re.findall(r"(?:src|href|srcset|action)\s*=|@import|url\(|https?:|<script", page)
    assert "default-src 'none'" in page


def test_texts_of_the_data_are_escaped(page):
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "timestamp = &lt;b&gt;soon&lt;/b&gt;" in page


def test_no_user_and_no_session_is_in_it(page):
    assert "secret" not in page
    assert "user 1" in page
    assert "session 1" in page


def test_it_says_the_rows_law_and_the_reasons(page):
    text = re.sub(r"<[^>]+>", " ", page)
    for words in ("Rows in the log", "63", "quantity is 0 or less", "timestamp is not a time", "could not be read"):
        assert words in text
    assert page.count('<g class="day">') == 3


def test_data_docs_are_written_only_when_asked_for(shop):
    assert not [name for name in shop.validate(good_log(1)).file_names if "data_docs" in name]
    shop.validation = {"data_docs": True}
    artifact = shop.validate()
    assert "data_docs/last_day.html" in artifact.file_names
    assert "<html" in artifact.path("data_docs/last_day.html").read_text()
