"""The files of a shard. Equal content gives equal bytes.

    00000.tar               webdataset: KEY.png or .jpg, KEY.cls (the identity), KEY.json; KEY is the image's number
    00000.parquet           a row for each image in the tar file, see `KEPT`
    00000.rejected.parquet  a row for each image that was made and not kept, see `REJECTED`

The tar file is written last: where it is, the shard is whole.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from id3pm.errors import InvalidInputError
from id3pm.formats.images import GENERATED_XMP, encode_png
from id3pm.sampling.receipt import Receipt
from id3pm.synthetic.store import Store

RECEIPT_KEY = "id3pm"
"""The PNG text chunk that holds the receipt, as in pictures of the client."""
JPEG_QUALITY = 95
COMPRESS_LEVEL = 4
"""Of PNG: a third of the time of zlib's default 6, and generated faces are no larger (docs/datasets.md)."""
MEASURED = (
    ("similarity", pa.float32()),  # cosine of its ID vector and the target
    ("other_similarity", pa.float32()),  # of its ID vector and the nearest target of another identity
    ("other_identity", pa.int64()),
    ("second_similarity", pa.float32()),  # see `Filters.least_second`
)
COMMON = (
    ("image", pa.int64()),
    ("identity", pa.int64()),
    ("attempt", pa.int32()),
    ("seed", pa.int64()),
    ("guidance_scale", pa.float32()),
    *MEASURED,
)
KEPT = pa.schema(
    [
        ("key", pa.string()),  # of the sample in the tar file
        *COMMON,
        ("origin", pa.string()),
        ("attributes", pa.string()),  # JSON: name -> value in its unit; null for unspecified
        ("id_vector", pa.list_(pa.float32())),  # the target
        ("detection", pa.list_(pa.float32())),  # box, five landmarks, score in pixels: `id3pm.face.detect`
        ("receipt", pa.string()),  # JSON
        ("sha256", pa.string()),  # of the picture file
        ("pixels_sha256", pa.string()),  # of the pixels, uint8 [H, W, 3]
    ]
)
REJECTED = pa.schema([*COMMON, ("reason", pa.string())])


def tar_name(number: int) -> str:
    """Name of a shard's pictures."""
    return f"{number:05d}.tar"


def kept_name(number: int) -> str:
    """Name of the table of its images."""
    return f"{number:05d}.parquet"


def rejected_name(number: int) -> str:
    """Name of the table of what was rejected."""
    return f"{number:05d}.rejected.parquet"


def numbers_of(names: Iterable[str]) -> set[int]:
    """Shards that are whole."""
    return {int(name[:-4]) for name in names if name.endswith(".tar") and name[:-4].isdecimal()}


def encode_picture(image: NDArray[Any], image_format: str, receipt: Receipt) -> bytes:
    """A picture file that says that it was generated; a PNG carries its receipt, too."""
    if image_format == "png":
        text = {RECEIPT_KEY: json.dumps(receipt)}
        return encode_png(image, text, generated=True, compress_level=COMPRESS_LEVEL)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0, extra=_app1(GENERATED_XMP))
    return file.getvalue()


def _app1(xmp: str) -> bytes:
    """XMP as a JPEG segment (XMP specification, part 3, 1.1.3)."""
    content = b"http://ns.adobe.com/xap/1.0/\0" + xmp.encode()
    return b"\xff\xe1" + (len(content) + 2).to_bytes(2, "big") + content


def tar_bytes(members: Iterable[tuple[str, bytes]]) -> bytes:
    """An uncompressed tar file (POSIX ustar) whose times and owners are 0."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def table_bytes(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> bytes:
    """A Parquet file of these rows."""
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), file, compression="zstd")
    return file.getvalue()


def read_table(store: Store, name: str, schema: pa.Schema) -> pa.Table:
    """A table of a shard.

    Raises:
        InvalidInputError: It is damaged, or has other columns.
    """
    try:
        table = pq.read_table(io.BytesIO(store.read(name)))
    except pa.ArrowException as error:
        raise InvalidInputError(f"{name} is damaged ({error}): delete this shard's files and run again") from error
    if not table.schema.remove_metadata().equals(schema):
        raise InvalidInputError(f"{name} has other columns than this version writes")
    return table


def read_tar(store: Store, name: str) -> dict[str, bytes]:
    """The members of a shard's tar file.

    Raises:
        InvalidInputError: It is damaged.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(store.read(name)), mode="r:") as tar:
            return {member.name: _content(tar, member) for member in tar}
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise InvalidInputError(f"{name} is damaged ({error}): delete it and run again") from error


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    content = b"" if file is None else file.read()
    if file is None or len(content) != member.size:
        raise tarfile.ReadError(f"{member.name} is cut off")
    return content


def sha256(data: bytes) -> str:
    """Hash (hex) of bytes."""
    return hashlib.sha256(data).hexdigest()
