"""Sentences of the contract: decisions 1 to 6."""

from __future__ import annotations

import hashlib

from contract_table import (
    ALICE,
    BOB,
    EVE,
    EVERYBODY,
    NOW,
    ask,
    granted,
    matches,
    rule,
    rules_refused,
    sentence,
    tree,
)
from syftmesh_core.path import parse_path
from syftmesh_core.permission import (
    LIMIT_REASONS,
    Level,
    RuleKey,
    RuleTree,
    deciding_rule_key,
    level_for_write,
    parse_pattern,
    parse_ruleset,
)
from syftmesh_core.principal import user_hash

CLOSED = rule("**", "read: []")
ADMIN_TO_ALL = "admin: ['*']"
PERSONAL = rule("p/{{.UserEmail}}/**", "read: [USER], write: [USER]")
SHA = hashlib.sha256(BOB.encode()).hexdigest()


@sentence("1. The owner of the datasite has every right")
def _() -> None:
    for name in ("f", "syft.pub.yaml", ".syftignore", "settings.yaml", "syft.groups.yaml"):
        assert all(ask(tree({}), name, ALICE, level).reason == "OWNER" for level in Level)


@sentence("limits and rules do not apply (to the owner)")
def _() -> None:
    against = f", deny: ['*', USER, '{ALICE}'], limits: {{maxFileSize: 0, maxFiles: 0, allowDirs: false}}"
    rules = tree({"": "terminal: true\n" + f"rules: [{rule('**', '', against)}]"})
    assert all(ask(rules, "d/f", ALICE, level, size=9, live=9).allowed for level in Level)


@sentence("Nobody else has a right by name alone")
def _() -> None:
    for who in ("alice@x.or", "alice@x.org.example", "xalice@x.org", "guest", ""):
        assert not any(ask(tree({}), "f", who, level).allowed for level in Level)
        assert not ask(tree({"": CLOSED}), f"{who or 'x'}/f", who).allowed


@sentence("2. The deepest directory holding a rule file governs")
def _() -> None:
    rules = tree({"": CLOSED, "a": rule(), "a/b": CLOSED})
    assert [ask(rules, path).allowed for path in ("f", "a/f", "a/b/f", "a/b/c/f")] == [
        False,
        True,
        False,
        False,
    ]


@sentence("unless a higher one is terminal: the walk stops there")
def _() -> None:
    rules = tree(
        {"": CLOSED, "a": f"terminal: true\nrules: [{rule()}]", "a/b": "terminal: true", "a/b/c": CLOSED}
    )
    assert ask(rules, "a/b/c/f").allowed
    assert not ask(rules, "f").allowed


@sentence("For a path that is itself a directory its own rule file does not count")
def _() -> None:
    rules = tree({"": CLOSED, "a": rule()})
    assert not ask(rules, "a").allowed
    assert ask(tree({"": rule(), "a": CLOSED}), "a").allowed


@sentence("Only that one file applies; nothing is merged")
def _() -> None:
    assert ask(tree({"": rule(), "a": rule("other")}), "a/f").reason == "NO_RULE_MATCHES"


@sentence("No file: deny")
def _() -> None:
    assert all(ask(tree({"d": rule()}), "f", who).reason == "NO_RULE_FILE" for who in EVERYBODY)


@sentence("A deleted rule file leaves nothing behind, its terminal flag included")
def _() -> None:
    rules = tree({"": CLOSED, "a": f"terminal: true\nrules: [{CLOSED}]", "a/b": rule()})
    assert not ask(rules, "a/b/f").allowed
    assert ask(rules.without_rules(("a",)), "a/b/f").allowed
    assert not ask(rules.without_rules(("a",)), "a/f").allowed


@sentence("3. The most specific matching rule decides, alone")
def _() -> None:
    rules = tree({"": ", ".join((rule(), rule("**/*.csv", ""), rule("d/x.csv")))})
    assert [ask(rules, path).allowed for path in ("f", "d/y.csv", "d/x.csv")] == [True, False, True]


