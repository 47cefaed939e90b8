"""A search and a training in MLflow: a run for each, one within it for every trial, the page, what was found.

pip install 'facenas[mlflow]'; python examples/07_mlflow.py

Without MLFLOW_TRACKING_URI all is kept in mlflow.db and mlruns/ of this folder; `mlflow ui`, of mlflow itself,
shows it.
"""

import mlflow

import facenas


def numbers(values):
    """Those that MLflow takes as metrics."""
    return {name: value for name, value in values.items() if isinstance(value, int | float)}


def settings(tree, prefix=""):
    """All settings by their dotted keys."""
    for key, value in tree.items():
        yield from settings(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]


class Tracker(facenas.Callback):
    """From Python an object; in YAML, or by --set, `callbacks=module:Tracker`."""

    def on_begin(self, run, work):
        """A search that is resumed goes on in the MLflow run that it began."""
        mlflow.set_experiment("facenas")
        tag = f"{run.name} {work} {run.about['created']}"
        known = mlflow.search_runs(filter_string=f"tags.facenas = '{tag}'", output_format="list")
        if known:
            mlflow.start_run(known[0].info.run_id)
        else:
            mlflow.start_run(run_name=f"{run.name}: {work}", tags={"facenas": tag})
            mlflow.log_params(dict(settings(run.config.model_dump(mode="json"))))

    def on_decision(self, trial, candidate, result, decision, note):
        """A step of the search, and a run of its own within it."""
        mlflow.log_metrics({"accuracy": result.accuracy, **result.values}, step=trial)
        what = {"network": candidate.architecture.summary(), "epochs": candidate.budget.epochs}
        with mlflow.start_run(run_name=f"trial {trial}", tags={"decision": decision}, nested=True):
            mlflow.log_params({"phase": candidate.phase, "status": result.status, **what})
            for epoch in result.history:
                mlflow.log_metrics(numbers(epoch), step=epoch["epoch"])

    def on_epoch(self, key, metrics):
        """Of the full training; those of trials are in `result.history`."""
        if key == "final":
            mlflow.log_metrics(numbers(metrics), step=metrics["epoch"])

    def on_end(self, result):
        """The page and all that is known of the network; a work that was interrupted has no result."""
        if result is not None:
            mlflow.log_metrics({f"result/{name}": value for name, value in numbers(result.details).items()})
            mlflow.log_dict(result.details, "result.json")
            if result.report:
                mlflow.log_artifact(result.report)
        mlflow.end_run("FINISHED" if result else "KILLED")


brief = {"search.min_epochs": 1, "search.micro": False, "space.max_depth": 4, "space.min_width": 12}
found = facenas.search(
    "demo-digits", settings=brief, executor="serial", max_trials=1, callbacks=[Tracker()], run="runs/tracked"
)
found = facenas.resume(found.run, callbacks=[Tracker()])  # nothing is tracked twice
trained = facenas.train(found, epochs=2, callbacks=[Tracker()])
for run in mlflow.search_runs(order_by=["start_time"], output_format="list"):
    print(run.info.run_name, run.info.status, run.data.metrics.get("accuracy"))
