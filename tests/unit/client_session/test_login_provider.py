"""Login by a provider, as the device sees it: what is shown, how often it asks, and when it gives up."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from mesh.identity.v1 import identity_pb2 as pb
from mesh.identity.v1 import identity_service_pb2 as rpc
from syftmesh_client.login_provider import AWAY_S, LONGEST_S, ProviderPrompt, is_web_page, login_by_provider
from syftmesh_core.errors import (
    DeadlineExceeded,
    IntegrityFailure,
    MeshError,
    NotFound,
    Unauthenticated,
    Unavailable,
)

ALICE = "alice@x.example"
PAGE = "https://sso.example/device"
DONE = rpc.FinishDeviceLoginResponse(
    principal=ALICE, tokens=pb.TokenPair(access_token="access", refresh_token="refresh")
)


def started(**changed: Any) -> rpc.StartDeviceLoginResponse:
    values: dict[str, Any] = {
        "verification_uri": PAGE,
        "verification_uri_complete": f"{PAGE}?user_code=WDJB-MJHT",
        "user_code": "WDJB-MJHT",
        "login_secret": "sml1.secret",
        "interval_seconds": 5,
        "expires_at": Timestamp(seconds=1_800_000_600, nanos=7_000_000),
    }
    return rpc.StartDeviceLoginResponse(**{**values, **changed})


def pending(interval_seconds: int) -> rpc.FinishDeviceLoginResponse:
    return rpc.FinishDeviceLoginResponse(pending=True, interval_seconds=interval_seconds)


@dataclass
class Hub:
    """Gives the answers in turn, the last one again and again; counts what is asked and slept."""

    answers: list[Any]
    start: Any = field(default_factory=started)
    asked: list[Any] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)
    shown: list[ProviderPrompt] = field(default_factory=list)

    async def StartDeviceLogin(self, request: Any, timeout: float) -> Any:  # noqa: N802, ASYNC109
        self.asked.append(request)
        if isinstance(self.start, Exception):
            raise self.start
        return self.start

    async def FinishDeviceLogin(self, request: Any, timeout: float) -> Any:  # noqa: N802, ASYNC109
        assert request.login_secret == "sml1.secret"
        assert len(self.slept) > 0
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    async def login(self) -> tuple[str, pb.TokenPair]:
        return await login_by_provider(
            self,  # type: ignore[arg-type]
            "sso",
            "dev-1",
            "profile",
            self.shown.append,
            self.sleep,
            principal=ALICE,
        )


def away(**metadata: str) -> Unavailable:
    return Unavailable("away", reason="PROVIDER_AWAY", metadata=metadata)


async def test_a_person_is_shown_the_page_once_and_the_device_gets_its_tokens() -> None:
    hub = Hub([pending(5), pending(5), DONE])
    assert await hub.login() == (ALICE, DONE.tokens)
    assert hub.asked == [
        rpc.StartDeviceLoginRequest(provider="sso", device_id="dev-1", label="profile", principal=ALICE)
    ]
    assert hub.shown == [ProviderPrompt(PAGE, f"{PAGE}?user_code=WDJB-MJHT", "WDJB-MJHT", 1_800_000_600_007)]
    assert hub.slept == [5, 5, 5]
    assert "WDJB" not in repr(hub.shown[0])


async def test_it_asks_no_sooner_than_the_hub_says_also_when_that_changes() -> None:
    hub = Hub([pending(10), pending(10), pending(15), DONE])
    await hub.login()
    assert hub.slept == [5, 10, 10, 15]


@pytest.mark.parametrize(("said", "waited"), [(0, 1.0), (4_000_000_000, 60.0)])
async def test_an_interval_without_sense_is_brought_to_one_with(said: int, waited: float) -> None:
    hub = Hub([DONE], start=started(interval_seconds=said))
    await hub.login()
    assert hub.slept == [waited]


async def test_a_login_that_nobody_confirms_ends() -> None:
    hub = Hub([pending(60)])
    with pytest.raises(Unauthenticated) as caught:
        await hub.login()
    assert caught.value.reason == "LOGIN_INVALID"
    assert LONGEST_S <= sum(hub.slept) <= LONGEST_S + 60


@pytest.mark.parametrize(
    "error", [Unauthenticated("refused", reason="LOGIN_INVALID"), NotFound("x", reason="DEVICE_UNKNOWN")]
)
async def test_what_the_hub_refuses_is_not_asked_again(error: MeshError) -> None:
    hub = Hub([pending(5), error])
    with pytest.raises(type(error)):
        await hub.login()
    assert hub.slept == [5, 5]


async def test_an_unknown_provider_is_shown_to_nobody() -> None:
    hub = Hub([DONE], start=NotFound("none", reason="PROVIDER_UNKNOWN"))
    with pytest.raises(NotFound):
        await hub.login()
    assert (hub.shown, hub.slept) == ([], [])


async def test_a_hub_that_restarts_in_between_is_waited_for() -> None:
    hub = Hub([away(), DeadlineExceeded("slow"), pending(5), away(retry_after_ms="20000"), DONE])
    assert (await hub.login())[0] == ALICE
    assert hub.slept == [5, 7.5, 11.25, 5, 20]


async def test_a_hub_that_stays_away_is_given_up() -> None:
    hub = Hub([away(retry_after_ms="rubbish")])
    with pytest.raises(Unavailable):
        await hub.login()
    assert AWAY_S <= sum(hub.slept) < 2 * AWAY_S


@pytest.mark.parametrize(
    "changed",
    [
        {"verification_uri": ""},
        {"verification_uri": "javascript:alert(1)"},
        {"verification_uri": "http://sso.example/device"},
        {"verification_uri": "file:///etc/passwd"},
        {"verification_uri": "https://sso.example@evil.example/"},
        {"verification_uri": "https://sso.example/\x1b[2J"},
        {"verification_uri": "https://sso.example/a b"},
        {"verification_uri": "https://" + "a" * 3000},
        {"verification_uri": "https://[::1"},
        {"verification_uri_complete": "data:text/html,x"},
        {"user_code": ""},
        {"user_code": "A" * 65},
        {"user_code": "AB\x1b]0;x\x07"},
        {"user_code": "АВСD"},  # noqa: RUF001 - look-alikes are the point
        {"login_secret": ""},
    ],
)
async def test_what_could_harm_a_terminal_or_browser_is_shown_to_nobody(changed: dict[str, str]) -> None:
    hub = Hub([DONE], start=started(**changed))
    with pytest.raises(IntegrityFailure) as caught:
        await hub.login()
    assert caught.value.reason == "ANSWER_INVALID"
    assert caught.value.message.isprintable()
    assert hub.shown == []


def test_a_page_on_this_machine_needs_no_tls() -> None:
    assert is_web_page("http://127.0.0.1:8900/device")
    assert is_web_page("http://[::1]:8900/device")
    assert not is_web_page("http://127.0.0.1.evil.example/device")


@pytest.mark.parametrize(
    "answer",
    [
        rpc.FinishDeviceLoginResponse(tokens=DONE.tokens),
        rpc.FinishDeviceLoginResponse(principal="Alice", tokens=DONE.tokens),
        rpc.FinishDeviceLoginResponse(principal=ALICE),
    ],
)
async def test_an_end_without_a_person_or_tokens_is_no_login(answer: Any) -> None:
    hub = Hub([answer])
    with pytest.raises(IntegrityFailure) as caught:
        await hub.login()
    assert caught.value.reason == "ANSWER_INVALID"


async def test_a_login_that_is_cancelled_asks_no_more() -> None:
    hub = Hub([pending(5)])
    asleep = asyncio.Event()

    async def sleep(seconds: float) -> None:
        asleep.set()
        await asyncio.Event().wait()

    login = asyncio.ensure_future(
        login_by_provider(
            hub,  # type: ignore[arg-type]
            "sso",
            "dev-1",
            "profile",
            hub.shown.append,
            sleep,
            principal=ALICE,
        )
    )
    await asleep.wait()
    login.cancel()
    with pytest.raises(asyncio.CancelledError):
        await login
    assert len(hub.asked) == 1
