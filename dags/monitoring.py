"""What happens now beside what the live bundle was trained on: an Airflow DAG that asks for a retrain where it drifts.

ingest >> validate >> monitor >> ask_for_retrain ┄ asset `drift` ┄> recommender
"""

from components.orchestration.component import component
from components.orchestration.monitoring import ask_for_retrain
from components.orchestration.pipeline import monitoring_pipeline

with monitoring_pipeline("monitoring", file=__file__, doc=__doc__):
    events = component("ingest")
    clean = component("validate", inputs=[events])
    monitoring = component("monitor", inputs=[clean])
    ask_for_retrain(monitoring)