@sentence("No fall-through; when no rule matches: nobody")
def _() -> None:
    assert not ask(tree({"": f"{rule('f', '')}, {rule()}"})).allowed
    assert all(not ask(tree({"": rule("g")}), "f", who).allowed for who in EVERYBODY)


def score(text: str) -> int:
    return parse_pattern(text).score


@sentence("Score: 2 x length of the pattern in UTF-8 bytes + 10 x number of '/'")
def _() -> None:
    assert [score(text) for text in ("a", "\u00e9", "a/b", "ab/c/d")] == [2, 4, 16, 32]


@sentence("+50 with a {{..}} template")
def _() -> None:
    assert score("{{.Date}}") == 18 + 50 - 4
    assert score("{{.Date}}{{.Date}}") == 36 + 50 - 8


@sentence("-20 for a `*` at index 0, -10 per other `*`")
def _() -> None:
    assert [score(text) for text in ("*", "**a", "a*", "a**b*")] == [2 - 20, 6 - 30, 4 - 10, 10 - 30]


@sentence("-2 per `? ! [ {`, braces of templates included")
def _() -> None:
    assert [score(text) for text in ("a?", "a!", "[a]", "{a}", "[!a]")] == [2, 2, 4, 4, 4]
    assert score("{{.Year}}") == 18 + 50 - 4


@sentence("exactly `**` is -100, exactly `**/*` is -99")
def _() -> None:
    assert [score("**"), score("**/*"), score("**/")] == [-100, -99, -100]
    assert score("**/**") == 10 + 10 - 20 - 30


@sentence("Equal scores: the earlier rule, whatever the number of rules")
def _() -> None:
    assert score("x*") == score("?*y")
    for count in (0, 13, 990):
        filler = [rule(f"f{n:03}", "") for n in range(count)]
        for first, second in (("x*", "?*y"), ("?*y", "x*"), ("xy", "xy")):
            texts = ", ".join([*filler, rule(first), rule(second, "")])
            assert ask(tree({"": texts}), "xy").allowed


@sentence("4. A personal pattern matches every path that it could match for some principal")
def _() -> None:
    rules = tree({"": f"{PERSONAL}, {rule()}"})
    for name in (BOB, EVE, "never-seen@nowhere.example"):
        assert ask(rules, f"p/{name}/f", "guest").reason == "PERSONAL_OF_ANOTHER"
    for name in ("shared", "Bob@x.org", "bob@x", "a" * 65 + "@x.org"):
        assert ask(rules, f"p/{name}/f", "guest").reason == "RULE_ALLOWS"


@sentence("the template stands for what can be a principal's value: an e-mail")
def _() -> None:
    assert matches("{{.UserEmail}}", "a.b+c@x-y.org")
    for text in ("a@b", "A@b.cc", "a b@c.de", "@b.cc", "a@b..cc", "a@-b.cc"):
        assert not matches("{{.UserEmail}}", text)


@sentence("16 hex digits for UserHash")
def _() -> None:
    assert matches("{{.UserHash}}", "0123456789abcdef")
    for text in ("0123456789abcde", "0123456789abcdef0", "0123456789abcdeg", "0123456789ABCDEF"):
        assert not matches("{{.UserHash}}", text)


@sentence("N for sha2")
def _() -> None:
    for pattern, digits in (("{{sha2 .UserEmail 8}}", 8), ("{{sha2 .UserHash}}", 64)):
        assert [matches(pattern, "a" * n) for n in (digits - 1, digits, digits + 1)] == [False, True, False]


@sentence("upper-cased under `upper`")
def _() -> None:
    assert matches("{{upper .UserEmail}}", "BOB@X.ORG")
    assert matches("{{upper .UserHash}}", "0123456789ABCDEF")
    assert not matches("{{upper .UserEmail}}", BOB)


@sentence("functions of the two count as personal")
def _() -> None:
    for inner in (
        ".UserEmail",
        ".UserHash",
        "upper .UserEmail",
        "lower .UserHash",
        "sha2 .UserEmail",
        "sha2 .UserHash 4",
    ):
        assert parse_pattern("{{" + inner + "}}").is_personal
    for inner in (".Year", "upper .Month", "sha2 .Date 4"):
        assert not parse_pattern("{{" + inner + "}}").is_personal


