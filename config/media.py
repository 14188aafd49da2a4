"""The options of the content repository and of its store. `config.schema` puts them with the others."""

# ruff: noqa: RUF009 -- `option` is a `dataclasses.field`, and every default given to it is immutable.

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from config import checks
from config.declare import option
from config.secret import Secret


@dataclass(frozen=True, slots=True)
class S3:
    """Keeps files in an S3-compatible store instead of a local directory."""

    bucket: str | None = option(None, "The bucket, which has to be there; null keeps files locally.")
    endpoint: str | None = option(None, "URL of the store; null for Amazon's.", check=checks.check_http_url)
    region: str | None = option(None, "Its region, where it has any.")
    access_key_id: str | None = option(None, "Key to the bucket; null for what the machine provides.")
    secret_access_key: Secret | None = option(None, "The secret of `access_key_id`.", secret=True)
    prefix: str = option("media", "What the names of objects begin with, before a slash.", check=checks.check_opaque)
    redirect: bool = option(
        False, "Send clients that allow it to the store: they have to reach it, and browsers need its CORS rules."
    )

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong between options: pairs of a key and a complaint."""
        if self.bucket is not None and (self.access_key_id is None) != (self.secret_access_key is None):
            missing, given = ("access_key_id", "secret_access_key")[:: -1 if self.access_key_id else 1]
            yield missing, f"must be set too when {given} is"


@dataclass(frozen=True, slots=True)
class Media:
    """The content repository."""

    directory: Path | None = option(
        None, "Where files are kept, or with `s3.bucket` only those that are coming in; null for `data_dir`/media."
    )
    max_upload_bytes: int = option(100 * 1024 * 1024, "Largest file that may be uploaded or fetched.", minimum=1)
    user_quota_bytes: int | None = option(None, "What one user may keep here in all; null for no bound.", minimum=0)
    max_image_pixels: int = option(
        64_000_000, "Largest image that thumbnails are made of.", minimum=1_000_000, maximum=1_000_000_000
    )
    remote_retention_ms: int | None = option(
        30 * 24 * 3600 * 1000, "How long files of other servers are kept unused; null for ever.", minimum=60_000
    )
    max_remote_bytes: int | None = option(
        10 * 1024**3, "What is kept of other servers' files in all; null for no bound.", minimum=0
    )
    unauthenticated_until: str | None = option(
        None,
        "Files that came before this day, such as `'2026-11-25'`, are served without an access token too, as old "
        "clients and bridges ask for them; null for none.",
        check=checks.check_date,
    )
    url_previews: bool = option(
        False, "Whether the server fetches web pages that clients ask about. `federation.denied_ip_ranges` holds."
    )
