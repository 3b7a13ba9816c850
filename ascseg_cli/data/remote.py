"""Objects in an S3 store, by URLs such as `s3://bucket/folder/a.png`: read and written whole, through fsspec.

Credentials, region and endpoint come from the environment, as every AWS tool finds them; none is ever shown.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from ascseg_cli.errors import InputError, MissingExtraError, OutputError, StoreError, UsageError

_PAGE = 1000  # names in one answer of the store, and in one request to delete


@dataclass(frozen=True, slots=True)
class RemotePath:
    """The place of an object, or of a folder: of all objects whose names begin with it and a slash.

    key  without a slash at its ends; empty for the whole bucket
    """

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}".removesuffix("/")

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(self.bucket, f"{self.key}/{name}" if self.key else name)

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The suffix of the key, as `Path.suffix`."""
        return PurePosixPath(self.name).suffix

    def is_within(self, folder: RemotePath) -> bool:
        """Whether it is that folder or lies in it."""
        return self.bucket == folder.bucket and f"{self.key}/".startswith(f"{folder.key}/" if folder.key else "")


Place = Path | RemotePath


def is_url(text: str) -> bool:
    """Whether it is written as a URL; a drive's letter on Windows is no scheme."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text) is not None


def parse(url: str) -> RemotePath:
    """The place that a URL names. Raises UsageError for anything but s3://BUCKET or s3://BUCKET/KEY."""
    scheme, _, rest = url.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme.lower() != "s3":
        raise UsageError(f"{url}: {scheme}:// isn't read", "give paths, or URLs of the form s3://BUCKET/FOLDER")
    if not bucket:
        raise UsageError(f"{url} names no bucket", "the form is s3://BUCKET/FOLDER")
    return RemotePath(bucket, key.strip("/"))


def place_of(text: str) -> Place:
    """A path of this machine, or the place that a URL names. Raises UsageError."""
    return parse(text) if is_url(text) else Path(text)


def read_object(path: RemotePath, most: int) -> bytes:
    """At most `most` bytes of an object. Raises InputError for this object, StoreError where all would fail."""
    try:
        return _store().cat_file(_name(path), start=0, end=most)
    except FileNotFoundError:
        raise InputError("no such object") from None
    except Exception as error:  # three libraries below raise their own kinds
        if _code(error) == "InvalidRange":
            return b""  # an empty object has no range
        raise _unusable(path, error) or InputError(f"can't be read: {_words(error)}") from error


def write_object(path: RemotePath, content: bytes, *, only_new: bool = False) -> None:
    """Put an object in its place, whole.

    only_new  raises FileExistsError where there is one already
    Raises StoreError, or OutputError for this object alone.
    """
    with _writing(path):
        _store().pipe_file(_name(path), content, mode="create" if only_new else "overwrite")


def write_from_file(path: RemotePath, file: Path) -> None:
    """Put a large object in its place, whole, from a file. Raises as `write_object`."""
    with _writing(path):
        _store().put_file(str(file), _name(path))


def delete_objects(paths: Sequence[RemotePath]) -> None:
    """Delete what of them is there. Raises StoreError, OutputError."""
    if paths:
        with _writing(paths[0]):
            _store().rm([_name(path) for path in paths], batch_size=_PAGE)


def exists(path: RemotePath) -> bool:
    """Whether there is an object of exactly that name. Raises StoreError."""
    return bool(path.key) and any(key == path.key for key in _keys(path.bucket, path.key, 1))


def keys_below(folder: RemotePath, *, some: bool = False) -> Iterator[str]:
    """The names of all objects in a folder, relative to it, in the order of their bytes; with `some` a few.

    Raises StoreError; FileNotFoundError where there is no such bucket.
    """
    prefix = f"{folder.key}/" if folder.key else ""
    for key in _keys(folder.bucket, prefix, 2 if some else None):
        if key != prefix:  # an object that some tools leave to mark a folder
            yield key[len(prefix) :]


def _keys(bucket: str, prefix: str, most: int | None) -> Iterator[str]:
    query: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix, "MaxKeys": most or _PAGE}
    while True:
        try:
            page = _store().call_s3("list_objects_v2", **query)
        except FileNotFoundError:
            raise
        except Exception as error:
            place = RemotePath(bucket, prefix.rstrip("/"))
            raise _unusable(place, error) or StoreError(f"{place} can't be listed: {_words(error)}") from error
        yield from (entry["Key"] for entry in page.get("Contents", ()))
        if most or not page.get("IsTruncated"):
            return
        query["ContinuationToken"] = page["NextContinuationToken"]


def _name(path: RemotePath) -> str:
    return f"{path.bucket}/{path.key}"


@lru_cache(maxsize=1)
def _store() -> Any:
    """The file system; one for all threads, which it allows."""
    try:
        import s3fs
    except ImportError:
        raise MissingExtraError("s3://", "s3") from None
    return s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)


@contextlib.contextmanager
def _writing(path: RemotePath) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise
    except FileNotFoundError:
        raise StoreError(f"{path} can't be written: there is no bucket {path.bucket!r}", "create it") from None
    except PermissionError as error:
        raise _unusable(path, error) or StoreError(f"{path} can't be written: {_words(error)}") from error
    except Exception as error:
        raise _unusable(path, error) or OutputError(f"{path} can't be written: {_words(error)}") from error


_OF_CREDENTIALS = {
    "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "RequestTimeTooSkewed",
    "AuthorizationHeaderMalformed",
}  # fmt: skip


def _unusable(path: RemotePath, error: Exception) -> StoreError | None:
    """The error that ends a run where no other object would fare better."""
    from botocore.exceptions import BotoCoreError

    if "Credential" in type(error).__name__ or _code(error) in _OF_CREDENTIALS:
        hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        return StoreError(f"s3://{path.bucket} can't be used: {_words(error)}", hint)
    if isinstance(error, (BotoCoreError, TimeoutError, ConnectionError)):
        hint = "check the network, AWS_ENDPOINT_URL and AWS_REGION"
        return StoreError(f"s3://{path.bucket} can't be reached: {_words(error)}", hint)
    return None


def _code(error: BaseException) -> str:
    """S3's own name of an error, which fsspec hides behind Python's kinds."""
    for one in (error, error.__cause__):
        response = getattr(one, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
    return ""


def _words(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())[:200]
