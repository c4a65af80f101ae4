"""Sentences of the contract: the rule file, names, paths."""

from __future__ import annotations

import unicodedata

from contract_table import (
    ALICE,
    BOB,
    EVE,
    EVERYBODY,
    NOW,
    ask,
    granted,
    path_refused,
    refused,
    rule,
    rules_refused,
    sentence,
    tree,
)
from syftmesh_core.path import check_creatable, parse_path
from syftmesh_core.permission import Level, parse_entries, parse_groups, parse_ruleset
from syftmesh_core.principal import normalise_principal, parse_requester

# --- the rule file ---


@sentence("A file named exactly syft.pub.yaml governs every path strictly below the directory it lies in")
def _() -> None:
    rules = tree({"d": rule()})
    assert ask(rules, "d/f").allowed
    assert ask(rules, "d/e/f").allowed
    assert ask(rules, "d/syft.pub.yaml").allowed
    assert not ask(rules, "d").allowed
    assert not ask(rules, "f").allowed
    assert parse_path(f"{ALICE}/syft.pub.yaml").is_rules_file
    assert not parse_path(f"{ALICE}/Syft.pub.yaml").is_rules_file


@sentence("terminal: optional; true: rule files further down are ignored")
def _() -> None:
    assert not parse_ruleset(b"rules: []").terminal
    assert not ask(tree({"": "terminal: true", "d": rule()}), "d/f").allowed
    assert ask(tree({"": "terminal: false", "d": rule()}), "d/f").allowed


@sentence("rules: optional; missing or empty: private")
def _() -> None:
    for text in ("terminal: false", "rules: []", "rules:"):
        for who in EVERYBODY:
            assert ask(tree({"": text}), "f", who).reason == "NO_RULE_MATCHES"


@sentence("pattern: required, relative to this directory")
def _() -> None:
    rules_refused("rules: [{access: {}}]")
    assert ask(tree({"d": rule("e/f")}), "d/e/f").allowed
    assert not ask(tree({"d": rule("d/e/f")}), "d/e/f").allowed


@sentence("access: required; each list optional, null means empty")
def _() -> None:
    rules_refused("rules: [{pattern: a}]")
    assert granted("") == set()
    assert granted("read: null, write: ~, create: , admin: null") == set()


@sentence("create: may add new files, not change, delete or read")
def _() -> None:
    assert granted(f"create: ['{BOB}']") == {"create"}


@sentence("deny: wins over every list of this rule, whatever form names the person")
def _() -> None:
    groups = {"team": frozenset({BOB})}
    every = "read: ['*'], create: [USER], write: ['*@x.org'], admin: [bob@x.org]"
    for form in ("'*'", "USER", "'*@x.org'", "'bob@*'", "bob@x.org", "'group:team'"):
        rules = tree({"": rule("**", every, f", deny: [{form}]")}, groups)
        for level in Level:
            assert ask(rules, "f", BOB, level).reason == "DENIED_BY_RULE"


@sentence("expires: from this instant on the rule grants nothing; it still decides")
def _() -> None:
    expiring = rule("f", "read: ['*']", ", expires: 2027-01-15T08:00:00Z")
    rules = tree({"": f"{expiring}, {rule()}"})
    assert ask(rules, now_ms=NOW - 1).allowed
    assert ask(rules, now_ms=NOW).reason == "EXPIRED"


@sentence("limits: on writes by others than the owner")
def _() -> None:
    rules = tree({"": rule("**", "write: [USER]", ", limits: {maxFileSize: 0}")})
    assert ask(rules, "f", BOB, Level.WRITE, size=1).reason == "LIMIT_FILE_SIZE"
    assert ask(rules, "f", BOB, Level.READ).allowed
    assert ask(rules, "f", ALICE, Level.WRITE, size=1).allowed


# --- names ---


