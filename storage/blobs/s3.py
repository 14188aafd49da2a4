"""Blobs in an S3-compatible store. The library is imported when the server starts to use it, and never without."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from config.media import S3
from storage.blobs.base import CHUNK_BYTES, BlobError, BlobMissing
from storage.blobs.spool import FileThreads, Spool

PART_BYTES: Final = 8 * 1024 * 1024
"""What is uploaded at once, from memory: the store may have 10,000 parts of it, 80 GiB."""
MAX_PUTS: Final = 4
"""Files that are uploaded to the store at once, each with a part in memory."""
PRESIGNED_S: Final = 300
CONNECT_TIMEOUT_S: Final = 10
READ_TIMEOUT_S: Final = 60
MAX_TRIES: Final = 3
MAX_CONNECTIONS: Final = 50

T = TypeVar("T")


class S3BlobStore:
    """A `BlobStore` in a bucket."""

    def __init__(self, options: S3, spool: Spool, threads: FileThreads) -> None:
        assert options.bucket is not None
        self._options = options
        self._bucket = options.bucket
        self._spool = spool
        self._threads = threads
        self._connections = AsyncExitStack()
        self._connecting = asyncio.Lock()
        self._client: Any = None
        self._puts = asyncio.Semaphore(MAX_PUTS)

    async def put(self, name: str, path: Path) -> None:
        """Uploads the file, large ones in parts. Raises BlobError."""
        where = self._where(name)
        async with self._puts:
            if await self._threads.run(lambda: path.stat().st_size) <= PART_BYTES:
                body = await self._threads.run(path.read_bytes)
                await self._call(lambda client: client.put_object(**where, Body=body))
            else:
                await self._put_parts(where, path)

    async def _put_parts(self, where: dict[str, str], path: Path) -> None:
        upload = await self._call(lambda client: client.create_multipart_upload(**where))
        whole = {**where, "UploadId": upload["UploadId"]}
        try:
            parts: list[dict[str, Any]] = []
            with await self._threads.run(lambda: path.open("rb")) as file:
                while body := await self._threads.run(lambda: file.read(PART_BYTES)):
                    number = len(parts) + 1
                    part = await self._call(partial(_upload_part, {**whole, "PartNumber": number, "Body": body}))
                    parts.append({"ETag": part["ETag"], "PartNumber": number})
            await self._call(lambda client: client.complete_multipart_upload(**whole, MultipartUpload={"Parts": parts}))
        except BaseException:
            with suppress(BlobError):  # a rule of the bucket removes what is left of uploads
                await asyncio.shield(self._call(lambda client: client.abort_multipart_upload(**whole)))
            raise

    async def open(self, name: str, start: int, length: int) -> S3BlobReader:
        """Starts to read a part. Raises BlobError."""
        byte_range = f"bytes={start}-{start + length - 1}"
        answer = await self._call(lambda client: client.get_object(**self._where(name), Range=byte_range))
        return S3BlobReader(answer["Body"], length)

    @asynccontextmanager
    async def as_file(self, name: str) -> AsyncIterator[Path]:
        """The content, downloaded to the spool. Raises BlobError."""
        answer = await self._call(lambda client: client.get_object(**self._where(name)))
        reader = S3BlobReader(answer["Body"], answer["ContentLength"])
        async with self._spool.file() as file:
            try:
                async for chunk in reader.chunks():
                    await file.write(chunk)
            finally:
                await reader.close()
            await file.finish()
            yield file.path

    async def delete(self, name: str) -> None:
        """Deletes the object, if it is there. Raises BlobError."""
        await self._call(lambda client: client.delete_object(**self._where(name)))

    async def presign(self, name: str, *, content_type: str, disposition: str) -> str | None:
        """A URL at which the store serves it as this server would, for some minutes; None unless redirects are on."""
        if not self._options.redirect:
            return None
        parameters = {
            **self._where(name),
            "ResponseContentType": content_type,
            "ResponseContentDisposition": disposition,
            "ResponseCacheControl": "private, max-age=86400, immutable",
        }
        url: str = await self._call(
            lambda client: client.generate_presigned_url("get_object", Params=parameters, ExpiresIn=PRESIGNED_S)
        )
        return url

    async def close(self) -> None:
        """Ends connections, and waits for what is being written."""
        await self._connections.aclose()
        self._threads.close()

    def _where(self, name: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": f"{self._options.prefix}/{name}"}

    async def _call(self, operation: Callable[[Any], Awaitable[T]]) -> T:
        """What the store answers. Raises BlobMissing, BlobError."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return await operation(await self._connected())
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code")
            raise (BlobMissing if code in ("NoSuchKey", "404") else BlobError)(f"the store says: {error}") from error
        except (BotoCoreError, OSError) as error:
            raise BlobError(f"the store cannot be used: {error}") from error

    async def _connected(self) -> Any:
        async with self._connecting:
            if self._client is None:
                self._client = await self._connections.enter_async_context(_client(self._options))
            return self._client


class S3BlobReader:
    """An object, or a part of one, that is being read."""

    def __init__(self, body: Any, length: int) -> None:
        self._body = body
        self._left = length

    async def chunks(self) -> AsyncIterator[bytes]:
        """Its bytes, in pieces. Raises BlobError."""
        while self._left:
            try:
                chunk: bytes = await self._body.read(min(CHUNK_BYTES, self._left))
            except Exception as error:  # those of the HTTP library beneath, too
                raise BlobError(f"the store has stopped sending: {error}") from error
            if not chunk:
                raise BlobError("the store sent less than there is")
            self._left -= len(chunk)
            yield chunk

    async def close(self) -> None:
        """Lets go of the connection; what was not read is not waited for."""
        self._body.close()


async def _upload_part(parameters: dict[str, Any], client: Any) -> dict[str, Any]:
    part: dict[str, Any] = await client.upload_part(**parameters)
    return part


def _client(options: S3) -> Any:
    from aiobotocore.config import AioConfig
    from aiobotocore.session import get_session

    secret = options.secret_access_key
    return get_session().create_client(
        "s3",
        region_name=options.region or "us-east-1",
        endpoint_url=options.endpoint,
        aws_access_key_id=options.access_key_id,
        aws_secret_access_key=None if secret is None else secret.reveal(),
        config=AioConfig(
            signature_version="s3v4",
            s3={"addressing_style": "path" if options.endpoint else "auto"},
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            retries={"max_attempts": MAX_TRIES, "mode": "standard"},
            max_pool_connections=MAX_CONNECTIONS,
            # Stores other than Amazon's need not know the newer checksums.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
