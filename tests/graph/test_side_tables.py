"""Tables beside the log: a knowledge graph and a merchandiser's rules."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.core.errors import ContractError
from components.core.sections import GraphSettings
from components.graph.side_tables import read_rules, read_triples, side_tables_sha256


def test_a_table_is_read_as_text_whatever_its_form(tmp_path: Path) -> None:
    """Ids that look like numbers are names; rows come sorted, twice the same is once."""
    csv, parquet = tmp_path / "t.csv", tmp_path / "t.parquet"
    csv.write_text("note,head,relation,tail\nx,7,is,001\ny,12,is,001\nz,7,is,001\n")
    pq.write_table(pa.table({"tail": ["001", "001"], "head": [12, 7], "relation": ["is", "is"]}), parquet)
    expected = [{"head": "12", "relation": "is", "tail": "001"}, {"head": "7", "relation": "is", "tail": "001"}]
    assert read_triples(str(csv)).to_pylist() == expected
    assert read_triples(str(parquet)).to_pylist() == expected


def test_without_a_setting_there_are_none() -> None:
    assert (read_triples(None).num_rows, read_rules(None).num_rows) == (0, 0)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("item_id,rule\na,always_with\n", r"has no column 'other_item_id'; graph\.rules needs a table with item_id, "),
        ("item_id,other_item_id,rule\na,b,sometimes\n", "has the rule 'sometimes'; known: always_with, never_together"),
        ("item_id,other_item_id,rule\na,,always_with\n", r"has 1 rows without 'other_item_id'\. Fill or drop them\."),
        ("", r"^graph\.rules names .*rules\.csv, which cannot be read as CSV or parquet"),
    ],
)
def test_a_table_that_says_nothing_clear_is_refused(text: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "rules.csv"
    path.write_text(text)
    with pytest.raises(ContractError, match=sentence):
        read_rules(str(path))


def test_a_table_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"^graph\.knowledge names .*gone\.csv, which cannot be read"):
        read_triples(str(tmp_path / "gone.csv"))


def test_what_a_table_says_decides_and_not_where_it_is(tmp_path: Path) -> None:
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    for path in (one, two):
        path.write_text("item_id,other_item_id,rule\na,b,always_with\n")
    hashes = [side_tables_sha256(GraphSettings(rules=str(path))) for path in (one, two)]
    assert hashes[0] == hashes[1]
    one.write_text("item_id,other_item_id,rule\na,c,always_with\n")
    assert side_tables_sha256(GraphSettings(rules=str(one))) != hashes[1]
