"""Checkpoints of an unfinished training, in the artifact store beside the step's other unfinished work.

One a training, of its last whole epoch: tensors as safetensors, then a JSON file that names them and their hash, which
is the commit mark. What it is found under is the step's own key, so that inputs, settings or code of another kind never
meet it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from components.core.errors import ArtifactError
from components.core.hashing import file_sha256
from components.core.store import Store

log = logging.getLogger(__name__)

MARK = "checkpoint.json"


@dataclass(frozen=True)
class Checkpoints:
    """Where one training keeps its state."""

    store: Store
    folder: str  # relative to the store's root

    def named(self, name: str) -> Checkpoints:
        """Those of one of several trainings in a step."""
        return Checkpoints(self.store, f"{self.folder}/{name}")

    @property
    def uri(self) -> str:
        return self.store.uri(self.folder)

    def save(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], *, epoch: int) -> None:
        """Replace the checkpoint before; a crash leaves the old one or the new one."""
        with self.store.staging() as staged:
            path = staged / "state.safetensors"
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
            sha256 = file_sha256(path)
            name = f"epoch-{epoch}-{sha256[:12]}.safetensors"
            self.store.put_file(path, f"{self.folder}/{name}")
        self.store.write_json(f"{self.folder}/{MARK}", {"file": name, "sha256": sha256, "facts": dict(facts)})
        for other in self.store.list_dir(self.folder):
            if other not in (name, MARK):
                self.store.delete(f"{self.folder}/{other}")

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The last whole epoch's tensors and facts; None where there are none, or none that is whole."""
        mark = f"{self.folder}/{MARK}"
        if not self.store.exists(mark):
            return None
        try:
            described = self.store.read_json(mark)
            path = self.store.fetch(f"{self.folder}/{described['file']}", sha256=described["sha256"])
            return load_file(path), described["facts"]
        except (ArtifactError, KeyError, ValueError) as error:
            log.warning("The checkpoint under %s cannot be read (%s); training starts afresh.", self.uri, error)
            return None
