"""What a site runs: one training step on its own rows, or the accuracy of the model on those held out."""

from pathlib import Path

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from breast_cancer_fl import task

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answer with the model after the local passes, and how well it fits the rows of this site."""
    rows, _ = task.split(task.read(_folder(context)))
    epochs, rate = int(context.run_config["local-epochs"]), float(context.run_config["learning-rate"])
    model = task.train(_model(message), rows, epochs, rate)
    metrics = {
        "loss": task.loss(model, rows),
        "accuracy": task.accuracy(model, rows),
        "num-examples": len(rows.labels),
    }
    content = {"arrays": ArrayRecord(list(model)), "metrics": MetricRecord(metrics)}
    return Message(RecordDict(content), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Answer with the accuracy of the model on the rows that no training sees."""
    _, rows = task.split(task.read(_folder(context)))
    metrics = {"accuracy": task.accuracy(_model(message), rows), "num-examples": len(rows.labels)}
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)


def _folder(context: Context) -> Path:
    return Path(str(context.node_config["data-dir"]))


def _model(message: Message) -> task.Model:
    return task.Model(*message.content["arrays"].to_numpy_ndarrays())
