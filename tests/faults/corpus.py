"""The corpus of broken inputs: made by code, every one of them."""

from __future__ import annotations

from broken_shop import BrokenInput
from corpus_catalog import CATALOGUES
from corpus_columns import COLUMN_CASES
from corpus_files import FILES
from corpus_values import VALUES

CORPUS: tuple[BrokenInput, ...] = (*FILES, *COLUMN_CASES, *VALUES, *CATALOGUES)
