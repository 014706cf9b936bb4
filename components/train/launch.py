"""The step under torchrun: rank 0 runs it as ever, and the others train along.

torchrun --standalone --nproc-per-node 2 -m components.train
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from components.core.artifact import Artifact, ArtifactRef, ArtifactWriter
from components.core.errors import BasketweaveError
from components.core.progress import Progress
from components.core.settings import load_settings
from components.core.step import StepContext, StepReport
from components.core.store import Store
from components.train.ranks import Ranks, joined

CPU = torch.device("cpu")


def on_every_rank(run: Callable[[], object], follow: Callable[[StepContext], StepReport]) -> None:
    """Call `run` on rank 0; on the others `follow`, each time that rank 0 announces a context."""
    with joined() as ranks:
        if ranks.is_first:
            run()
            ranks.told(None, CPU)
            return
        while (message := ranks.told(None, CPU)) is not None:
            with tempfile.TemporaryDirectory() as folder:
                try:
                    follow(_context(message, Path(folder)))
                except BasketweaveError:
                    sys.exit(1)  # rank 0 says it


def announce(context: StepContext) -> None:
    """Rank 0 is about to train; the others begin as well."""
    if not Ranks.here().is_first:
        return
    message: dict[str, Any] = {
        "inputs": {kind: artifact.manifest.ref().model_dump() for kind, artifact in context.inputs.items()},
        "as_of": context.moment.isoformat(),
        "run_id": context.run_id,
        "unfinished": context.unfinished,
    }
    Ranks.here().told(message, CPU)


def _context(message: dict[str, Any], folder: Path) -> StepContext:
    """The announced context, with an output that nobody keeps."""
    settings = load_settings()
    store = Store(settings.artifact_root)
    refs = {kind: ArtifactRef.model_validate(ref) for kind, ref in message["inputs"].items()}
    return StepContext(
        settings=settings,
        as_of=datetime.fromisoformat(message["as_of"]),
        run_id=message["run_id"],
        store=store,
        inputs={kind: Artifact.open(store, ref.uri, sha256=ref.sha256, kind=kind) for kind, ref in refs.items()},
        output=ArtifactWriter(folder),
        progress=Progress(Console(file=io.StringIO())),
        unfinished=message["unfinished"],
    )
