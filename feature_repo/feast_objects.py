"""What `feast plan` and `feast apply` find: the definitions, for the store that feature_store.yaml beside this names.

Only the `feast` command imports this; the pipeline calls `definitions` itself.
"""

from pathlib import Path

import yaml

from feature_repo.definitions import definitions
from feature_repo.layout import FeastHome

_here = Path(__file__).resolve().parent
_registry = yaml.safe_load((_here / "feature_store.yaml").read_text())["registry"]
_registered = definitions(FeastHome(folder=(_here / _registry).resolve().parent))

user, item = _registered.entities
user_history, user_statistics, item_statistics = _registered.views
recommender_v1, items_v1 = _registered.services
