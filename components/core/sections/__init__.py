"""The sections of `Settings`, one frozen model each; a field's description is its help text everywhere.

A step's artifact depends on the sections that its `Step` names, so a change of `serve.port` retrains nothing.
"""

from components.core.sections.base import Section, Share
from components.core.sections.data import FeatureSettings, SourceSettings, SplitSettings, ValidateSettings
from components.core.sections.feature_store import FeatureStoreSettings
from components.core.sections.learning import (
    ContrastView,
    GraphSettings,
    LayerPooling,
    LossName,
    NegativeSampling,
    Normalisation,
    Precision,
    TrainSettings,
    UserPooling,
)
from components.core.sections.live import ApiKey, DeploySettings, Role, ServeSettings
from components.core.sections.metrics import MetricsSettings
from components.core.sections.proof import EvaluateSettings
from components.core.sections.rollout import RolloutSettings
from components.core.sections.running import OrchestrationSettings, PodResources, TrackingSettings
from components.core.sections.watching import MonitorSettings

__all__ = [
    "ApiKey",
    "ContrastView",
    "DeploySettings",
    "EvaluateSettings",
    "FeatureSettings",
    "FeatureStoreSettings",
    "GraphSettings",
    "LayerPooling",
    "LossName",
    "MetricsSettings",
    "MonitorSettings",
    "NegativeSampling",
    "Normalisation",
    "OrchestrationSettings",
    "PodResources",
    "Precision",
    "Role",
    "RolloutSettings",
    "Section",
    "ServeSettings",
    "Share",
    "SourceSettings",
    "SplitSettings",
    "TrackingSettings",
    "TrainSettings",
    "UserPooling",
    "ValidateSettings",
]
