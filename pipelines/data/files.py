"""Adapter: small files under one root, a folder or an object store; the same calls for both."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import pyarrow.fs as arrow

from pipelines.data.object_store import SCHEME, arrow_filesystem, delta_options, is_url, words


class Files:
    """Files under a root. Names are relative, with `/`; a file appears whole or not at all.

    Args:
        root: a folder, or `s3://bucket[/folder]`.
        options: of the object store (default: what the environment says).
    Raises:
        OSError: from every method, when the place does not answer or refuses.
        ValueError: the root is neither.
    """

    def __init__(self, root: Path | str, options: Mapping[str, str] | None = None) -> None:
        self.root = str(root).rstrip("/")
        self._local = not is_url(self.root)
        if self._local:
            self._fs, self._base = arrow.LocalFileSystem(), str(Path(self.root).absolute())
        else:
            self._fs = arrow_filesystem(options or delta_options())
            self._base = self.root.removeprefix(SCHEME)

    def __str__(self) -> str:
        return self.root

    def where(self, name: str) -> str:
        """Folder or URL of a name, for people."""
        return f"{self.root}/{name}"

    def write(self, name: str, content: bytes) -> None:
        """Write a file; what was there is replaced."""
        path = self._path(name)
        if self._local:
            self._fs.create_dir(str(Path(path).parent), recursive=True)
            draft = str(Path(path).with_name(f".{Path(path).name}.{os.getpid()}"))
            try:
                self._put(draft, content)
                Path(draft).replace(path)
            finally:
                Path(draft).unlink(missing_ok=True)
        else:
            self._put(path, content)

    def read(self, name: str) -> bytes:
        """A file's content.

        Raises:
            FileNotFoundError: there is none.
        """
        try:
            with self._fs.open_input_stream(self._path(name)) as file:
                return bytes(file.read())
        except OSError as error:
            raise self._told(name, error) from error

    def exists(self, name: str) -> bool:
        """Whether a file of that name is there."""
        return self._info(self._path(name), name).type == arrow.FileType.File

    def delete(self, name: str) -> None:
        """Remove a file, if it is there."""
        try:
            self._fs.delete_file(self._path(name))
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._told(name, error) from error

    def folders(self, name: str = "") -> list[str]:
        """Names of the folders in a folder, sorted, hidden ones left out; none when it is not there."""
        return sorted(item.base_name for item in self._list(name) if item.type == arrow.FileType.Directory)

    def below(self, name: str) -> set[str]:
        """Names (without folders) of all files anywhere below a folder."""
        return {item.base_name for item in self._list(name, recursive=True) if item.type == arrow.FileType.File}

    def _list(self, name: str, *, recursive: bool = False) -> list[arrow.FileInfo]:
        selector = arrow.FileSelector(self._path(name), allow_not_found=True, recursive=recursive)
        try:
            found = self._fs.get_file_info(selector)
        except OSError as error:
            raise self._told(name, error) from error
        if not found and not self._local:
            self._need_bucket()
        return [item for item in found if not item.base_name.startswith(".")]

    def _need_bucket(self) -> None:
        """A bucket that is not there lists as empty: a wrong name must not look like a new store."""
        bucket = self._base.partition("/")[0]
        if self._info(bucket, "").type == arrow.FileType.NotFound:
            raise FileNotFoundError(f"{self.root}: there is no bucket {bucket}; make the bucket, or correct the name")

    def _info(self, path: str, name: str) -> arrow.FileInfo:
        try:
            return self._fs.get_file_info(path)
        except OSError as error:
            raise self._told(name, error) from error

    def _put(self, path: str, content: bytes) -> None:
        try:
            with self._fs.open_output_stream(path) as file:
                file.write(content)
        except OSError as error:
            raise self._told(path, error) from error

    def _path(self, name: str) -> str:
        return f"{self._base}/{name}" if name else self._base

    def _told(self, name: str, error: OSError) -> OSError:
        return type(error)(f"{self.where(name)}: {words(error)}")


Root: TypeAlias = Path | str | Files


def files_at(root: Root) -> Files:
    """`root` as Files."""
    return root if isinstance(root, Files) else Files(root)
