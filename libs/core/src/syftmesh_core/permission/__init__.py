"""Permissions: the pure engine that every service and every site decides with."""

from syftmesh_core.permission.engine import (
    DENIED_BY_RULE,
    EXPIRED,
    LIMIT_DIRECTORY,
    LIMIT_FILE_COUNT,
    LIMIT_FILE_SIZE,
    LIMIT_REASONS,
    NO_RULE_FILE,
    NO_RULE_MATCHES,
    NOT_LISTED,
    OWNER,
    OWNER_ONLY,
    PERSONAL_OF_ANOTHER,
    RULE_ALLOWS,
    Decision,
    LiveFiles,
    Question,
    RuleKey,
    decide,
    deciding_rule_key,
    level_for_write,
)
from syftmesh_core.permission.entry import EntryList, Groups, parse_entries
from syftmesh_core.permission.group import GroupList, is_group_name, parse_groups
from syftmesh_core.permission.parse import parse_ruleset
from syftmesh_core.permission.pattern import Pattern, parse_pattern
from syftmesh_core.permission.reader import ReaderKind, Readers, readers_of
from syftmesh_core.permission.ruleset import Access, Level, Limits, Rule, RuleSet
from syftmesh_core.permission.subject import Subject
from syftmesh_core.permission.tree import Directory, RuleFile, RuleRef, RuleTree

__all__ = [
    "DENIED_BY_RULE",
    "EXPIRED",
    "LIMIT_DIRECTORY",
    "LIMIT_FILE_COUNT",
    "LIMIT_FILE_SIZE",
    "LIMIT_REASONS",
    "NOT_LISTED",
    "NO_RULE_FILE",
    "NO_RULE_MATCHES",
    "OWNER",
    "OWNER_ONLY",
    "PERSONAL_OF_ANOTHER",
    "RULE_ALLOWS",
    "Access",
    "Decision",
    "Directory",
    "EntryList",
    "GroupList",
    "Groups",
    "Level",
    "Limits",
    "LiveFiles",
    "Pattern",
    "Question",
    "ReaderKind",
    "Readers",
    "Rule",
    "RuleFile",
    "RuleKey",
    "RuleRef",
    "RuleSet",
    "RuleTree",
    "Subject",
    "decide",
    "deciding_rule_key",
    "is_group_name",
    "level_for_write",
    "parse_entries",
    "parse_groups",
    "parse_pattern",
    "parse_ruleset",
    "readers_of",
]
