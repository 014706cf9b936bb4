"""Write the chart's dashboards anew: `python -m charts.dashboards`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from charts.dashboards import drift, pipeline, quality, service
from charts.dashboards.panels import Board, to_json

FOLDER = Path(__file__).parents[1] / "basketweave" / "dashboards"
BOARDS: tuple[Board, ...] = (service.BOARD, quality.BOARD, drift.BOARD, pipeline.BOARD)


def files() -> Mapping[str, str]:
    """File name -> content, of every dashboard."""
    return {f"{board.name}.json": to_json(board) for board in BOARDS}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, content in files().items():
        (FOLDER / name).write_text(content, encoding="utf-8")
