"""Pages of lists: a page token names the last item of the page before and which list it is of."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Final, NoReturn, TypeVar

from syftmesh_core.errors import InvalidInput

DEFAULT_SIZE: Final = 100
MAX_SIZE: Final = 1000
_MAX_TOKEN_CHARACTERS: Final = 1024

Item = TypeVar("Item")


def page_of(
    items: Sequence[Item], name: Callable[[Item], str], *, kind: str, page_size: int, page_token: str
) -> tuple[list[Item], str]:
    """Return one page of `items` (whole list, in its order) and the token of the next page, empty at the end.

    Args:
        items: The whole list.
        name: Gives an item's unique name.
        kind: Name of the list; a token of another list is refused.
        page_size: 0 means 100, larger ones are cut to 1,000.
        page_token: Of the page before, or empty.

    Raises:
        InvalidInput: A negative size or a foreign token (PAGE_INVALID).
    """
    if page_size < 0:
        _refuse(f"A page has no negative size ({page_size}).")
    start = 0
    if page_token:
        last = _parse(page_token, kind)
        # The item may be gone meanwhile: then the page after it cannot be found again.
        start = next((place + 1 for place, item in enumerate(items) if name(item) == last), -1)
        if start < 0:
            _refuse(
                "The page token names an item that is not in the list (any more). Start from the first page."
            )
    end = start + min(page_size or DEFAULT_SIZE, MAX_SIZE)
    page = list(items[start:end])
    return page, _token(kind, name(page[-1])) if end < len(items) else ""


def _token(kind: str, last: str) -> str:
    return base64.urlsafe_b64encode(f"{kind}:{last}".encode()).decode().rstrip("=")


def _parse(token: str, kind: str) -> str:
    try:
        if len(token) > _MAX_TOKEN_CHARACTERS:
            raise ValueError
        text = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True).decode()
    except (ValueError, binascii.Error):
        _refuse("The page token is not one of this list. Start from the first page.")
    prefix = f"{kind}:"
    if not text.startswith(prefix):
        _refuse("The page token is not one of this list. Start from the first page.")
    return text.removeprefix(prefix)


def _refuse(message: str) -> NoReturn:
    raise InvalidInput(message, reason="PAGE_INVALID")
