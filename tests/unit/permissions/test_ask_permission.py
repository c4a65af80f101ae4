from __future__ import annotations

import asyncio

import pytest
from mesh.common.v1 import common_pb2
from mesh.permissions.v1 import permissions_pb2, permissions_service_pb2
from syftmesh_core.errors import InvalidInput, LimitExceeded, PermissionDenied, Unavailable, WrongState
from syftmesh_core.permission.group import parse_groups
from syftmesh_core.permission.parse import parse_ruleset
from syftmesh_core.permission.ruleset import Level
from syftmesh_core.permission.tree import RuleTree
from syftmesh_kit.caller import Caller, bind_caller
from syftmesh_permissions import convert
from syftmesh_permissions.domain.accessible import ListAccessible
from syftmesh_permissions.domain.batch import AskMany
from syftmesh_permissions.domain.consistency import Token
from syftmesh_permissions.domain.inquiry import Ask, Inquiry
from syftmesh_permissions.domain.reader import ListReaders
from syftmesh_permissions.domain.ruling import Rulings
from syftmesh_permissions.domain.sight import NOT_ALLOWED
from syftmesh_permissions.domain.watch import WatchMany
from syftmesh_permissions.servicer import PermissionServicer

SITE = "alice@site.example"
BOB = "bob@x.example"
CAROL = "carol@x.example"
EVE = "eve@evil.example"
NOW_MS = 1_800_000_000_000

HIDDEN = b"""
rules:
  - pattern: "data/**"
    access: {read: [bob@x.example], admin: [carol@x.example]}
    expires: 2027-02-01T00:00:00Z
"""
SHOWN = b"""
rules:
  - pattern: "**"
    access: {read: ["*"], create: [USER]}
    limits: {maxFileSize: 10}
"""


class Clock:
    def now_ms(self) -> int:
        return NOW_MS

    def monotonic_s(self) -> float:
        return 0.0


class Model:
    """Rules at a point of the log that a test moves."""

    def __init__(self) -> None:
        self.at = Token(3, 10)
        self.trees = {
            SITE: RuleTree.build(
                SITE, [((), parse_ruleset(HIDDEN), 1), (("public",), parse_ruleset(SHOWN), 1)]
            )
        }
        self.loading = False
        self.reaches = 10

    def tree(self, site: str) -> RuleTree:
        if self.loading:
            raise Unavailable("", reason="LOG_LOADING")
        return self.trees.get(site) or RuleTree(site)

    def token(self) -> Token:
        return self.at

    def sites(self) -> list[str]:
        return list(self.trees)

    def below(self, directory: str, after: str) -> list:
        return []

    async def wait_for(self, sequence: int, timeout_s: float) -> bool:
        await asyncio.sleep(0)
        self.at = Token(self.at.epoch, max(self.at.sequence, min(sequence, self.reaches)))
        return self.at.sequence >= sequence


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def ask(model) -> Ask:
    return Ask(model, Clock())


@pytest.fixture
def servicer(ask, model) -> PermissionServicer:
    clock = Clock()
    many = AskMany(Rulings(model, clock, convert.entry), model, clock)
    return PermissionServicer(
        model,
        ask=ask,
        ask_many=many,
        readers=ListReaders(model, clock),
        accessible=ListAccessible(model, model, model, clock),
        watch=WatchMany(many, model, model, clock),
    )


def test_the_owner_has_every_right(ask):
    answer = ask.run(SITE, Inquiry(f"{SITE}/any/where", Level.ADMIN))
    assert (answer.allowed, answer.reason) == (True, "OWNER")


def test_a_reader_is_allowed_and_does_not_learn_the_hidden_rule(ask):
    answer = ask.run(BOB, Inquiry(f"{SITE}/data/x", Level.READ))
    assert (answer.allowed, answer.rule, answer.governing_file) == (True, None, "")


