"""What the aggregator runs: federated averaging, weighted by rows, evaluated once at the end."""

from collections.abc import Iterable

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from breast_cancer_fl import task

MODEL = "model.npz"

app = ServerApp()


class LastRoundEvaluation(FedAvg):
    """FedAvg that evaluates after the last round only: the rounds before cost one phase instead of two."""

    def __init__(self, rounds: int, nodes: int) -> None:
        super().__init__(min_train_nodes=nodes, min_evaluate_nodes=nodes, min_available_nodes=nodes)
        self.rounds = rounds

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return no messages before the last round."""
        if server_round < self.rounds:
            return []
        return super().configure_evaluate(server_round, arrays, config, grid)


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train, and save weights and bias as `model.npz`.

    Raises:
        RuntimeError: No site sent a model.
    """
    rounds = int(context.run_config["num-server-rounds"])
    strategy = LastRoundEvaluation(rounds, int(context.run_config["minimum-nodes"]))
    result = strategy.start(
        grid=grid, initial_arrays=ArrayRecord(list(task.first_model())), num_rounds=rounds
    )
    if not result.arrays:
        raise RuntimeError("no site sent a model")
    weights, bias = result.arrays.to_numpy_ndarrays()
    np.savez(MODEL, weights=weights, bias=bias, features=np.array(list(task.SCALES)))
