"""One change of the file of groups: the text before to the text after, checked as the hub checks it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from syftmesh_core.errors import AlreadyExists, InvalidInput, NotFound
from syftmesh_core.permission.entry import parse_entries
from syftmesh_core.permission.group import GroupList, is_group_name, parse_groups
from syftmesh_core.quote import quoted

from syftmesh.rule_edit import texts_of
from syftmesh.yaml_edit import fill, flow_list, insert_key, quote, remove_key, set_list
from syftmesh.yaml_place import not_editable

GROUPS = "groups"


def member_text(text: str) -> str:
    """Return the canonical form of a member; of what is none the text itself, for the parser to refuse."""
    try:
        return next(iter(texts_of(parse_entries((text,)))))
    except InvalidInput:
        return text


def members_of(groups: GroupList, name: str) -> list[str]:
    """Return the members of a group as they stand in the file, in canonical form and order.

    Raises:
        NotFound: GROUP_UNKNOWN.
    """
    if name not in groups.members:
        raise _unknown(name, groups)
    return sorted(texts_of(groups.members[name]))


def with_group(data: bytes, name: str, members: Iterable[str]) -> bytes:
    """Return the file of groups with a new one.

    Raises:
        AlreadyExists: GROUP_EXISTS.
        NotFound: (GROUP_UNKNOWN) a member is a group that is not there.
        InvalidInput: (RULES_INVALID) in the words of the parser: names, members, circles, bounds.
        WrongState: RULES_NOT_EDITABLE.
    """
    groups = parse_groups(data)
    if name in groups.members:
        raise AlreadyExists(
            f"There is a group {name} already.",
            reason="GROUP_EXISTS",
            metadata={"group": name},
            hint=f"syftmesh group add {name} MEMBER...",
        )
    wanted = _canonical(groups, members, new=name)
    key = name if is_group_name(name) and not _reads_as_value(name) else quote(name)
    line = f"{key}: {flow_list(wanted)}"
    text = data.decode()
    if groups.members:
        text = insert_key(text, (GROUPS,), key, flow_list(wanted))
    else:
        text = fill(text, GROUPS, [line], f"{{{line}}}")
    return _checked(text, {**_meaning(groups), name: set(wanted)})


def with_members(data: bytes, name: str, add: Sequence[str] = (), remove: Sequence[str] = ()) -> bytes:
    """Return the file of groups with others in one of them.

    Raises:
        NotFound: GROUP_UNKNOWN; MEMBER_UNKNOWN when somebody shall leave who is not in it.
        InvalidInput: As `with_group`.
        WrongState: RULES_NOT_EDITABLE.
    """
    groups = parse_groups(data)
    held = members_of(groups, name)
    leaving = [member_text(member) for member in remove]
    absent = [member for member in leaving if member not in held]
    if absent:
        raise NotFound(
            f"{quoted(absent[0])} is no member of {name} itself.",
            reason="MEMBER_UNKNOWN",
            metadata={"group": name, "member": quoted(absent[0])},
            hint=f"syftmesh group show {name}",
        )
    wanted = [member for member in (*held, *_canonical(groups, add)) if member not in leaving]
    wanted = list(dict.fromkeys(wanted))
    text = set_list(data.decode(), (GROUPS,), name, wanted, member_text)
    return _checked(text, {**_meaning(groups), name: set(wanted)})


def without_group(data: bytes, name: str) -> bytes:
    """Return the file of groups without one of them.

    Raises:
        NotFound: GROUP_UNKNOWN.
        WrongState: RULES_NOT_EDITABLE.
    """
    groups = parse_groups(data)
    members_of(groups, name)
    text = remove_key(data.decode(), (GROUPS,), name, with_comment=True)
    return _checked(text, {other: held for other, held in _meaning(groups).items() if other != name})


def _canonical(groups: GroupList, members: Iterable[str], new: str = "") -> list[str]:
    wanted = list(dict.fromkeys(member_text(member) for member in members))
    for member in wanted:
        kind, _, name = member.partition(":")
        if kind == "group" and is_group_name(name) and name not in groups.members and name != new:
            raise _unknown(name, groups)
    return wanted


def _checked(text: str, wanted: dict[str, set[str]]) -> bytes:
    data = text.encode()
    if _meaning(parse_groups(data)) != wanted:
        raise not_editable("it would not say then what was asked for")
    return data


def _meaning(groups: GroupList) -> dict[str, set[str]]:
    return {name: texts_of(entries) for name, entries in groups.members.items()}


def _reads_as_value(name: str) -> bool:
    """Return whether other readers of YAML take the name for a number or a truth value."""
    return name in {"true", "false", "yes", "no", "on", "off", "null", "y", "n"} or name[:1].isdigit()


def _unknown(name: str, groups: GroupList) -> NotFound:
    there = ", ".join(sorted(groups.members)) or "none yet"
    return NotFound(
        f"There is no group {quoted(name)}; there are: {there}.",
        reason="GROUP_UNKNOWN",
        metadata={"group": quoted(name)},
        hint="syftmesh group ls",
    )
