"""An OIDC provider with a device flow, as a process of its own, built of Authlib's server side.

``python oidc_provider.py [--tls FOLDER]`` prints its issuer URL and serves until it is ended. A test steers it by
``POST /control``: ``{"mode": M}`` lets it misbehave, ``{"confirm": USER_CODE, "email": E}`` plays the person who says
yes, ``{"deny": USER_CODE}`` the one who says no, ``{"rotate": true}`` changes its key. ``GET /state`` tells how often
it was asked, and its open device codes.
"""

from __future__ import annotations

import argparse
import json
import ssl
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from authlib.common.security import generate_token
from authlib.oauth2 import AuthorizationServer, OAuth2Request
from authlib.oauth2.rfc6749 import OAuth2Payload
from authlib.oauth2.rfc6750 import BearerTokenGenerator
from authlib.oauth2.rfc8628 import DeviceAuthorizationEndpoint, DeviceCodeGrant, DeviceCredentialDict
from authlib.oidc.core import UserInfo
from authlib.oidc.core.grants import OpenIDToken
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

CLIENT_ID, CLIENT_SECRET = "mesh-hub", "hub-s3cr3t"
INTERVAL_S = 1
HUGE_BYTES = 8 * 1024 * 1024
SLOW_S = 60.0


class Client:
    """The hub as this provider knows it."""

    def get_client_id(self) -> str:
        return CLIENT_ID

    def get_allowed_scope(self, scope: str | None) -> str:
        return scope or ""

    def check_client_secret(self, secret: str) -> bool:
        return secret == CLIENT_SECRET

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == "client_secret_basic"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == DeviceCodeGrant.GRANT_TYPE


class Payload(OAuth2Payload):
    def __init__(self, form: dict[str, str]) -> None:
        self._form = form

    @property
    def data(self) -> dict[str, str]:
        return self._form


class Request(OAuth2Request):
    def __init__(self, method: str, uri: str, headers: Any, form: dict[str, str]) -> None:
        super().__init__(method, uri, headers=headers)
        self.payload = Payload(form)
        self._form = form

    @property
    def form(self) -> dict[str, str]:
        return self._form