@sentence(
    "Principal: an e-mail, NFC, lower-cased as a whole, not trimmed (a malformed one is INVALID_ARGUMENT)"
)
def _() -> None:
    assert normalise_principal("Bob.O@X.Org") == "bob.o@x.org"
    assert normalise_principal("bob@\u212a.org") == "bob@k.org"  # KELVIN SIGN is K in NFC
    for text in (" bob@x.org", "bob@x.org ", "bob@x.org\n", "bob", "", "bo\u0301b@x.org"):
        refused(normalise_principal, text, "PRINCIPAL_INVALID")


@sentence("[a-z0-9._%+-]{1,64}@")
def _() -> None:
    assert normalise_principal("a.z_0%9+b-c@x.org") == "a.z_0%9+b-c@x.org"
    assert normalise_principal("a" * 64 + "@x.org")
    for local in ("", "a" * 65, "a!b", "\u00e9", "a b", "a'b"):
        refused(normalise_principal, f"{local}@x.org", "PRINCIPAL_INVALID")


@sentence("a domain of LDH labels with at least one dot")
def _() -> None:
    assert normalise_principal("b@a-1.9z")
    for domain in ("localhost", "x..org", ".org", "x.", "-x.org", "x-.org", "x_y.org", "a" * 64 + ".org"):
        refused(normalise_principal, f"b@{domain}", "PRINCIPAL_INVALID")


@sentence("internationalised domains in A-label form")
def _() -> None:
    assert normalise_principal("b@xn--mnchen-3ya.de")
    refused(normalise_principal, "b@m\u00fcnchen.de", "PRINCIPAL_INVALID")


@sentence("at most 254 bytes")
def _() -> None:
    domain = ".".join(["a" * 61] * 4)
    assert len(normalise_principal("b" * 6 + "@" + domain)) == 254
    refused(normalise_principal, "b" * 7 + "@" + domain, "PRINCIPAL_INVALID")


@sentence("no principal holds a glob, path or template character")
def _() -> None:
    for character in "*?[]{}!^\\/,$ ":
        refused(normalise_principal, f"a{character}b@x.org", "PRINCIPAL_INVALID")
        refused(normalise_principal, f"a@x{character}b.org", "PRINCIPAL_INVALID")


@sentence("Every comparison (owner, lists, groups, globs, templates) is between normalised forms")
def _() -> None:
    who = parse_requester("BOB@X.Org")
    assert ask(tree({}), "f", parse_requester("Alice@X.ORG")).reason == "OWNER"
    groups = parse_groups(b"groups: {team: [Bob@x.ORG]}").resolved
    for entry in ("bOb@X.oRg", "group:team", "*@X.ORG", "B*@x.org"):
        assert ask(tree({"": rule("**", f"read: ['{entry}']")}, groups), "f", who).allowed
    assert ask(tree({"": rule("{{.UserEmail}}", "read: [USER]")}), BOB, who).allowed


@sentence("the first segment of a path is normalised the same way")
def _() -> None:
    assert parse_path("Alice@X.ORG/f") == parse_path(f"{ALICE}/f")


@sentence("segments below it are compared as written with the normalised value")
def _() -> None:
    rules = tree({"": rule("p/{{.UserEmail}}", "read: [USER]")})
    assert ask(rules, f"p/{BOB}").allowed
    assert ask(rules, "p/Bob@x.org").reason == "NO_RULE_MATCHES"
    assert parse_path(f"{ALICE}/Bob@X.ORG").segments == ("Bob@X.ORG",)


@sentence("Requesters: an authenticated principal; a guest; anonymous; `guest` and the empty string")
def _() -> None:
    assert [parse_requester(text) for text in ("Bob@x.org", "guest", "")] == [BOB, "guest", ""]
    for text in ("Guest", "*", "USER", "anonymous", " "):
        refused(parse_requester, text, "PRINCIPAL_INVALID")


def named(entry: str, groups: str = "") -> set[str]:
    """Return of everybody whom the entry means."""
    rules = tree({"": rule("**", f"read: ['{entry}']")}, parse_groups(groups.encode()).resolved)
    return {who for who in EVERYBODY if ask(rules, "f", who).allowed}


@sentence("Entries: an e-mail")
def _() -> None:
    assert named(BOB) == {BOB}