def test_an_admin_learns_the_rule_and_its_line(ask):
    answer = ask.run(CAROL, Inquiry(f"{SITE}/data/x", Level.WRITE))
    assert answer.allowed
    assert (answer.rule.file, answer.rule.line, answer.rule.pattern) == (
        f"{SITE}/syft.pub.yaml",
        3,
        "data/**",
    )


@pytest.mark.parametrize("path", [f"{SITE}/data/x", f"{SITE}/none/x", "nobody@x.example/a", f"{SITE}/data/"])
def test_who_may_not_know_of_a_path_gets_one_answer(ask, path):
    answer = ask.run(EVE, Inquiry(path, Level.READ))
    assert (answer.allowed, answer.reason, answer.rule, answer.governing_file) == (
        False,
        NOT_ALLOWED,
        None,
        "",
    )
    assert answer.needed == "A rule of the owner that grants read on this path."


def test_readable_rules_are_explained(ask):
    answer = ask.run(EVE, Inquiry(f"{SITE}/public/x", Level.WRITE))
    assert (answer.allowed, answer.reason) == (False, "NOT_LISTED")
    assert answer.governing_file == f"{SITE}/public/syft.pub.yaml"
    assert "write" in answer.needed


def test_a_size_above_the_limit_is_denied(ask):
    assert ask.run(EVE, Inquiry(f"{SITE}/public/x", Level.CREATE, size_bytes=10)).allowed
    answer = ask.run(EVE, Inquiry(f"{SITE}/public/x", Level.CREATE, size_bytes=11))
    assert answer.reason == "LIMIT_FILE_SIZE"


def test_a_moment_may_be_given(ask):
    later = Inquiry(f"{SITE}/data/x", Level.READ, requester=BOB, at_ms=NOW_MS + 40 * 86_400_000)
    answer = ask.run(SITE, later)
    assert (answer.allowed, answer.reason) == (False, "EXPIRED")


@pytest.mark.parametrize("requester", [BOB, "guest", ""])
def test_only_an_admin_of_the_path_asks_about_others(ask, requester):
    question = Inquiry(f"{SITE}/data/x", Level.READ, requester=requester)
    for caller in (EVE, "", "guest"):
        if caller != requester:
            with pytest.raises(PermissionDenied):
                ask.run(caller, question)
    assert ask.run(SITE, question).allowed == (requester == BOB)
    assert ask.run(CAROL, question).allowed == (requester == BOB)


def test_an_admin_of_one_directory_is_none_of_another(ask):
    with pytest.raises(PermissionDenied):
        ask.run(CAROL, Inquiry(f"{SITE}/other/x", Level.READ, requester=BOB))


def test_the_moment_of_a_question_gives_no_admin_right_that_has_expired(ask, model):
    expired = HIDDEN.replace(b"2027-02-01", b"2020-02-01")
    model.trees[SITE] = RuleTree.build(SITE, [((), parse_ruleset(expired), 1)])
    with pytest.raises(PermissionDenied):
        ask.run(CAROL, Inquiry(f"{SITE}/data/x", Level.READ, requester=BOB, at_ms=0))


@pytest.mark.parametrize("path", ["", "a", f"{SITE}//x", f"{SITE}/../x", f"{SITE}/x//", f"{SITE}/\u202e"])
def test_a_malformed_path_is_refused(ask, path):
    with pytest.raises(InvalidInput) as refused:
        ask.run(SITE, Inquiry(path, Level.READ))
    assert refused.value.reason == "PATH_INVALID"


def test_a_name_that_looks_like_a_rule_file_is_refused_for_writing(ask):
    with pytest.raises(InvalidInput):
        ask.run(SITE, Inquiry(f"{SITE}/SYFT.PUB.YAML", Level.CREATE))


def test_a_malformed_requester_is_refused(ask):
    with pytest.raises(InvalidInput) as refused:
        ask.run(SITE, Inquiry(f"{SITE}/x", Level.READ, requester="*@x.example"))
    assert refused.value.reason == "PRINCIPAL_INVALID"


