"""Settings of what the pipeline measures of itself, and where it is sent."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from components.core.sections.base import Section


class MetricsSettings(Section):
    """Where the pipeline's own metrics go, and what its work costs. None of it shapes an artifact."""

    pushgateway: str | None = Field(default=None, pattern=r"^https?://[^\s]+$")
    """Address of a Prometheus Pushgateway, such as http://pushgateway:9091; None: nothing is pushed."""
    textfile_folder: Path | None = None
    """Folder that a node exporter's textfile collector reads; None: no file is written."""
    cpu_hour_price: float | None = Field(default=None, ge=0)
    """Price of one CPU core for one hour, in `currency`; None: no cost is reckoned."""
    gpu_hour_price: float | None = Field(default=None, ge=0)
    """Price of one GPU for one hour, in `currency`; None: GPUs count nothing."""
    currency: str = Field(default="EUR", pattern=r"^[A-Z]{3}$")
    """Currency of the prices (ISO 4217): a label of every cost."""
    statsd_host: str | None = Field(default=None, min_length=1)
    """Host to which Airflow sends its own metrics by StatsD, such as a statsd exporter; None: it sends none."""
    statsd_port: int = Field(default=8125, ge=1, le=65535)
    """UDP port of `statsd_host`."""

    @property
    def is_on(self) -> bool:
        """Whether the pipeline's metrics go anywhere."""
        return self.pushgateway is not None or self.textfile_folder is not None
