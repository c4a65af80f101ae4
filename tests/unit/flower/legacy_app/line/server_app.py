"""A server as Flower's templates wrote them before message-based apps."""

import numpy as np
from flwr.common import Context, ndarrays_to_parameters
from flwr.server import ServerApp, ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg


def weighted(metrics):
    total = sum(count for count, _ in metrics)
    return {name: sum(count * m[name] for count, m in metrics) / total for name in metrics[0][1]}


def evaluate_fn(server_round, parameters, config):
    weights, bias = parameters
    return np.float64(np.abs(weights - [2.0, -1.0]).sum()), {"bias": bias[0]}


def make_strategy(context: Context) -> FedAvg:
    initial = ndarrays_to_parameters([np.zeros(2), np.zeros(1)]) if context.run_config["initial"] else None
    return FedAvg(
        min_available_clients=2,
        initial_parameters=initial,
        on_fit_config_fn=lambda server_round: {"local_steps": 5, "server_round": server_round},
        fit_metrics_aggregation_fn=weighted,
        evaluate_metrics_aggregation_fn=weighted,
        evaluate_fn=evaluate_fn,
    )


def server_fn(context: Context):
    config = ServerConfig(num_rounds=int(context.run_config["num-server-rounds"]))
    return ServerAppComponents(strategy=make_strategy(context), config=config)


app = ServerApp(server_fn=server_fn)
