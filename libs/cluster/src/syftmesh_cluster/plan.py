"""What `bootstrap` has to make: a document in JSON or YAML, rendered by the chart into a ConfigMap.

```json
{
  "ca": {"secret": "mesh-ca", "days": 3650},
  "days": 365,
  "leaves": [{"secret": "mesh-tls-sync", "names": ["sync", "mesh-sync", "mesh-sync.hub.svc", "localhost"]},
             {"secret": "mesh-hub-tls", "names": ["hub.example.org", "127.0.0.1"], "client": false}],
  "nats": {"secret": "mesh-nats-server", "users": {"sync": "mesh-nats-sync", "tools": "mesh-nats-tools"}},
  "store": {"secret": "mesh-store"},
  "signing_key": {"secret": "mesh-signing-key"}
}
```

A part that is left out or null is provided by others (cert-manager, an existing Secret) and is not looked at.
Passwords of users that an existing Secret holds are used as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from syftmesh_core.errors import InvalidInput

_MAX_BYTES: Final = 1024 * 1024

SecretName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
UserName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,30}$")]
HostName = Annotated[str, Field(pattern=r"^(\*\.)?[A-Za-z0-9]([A-Za-z0-9.:-]{0,251}[A-Za-z0-9])?$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class AuthorityPlan(_Part):
    """The internal authority: Secret with ``ca.crt`` and ``ca.key``."""

    secret: SecretName
    """Name of the Secret."""

    days: int = Field(default=3650, ge=825, le=7300)
    """Days its certificate is valid."""


class LeafPlan(_Part):
    """One certificate: Secret with ``tls.crt``, ``tls.key`` and ``ca.crt``."""

    secret: SecretName
    """Name of the Secret."""

    names: list[HostName] = Field(min_length=1)
    """Subject alternative names: host names and IP addresses. The first is the subject's common name too."""

    client: bool = True
    """Whether it also proves a client; the public certificate of the hub need not."""


class NatsPlan(_Part):
    """Passwords of the bus: one Secret with ``password`` per user, and ``passwords.conf`` for the server."""

    secret: SecretName
    """Name of the Secret with ``passwords.conf``."""

    users: dict[UserName, SecretName] = Field(min_length=1)
    """Name of the Secret of each user."""


class NamedPlan(_Part):
    """A part that is one Secret."""

    secret: SecretName
    """Name of the Secret."""


class Plan(_Part):
    """The whole document; see the module."""

    ca: AuthorityPlan | None = None
    days: int = Field(default=365, ge=90, le=825)
    leaves: list[LeafPlan] = Field(default_factory=list)
    nats: NatsPlan | None = None
    store: NamedPlan | None = None
    signing_key: NamedPlan | None = None

    @model_validator(mode="after")
    def _check(self) -> Plan:
        if self.leaves and self.ca is None:
            raise ValueError("leaves need the part ca, whose key signs them")
        names = self.secrets()
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"Secrets named twice: {', '.join(twice)}")
        return self

    def secrets(self) -> list[str]:
        """Return the names of all Secrets that are read or written."""
        single = [part.secret for part in (self.ca, self.nats, self.store, self.signing_key) if part]
        users = list(self.nats.users.values()) if self.nats else []
        return [*single, *users, *(leaf.secret for leaf in self.leaves)]


def load_plan(path: Path) -> Plan:
    """Return the document in `path`.

    Raises:
        InvalidInput: It cannot be read, or a part of it is wrong; each is named (BOOTSTRAP_PLAN_INVALID).
    """
    try:
        with path.open("rb") as file:
            found = yaml.safe_load(file.read(_MAX_BYTES))
        return Plan.model_validate(found)
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, e['loc'])) or 'document'}: {e['msg']}"
            for e in error.errors(include_input=False)
        ]
        raise _invalid("; ".join(lines)) from None
    except OSError as error:
        raise _invalid(f"the file {path.name} cannot be read ({error.strerror})") from error
    except yaml.YAMLError as error:
        raise _invalid(f"the file {path.name} is neither JSON nor YAML") from error


def _invalid(what: str) -> InvalidInput:
    return InvalidInput(
        f"The document of what to make is not valid: {what}.",
        reason="BOOTSTRAP_PLAN_INVALID",
        metadata={"what": what},
        hint="Look at the ConfigMap of the bootstrap Job; the chart's values make it.",
    )
