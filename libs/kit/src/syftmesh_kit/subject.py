"""Every stream, subject and key-value bucket of the product, in one place.

Identities enter a subject or key only as `syftmesh_core.text.safe_token`, so that dots and wildcards of an
e-mail never do. Declarations (limits, retention) are in `topology.py`; architecture.md lists owners.
"""

from __future__ import annotations

from typing import Final

from syftmesh_core.text import safe_token

# Streams
FILES: Final = "FILES"
CALLS: Final = "CALLS"
REPLIES: Final = "REPLIES"
DEAD: Final = "DEAD"
KEYLOG: Final = "KEYLOG"

# Key-value buckets of identity
KV_IDENTITY_KEYS: Final = "identity_keys"
KV_IDENTITY_REVOKED: Final = "identity_revoked"
KV_IDENTITY_SIGNING: Final = "identity_signing"
KV_IDENTITY_PRINCIPAL: Final = "identity_principal"
KV_IDENTITY_DEVICE: Final = "identity_device"
KV_IDENTITY_CODE: Final = "identity_code"
KV_IDENTITY_LOGIN: Final = "identity_login"
KV_IDENTITY_REFRESH: Final = "identity_refresh"
KV_IDENTITY_GROUP: Final = "identity_group"
KV_IDENTITY_JOIN: Final = "identity_join"
KV_IDENTITY_SITE: Final = "identity_site"
KV_IDENTITY_LIMIT: Final = "identity_limit"

# Key-value buckets of the key directory
KV_CRYPTO_DEVICE: Final = "crypto_device"
KV_CRYPTO_PREKEY: Final = "crypto_prekey"
KV_CRYPTO_HEAD: Final = "crypto_head"

# Key-value buckets of the other services
KV_CALL: Final = "call"
KV_LEASE: Final = "lease"
KV_RUNS: Final = "runs"
KV_SYNC_OPERATION: Final = "sync_operation"
KV_SYNC_SITE: Final = "sync_site"
KV_JOURNAL: Final = "journal"


def files(site: str, path_hash: str) -> str:
    """Return the subject of the newest record of one path; `site` an e-mail, `path_hash` lower-case hex."""
    return f"files.{safe_token(site)}.{path_hash}"


def calls(site: str, sender: str) -> str:
    """Return the subject of stored calls to `site` from `sender` (both e-mails)."""
    return f"calls.{safe_token(site)}.{safe_token(sender)}"


def calls_to(site: str) -> str:
    """Return the filter for every stored call to `site`."""
    return f"calls.{safe_token(site)}.*"


def replies(caller: str, call_id: str) -> str:
    """Return the subject of the reply to one call of `caller` (an e-mail)."""
    return f"replies.{safe_token(caller)}.{safe_token(call_id)}"


def dead(site: str, call_id: str) -> str:
    """Return the subject under which a call to `site` that cannot be delivered is kept."""
    return f"dead.{safe_token(site)}.{safe_token(call_id)}"


def dead_of(site: str) -> str:
    """Return the filter for every dead letter of `site`."""
    return f"dead.{safe_token(site)}.*"


def keylog(principal: str) -> str:
    """Return the subject of the key log entries of `principal` (an e-mail)."""
    return f"keylog.{safe_token(principal)}"


def events(site: str, app: str, topic: str) -> str:
    """Return the subject of events (not stored) of one topic of an app."""
    return f"events.{safe_token(site)}.{safe_token(app)}.{safe_token(topic)}"


def deliver(router_id: str) -> str:
    """Return the subject on which one router replica takes calls for the sites it holds the lease of."""
    return f"rpc.deliver.{safe_token(router_id)}"


def kv_key(*parts: str) -> str:
    """Return a key whose parts may be any text: each becomes one safe token, joined by dots.

    Raises:
        ValueError: No part, or an empty one, which would make a key that cannot be told from another.
    """
    if not parts or not all(parts):
        raise ValueError("a key needs at least one part and no empty part")
    return ".".join(safe_token(part) for part in parts)