@sentence("`*`: everyone, guests and anonymous included")
def _() -> None:
    assert named("*") == set(EVERYBODY)


@sentence("`USER`: any authenticated principal")
def _() -> None:
    assert named("USER") == {BOB, EVE}


@sentence("a glob of an e-mail's characters with one or more `*` and exactly one `@`")
def _() -> None:
    assert named("*@corp.example") == named("e*@*.ex*e") == {EVE}
    for text in ("**", "b?b@x.org", "*@*@x", "*@", "@*", "[a]*@x.org", "*\u00e9@x.org", "*x.org"):
        refused(lambda entry: parse_entries([entry]), text, "ENTRY_INVALID")


@sentence("a glob names authenticated principals only; `*` crosses dots, not `@`")
def _() -> None:
    assert named("*@*") == {BOB, EVE}
    assert named("*@*example") == {EVE}
    assert named("*e@*e") == {EVE}
    assert named("eve*example@*") == set()


@sentence("group:<name>: [a-z0-9][a-z0-9_-]{0,62}")
def _() -> None:
    assert parse_entries(["group:9a_-" + "z" * 58]).groups
    for name in ("", "A", "-a", "_a", "a b", "a" * 64, "\u00e9"):
        refused(lambda entry: parse_entries([entry]), f"group:{name}", "ENTRY_INVALID")


@sentence("a group of the datasite's owner")
def _() -> None:
    assert named("group:team", f"groups: {{team: ['{EVE}']}}") == {EVE}
    assert not parse_path(f"{ALICE}/d/syft.groups.yaml").is_groups_file
    for level in (Level.CREATE, Level.WRITE, Level.ADMIN):
        open_to_all = tree({"": rule("**", "admin: ['*']")})
        assert ask(open_to_all, "syft.groups.yaml", BOB, level).reason == "OWNER_ONLY"


@sentence("nested groups resolved")
def _() -> None:
    assert named("group:a", f"groups: {{a: ['group:b'], b: ['group:c'], c: ['{BOB}']}}") == {BOB}


@sentence("cycles refused when made")
def _() -> None:
    text = "groups: {a: ['group:b'], b: ['group:a']}"
    assert "a > b > a" in refused(lambda t: parse_groups(t.encode()), text, "RULES_INVALID").message


@sentence("an unknown group is nobody")
def _() -> None:
    assert named("group:none") == set()


# --- paths ---


@sentence("Path: <e-mail>/<segments>, `/`-separated")
def _() -> None:
    path = parse_path(f"{ALICE}/a/b c")
    assert (path.site, path.segments) == (ALICE, ("a", "b c"))


@sentence("refused (never cleaned) with INVALID_ARGUMENT before any rule is looked at")
def _() -> None:
    for below in ("a//b", "a/./b", "a/../a", "/a", "a/"):
        path_refused(below)


@sentence("not NFC-representable UTF-8")
def _() -> None:
    path_refused("a\ud800")
    path_refused(b"a\xff".decode("utf-8", "surrogateescape"))


@sentence("an empty, `.` or `..` segment")
def _() -> None:
    for below in ("a//b", ".", "..", "a/./b", "a/../b"):
        assert "segment" in path_refused(below)
    assert parse_path(f"{ALICE}/.../.a").segments == ("...", ".a")


@sentence("a leading or trailing `/`")
def _() -> None:
    refused(parse_path, f"/{ALICE}/a", "PATH_INVALID")
    path_refused("a/")
    path_refused("")


@sentence("Check, Explain and List accept a trailing one and drop it; file operations refuse it")
def _() -> None:
    assert parse_path(f"{ALICE}/a/", drop_trailing_slash=True) == parse_path(f"{ALICE}/a")
    path_refused("a/")


@sentence("a backslash")
def _() -> None:
    assert "U+005C" in path_refused("a\\b")


@sentence("a character of category Cc or Cs")
def _() -> None:
    points = [p for p in range(0x11_0000) if unicodedata.category(chr(p)) in ("Cc", "Cs")]
    assert len(points) == 65 + 2048
    for point in (*points[:65], *points[65::200], points[-1]):
        assert f"U+{point:04X}" in path_refused(f"a{chr(point)}")


