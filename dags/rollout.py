"""A promoted bundle proves itself on live requests before it serves everybody: an Airflow DAG that `deploy` starts.

begin >> shadow >> canary at 1, 10, 50 % >> (approve) >> production >> watch
"""

from components.orchestration.rollout_stages import rollout_dag, rollout_stages

with rollout_dag("rollout", file=__file__, doc=__doc__):
    rollout_stages()
