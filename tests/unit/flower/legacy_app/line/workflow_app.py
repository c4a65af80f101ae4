"""The same server as a workflow, the form in between."""

from flwr.common import Context
from flwr.server import Grid, LegacyContext, ServerApp, ServerConfig
from flwr.server.workflow import DefaultWorkflow

from line.server_app import make_strategy

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    legacy = LegacyContext(
        context=context,
        config=ServerConfig(num_rounds=int(context.run_config["num-server-rounds"])),
        strategy=make_strategy(context),
    )
    DefaultWorkflow()(grid, legacy)