def check(caller: str, kind: str = "user", *, at_least=None, **question):
    bind_caller(Caller(caller, "d", "t", kind))
    values = {"path": f"{SITE}/data/x", "level": permissions_pb2.LEVEL_READ} | question
    return permissions_service_pb2.CheckPermissionRequest(
        question=permissions_pb2.Question(**values),
        at_least=None
        if at_least is None
        else common_pb2.ConsistencyToken(epoch=at_least[0], sequence=at_least[1]),
    )


async def checked(servicer, request):
    return permissions_service_pb2.CheckPermissionResponse.FromString(
        await servicer.CheckPermission(request, None)
    )


async def test_every_answer_carries_a_token(servicer):
    reply = await checked(servicer, check(BOB))
    assert reply.decision.allowed
    assert (reply.decision.token.epoch, reply.decision.token.sequence) == (3, 10)


async def test_an_answer_waits_for_the_point_demanded(servicer, model):
    model.reaches = 20
    reply = await checked(servicer, check(BOB, at_least=(3, 12)))
    assert reply.decision.token.sequence == 12


async def test_a_replica_that_is_behind_says_so(servicer):
    with pytest.raises(Unavailable) as behind:
        await checked(servicer, check(BOB, at_least=(3, 11)))
    assert behind.value.reason == "BEHIND"


async def test_a_token_of_another_epoch_is_refused(servicer):
    with pytest.raises(WrongState):
        await checked(servicer, check(BOB, at_least=(2, 1)))


async def test_an_unset_level_is_refused(servicer):
    with pytest.raises(InvalidInput) as refused:
        await checked(servicer, check(BOB, level=0))
    assert refused.value.reason == "LEVEL_INVALID"


async def test_a_moment_outside_of_time_is_refused(servicer):
    with pytest.raises(InvalidInput) as refused:
        await checked(servicer, check(SITE, at_unix_ms=-1))
    assert refused.value.reason == "TIME_INVALID"


async def test_a_service_has_no_rights_of_its_own(servicer):
    reply = await checked(servicer, check(SITE, "service"))
    assert not reply.decision.allowed


async def test_nothing_is_answered_before_the_log_is_read(servicer, model):
    model.loading = True
    with pytest.raises(Unavailable):
        await checked(servicer, check(SITE))


async def test_explain_names_file_line_and_what_is_needed(servicer):
    request = check(CAROL, path=f"{SITE}/public/x", level=permissions_pb2.LEVEL_ADMIN)
    reply = await servicer.ExplainPermission(
        permissions_service_pb2.ExplainPermissionRequest(question=request.question), None
    )
    assert reply.governing_file == f"{SITE}/public/syft.pub.yaml"
    assert reply.decision.rule.line == 3
    assert reply.needed


MATCHES = b"""
rules:
  - pattern: "all/**"
    access: {read: ["*", USER, "*@x.example", "group:team", bob@x.example]}
  - pattern: "users/**"
    access: {read: [USER]}
    deny: ["group:team"]
  - pattern: "limited/**"
    access: {write: ["*@x.example"]}
    limits: {maxFileSize: 1}
"""


@pytest.mark.parametrize(
    ("path", "requester", "level", "matched"),
    [
        ("all/x", BOB, Level.READ, BOB),
        ("all/x", CAROL, Level.READ, "group:team"),
        ("all/x", "dave@x.example", Level.READ, "*@x.example"),
        ("all/x", EVE, Level.READ, "USER"),
        ("all/x", "guest", Level.READ, "*"),
        ("all/x", "", Level.READ, "*"),
        ("all/x", BOB, Level.WRITE, ""),
        ("users/x", EVE, Level.READ, "USER"),
        ("users/x", CAROL, Level.READ, "group:team"),
        ("users/x", "guest", Level.READ, ""),
        ("limited/x", BOB, Level.WRITE, "*@x.example"),
        ("none", BOB, Level.READ, ""),
        ("all/x", SITE, Level.READ, ""),
    ],
)
def test_an_admin_learns_which_entry_named_the_requester(ask, model, path, requester, level, matched):
    groups = parse_groups(f"groups: {{team: [{CAROL}]}}".encode()).resolved
    model.trees[SITE] = RuleTree.build(SITE, [((), parse_ruleset(MATCHES), 1)], groups)
    assert ask.run(SITE, Inquiry(f"{SITE}/{path}", level, requester, size_bytes=2)).matched == matched


