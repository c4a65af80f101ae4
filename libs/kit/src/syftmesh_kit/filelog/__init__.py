"""The read model of the file log, held in memory by every service that answers from records and rules."""

from syftmesh_kit.filelog.entry import (
    LogEntry,
    entry_message,
    entry_of,
    fence_subject,
    guard_subject,
    object_key,
    path_hash,
    subject_of,
)
from syftmesh_kit.filelog.feed import Change, ChangeKind, FeedReader, changes_since, next_turn
from syftmesh_kit.filelog.model import FileLog
from syftmesh_kit.filelog.position import LogPosition
from syftmesh_kit.filelog.rule_source import ObjectReader, RuleSource, StoredRules
from syftmesh_kit.filelog.site import SiteIndex

__all__ = [
    "Change",
    "ChangeKind",
    "FeedReader",
    "FileLog",
    "LogEntry",
    "LogPosition",
    "ObjectReader",
    "RuleSource",
    "SiteIndex",
    "StoredRules",
    "changes_since",
    "entry_message",
    "entry_of",
    "fence_subject",
    "guard_subject",
    "next_turn",
    "object_key",
    "path_hash",
    "subject_of",
]
