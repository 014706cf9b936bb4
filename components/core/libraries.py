"""What libraries read from the environment when they are imported: silence, and thrift with the processor."""

from __future__ import annotations

import logging
import os

QUIET = {
    "BENTOML_DO_NOT_TRACK": "True",
    "DO_NOT_TRACK": "true",
    "FEAST_USAGE": "False",
    "GX_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
THRIFTY = {
    # Else dgl writes a configuration file to the home directory and prints.
    "DGLBACKEND": "pytorch",
    # OpenMP's threads spin while they wait; beside other work on the machine that burns several times the CPU.
    "OMP_WAIT_POLICY": "PASSIVE",
}


def prepare_libraries() -> None:
    """Call before a heavy import. Nothing phones home; a user's own choice of the rest stays."""
    os.environ.update(QUIET)
    for name, value in THRIFTY.items():
        os.environ.setdefault(name, value)
    # MLflow prints a traceback of each database error that it also raises: a full disk is to be one sentence.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