def test_whoever_is_no_admin_learns_of_no_entry(ask):
    answer = ask.run(EVE, Inquiry(f"{SITE}/public/x", Level.READ))
    assert (answer.allowed, answer.rule is not None, answer.matched) == (True, True, "")


async def test_a_batch_is_answered_encoded(servicer):
    question = check(BOB).question
    raw = await servicer.BatchCheckPermissions(
        permissions_service_pb2.BatchCheckPermissionsRequest(questions=[question, question]), None
    )
    reply = permissions_service_pb2.BatchCheckPermissionsResponse.FromString(raw)
    assert [decision.allowed for decision in reply.decisions] == [True, True]
    assert (reply.token.epoch, reply.token.sequence) == (3, 10)


async def test_more_questions_than_allowed_are_refused(servicer):
    question = check(BOB).question
    with pytest.raises(LimitExceeded):
        await servicer.BatchCheckPermissions(
            permissions_service_pb2.BatchCheckPermissionsRequest(questions=[question] * 10_001), None
        )
    with pytest.raises(LimitExceeded):
        await anext(
            servicer.WatchPermissions(
                permissions_service_pb2.WatchPermissionsRequest(questions=[question] * 1001), None
            )
        )


async def test_a_watch_begins_with_an_answer_and_its_token(servicer):
    watch = servicer.WatchPermissions(
        permissions_service_pb2.WatchPermissionsRequest(questions=[check(CAROL).question]), None
    )
    first = await anext(watch)
    await watch.aclose()
    assert (first.index, first.decision.allowed, first.decision.rule.line) == (0, True, 3)
    assert (first.decision.token.epoch, first.decision.token.sequence) == (3, 10)


async def test_readers_come_sorted_with_kind_and_token(servicer):
    bind_caller(Caller(SITE, "d", "t"))
    reply = await servicer.ListReaders(
        permissions_service_pb2.ListReadersRequest(path=f"{SITE}/data/x", at_unix_ms=NOW_MS), None
    )
    assert list(reply.principals) == [SITE, BOB, CAROL]
    assert (reply.kind, reply.token.sequence) == (permissions_pb2.READER_KIND_CLOSED, 10)
    with pytest.raises(InvalidInput):
        await servicer.ListReaders(
            permissions_service_pb2.ListReadersRequest(path=f"{SITE}/data/x", at_unix_ms=-1), None
        )


@pytest.mark.parametrize(
    "method", ["ListReaders", "ListAccessible", "WatchPermissions", "BatchCheckPermissions"]
)
async def test_every_answer_can_be_made_to_wait_for_a_point_of_the_log(servicer, model, method):
    bind_caller(Caller(BOB, "d", "t"))
    demanded = common_pb2.ConsistencyToken(epoch=2, sequence=1)
    request = getattr(permissions_service_pb2, f"{method}Request")(at_least=demanded)
    with pytest.raises(WrongState):
        await first_answer(getattr(servicer, method)(request, None))
    request.at_least.epoch, request.at_least.sequence = 3, 11
    with pytest.raises(Unavailable):
        await first_answer(getattr(servicer, method)(request, None))


async def first_answer(answers):
    return await (anext(answers) if hasattr(answers, "__anext__") else answers)


async def test_tokens_of_later_answers_are_not_smaller(servicer, model):
    sequences = []
    for sequence in (10, 12, 12, 15):
        model.at = Token(3, sequence)
        sequences.append((await checked(servicer, check(BOB))).decision.token.sequence)
    assert sequences == sorted(sequences)
