"""MLflow."""

from __future__ import annotations

import os
import re
import time

from .base import About, Figures, Tracker, tracker

STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED", "died": "FAILED"}
MARK = "tunesmith.run"
"""The tag by which a run that goes on is found again; MLflow gives runs ids of its own."""
ODD = re.compile(r"[^\w./ :-]")
"""What a metric's name must not have."""
AT_ONCE = 100
"""Settings that MLflow takes at once."""


@tracker("mlflow")
class MLflow(Tracker):
    """To where MLFLOW_TRACKING_URI says, a database or a server, else to mlflow.db in the working folder; look at it
    with `mlflow ui` of the whole package mlflow."""

    project: str = "tunesmith"
    """The experiment that the run stands in."""

    def open(self, about: About) -> Logged:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient  # pyright: ignore[reportMissingImports] - an extra
        from mlflow.entities import Param  # pyright: ignore[reportMissingImports] - an extra

        client = MlflowClient()
        experiment = client.get_experiment_by_name(self.project)
        place = experiment.experiment_id if experiment else client.create_experiment(self.project)
        known = client.search_runs([place], f"tags.`{MARK}` = '{about.id}'", max_results=1)
        if known:
            client.update_run(known[0].info.run_id, "RUNNING")
            return Logged(client, known[0].info.run_id)
        # by the client, not mlflow.start_run, which adds the program's path and the user's name
        run = client.create_run(place, run_name=about.name, tags={MARK: about.id}).info.run_id
        params = [Param(ODD.sub("_", name), str(value)[:5000]) for name, value in about.settings.items()]
        for at in range(0, len(params), AT_ONCE):
            client.log_batch(run, params=params[at : at + AT_ONCE])
        return Logged(client, run)


class Logged:
    def __init__(self, client, run: str) -> None:
        self.client, self.run = client, run

    def log(self, step: int, figures: Figures) -> None:
        from mlflow.entities import Metric  # pyright: ignore[reportMissingImports] - an extra

        now = int(time.time() * 1000)
        self.client.log_batch(self.run, [Metric(ODD.sub("_", name), v, now, step) for name, v in figures.items()])

    def close(self, ending: str) -> None:
        self.client.set_terminated(self.run, STATUS[ending])