@sentence("U+2028-9, U+200B, U+200E-F, U+202A-E, U+2060, U+2066-9 or U+FEFF")
def _() -> None:
    single = (0x200B, 0x2060, 0xFEFF)
    spans = ((0x2028, 0x2029), (0x200E, 0x200F), (0x202A, 0x202E), (0x2066, 0x2069))
    for point in (*single, *(p for low, high in spans for p in range(low, high + 1))):
        assert f"U+{point:04X}" in path_refused(f"a{chr(point)}b")
    for point in (0x200A, 0x200C, 0x200D, 0x2010, 0x2027, 0x202F, 0x205F, 0x2061, 0x2065, 0x206A, 0xFEFE):
        assert parse_path(f"{ALICE}/a{chr(point)}b").segments


@sentence("more than 255 segments")
def _() -> None:
    assert len(parse_path("b@x.org" + "/a" * 254).segments) == 254
    assert "255 segments" in refused(parse_path, "b@x.org" + "/a" * 255, "PATH_INVALID").message


@sentence("or 1,024 bytes in all")
def _() -> None:
    start = "b@x.org/" + "/".join(["a" * 200] * 5)
    assert len(str(parse_path(start + "/" + "b" * (1023 - len(start))))) == 1024
    assert (
        "1024 bytes" in refused(parse_path, start + "/" + "b" * (1024 - len(start)), "PATH_INVALID").message
    )


@sentence("or 255 bytes in one")
def _() -> None:
    assert parse_path(f"{ALICE}/{'a' * 255}").segments
    assert "255 bytes" in path_refused("a" * 256)
    assert "255 bytes" in path_refused("\u00e9" * 128)


@sentence("The canonical form is NFC")
def _() -> None:
    assert str(parse_path(f"{ALICE}/e\u0301")) == f"{ALICE}/\u00e9"
    assert parse_path(f"{ALICE}/e\u0301") == parse_path(f"{ALICE}/\u00e9")


@sentence("`%` is an ordinary character")
def _() -> None:
    assert parse_path(f"{ALICE}/%2e%2e/%2F").segments == ("%2e%2e", "%2F")


@sentence(
    "what becomes syft.pub.yaml by NFKC and case folding, or without trailing dots and spaces: nobody creates it"
)
def _() -> None:
    for name in (
        "SYFT.PUB.YAML",
        "\uff53yft.pub.yaml",
        "\u017fyft.pub.yaml",
        "syft.pub.yaml.",
        "syft.pub.yaml .",
    ):
        for below in (name, f"d/{name}"):
            refused(lambda text: check_creatable(parse_path(text)), f"{ALICE}/{below}", "PATH_INVALID")
    check_creatable(parse_path(f"{ALICE}/d/syft.pub.yaml"))
    check_creatable(parse_path(f"{ALICE}/SYFT.PUB.YAML/f"))


@sentence("the owner included, in Check of create and write too")
def _() -> None:
    rules = tree({"": rule("**", "admin: ['*']")})
    for who in (ALICE, BOB, "guest", ""):
        for level in (Level.CREATE, Level.WRITE):
            refused(
                lambda name, who=who, level=level: ask(rules, name, who, level),
                "Syft.Pub.yaml",
                "PATH_INVALID",
            )
        assert ask(rules, "Syft.Pub.yaml", who).allowed


@sentence("Lengths are of the canonical form")
def _() -> None:
    assert parse_path(f"{ALICE}/" + "e\u0301" * 127).name == "\u00e9" * 127


@sentence("A first segment that is no e-mail is INVALID_ARGUMENT")
def _() -> None:
    for first in ("", "alice", "guest", "*", "alice@x", "alice@x.org "):
        refused(parse_path, f"{first}/a", "PATH_INVALID")


@sentence("the bare <e-mail> is the datasite's root directory")
def _() -> None:
    assert parse_path(ALICE).is_root
    assert str(parse_path(ALICE)) == ALICE
