"""A client as Flower's templates wrote them before message-based apps."""

import numpy as np
from flwr.client import ClientApp, NumPyClient
from flwr.common import Context

TRUE_WEIGHTS = np.array([2.0, -1.0])


def load_data(partition: int) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(partition).normal(size=(20 + 10 * partition, 2))
    return x, x @ TRUE_WEIGHTS + 0.5


class LineClient(NumPyClient):
    def __init__(self, partition: int, rate: float) -> None:
        self.x, self.y = load_data(partition)
        self.rate = rate

    def get_parameters(self, config):
        return [np.zeros(2), np.zeros(1)]

    def fit(self, parameters, config):
        weights, bias = parameters
        for _ in range(config["local_steps"]):
            error = self.x @ weights + bias - self.y
            weights = weights - self.rate * self.x.T @ error / len(self.y)
            bias = bias - self.rate * error.mean()
        return [weights, bias], len(self.y), {"train_loss": float((error**2).mean()), "is_done": False}

    def evaluate(self, parameters, config):
        weights, bias = parameters
        error = self.x @ weights + bias - self.y
        return float((error**2).mean()), len(self.y), {"max_error": float(np.abs(error).max())}


def client_fn(context: Context):
    return LineClient(
        int(context.node_config["partition-id"]), float(context.run_config["learning-rate"])
    ).to_client()


app = ClientApp(client_fn=client_fn)
