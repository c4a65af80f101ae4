"""Changes of a YAML text that touch only what they change: comments, order, quotes and line ends stay."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from syftmesh.yaml_place import Document, Items, Keys, Leaf, Step, document_of, not_editable, spans_of

_INDENT = "  "


class _Splice(NamedTuple):
    start: int
    end: int
    text: str


def quote(text: str) -> str:
    """Return `text` as a double-quoted scalar of YAML."""
    written = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else _escape(c) for c in written)


def flow_list(texts: Iterable[str]) -> str:
    """Return a list with brackets."""
    return f"[{', '.join(quote(text) for text in texts)}]"


def set_list(
    text: str, path: Sequence[Step], key: str, wanted: Sequence[str], canonical: Callable[[str], str]
) -> str:
    """Return `text` with the list `key` of the mapping at `path` holding exactly `wanted`.

    Items that are wanted stay as they are written; others go, with their line where nothing else stands on it.

    Args:
        text: The document.
        path: Where the mapping is.
        key: Of the list; made when it is missing.
        wanted: The entries, each once, in canonical form.
        canonical: Gives the canonical form of an item as written.
    """
    document, table = _table(text, path)
    pair = table.pair(key)
    if pair is None:
        return insert_key(text, path, key, flow_list(wanted)) if wanted else text
    name, value = pair
    if isinstance(value, Leaf) and value.is_null:
        return _spliced(text, [_replacement(document, value, flow_list(wanted))]) if wanted else text
    if not isinstance(value, Items):
        raise not_editable(f"{key} is not a list")
    written = [canonical(item.text) if isinstance(item, Leaf) else "" for item in value.items]
    kept = [entry in wanted for entry in written]
    added = [quote(entry) for entry in wanted if entry not in written]
    if value.is_flow:
        return _spliced(text, _flow_change(document, value, kept, added))
    splices = _block_change(document, value, kept, added)
    if not any(kept) and not added:
        colon = text.index(":", name.end) + 1
        splices.append(_Splice(colon, colon, " []"))
    return _spliced(text, splices)


def set_value(text: str, path: Sequence[Step], key: str, value: str) -> str:
    """Return `text` with `key` of the mapping at `path` having the value that `value` writes."""
    document = document_of(text)
    place = document.at(path)
    pair = place.pair(key) if isinstance(place, Keys) else None
    if pair is None:
        return insert_key(text, path, key, value)
    if not isinstance(pair[1], Leaf):
        raise not_editable(f"{key} is not a single value")
    return _spliced(text, [_replacement(document, pair[1], value)])


def insert_key(text: str, path: Sequence[Step], key: str, value: str) -> str:
    """Return `text` with a new last `key` in the mapping at `path`; `value` is written in one line."""
    document = document_of(text)
    if document.root is None and not path:
        return _appended(document, [f"{key}: {value}"])
    document, table = _table(text, path)
    if table.is_flow:
        return _spliced(text, _flow_change(document, table, [True] * len(table.pairs), [f"{key}: {value}"]))
    line = f"{document.newline}{' ' * table.column}{key}: {value}"
    end = document.line_end(table.end)
    return _spliced(text, [_Splice(end, end, line)])


def remove_key(text: str, path: Sequence[Step], key: str, *, with_comment: bool = False) -> str:
    """Return `text` without `key` of the mapping at `path`.

    Args:
        text: The document.
        path: Where the mapping is.
        key: What goes, with its value.
        with_comment: Whether a comment behind it, on its last line, goes too.
    """
    document, table = _table(text, path)
    keys = [name.text for name, _ in table.pairs]
    if key not in keys:
        return text
    if table.is_flow:
        return _spliced(text, _flow_change(document, table, [name != key for name in keys], []))
    start, end = list(spans_of(table))[keys.index(key)]
    if with_comment:
        end = document.line_end(end)
    return _spliced(text, [_line_removal(document, start, end)])


def fill(text: str, key: str, lines: Sequence[str], flow: str) -> str:
    """Return `text` whose root mapping has `key`, which is missing or empty so far.

    Args:
        text: The document.
        key: Of the root.
        lines: The value in lines of their own, as they stand below the key at column 0.
        flow: The same value in brackets, for a document that is written so.
    """
    document = document_of(text)
    below = [_INDENT + line for line in lines]
    if document.root is None:
        return _appended(document, [f"{key}:", *below])
    document, table = _table(text, ())
    margin = " " * table.column
    pair = table.pair(key)
    if table.is_flow:
        return set_flow(text, key, flow) if pair else insert_key(text, (), key, flow)
    if pair is None:
        end = document.line_end(table.end)
        written = [f"{margin}{key}:", *(margin + line for line in below)]
        return _spliced(text, [_Splice(end, end, "".join(document.newline + line for line in written))])
    value = pair[1]
    if "\n" in text[value.start : value.end]:
        return set_flow(text, key, flow)
    end = document.line_end(max(pair[0].end, value.end))
    inserted = "".join(document.newline + margin + line for line in below)
    # `rules: []` becomes `rules:` and lines; a comment behind it stays behind it.
    cut = value.start
    while value.start != value.end and text[cut - 1] == " ":
        cut -= 1
    return _spliced(text, [_Splice(cut, value.end, ""), _Splice(end, end, inserted)])


def set_flow(text: str, key: str, flow: str) -> str:
    """Return `text` with the empty value of `key` of the root, null or brackets, replaced by `flow`."""
    document, table = _table(text, ())
    pair = table.pair(key)
    if pair is None:
        raise not_editable(f"{key} is not there")
    value = pair[1]
    if isinstance(value, Leaf):
        return _spliced(text, [_replacement(document, value, flow)])
    # What stands inside empty brackets is a comment: it stays inside.
    return _spliced(text, [_Splice(value.start + 1, value.start + 1, flow[1:-1])])


def append_item(text: str, path: Sequence[Step], lines: Sequence[str], flow: str) -> str:
    """Return `text` with one more item in the list at `path`, which has some.

    Args:
        text: The document.
        path: Where the list is.
        lines: The item in lines, the first of which stands behind ``-``.
        flow: The same item in brackets.
    """
    document = document_of(text)
    place = document.at(path)
    if not isinstance(place, Items):
        raise not_editable("a list is none")
    if place.is_flow:
        return _spliced(text, _flow_change(document, place, [True] * len(place.items), [flow]))
    margin = " " * place.column
    written = [f"{margin}- {lines[0]}", *(f"{margin}{_INDENT}{line}" for line in lines[1:])]
    end = document.line_end(place.end)
    return _spliced(text, [_Splice(end, end, "".join(document.newline + line for line in written))])


def _flow_change(
    document: Document, inside: Items | Keys, kept: Sequence[bool], added: Sequence[str]
) -> list[_Splice]:
    """Take elements out of brackets, each with one comma, and put others behind the last one that stays."""
    spans, commas, text = list(spans_of(inside)), document.commas(inside), document.text
    last = max((at for at, stays in enumerate(kept) if stays), default=None)
    splices = []
    for at, (start, end) in enumerate(spans):
        comma = commas[at]
        if not kept[at]:
            splices.append(_Splice(start, end, ""))
        ends_list = comma is not None and at == last and commas[-1] is None and at + 1 < len(spans)
        if comma is not None and (not kept[at] or ends_list):
            after = comma + 1
            while text[after] == " ":
                after += 1
            # A comment needs the blank in front of it.
            splices.append(_Splice(comma, comma + 1 if text[after] == "#" else after, ""))
    if added:
        where = inside.start + 1 if last is None else spans[last][1]
        splices.append(_Splice(where, where, ("" if last is None else ", ") + ", ".join(added)))
    return splices


def _block_change(
    document: Document, inside: Items, kept: Sequence[bool], added: Sequence[str]
) -> list[_Splice]:
    splices = []
    for item, stays in zip(inside.items, kept, strict=True):
        if stays:
            continue
        dash = _dash(document, inside, item.start)
        if "\n" in document.text[dash : item.start]:
            # A comment stands between the dash and the item.
            splices += [_Splice(dash, dash + 1, ""), _line_removal(document, item.start, item.end)]
        else:
            splices.append(_line_removal(document, dash, item.end))
    if added:
        end = document.line_end(inside.end)
        margin = document.newline + " " * inside.column
        splices.append(_Splice(end, end, "".join(f"{margin}- {item}" for item in added)))
    return splices


def _dash(document: Document, inside: Items, index: int) -> int:
    """Return where the ``-`` of the item at `index` stands: in the column of the list, on its line or above."""
    line = document.line_start(index)
    while True:
        dash = line + inside.column
        if document.text[dash : dash + 1] == "-" and not document.text[line:dash].strip():
            return dash
        if not line:
            raise not_editable("the items of a list stand in no column")
        line = document.line_start(line - 1)


def _line_removal(document: Document, start: int, end: int) -> _Splice:
    """Take out what stands from `start` to `end`, with its lines where nothing else stands on them."""
    text = document.text
    line, last = document.line_start(start), document.line_end(end)
    if text[line:start].strip() or text[end:last].strip():
        while end < last and text[end] in " \t":
            end += 1
        return _Splice(start, end, "")
    if line:
        return _Splice(line - (2 if text[line - 2 : line] == "\r\n" else 1), last, "")
    return _Splice(0, min(last + len(document.newline), len(text)), "")


def _replacement(document: Document, value: Leaf, written: str) -> _Splice:
    space = " " if value.start == value.end and document.text[value.start - 1] == ":" else ""
    return _Splice(value.start, value.end, space + written)


def _table(text: str, path: Sequence[Step]) -> tuple[Document, Keys]:
    document = document_of(text)
    place = document.at(path)
    if not isinstance(place, Keys):
        raise not_editable("a mapping is none")
    return document, place


def _appended(document: Document, lines: Sequence[str]) -> str:
    text = document.text
    gap = document.newline if text and not text.endswith("\n") else ""
    return text + gap + document.newline.join(lines) + document.newline


def _spliced(text: str, splices: Sequence[_Splice]) -> str:
    pieces, at = [], 0
    for splice in sorted(splices, key=lambda each: (each.start, each.end)):
        if splice.start < at:
            raise not_editable("two changes meet in one place")
        pieces += [text[at : splice.start], splice.text]
        at = splice.end
    return "".join([*pieces, text[at:]])


def _escape(character: str) -> str:
    point = ord(character)
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"
