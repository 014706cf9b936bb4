"""From a shop's log to live recommendations: an Airflow DAG that proves each model before it serves.

ingest >> validate >> features ┐
                   └> graph ───┴> train >> evaluate >> gate >> deploy | not_promoted
"""

from components.orchestration.component import component
from components.orchestration.gate import gate
from components.orchestration.pipeline import pipeline

with pipeline("recommender", file=__file__, doc=__doc__):
    events = component("ingest")
    clean = component("validate", inputs=[events])
    features = component("features", inputs=[clean])
    graph = component("graph", inputs=[clean])
    bundle = component("train", inputs=[clean, features, graph])
    evaluation = component("evaluate", inputs=[clean, features, bundle])
    deployment = component("deploy", inputs=[bundle, evaluation])
    gate(evaluation, deploy=deployment)