@sentence("Where the requester's own value is what stands there, its lists apply")
def _() -> None:
    rules = tree({"": PERSONAL})
    assert ask(rules, f"p/{BOB}/f").allowed
    assert ask(rules, f"p/{BOB}/f", level=Level.WRITE).allowed
    assert ask(rules, f"p/{BOB}/f", level=Level.ADMIN).reason == "NOT_LISTED"
    hashed = tree({"": rule("{{.UserHash}}", "read: [USER]")})
    assert ask(hashed, user_hash(BOB)).allowed


@sentence("otherwise it grants nothing")
def _() -> None:
    for entry in ("*", "USER", "*@*", EVE):
        rules = tree({"": rule("p/{{.UserEmail}}", f"admin: ['{entry}']")})
        assert all(ask(rules, f"p/{BOB}", who).reason == "PERSONAL_OF_ANOTHER" for who in (EVE, "guest", ""))


@sentence("nobody, guest or other user, falls through a personal rule to an open one behind it")
def _() -> None:
    rules = tree({"": f"{PERSONAL}, {rule('**', ADMIN_TO_ALL)}"})
    for who in (EVE, "guest", ""):
        assert not any(ask(rules, f"p/{BOB}/f", who, level).allowed for level in Level)


@sentence("`USER` in such a rule means the requester whose value matched")
def _() -> None:
    rules = tree({"": PERSONAL})
    assert [ask(rules, f"p/{BOB}/f", who).allowed for who in EVERYBODY] == [True, False, False, False]


@sentence("5. admin contains write, write contains create and read")
def _() -> None:
    assert granted(f"admin: [{BOB}]") == {"admin", "write", "create", "read"}
    assert granted(f"write: [{BOB}]") == {"write", "create", "read"}
    assert granted(f"read: [{BOB}]") == {"read"}


@sentence("`create` (writing where no live file is) needs create")
def _() -> None:
    assert level_for_write(parse_path(f"{ALICE}/f"), exists=False) is Level.CREATE


@sentence("Check answers for the level asked, whatever is there")
def _() -> None:
    rules = tree({"": rule("**", f"create: [{BOB}]")})
    assert ask(rules, level=Level.CREATE).allowed
    assert not ask(rules, level=Level.WRITE).allowed


@sentence("changing, deleting or restoring needs write")
def _() -> None:
    assert level_for_write(parse_path(f"{ALICE}/f"), exists=True) is Level.WRITE


@sentence("any change to a syft.pub.yaml or .syftignore needs admin")
def _() -> None:
    rules = tree({"": rule("**", f"write: [{BOB}], admin: [{EVE}]")})
    for name in ("syft.pub.yaml", ".syftignore", "d/syft.pub.yaml", "d/.syftignore"):
        for exists in (True, False):
            assert level_for_write(parse_path(f"{ALICE}/{name}"), exists) is Level.ADMIN
        for level in (Level.CREATE, Level.WRITE):
            assert ask(rules, name, BOB, level)[:3] == (False, "NOT_LISTED", Level.ADMIN)
            assert ask(rules, name, EVE, level).allowed


@sentence("to settings.yaml at the datasite's root ownership")
def _() -> None:
    rules = tree({"": rule("**", f"admin: [{BOB}]")})
    assert level_for_write(parse_path(f"{ALICE}/settings.yaml"), exists=True) is None
    for level in (Level.CREATE, Level.WRITE, Level.ADMIN):
        assert ask(rules, "settings.yaml", level=level).reason == "OWNER_ONLY"
        assert ask(rules, "d/settings.yaml", level=level).allowed


@sentence("reading one needs read")
def _() -> None:
    rules = tree({"": rule("**", f"read: [{BOB}]")})
    for name in ("syft.pub.yaml", ".syftignore", "settings.yaml", "syft.groups.yaml"):
        assert ask(rules, name).allowed
        assert not ask(rules, name, EVE).allowed


