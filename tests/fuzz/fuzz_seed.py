"""Where the fuzzers begin: inputs of each target that reach its branches, good and bad."""

from __future__ import annotations

from typing import Final

_RULES = b"""\
terminal: true
rules:
  - pattern: "**/*.csv"
    access:
      admin: []
      write: ["*@corp.example", "Bob@X.example", "group:reviewers"]
      create: null
      read:  ["*", USER]
    deny: ["eve@x.example"]
    expires: 2027-01-31T00:00:00Z
    limits: {maxFileSize: 100MiB, maxFiles: 1000, allowDirs: false, allowSymlinks: true}
  - pattern: "{{.UserEmail}}/**"
    access: {read: [USER]}
"""
_GROUPS = b"""\
groups:
  reviewers: ["bob@clinic.example", "group:leads", "group:nobody"]
  leads: [dora@lab.example]
  empty:
"""

SEEDS: Final[dict[str, tuple[bytes, ...]]] = {
    "path": (
        b"alice@x.org",
        b"Alice@X.org/docs/a b%2F.txt",
        b"alice@x.org/e\xcc\x81/\xed\x95\x9c",
        b"alice@x.org/SYFT.PUB.YAML. ",
        b"alice@x.org/syft.groups.yaml",
        b"alice@x.org/../b",
        b"alice@x.org/a\x00",
        b"alice@x.org/" + b"a" * 300,
        b"alice@x.org" + b"/a" * 256,
    ),
    "pattern": (
        b"**/*.csv\na/b.csv",
        b"docs/{a,b{c,d}}/[!x-z]?\\*\ndocs/a/bc*",
        b"u_{{upper .UserEmail}}_{{sha2 .UserHash 8}}/{{.Year}}-{{ .Month }}/**",
        b"*a*a*a*a*a*a*a*b\n" + b"a" * 250,
        b"{**,a}/{*,x}*\nx/y/b",
        b"[z-a]",
        b"{{.Nothing}}",
    ),
    "rules": (
        _RULES,
        b'{"terminal": false, "rules": [{"pattern": "a", "access": {"read": ["*"]}}]}',
        b"# only a comment\n",
        b"rules: &a [*a]\n",
        b"rules: [{pattern: a, access: {}, pattern: b}]",
        b"rules: !!python/object:os.system []",
        b"rules: [[[[[[[[[]]]]]]]]]",
    ),
    "groups": (
        _GROUPS,
        b'{"groups": {"a": ["group:b"], "b": ["group:c"], "c": ["group:a"]}}',
        b"groups: {A: []}",
        b"groups: {a: ['*']}",
        b"groups: {a: [b@c.de], a: []}",
    ),
    "principal": (
        b"bob@x.org",
        b"Bob.O%_+-9@X.Example",
        b"*@corp.example",
        b"USER",
        b"*",
        b"group:a",
        b"a@b@c.de",
    ),
    "url": (
        b"syft://bob@x.org/app_data/pong/rpc/users/42?b=2&a=1&b=3",
        b"SYFT://Bob@X.org/app_data/my%20app/rpc/e%CC%81?k%20=a+b%2Bc&flag&e=",
        b"syft://bob@x.org/app_data/a/rpc/%2e%2e",
        b"syft://bob@x.org/app_data/a/rpc/a%00#x",
    ),
}

ALPHABETS: Final = {
    "path": "ab@./\\ %\x00\u00e9\u0301\u202e\u2024SYFTsyft.pubyaml",
    "pattern": "ab/*?[]{}!^-\\,.\u00e9\u0301\n{{.UserEmail}}{{sha2 .Year 8}}",
    "rules": "rules: patnces{}[],\"'*&!#|>-\n\t@.\x00\u2028",
    "groups": "groups: ab{}[],\"'*&!#-\n\t@.\x00\u2028",
    "principal": "ab@.-_%+*USER\u212a\u0130group:",
    "url": "syft://bob@x.orgapp_datarpc?&=%2eF0#+ \u00e9",
}
