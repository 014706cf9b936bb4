"""What is known of items whatever the moment: attributes, texts, a knowledge graph, a merchandiser's rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from components.core.store import Store
from components.graph.kept_texts import kept_cosines
from components.graph.side_tables import NO_RULES, NO_TRIPLES
from components.graph.similar_texts import TextNeighbours, text_codes

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """Row n is item n of every item matrix. Shared by the worlds of all cutoffs."""

    item_ids: Sequence[str]  # I, sorted
    titles: pa.StringArray  # I values, null where unknown
    attributes: Mapping[str, pa.StringArray]  # name -> I values
    listed_price_I: Floats  # nan where the catalogue names none
    triples: pa.Table = field(default_factory=lambda: NO_TRIPLES)  # head, relation, tail
    rules: pa.Table = field(default_factory=lambda: NO_RULES)  # item_id, other_item_id, rule
    store: Store | None = None  # where it is kept which texts are alike
    _codes: dict[str, Ints] = field(default_factory=dict)
    _texts: dict[int, TextNeighbours] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        item_ids: Sequence[str],
        catalog: pa.Table,
        *,
        triples: pa.Table = NO_TRIPLES,
        rules: pa.Table = NO_RULES,
        store: Store | None = None,
    ) -> Catalogue:
        """`catalog` has schema CATALOG, in any order, and may lack some of the items."""
        known = catalog["item_id"].combine_chunks()
        row_of_item = pc.index_in(pa.array(item_ids, pa.string()), value_set=known)
        columns = {name: catalog[name].combine_chunks().take(row_of_item) for name in ("title", "category", "brand")}
        attributes = {"category": columns["category"], "brand": columns["brand"]}
        maps = catalog["attributes"].combine_chunks()
        # The rows of the map's entries; null maps have none.
        lengths = np.diff(np.asarray(maps.offsets))
        row_of_entry = np.repeat(np.arange(len(maps)), lengths)
        first = int(np.asarray(maps.offsets)[0]) if len(maps) else 0
        names, values = (part.slice(first, len(row_of_entry)) for part in (maps.keys, maps.items))
        for name in names.unique().to_pylist():
            if name in attributes:
                continue
            chosen = pc.equal(names, name)
            rows = pa.array(row_of_entry).filter(chosen)
            place = pc.index_in(row_of_item.cast(pa.int64()), value_set=rows)
            attributes[name] = values.filter(chosen).take(place)
        price = catalog["price"].combine_chunks().take(row_of_item).cast(pa.float32())
        return cls(
            item_ids=item_ids,
            titles=columns["title"],
            attributes=attributes,
            listed_price_I=np.array(pc.fill_null(price, float("nan"))),
            triples=triples,
            rules=rules,
            store=store,
        )

    def __len__(self) -> int:
        return len(self.item_ids)

    def codes(self, name: str) -> Ints:
        """(I,) codes of the attribute's sorted distinct values, -1 where unknown; empty where no value is known."""
        if name not in self._codes:
            column = self.attributes.get(name)
            known = [] if column is None else sorted(column.drop_null().unique().to_pylist())
            if column is None or not known:
                self._codes[name] = np.zeros(0, dtype=np.int64)
            else:
                found = pc.index_in(column, value_set=pa.array(known, pa.string()))
                self._codes[name] = np.asarray(pc.fill_null(found, -1), dtype=np.int64)
        return self._codes[name]

    @cached_property
    def texts(self) -> pa.StringArray:
        """(I,) title and category, lower case; null where an item has neither."""
        parts = [pc.utf8_lower(pc.fill_null(column, "")) for column in (self.titles, self.attributes["category"])]
        joined = pc.utf8_trim_whitespace(pc.binary_join_element_wise(*parts, " "))
        return pc.if_else(pc.equal(joined, ""), pa.scalar(None, pa.string()), joined)

    def similar_texts(self, *, neighbours: int) -> TextNeighbours:
        """Texts and those most like them; counted once for all cutoffs."""
        if neighbours not in self._texts:
            texts, text_I = text_codes(self.texts)
            cosines = kept_cosines(texts, neighbours=neighbours, store=self.store)
            self._texts[neighbours] = TextNeighbours(text_I, cosines)
        return self._texts[neighbours]
