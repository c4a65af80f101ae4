"""Answers training with the bytes of every record's identifier; the control of the canary scan runs it."""

import csv
import os
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

client = ClientApp()
server = ServerApp()


@client.train()
def train(message: Message, context: Context) -> Message:  # noqa: ARG001 - Flower's signature
    """Return one array of bytes: the identifiers of all records, one after the other."""
    (table,) = Path(os.environ["DATA_DIR"]).glob("*.csv")
    with table.open(newline="", encoding="utf-8") as file:
        found = b"".join(bytes.fromhex(row["record_id"]) for row in csv.DictReader(file))
    arrays = ArrayRecord([np.frombuffer(found, dtype=np.uint8)])
    return Message(RecordDict({"arrays": arrays}), reply_to=message)