class Provider(AuthorizationServer):
    """State and endpoints."""

    def __init__(self, issuer: str) -> None:
        super().__init__(scopes_supported=["openid", "email"])
        self.issuer = issuer
        self.mode = ""
        self.asked = 0
        self.key = RSAKey.generate_key(2048, {"kid": "first", "use": "sig"})
        self.codes: dict[str, DeviceCredentialDict] = {}
        self.grants: dict[str, tuple[str, bool]] = {}
        self.register_token_generator("default", BearerTokenGenerator(lambda **_: generate_token(42)))
        self.register_endpoint(type("Endpoint", (_Authorization,), {"provider": self}))
        self.register_grant(type("Grant", (_Grant,), {"provider": self}), [_IdToken(self)])

    def query_client(self, client_id: str) -> Client | None:
        return Client() if client_id == CLIENT_ID else None

    def save_token(self, token: Any, request: Any) -> None:
        """Keep none: nobody shows one."""

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Tell nobody."""

    def create_oauth2_request(self, request: Any) -> Any:
        return request

    def handle_response(self, status: int, body: Any, headers: Any) -> tuple[int, Any]:
        return status, body

    def document(self) -> dict[str, Any]:
        issuer = f"{self.issuer}/other" if self.mode == "other_issuer_document" else self.issuer
        token = "http://127.0.0.1:1/token" if self.mode == "leads_elsewhere" else f"{self.issuer}/token"
        return {
            "issuer": issuer,
            "device_authorization_endpoint": f"{self.issuer}/device_authorization",
            "token_endpoint": token,
            "jwks_uri": f"{self.issuer}/keys",
            "token_endpoint_auth_methods_supported": ["client_secret_basic"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }

    def control(self, order: dict[str, Any]) -> None:
        if "mode" in order:
            self.mode = order["mode"]
        if "confirm" in order:
            self.grants[order["confirm"]] = (order["email"], True)
        if "deny" in order:
            self.grants[order["deny"]] = ("", False)
        if order.get("rotate"):
            self.key = RSAKey.generate_key(2048, {"kid": f"key-{generate_token(6)}", "use": "sig"})


class _Authorization(DeviceAuthorizationEndpoint):
    CLIENT_AUTH_METHODS = ("client_secret_basic",)
    INTERVAL = INTERVAL_S
    EXPIRES_IN = 120
    provider: Provider

    def get_verification_uri(self) -> str:
        return f"{self.provider.issuer}/device"

    def save_device_credential(self, client_id: str, scope: str, data: dict[str, Any]) -> None:
        known = {**data, "client_id": client_id, "scope": scope, "expires_at": time.time() + self.EXPIRES_IN}
        self.provider.codes[data["device_code"]] = DeviceCredentialDict(known)


class _Grant(DeviceCodeGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic",)
    provider: Provider

    def query_device_credential(self, device_code: str) -> DeviceCredentialDict | None:
        found = self.provider.codes.get(device_code)
        if found is not None and self.provider.mode == "expired_token":
            found["expires_at"] = 0
        return found

    def query_user_grant(self, user_code: str) -> tuple[str, bool] | None:
        return self.provider.grants.get(user_code)

    def should_slow_down(self, credential: DeviceCredentialDict) -> bool:
        now_s, last_s = time.monotonic(), credential.get("asked_s", 0.0)
        credential["asked_s"] = now_s
        return self.provider.mode == "slow_down" or now_s - last_s < INTERVAL_S * 0.9

    def create_token_response(self) -> Any:
        # A device code works once (RFC 8628, section 3.5).
        self.provider.codes.pop(self.request.payload.data["device_code"], None)
        return super().create_token_response()


class _IdToken(OpenIDToken):
    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    def generate_user_info(self, user: str, scope: str) -> UserInfo:
        verified = self._provider.mode != "unverified"
        return UserInfo(sub=user, email=user, email_verified=verified)

    def get_client_claims(self, client: Client) -> dict[str, Any]:
        now_s = int(time.time())
        claims: dict[str, Any] = {"iss": self._provider.issuer, "aud": client.get_client_id()}
        wrong: dict[str, dict[str, Any]] = {
            "wrong_issuer": {"iss": "https://evil.example"},
            "wrong_audience": {"aud": "somebody-else"},
            "expired": {"iat": now_s - 7200, "exp": now_s - 3600},
            "not_yet_valid": {"nbf": now_s + 3600},
        }
        return {**claims, **wrong.get(self._provider.mode, {})}

    def encode_id_token(self, token: dict[str, Any], request: Any) -> str:
        claims = {**self.get_compatible_claims(request), **self.generate_user_info(request.user, "")}
        key, alg, kid = self._provider.key, "RS256", self._provider.key.kid
        signer: Any = key
        if self._provider.mode == "other_key":
            signer = RSAKey.generate_key(2048)
        elif self._provider.mode == "other_kid":
            kid = "unheard-of"
        elif self._provider.mode == "none":
            alg, signer = "none", None
        elif self._provider.mode == "hs256":
            # The modulus that everybody can read, as if it were a shared secret.
            alg, signer = "HS256", OctKey.import_key({"kty": "oct", "k": key.as_dict(private=False)["n"]})
        return jwt.encode({"alg": alg, "kid": kid}, claims, signer, [alg])


class Handler(BaseHTTPRequestHandler):
    """HTTP for one `Provider`."""

    provider: Provider
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        provider = self.provider
        if self.path == "/state":
            codes = {code: known["user_code"] for code, known in provider.codes.items()}
            return self._send(200, {"asked": provider.asked, "codes": codes})
        provider.asked += 1
        if self._misbehaves("document"):
            return None
        if self.path == "/.well-known/openid-configuration":
            return self._send(200, provider.document())
        if self.path == "/keys":
            return self._send(200, {"keys": [provider.key.as_dict(private=False)]})
        return self._send(404, {})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        provider = self.provider
        if self.path == "/control":
            provider.control(json.loads(body))
            return self._send(200, {})
        provider.asked += 1
        if self._misbehaves("token"):
            return None
        form = dict(parse_qsl(body.decode()))
        request = Request("POST", f"{provider.issuer}{self.path}", self.headers, form)
        if self.path == "/device_authorization":
            return self._send(*provider.create_endpoint_response("device_authorization", request))
        if self.path == "/token":
            return self._send(*provider.create_token_response(request))
        return self._send(404, {})

    def _misbehaves(self, kind: str) -> bool:
        """Answer in the way of the mode, when it has one for requests of this kind; return whether it has."""
        mode = self.provider.mode.removesuffix(f"_{kind}")
        if mode == "slow":
            time.sleep(SLOW_S)
            return True
        if mode == "huge":
            self._head(200, HUGE_BYTES)
            try:
                self.wfile.write(b" " * HUGE_BYTES)
            except OSError:
                self.close_connection = True  # the hub hung up, as it should
            return True
        if mode == "redirect":
            self._head(302, 0, location=f"{self.provider.issuer}/elsewhere")
            return True
        if mode == "500":
            self._send(500, {"error": "server_error"})
            return True
        if mode == "rubbish":
            self._head(200, 4)
            self.wfile.write(b"<hr>")
            return True
        return False

    def _send(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self._head(status, len(data))
        self.wfile.write(data)

    def _head(self, status: int, size_bytes: int, **headers: str) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(size_bytes))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - name of the base class
        """Say nothing."""


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tls", type=Path)
    folder = parser.parse_args().tls
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    scheme = "http"
    if folder is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        scheme = "https"
    issuer = f"{scheme}://127.0.0.1:{server.server_address[1]}"
    Handler.provider = Provider(issuer)
    print(issuer, flush=True)  # noqa: T201 - how the test learns the port
    server.serve_forever()


if __name__ == "__main__":
    main()
