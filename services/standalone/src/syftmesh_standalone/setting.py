"""Settings of services that are built in this process: what we say, and the environment for the rest."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import ValidationError
from syftmesh_core.errors import InvalidInput
from syftmesh_kit.settings import ServiceSettings

S = TypeVar("S", bound=ServiceSettings)


def settings_of(cls: type[S], **ours: Any) -> S:
    """Return the settings `cls` with the fields `ours`, the others from ``SYFTMESH_<SERVICE>_<FIELD>``.

    Raises:
        InvalidInput: A variable is wrong (SETTING_INVALID, metadata ``variable``); no value is shown.
    """
    try:
        return cls(**ours)
    except ValidationError as error:
        prefix = str(cls.model_config.get("env_prefix", ""))
        found = {
            f"{prefix}{'_'.join(map(str, problem['loc']))}".upper(): problem["msg"]
            for problem in error.errors(include_input=False)
        }
        raise InvalidInput(
            f"The settings are not valid: {'; '.join(f'{name}: {text}' for name, text in found.items())}.",
            reason="SETTING_INVALID",
            metadata={"variable": ", ".join(found)},
            hint="Set the variables named, or unset them, and start again.",
        ) from None
