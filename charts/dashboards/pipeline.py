"""The pipeline: whether it runs, how long, what it uses and costs, and what the gate said."""

from __future__ import annotations

from charts.dashboards.panels import Board, Panel, Query, Row, Variable

PROJECT = '{project=~"$project"}'
EVALUATED = '{project=~"$project", step="evaluate"}'


def latest(metric: str, *labels: str) -> str:
    """The newest value; a project's steps may have been pushed by several pods."""
    return f"max by ({', '.join(('project', *labels))}) ({metric}{PROJECT})"


BOARD = Board(
    name="pipeline",
    title="Basketweave / Pipeline and cost",
    about="Runs of the pipeline: outcome, duration, CPU and GPU, price, and the verdict on each new model.",
    variables=[Variable(name="project", label="Project", query="label_values(basketweave_step_seconds, project)")],
    since="now-7d",
    rows=[
        Row(
            title="Last run",
            panels=[
                Panel(
                    title="Failed steps",
                    about="Steps whose last run failed: the alert BasketweavePipelineFailed.",
                    queries=[Query(f"sum(basketweave_step_failed{PROJECT})")],
                    shape="number",
                    bad=1,
                    width=4,
                ),
                Panel(
                    title="Since the last evaluation",
                    about="By the wall clock. More than the schedule's interval and a run: BasketweavePipelineLate.",
                    queries=[Query(f"time() - max(basketweave_step_finished_timestamp_seconds{EVALUATED})")],
                    shape="number",
                    unit="s",
                    width=5,
                ),
                Panel(
                    title="Verdict",
                    about="On the newest model: promote, hold, reject, or insufficient evidence.",
                    queries=[Query(f"{latest('basketweave_evaluation_verdict', 'verdict')} == 1", "{{verdict}}")],
                    shape="name",
                    width=4,
                ),
                Panel(
                    title="Steps",
                    about="How the last run's steps ended.",
                    queries=[Query(latest("basketweave_run_steps", "state"), "{{state}}")],
                    shape="number",
                    width=6,
                ),
                Panel(
                    title="Price of the run",
                    about="CPU- and GPU-hours times settings.metrics' prices.",
                    queries=[Query(latest("basketweave_run_cost", "currency"), "{{currency}}")],
                    shape="number",
                    width=5,
                ),
            ],
        ),
        Row(
            title="Work",
            panels=[
                Panel(
                    title="Duration by step",
                    about="A reused step takes next to nothing.",
                    queries=[Query(latest("basketweave_step_seconds", "step"), "{{step}}")],
                    shape="stacked",
                    unit="s",
                ),
                Panel(
                    title="CPU-seconds by step",
                    about="User and system time, child processes included.",
                    queries=[Query(latest("basketweave_step_cpu_seconds", "step"), "{{step}}")],
                    shape="stacked",
                    unit="s",
                ),
                Panel(
                    title="GPU-seconds by step",
                    about="GPUs that the step was given, times its duration.",
                    queries=[Query(latest("basketweave_step_gpu_seconds", "step"), "{{step}}")],
                    shape="stacked",
                    unit="s",
                ),
                Panel(
                    title="Whole run",
                    about="Steps one after the other, and their CPU time.",
                    queries=[
                        Query(latest("basketweave_run_seconds"), "{{project}} duration"),
                        Query(latest("basketweave_run_cpu_seconds"), "{{project}} CPU"),
                    ],
                    unit="s",
                ),
                Panel(
                    title="Rows of each artifact",
                    about="A sudden change is worth a look even where every check passes.",
                    queries=[Query(latest("basketweave_step_rows", "step"), "{{step}}")],
                ),
                Panel(
                    title="Reused steps",
                    about="1: the step's work was done already, for equal inputs, settings and code.",
                    queries=[Query(latest("basketweave_step_reused", "step"), "{{step}}")],
                    shape="bars",
                ),
                Panel(
                    title="Failed steps by name",
                    about="1 where the step's last run failed.",
                    queries=[Query(latest("basketweave_step_failed", "step"), "{{step}}")],
                    shape="bars",
                ),
                Panel(
                    title="Since each step's last success",
                    about="By the wall clock.",
                    queries=[
                        Query(f"time() - {latest('basketweave_step_finished_timestamp_seconds', 'step')}", "{{step}}")
                    ],
                    unit="s",
                ),
                Panel(
                    title="Price by step",
                    about="What to make cheaper first.",
                    queries=[Query(latest("basketweave_step_cost", "step", "currency"), "{{step}} {{currency}}")],
                    shape="stacked",
                ),
            ],
        ),
        Row(
            title="Models",
            panels=[
                Panel(
                    title="Quality on the hold-out",
                    about="The model beside its baselines, as the gate measured them.",
                    queries=[
                        Query(
                            'max by (entrant, metric) (basketweave_evaluation_quality{project=~"$project"})',
                            "{{entrant}} {{metric}}",
                        )
                    ],
                    width=12,
                ),
                Panel(
                    title="Gates that failed",
                    about="1 where the gate stood in the last model's way; the evaluation report says why.",
                    queries=[Query(latest("basketweave_evaluation_gate_failed", "gate"), "{{gate}}")],
                    shape="bars",
                    width=12,
                ),
            ],
        ),
    ],
)
