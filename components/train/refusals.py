"""What cannot be trained on, each said in one sentence; and where a loss that is no number came from."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from components.core.errors import ContractError, SettingsError
from components.core.sections import TrainSettings
from components.core.split import Window
from components.model.encoders import ItemGraph
from components.model.propagation import Relation, SparseMatrix, TwoHop
from components.model.recommender import Recommender
from components.train.batches import Batch
from components.train.windows import TrainingWindow


def refuse_settings(settings: TrainSettings, device: torch.device) -> None:
    """Settings that do not fit the machine."""
    if settings.precision == "float16" and device.type != "cuda":
        raise SettingsError("train.precision 'float16' needs a CUDA device. Set it to 'auto'.")


def refuse_windows(spans: Sequence[Window], windows: Sequence[TrainingWindow], feature_names: Sequence[str]) -> None:
    """Windows, raw statistics still in them, that nothing can be learnt from, or that hold what no log can."""
    for span, window in zip(spans, windows, strict=True):
        said = f"between {span.start:%Y-%m-%d} and {span.end:%Y-%m-%d}"
        if not len(window) or not int(window.new_targets.lengths.sum()):
            raise ContractError(
                f"Nobody took an item that was new to them {said}, so "
                "there is nothing to learn from. Give a longer log, or set split.window_days or split.training_windows "
                "to fit it."
            )
        if len(window.candidates_C) < 2:
            raise ContractError(
                f"Only one item had users enough to compete {said}, and one item needs no ranking. Give a longer log, "
                "or lower graph.min_item_users."
            )
        cause = cause_in_inputs(window, feature_names)
        if cause is not None:
            raise ContractError(f"What was known of those who took items {said} cannot be trained on: {cause}")
    if not any(_num_edges(window.graph) for window in windows):
        raise ContractError(
            "No window's item graph has an edge between items with users, so there is nothing to convolve over. "
            "Give a longer log, name more relations in graph.relations, or lower graph.min_distinct_users."
        )


def cause_of_no_number(model: Recommender, batch: Batch, feature_names: Sequence[str]) -> str:
    """A sentence that says which input or weight of the step was not a number."""
    window = batch.window
    for name, tensor in model.state_dict().items():
        if not torch.isfinite(tensor).all():
            return f"the weights {name} are not all numbers. Lower train.learning_rate."
    cause = cause_in_inputs(window, feature_names)
    if cause is not None:
        return cause
    base_BC = batch.base_BC
    if base_BC is not None and torch.isnan(base_BC if len(base_BC) == 1 else base_BC[batch.rows]).any():
        return (
            "the base logits of its users, the weighted counted terms, are not all numbers. Check the graph's filter."
        )
    return "all its inputs are numbers. Lower train.learning_rate or raise train.temperature."


def cause_in_inputs(window: TrainingWindow, feature_names: Sequence[str]) -> str | None:
    """What in a window's inputs is not a number; None where all is well. An unknown statistic is nan, and well."""
    infinite = torch.isinf(window.statistics_BF)
    for column in torch.nonzero(infinite.any(dim=0)).ravel().tolist():
        name = feature_names[column] if column < len(feature_names) else f"number {column + 1}"
        users = int(infinite[:, column].sum())
        return f"the feature {name} is infinite for {users:,} users. Check prices and quantities in the log."
    histories = window.histories
    for name, values in (("weights", histories.weights), ("ages", histories.ages_days)):
        bad = ~torch.isfinite(values)
        if bad.any():
            users = len(torch.unique(histories.user_of_entry[bad]))
            return f"the {name} in the histories of {users:,} users are not numbers. Run the features step again."
    for name, relation in window.graph.items():
        if not all(torch.isfinite(matrix.values).all() for matrix in _matrices(relation)):
            return f"edges of the relation {name} have weights that are not numbers. Run the graph step again."
    if not torch.isfinite(window.item_degree_I).all():
        return "the items' numbers of users are not all numbers. Run the graph step again."
    return None


def _num_edges(graph: ItemGraph) -> int:
    return sum(min(len(matrix.indices) for matrix in _matrices(relation)) for relation in graph.values())


def _matrices(relation: Relation) -> tuple[SparseMatrix, ...]:
    return (relation.gather, relation.spread) if isinstance(relation, TwoHop) else (relation,)
