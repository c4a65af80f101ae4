"""Flower's own hooks, filled by ours: who an account is, and who belongs to a run.

Imported in the SuperLink's process only. The hooks are internals of Flower 1.41.0, which is pinned.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from flwr.common.constant import ACCESS_TOKEN_KEY, SUPERLINK_NODE_ID
from flwr.supercore.auth.typing import AccountInfo
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.superlink.auth_plugin import ControlAuthnPlugin
from flwr.superlink.federation import FederationManager

PREFIX: Final = "@run/"
_NAME: Final = re.compile(r"@run/([0-9a-f]{32})")


class SecretAuthn(ControlAuthnPlugin):
    """Takes the hub's word on who asks: a bearer ``<secret>.<base64url principal>``."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def validate_tokens_in_metadata(
        self, metadata: Sequence[tuple[str, str | bytes]]
    ) -> tuple[bool, AccountInfo | None]:
        """Return whether the hub asks, and for whom."""
        tokens = [value for key, value in metadata if key == ACCESS_TOKEN_KEY]
        if len(tokens) != 1 or not isinstance(tokens[0], str):
            return False, None
        secret, _, encoded = tokens[0].partition(".")
        if not hmac.compare_digest(secret.encode(), self._secret.encode()):
            return False, None
        try:
            name = base64.urlsafe_b64decode(encoded.encode()).decode()
        except (binascii.Error, ValueError):
            return False, None
        return bool(name), AccountInfo(flwr_aid=name, account_name=name)

    def get_login_details(self) -> None:
        """Give nothing: nobody logs in here."""

    def get_auth_tokens(self, device_code: str) -> None:
        """Give nothing: nobody logs in here."""

    def refresh_tokens(self, metadata: Sequence[tuple[str, str | bytes]]) -> tuple[None, None]:  # noqa: ARG002
        """Give nothing: nobody logs in here."""
        return None, None


class RunFederations(FederationManager):
    """One federation a run: its owner is the aggregator, its nodes are those that the hub wrote down."""

    def __init__(self, members: Path) -> None:
        self._members = members

    def exists(self, federation_id: str) -> bool:
        """Return whether the hub made it."""
        return self._read(federation_id) is not None

    def has_member(self, flwr_aid: str, federation_id: str) -> bool:
        """Return whether the account is its owner."""
        found = self._read(federation_id)
        return found is not None and bool(flwr_aid) and found["account"] == flwr_aid

    def filter_nodes(self, node_ids: set[int], federation_id: str) -> set[int]:
        """Return the nodes that belong to it, and the SuperLink itself."""
        found = self._read(federation_id)
        allowed = {SUPERLINK_NODE_ID, *(found["nodes"] if found is not None else ())}
        return node_ids & allowed

    def has_node(self, node_id: int, federation_id: str) -> bool:
        """Return whether a node belongs to it."""
        return node_id in self.filter_nodes({node_id}, federation_id)

    def ensure_default_federations_exist(self, flwr_aid: str) -> None:
        """Do nothing: there are none."""

    def get_federations(self, flwr_aid: str) -> list[Any]:  # noqa: ARG002
        """Return none: runs are found by the hub."""
        return []

    def get_simulation_config(self, federation_id: str) -> None:
        """Return none: nothing is simulated here."""

    def report_run_usage(self) -> None:
        """Do nothing: the hub looks for itself."""

    def can_execute(self, flwr_aid: str, action: Any, context: Any) -> None:
        """Allow: the hub asked, and it has checked."""

    def get_details(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse."""
        raise _unsupported()

    set_simulation_config = get_details
    set_icon_key = get_details
    create_federation = get_details
    archive_federation = get_details
    add_supernode = get_details
    remove_supernode = get_details
    remove_account = get_details
    create_invitation = get_details
    list_invitations = get_details
    accept_invitation = get_details
    reject_invitation = get_details
    revoke_invitation = get_details

    def _read(self, federation_id: str) -> dict[str, Any] | None:
        name = _NAME.fullmatch(federation_id)
        if name is None:
            return None
        try:
            found: dict[str, Any] = json.loads((self._members / f"{name[1]}.json").read_bytes())
        except (OSError, ValueError):
            return None
        return found


def _unsupported() -> FlowerError:
    return FlowerError(
        ApiErrorCode.NO_FEDERATION_MANAGEMENT_SUPPORT, "Federations are made by the hub, one for each run."
    )
