"""Blocking datasets, files, rights, calls and keys; each method is that of the asynchronous class of its name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

from syftmesh_client.files import Change, FileEntryView
from syftmesh_core.record import FileRecord

from syftmesh.blocking_rule import RuleDesk
from syftmesh.card import DatasetCard
from syftmesh.dataset import AsyncDataset, AsyncDatasets, AsyncMock
from syftmesh.device import Device, DeviceEnd
from syftmesh.file import AsyncFiles
from syftmesh.key import AsyncKeys, KeyInfo
from syftmesh.permission import AsyncPermissions, Decision, Explanation, Question, Readers, Token
from syftmesh.portal import Portal
from syftmesh.rpc import RESULT_S, AsyncRpc

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")


class Mock:
    """The mock part of a dataset."""

    def __init__(self, portal: Portal, mock: AsyncMock) -> None:
        self._portal = portal
        self._mock = mock

    def files(self) -> list[str]:
        """See `AsyncMock.files`."""
        return self._portal.run(self._mock.files())

    def read(self, name: str) -> bytes:
        """See `AsyncMock.read`."""
        return self._portal.run(self._mock.read(name))

    def dataframe(self, name: str | None = None) -> pd.DataFrame:
        """See `AsyncMock.dataframe`."""
        return self._portal.run(self._mock.dataframe(name))

    def download(self, folder: Path | str) -> Path:
        """See `AsyncMock.download`."""
        return self._portal.run(self._mock.download(folder))


@dataclass(frozen=True, slots=True)
class Dataset(DatasetCard):
    """A dataset of a site.

    Attributes:
        mock: Its mock part.
        inner: The asynchronous one.
    """

    mock: Mock = field(repr=False, compare=False)
    inner: AsyncDataset = field(repr=False, compare=False)

    @classmethod
    def of(cls, portal: Portal, found: AsyncDataset) -> Dataset:
        """Return the blocking form of `found`."""
        values = {each.name: getattr(found, each.name) for each in fields(DatasetCard)}
        return cls(**values, mock=Mock(portal, found.mock), inner=found)


class Datasets:
    """Finds datasets."""

    def __init__(self, portal: Portal, datasets: AsyncDatasets) -> None:
        self._portal = portal
        self._datasets = datasets

    def list(self, site: str | None = None) -> list[Dataset]:
        """See `AsyncDatasets.list`."""
        return [Dataset.of(self._portal, found) for found in self._portal.run(self._datasets.list(site))]

    def get(self, dataset: str) -> Dataset:
        """See `AsyncDatasets.get`."""
        return Dataset.of(self._portal, self._portal.run(self._datasets.get(dataset)))


class Files:
    """Reads and writes files."""

    def __init__(self, portal: Portal, files: AsyncFiles) -> None:
        self._portal = portal
        self._files = files

    def read(self, path: str) -> bytes:
        """See `AsyncFiles.read`."""
        return self._portal.run(self._files.read(path))

    def write(self, path: str, data: bytes, *, expected_revision: int | None = None) -> FileRecord:
        """See `AsyncFiles.write`."""
        return self._portal.run(self._files.write(path, data, expected_revision=expected_revision))

    def delete(self, path: str, *, expected_revision: int | None = None) -> FileRecord:
        """See `AsyncFiles.delete`."""
        return self._portal.run(self._files.delete(path, expected_revision=expected_revision))

    def list(self, prefix: str) -> list[FileEntryView]:
        """See `AsyncFiles.list`."""
        return self._portal.run(self._files.list(prefix))

    def stat(self, path: str) -> FileEntryView | None:
        """See `AsyncFiles.stat`."""
        return self._portal.run(self._files.stat(path))

    def watch(self, prefixes: Sequence[str] = ()) -> Iterator[Change]:
        """See `AsyncFiles.watch`."""
        return self._portal.iterate(self._files.watch(prefixes))


class Permissions(RuleDesk):
    """Asks the permission service, and changes rules."""

    def __init__(self, portal: Portal, permissions: AsyncPermissions) -> None:
        super().__init__(portal, permissions)
        self._portal = portal
        self._permissions = permissions

    def check(
        self,
        path: str,
        level: str = "read",
        *,
        as_: str | None = None,
        size_bytes: int | None = None,
        at: datetime | None = None,
        at_least: Token | None = None,
    ) -> Decision:
        """See `AsyncPermissions.check`."""
        asked = self._permissions.check(path, level, as_=as_, size_bytes=size_bytes, at=at, at_least=at_least)
        return self._portal.run(asked)

    def explain(
        self,
        path: str,
        level: str = "read",
        *,
        as_: str | None = None,
        size_bytes: int | None = None,
        at: datetime | None = None,
        at_least: Token | None = None,
    ) -> Explanation:
        """See `AsyncPermissions.explain`."""
        asked = self._permissions.explain(
            path, level, as_=as_, size_bytes=size_bytes, at=at, at_least=at_least
        )
        return self._portal.run(asked)

    def batch_check(self, questions: Sequence[Question], *, at_least: Token | None = None) -> list[Decision]:
        """See `AsyncPermissions.batch_check`."""
        return self._portal.run(self._permissions.batch_check(questions, at_least=at_least))

    def readers(self, path: str, *, at: datetime | None = None, at_least: Token | None = None) -> Readers:
        """See `AsyncPermissions.readers`."""
        return self._portal.run(self._permissions.readers(path, at=at, at_least=at_least))

    def accessible(self, prefix: str = "", *, at_least: Token | None = None) -> Iterator[str]:
        """See `AsyncPermissions.accessible`."""
        return self._portal.iterate(self._permissions.accessible(prefix, at_least=at_least))

    def watch(self, questions: Sequence[Question], *, at_least: Token | None = None) -> Iterator[Decision]:
        """See `AsyncPermissions.watch`."""
        return self._portal.iterate(self._permissions.watch(questions, at_least=at_least))


class Rpc:
    """Makes calls."""

    def __init__(self, portal: Portal, rpc: AsyncRpc) -> None:
        self._portal = portal
        self._rpc = rpc

    @overload
    def call(
        self, url: str, data: object = ..., *, timeout_s: float = ..., content_type: str | None = ...
    ) -> Any: ...

    @overload
    def call(
        self,
        url: str,
        data: object = ...,
        *,
        reply_type: type[T],
        timeout_s: float = ...,
        content_type: str | None = ...,
    ) -> T: ...

    def call(
        self,
        url: str,
        data: object = None,
        *,
        reply_type: type[T] | None = None,
        timeout_s: float = 30.0,
        content_type: str | None = None,
    ) -> Any:
        """See `AsyncRpc.call`."""
        if reply_type is None:
            return self._portal.run(self._rpc.call(url, data, timeout_s=timeout_s, content_type=content_type))
        return self._portal.run(
            self._rpc.call(url, data, reply_type=reply_type, timeout_s=timeout_s, content_type=content_type)
        )

    def send(
        self, url: str, data: object = None, *, expires_s: float = 86_400.0, content_type: str | None = None
    ) -> str:
        """See `AsyncRpc.send`."""
        return self._portal.run(self._rpc.send(url, data, expires_s=expires_s, content_type=content_type))

    def result(
        self,
        call_id: str,
        *,
        reply_type: type[T] | None = None,
        timeout_s: float = RESULT_S,
        site: str | None = None,
    ) -> Any:
        """See `AsyncRpc.result`."""
        asked = self._rpc.result(call_id, reply_type=reply_type, timeout_s=timeout_s, site=site)
        return self._portal.run(asked)


class Keys:
    """Looks at keys, and ends own devices."""

    def __init__(self, portal: Portal, keys: AsyncKeys) -> None:
        self._portal = portal
        self._keys = keys

    def show(self) -> KeyInfo:
        """See `AsyncKeys.show`."""
        return self._portal.run(self._keys.show())

    def verify(self, email: str) -> str:
        """See `AsyncKeys.verify`."""
        return self._portal.run(self._keys.verify(email))

    def devices(self, email: str | None = None) -> list[Device]:
        """See `AsyncKeys.devices`."""
        return self._portal.run(self._keys.devices(email))

    def revoke_device(self, device_id: str) -> DeviceEnd:
        """See `AsyncKeys.revoke_device`."""
        return self._portal.run(self._keys.revoke_device(device_id))
