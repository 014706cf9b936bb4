"""Compiles what is in C while the package is built. Without a compiler the package is whole, but slower at batches."""

from __future__ import annotations

import os
import runpy
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Compile(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        # By path: nothing of the package can be imported yet.
        compiled = runpy.run_path(str(Path(self.root, "components", "model", "compiled.py")))
        try:
            compiled["compile_all"](os.environ.get("CC", "cc"))
        except (compiled["CompilerError"], OSError) as error:
            self.app.display_warning(f"{error} Without it, batches of users are ranked one by one.")
        else:
            build_data["pure_python"] = False
            build_data["infer_tag"] = True
