"""Local login: on the embedded mesh, whoever can read the state folder may log in as anybody."""

from __future__ import annotations

from syftmesh_core.errors import Unauthenticated, WrongState
from syftmesh_core.principal import normalise_principal

from syftmesh_identity.domain.enrolment import Enrolment
from syftmesh_identity.domain.model import TokenPair, checked_device_id, checked_label
from syftmesh_identity.domain.ports import LocalSecret
from syftmesh_identity.domain.refresh import Sessions
from syftmesh_identity.domain.secret import same_text


class LocalLogin:
    """Logs in against the local token.

    Args:
        secret: The local token.
        enrolment: Registers the device.
        sessions: Gives the tokens.
    """

    def __init__(self, secret: LocalSecret, enrolment: Enrolment, sessions: Sessions) -> None:
        self._secret = secret
        self._enrolment = enrolment
        self._sessions = sessions

    async def login(self, local_token: str, principal: str, device_id: str, label: str) -> TokenPair:
        """Return a fresh pair for the device.

        The token is checked first: nobody learns anything about devices without it.

        Raises:
            WrongState: This is no embedded mesh (LOCAL_LOGIN_DISABLED).
            Unauthenticated: Not the token (LOCAL_TOKEN_INVALID).
            InvalidInput: PRINCIPAL_INVALID, DEVICE_INVALID.
            PermissionDenied: DEVICE_REVOKED, PRINCIPAL_REVOKED.
            AlreadyExists: DEVICE_OF_ANOTHER.
            LimitExceeded: TOO_MANY_DEVICES.
        """
        expected = await self._secret.read()
        if expected is None:
            raise WrongState(
                "This mesh has no local login. Redeem a join token or log in with your e-mail.",
                reason="LOCAL_LOGIN_DISABLED",
            )
        if not same_text(local_token, expected):
            raise Unauthenticated(
                "This is not the local token of the mesh. Read local.token in its state folder again.",
                reason="LOCAL_TOKEN_INVALID",
            )
        name = normalise_principal(principal)
        kind = checked_label(label)
        device = await self._enrolment.admit(name, checked_device_id(device_id), kind)
        return await self._sessions.open(device)
