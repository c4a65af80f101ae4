"""Many questions at once: the answers are those of one question at a time, at one point of the log."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mesh.permissions.v1 import permissions_pb2 as pb
from mesh.permissions.v1 import permissions_service_pb2 as rpc
from rule_world import ALICE, BOB, CAROL, DAY_MS, EVE, NOW_MS, Running, World
from syftmesh_core.errors import InvalidInput, LimitExceeded, MeshError, PermissionDenied, Unavailable
from syftmesh_core.permission.ruleset import Level
from syftmesh_permissions import convert
from syftmesh_permissions.domain.batch import MAX_BATCH, AskMany, check_count
from syftmesh_permissions.domain.consistency import Token
from syftmesh_permissions.domain.inquiry import Ask, Inquiry
from syftmesh_permissions.domain.kept import Kept
from syftmesh_permissions.domain.question import Questions
from syftmesh_permissions.domain.ruling import Rulings

READS = 'rules:\n  - pattern: "**"\n    access: {read: [bob@x.example]}\n'
NOTHING = "rules: []\n"


def ask_many(world: World, **options: int) -> AskMany[object]:
    return AskMany(Rulings(world, world, lambda verdict: verdict, **options), world, world)


async def answers(world: World, caller: str, *asked: tuple) -> list:
    return (await ask_many(world).run(caller, columns(asked))).answers


def columns(asked: Iterable[tuple]) -> Questions:
    return Questions.of([Inquiry(*question) for question in asked])


# --- the same answers as one by one ---

PEOPLE = (ALICE, BOB, CAROL, EVE)
ENTRIES = ("'*'", "USER", BOB, CAROL, "'*@x.example'", "group:team", "group:none")
PATTERNS = (
    "**",
    "*.csv",
    "data/**",
    "data/*.csv",
    "**/*.md",
    "{{.UserEmail}}/**",
    "data/{{.UserHash}}.csv",
    "{{.Year}}/**",
    "log-{{.Date}}.csv",
    "a[bc]?.csv",
    "{data,more}/*",
    "syft.pub.yaml",
)
NAMES = (
    "a.csv",
    "ab1.csv",
    "x.md",
    "log-15.csv",
    "2027",
    BOB,
    "syft.pub.yaml",
    "SYFT.PUB.YAML",
    ".syftignore",
    "settings.yaml",
    "syft.groups.yaml",
    "e\u0301.csv",
    "with space.csv",
    "n" * 70,
)
FOLDERS = ("", "data/", "data/deep/", "more/", f"{BOB}/", "2027/")

entries = st.lists(st.sampled_from(ENTRIES), max_size=2, unique=True).map(
    lambda found: f"[{', '.join(found)}]"
)


@st.composite
def rule(draw: st.DrawFn) -> str:
    lists = ", ".join(
        f"{name}: {draw(entries)}" for name in ("admin", "write", "create", "read") if draw(st.booleans())
    )
    lines = [f'  - pattern: "{draw(st.sampled_from(PATTERNS))}"', f"    access: {{{lists}}}"]
    if draw(st.integers(0, 3)) == 0:
        lines.append(f"    deny: {draw(entries)}")
    if draw(st.integers(0, 3)) == 0:
        lines.append(f"    expires: {draw(st.sampled_from(('2027-01-01', '2027-02-01')))}T00:00:00Z")
    if draw(st.integers(0, 3)) == 0:
        lines.append("    limits: {maxFileSize: 10, allowDirs: false}")
    return "\n".join(lines)


@st.composite
def rule_file(draw: st.DrawFn) -> str:
    rules = draw(st.lists(rule(), min_size=1, max_size=3))
    return "\n".join([f"terminal: {str(draw(st.booleans())).lower()}", "rules:", *rules, ""])


def unusual(path: str) -> list[str]:
    return [path.upper() if path.isascii() else path, f"{path}/", path.replace(ALICE, ALICE.upper())]


paths = st.tuples(st.sampled_from(FOLDERS), st.sampled_from(NAMES)).flatmap(
    lambda pair: st.sampled_from([f"{ALICE}/{pair[0]}{pair[1]}"] * 4 + unusual(f"{ALICE}/{pair[0]}{pair[1]}"))
)
questions = st.tuples(
    st.one_of(paths, paths, st.sampled_from((ALICE, f"{ALICE}/", f"{EVE}/x", f"{ALICE}/../x", "x"))),
    st.sampled_from(list(Level)),
    st.sampled_from((None, None, *PEOPLE, "guest", "", BOB.upper(), "no e-mail")),
    st.sampled_from((None, None, None, 0, 10, 11)),
    st.sampled_from((None, None, None, NOW_MS, 0, NOW_MS + 40 * DAY_MS)),
)


def one_by_one(world: World, caller: str, asked: list[tuple]) -> list[object]:
    """Return the verdicts until the first question that is refused, and what it is refused with."""
    found: list[object] = []
    for index, question in enumerate(asked):
        try:
            found.append(Ask(world, world).run(caller, Inquiry(*question)).verdict)
        except MeshError as error:
            metadata = {**error.metadata, "index": str(index)}
            return [type(error), f"Question {index}: {error.message}", error.reason, metadata]
    return found


@settings(max_examples=150, deadline=None)
@given(
    files=st.dictionaries(st.sampled_from([(), ("data",), ("data", "deep"), ("more",)]), rule_file()),
    caller=st.sampled_from((*PEOPLE, "", "guest")),
    asked=st.lists(questions, min_size=1, max_size=12),
    later=rule_file(),
)
def test_a_batch_answers_as_one_question_after_the_other(files, caller, asked, later):
    world = World()
    world.groups(f"groups: {{team: [{BOB}, {CAROL}]}}\n")
    for directory, text in files.items():
        world.rules(text, directory)
    many = ask_many(world)

    def batch() -> list[object]:
        runner = many.run(caller, columns(asked))
        try:
            runner.send(None)
        except StopIteration as done:
            return done.value.answers
        except MeshError as error:
            return [type(error), error.message, error.reason, error.metadata]
        raise AssertionError("a short batch does not wait")

    assert batch() == one_by_one(world, caller, asked)
    assert batch() == one_by_one(world, caller, asked), "what is remembered says the same"
    world.time_ms += 20 * DAY_MS
    assert batch() == one_by_one(world, caller, asked), "and at another time what holds then"
    world.rules(later, ("data",))
    assert batch() == one_by_one(world, caller, asked), "and by other rules what they say"


# --- one point of the log ---


async def test_answers_come_in_the_order_of_the_questions(world):
    world.rules(READS)
    found = await answers(
        world, BOB, (f"{ALICE}/x", Level.READ), (f"{ALICE}/x", Level.WRITE), (f"{ALICE}/y", Level.READ)
    )
    assert [verdict.allowed for verdict in found] == [True, False, True]


async def test_all_answers_are_of_one_point_whatever_the_log_does_meanwhile(world):
    world.rules(READS)
    world.rules(READS, site=CAROL)
    world.tick_s = 1.0  # every look at the clock ends a stretch
    asked = [
        (f"{site}/f-{n}.csv", Level.READ, None, None, None) for n in range(300) for site in (ALICE, CAROL)
    ]
    asked.append((f"{EVE}/late.csv", Level.READ, None, None, None))
    running = Running(ask_many(world).run(BOB, columns(asked)))
    before, waited = world.at, 0
    for waited in running:
        if waited == 2:  # the first are answered by then
            for site in (ALICE, CAROL):
                world.rules(NOTHING, site=site)
            world.rules(READS, site=EVE)
    decided = running.outcome
    assert waited > 2
    assert decided.token == before
    assert [verdict.allowed for verdict in decided.answers] == [True] * 600 + [False]


async def test_a_long_batch_gives_others_their_turn(world):
    world.rules(READS)
    world.tick_s = 0.001  # a stretch is two looks at the clock
    asked = [(f"{ALICE}/f-{n}.csv", Level.READ, None, None, None) for n in range(MAX_BATCH)]
    assert max(Running(ask_many(world).run(BOB, columns(asked)))) > 25


async def test_no_questions_have_no_answers_and_a_token(world):
    decided = await ask_many(world).run(BOB, columns([]))
    assert (decided.answers, decided.token) == ([], Token(3, 10))


async def test_what_is_remembered_ends_with_the_rules_that_it_came_from(world):
    many, asked = ask_many(world), [(f"{ALICE}/x", Level.READ, None, None, None)]
    for _ in range(3):
        world.rules(READS)
        assert (await many.run(BOB, columns(asked))).answers[0].allowed
        world.rules(NOTHING)
        assert not (await many.run(BOB, columns(asked))).answers[0].allowed


async def test_what_is_remembered_is_bounded(world):
    world.rules(READS)
    world.rules('rules:\n  - pattern: "{{.UserEmail}}/**"\n    access: {read: [USER]}\n', ("own",))
    rulings = Rulings(world, world, lambda verdict: verdict, max_kept=50)
    many = AskMany(rulings, world, world)
    for start in range(0, 400, 100):
        asked = [
            (f"{ALICE}/{kind}/d{n}/x", Level.READ, None, None, None)
            for n in range(start, start + 100)
            for kind in ("data", f"own/{BOB}")
        ]
        asked += [(f"p{n}@x.example/x", Level.READ, None, None, None) for n in range(start, start + 100)]
        asked += [(f"{ALICE}/{'long/' * 70}{n}", Level.READ, None, None, None) for n in range(100)]
        await many.run(BOB, columns(asked))
    for kept in (rulings.clauses, rulings.folders, rulings.names, rulings._homes):
        assert len(kept) <= 50
        assert not any(len(text) > 256 for text in kept.young)


def test_what_is_asked_for_again_and_again_stays():
    kept = Kept[int](limit=10, longest=3)
    kept.keep("hot", 1)
    for number in range(100):
        kept.keep(str(number), number)
        assert kept.find("hot") == 1
        assert len(kept) <= 10
    assert kept.find("0") is None
    kept.keep("long", 2)
    assert kept.find("long") is None


# --- refusals ---


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ((f"{ALICE}//x", Level.READ), "PATH_INVALID"),
        ((f"{ALICE}/x", Level.READ, "nobody"), "PRINCIPAL_INVALID"),
        ((f"{ALICE}/SYFT.PUB.YAML", Level.WRITE), "PATH_INVALID"),
    ],
)
async def test_one_bad_question_refuses_the_batch_and_is_named(world, bad, reason):
    with pytest.raises(InvalidInput) as refused:
        await answers(world, ALICE, *[(f"{ALICE}/x", Level.READ)] * 70, bad)
    assert (refused.value.reason, refused.value.metadata["index"]) == (reason, "70")


async def test_one_question_about_another_without_admin_refuses_the_batch(world):
    world.rules(READS)
    with pytest.raises(PermissionDenied) as refused:
        await answers(world, BOB, (f"{ALICE}/x", Level.READ), (f"{ALICE}/x", Level.READ, CAROL))
    assert refused.value.metadata["index"] == "1"


async def test_nothing_is_answered_while_the_log_is_read(world):
    world.loading = True
    with pytest.raises(Unavailable):
        await answers(world, BOB, (f"{ALICE}/x", Level.READ))


def test_more_questions_than_the_limit_are_refused():
    check_count(MAX_BATCH, MAX_BATCH)
    with pytest.raises(LimitExceeded) as refused:
        check_count(MAX_BATCH + 1, MAX_BATCH)
    assert (refused.value.reason, refused.value.metadata["limit"]) == ("BATCH_SIZE", "10000")


@pytest.mark.parametrize(
    ("field", "value", "reason"), [("level", 0, "LEVEL_INVALID"), ("at_unix_ms", -1, "TIME_INVALID")]
)
def test_a_malformed_message_is_named(field, value, reason):
    good = pb.Question(path=f"{ALICE}/x", level=pb.LEVEL_READ)
    bad = pb.Question(path=f"{ALICE}/x", level=pb.LEVEL_READ)
    setattr(bad, field, value)
    with pytest.raises(InvalidInput) as refused:
        convert.questions([good, good, bad])
    assert (refused.value.reason, refused.value.metadata["index"]) == (reason, "2")


# --- on the wire ---


@given(
    st.lists(
        st.fixed_dictionaries(
            {"path": st.text(max_size=5), "level": st.integers(1, 4)},
            optional={
                "requester": st.sampled_from(["", "guest", BOB]),
                "size_bytes": st.integers(0, 2),
                "at_unix_ms": st.integers(0, 2),
            },
        ),
        max_size=6,
    )
)
def test_columns_hold_what_the_questions_say(messages):
    asked = [pb.Question(**fields) for fields in messages]
    found = convert.questions(asked)
    assert [found.inquiry(index) for index in range(len(found))] == [convert.inquiry(q) for q in asked]
    assert found.part(range(0, len(found), 2)) == convert.questions(asked[::2])


async def test_the_encoded_answer_is_that_of_the_messages(world):
    world.rules(READS)
    many = AskMany(Rulings(world, world, convert.entry), world, world)
    asked = [(f"{ALICE}/x", level, BOB, None, None) for level in Level]
    decided = await many.run(ALICE, columns(asked))
    message = rpc.BatchCheckPermissionsResponse.FromString(convert.batch_response(decided))
    single = [
        convert.decision_message(Ask(world, world).run(ALICE, Inquiry(*question)).verdict, None)
        for question in asked
    ]
    assert list(message.decisions) == single
    assert (message.token.epoch, message.token.sequence) == (world.at.epoch, world.at.sequence)