@sentence("6. deny, expires, limits belong to the deciding rule")
def _() -> None:
    other = f", deny: [{BOB}], expires: 2020-01-01T00:00:00Z, limits: {{maxFileSize: 0}}"
    rules = tree({"": f"{rule('**', 'write: [USER]', other)}, {rule('f', 'write: [USER]')}"})
    assert ask(rules, "f", level=Level.WRITE, size=9).allowed
    assert not ask(rules, "g", level=Level.WRITE).allowed


def limited(limits: str, pattern: str = "**") -> RuleTree:
    """Return a tree in which every user may write what the limits of the directory `d` leave."""
    return tree({"d": rule(pattern, "write: [USER]", f", limits: {limits}")})


@sentence("a new version larger than maxFileSize; 0 allows nothing")
def _() -> None:
    for limit, size, allowed in ((10, 10, True), (10, 11, False), (0, 1, False)):
        assert (
            ask(limited(f"{{maxFileSize: {limit}}}"), "d/f", level=Level.WRITE, size=size).allowed is allowed
        )


@sentence("more than maxFiles live files for which this rule decides after the write")
def _() -> None:
    rules = limited("{maxFiles: 2}", "*.csv")
    assert ask(rules, "d/a.csv", level=Level.CREATE, live=1).allowed
    assert ask(rules, "d/a.csv", level=Level.CREATE, live=2).reason == "LIMIT_FILE_COUNT"
    keys = [
        deciding_rule_key(rules, parse_path(f"{ALICE}/d/{n}"), BOB, NOW) for n in ("a.csv", "b.csv", "c.txt")
    ]
    assert keys == [RuleKey(("d",), 1, 0, ""), RuleKey(("d",), 1, 0, ""), None]


@sentence("rule files not counted")
def _() -> None:
    rules = tree({"d": rule("**", "admin: [USER]", ", limits: {maxFiles: 0}")})
    assert deciding_rule_key(rules, parse_path(f"{ALICE}/d/e/syft.pub.yaml"), BOB, NOW) is None
    assert ask(rules, "d/e/syft.pub.yaml", level=Level.CREATE, live=9).allowed


@sentence("in a personal rule, those of the same requester")
def _() -> None:
    rules = limited("{maxFiles: 1}", "{{.UserEmail}}/**")
    asked: list[RuleKey] = []
    ask(rules, f"d/{BOB}/f", level=Level.CREATE, live=lambda key: asked.append(key) or 0)
    assert asked == [RuleKey(("d",), 1, 0, BOB)]
    assert deciding_rule_key(rules, parse_path(f"{ALICE}/d/{EVE}/f"), BOB, NOW) is None


@sentence("with allowDirs: false, a path in a subdirectory of the rule file's directory: LIMIT_EXCEEDED")
def _() -> None:
    rules = limited("{allowDirs: false}")
    assert ask(rules, "d/f", level=Level.WRITE).allowed
    assert ask(rules, "d/e/f", level=Level.WRITE).reason == "LIMIT_DIRECTORY"
    assert {"LIMIT_FILE_SIZE", "LIMIT_FILE_COUNT", "LIMIT_DIRECTORY"} == LIMIT_REASONS


@sentence("Units: bytes, or KB MB GB, KiB MiB GiB")
def _() -> None:
    units = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
    for unit, factor in units.items():
        parsed = parse_ruleset(f"rules: [{rule('a', '', f', limits: {{maxFileSize: 3{unit}}}')}]".encode())
        assert parsed.rules[0].limits is not None
        assert parsed.rules[0].limits.max_file_size_bytes == 3 * factor
    for unit in ("B", "kb", "TB", "K", "Mib"):
        rules_refused(f"rules: [{rule('a', '', f', limits: {{maxFileSize: 3{unit}}}')}]")


@sentence("allowSymlinks is accepted for compatibility and has no effect")
def _() -> None:
    for value in ("true", "false"):
        assert ask(limited(f"{{allowSymlinks: {value}}}"), "d/e/f", level=Level.WRITE, size=9, live=9).allowed
