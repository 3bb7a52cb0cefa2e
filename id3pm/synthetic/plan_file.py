"""The plan: a Parquet file with a row for each image, in which each row group is a shard.

    image           int64            number of the image, 0 .. images - 1 in order
    identity        int64            number of the identity, ascending; all its images lie in one shard
    id_vector       binary           its ID vector: float32 [D], little-endian
    origin          string           where the identity comes from
    seed            int64            of the first attempt; `id3pm.synthetic.variations.retry_seed` gives the others
    guidance_scale  float32
    attributes      list<float32>    the attribute vector [A], null for unspecified

The file's metadata have the key `id3pm.plan`: `PlanHeader` as JSON. Parquet keeps equal ID vectors of a row group once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from id3pm.config import MAX_SEED, to_json
from id3pm.errors import InvalidInputError
from id3pm.idspace.vectors import Vectors
from id3pm.sampling.request import NORM_TOLERANCE
from id3pm.synthetic.plan_header import PlanHeader, read_header
from id3pm.synthetic.variations import Variation

HEADER = b"id3pm.plan"
MAX_SHARD = 100_000
"""Most images of a shard: its encoded images are held in memory."""
MAX_IDENTITIES, MAX_IMAGES = 10**7, 10**9
"""Of a plan: their vectors are held in memory. Larger data sets are several plans with different seeds."""
MOST_DICTIONARY = 1 << 30


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PlannedImage:
    """One row.

    Attributes:
        image: Number of the image.
        identity: Number of the identity.
        vector: Its ID vector, float32 [D].
        origin: Where the identity comes from.
        seed: Of the first attempt.
        guidance_scale: Of both stages' common option.
        attributes: float32 [A], or `None`.
    """

    image: int
    identity: int
    vector: NDArray[np.float32]
    origin: str
    seed: int
    guidance_scale: float
    attributes: NDArray[np.float32] | None


class Plan:
    """A plan that is read shard by shard.

    Args:
        open_file: Opens the file anew; called again in every `shard`, so that a plan may be used by several threads.

    Raises:
        InvalidInputError: It is no plan, or a damaged one.
        OSError: It cannot be read.
    """

    def __init__(self, open_file: Callable[[], BinaryIO]) -> None:
        self._open = open_file
        with open_file() as file:
            self.sha256 = _sha256(file)
        with open_file() as file, _readable():
            parquet = pq.ParquetFile(file)
            found = (parquet.schema_arrow.metadata or {}).get(HEADER)
            if found is None:
                raise InvalidInputError("the plan has no header: make one with id3pm dataset plan")
            self.header = read_header(found)
            _check_layout(parquet, self.header)
            self._sizes = [parquet.metadata.row_group(i).num_rows for i in range(parquet.metadata.num_row_groups)]

    @property
    def shard_sizes(self) -> Sequence[int]:
        """Images that are planned in each shard."""
        return self._sizes

    def shard(self, number: int) -> list[PlannedImage]:
        """The images of a shard.

        Raises:
            InvalidInputError: There is no such shard, or a value breaks a rule.
        """
        if not 0 <= number < len(self._sizes):
            raise InvalidInputError(f"shard {number}: the plan has shards 0 to {len(self._sizes) - 1}")
        with self._open() as file, _readable():
            table = pq.ParquetFile(file).read_row_group(number)
            columns = {name: table.column(name).to_pylist() for name in table.column_names}
        return list(_rows(columns, self.header, sum(self._sizes[:number])))

    def targets(self) -> Vectors:
        """The ID vectors of all identities, float32 [identities, D]; NaN for one that has no image.

        Raises:
            InvalidInputError: The file is damaged.
        """
        dim = self.header.identity_dim
        vectors = np.full((self.header.identities, dim), np.nan, np.float32)
        with self._open() as file, _readable():
            parquet = pq.ParquetFile(file, read_dictionary=["id_vector"])
            for number in range(len(self._sizes)):
                table = parquet.read_row_group(number, columns=["identity", "id_vector"]).combine_chunks()
                column = table.column("id_vector").chunk(0)
                unique = [_vector(data, dim, f"shard {number}") for data in column.dictionary.to_pylist()]
                identities = table.column("identity").to_numpy()
                if identities.min() < 0 or identities.max() >= len(vectors):
                    raise InvalidInputError(f"the plan is damaged: shard {number} has an identity out of range")
                vectors[identities] = np.stack(unique)[column.indices.to_numpy()]
        return vectors


def write_plan(
    file: BinaryIO,
    header: PlanHeader,
    vectors: Vectors,
    origins: Sequence[str],
    variations: Callable[[int], Sequence[Variation]],
    per_shard: int,
    on_identities: Callable[[int], object] = lambda count: None,
) -> None:
    """Writes a plan; equal arguments give equal bytes.

    Args:
        file: Open for writing.
        header: Its metadata.
        vectors: Of the identities, float32 [N, D].
        origins: Of the identities.
        variations: Number of an identity -> its images.
        per_shard: Identities of a shard.
        on_identities: Called with the number of identities that were written, shard by shard.
    """
    schema = _schema(header).with_metadata({HEADER: json.dumps(to_json(header)).encode()})
    image = 0
    with pq.ParquetWriter(
        file,
        schema,
        compression="zstd",
        dictionary_pagesize_limit=MOST_DICTIONARY,
        use_dictionary=["id_vector", "origin"],
    ) as writer:
        for start in range(0, len(vectors), per_shard):
            identities = range(start, min(start + per_shard, len(vectors)))
            rows = [(identity, variation) for identity in identities for variation in variations(identity)]
            columns: dict[str, Any] = {
                "image": range(image, image + len(rows)),
                "identity": [identity for identity, _ in rows],
                "id_vector": [vectors[identity].astype("<f4").tobytes() for identity, _ in rows],
                "origin": [origins[identity] for identity, _ in rows],
                "seed": [variation.seed for _, variation in rows],
                "guidance_scale": [variation.guidance_scale for _, variation in rows],
            }
            if header.attribute_set is not None:
                columns["attributes"] = [variation.attributes for _, variation in rows]
            image += len(rows)
            writer.write_table(pa.table(columns, schema=schema), row_group_size=max(len(rows), 1))
            on_identities(len(identities))


def _schema(header: PlanHeader) -> pa.Schema:
    columns = [
        ("image", pa.int64()),
        ("identity", pa.int64()),
        ("id_vector", pa.binary()),
        ("origin", pa.string()),
        ("seed", pa.int64()),
        ("guidance_scale", pa.float32()),
    ]
    if header.attribute_set is not None:
        columns.append(("attributes", pa.list_(pa.float32())))
    return pa.schema(columns)


class _readable:  # noqa: N801
    """Turns what pyarrow raises over damaged files into `InvalidInputError`."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, (pa.ArrowException, pa.ArrowInvalid)):
            raise InvalidInputError(f"the plan is damaged, or no Parquet file: {error}") from error
        if isinstance(error, OSError) and error.errno is None:  # Arrow's own, not the system's
            raise InvalidInputError(f"the plan is damaged: {error}") from error


def _check_layout(parquet: pq.ParquetFile, header: PlanHeader) -> None:
    """Columns, counts and sizes, before any row is read."""
    wanted, found = _schema(header), parquet.schema_arrow.remove_metadata()
    if not found.equals(wanted):
        shown = ", ".join(f"{field.name} {field.type}" for field in found)
        needed = ", ".join(f"{field.name} {field.type}" for field in wanted)
        raise InvalidInputError(f"the plan has the columns {shown[:300]}: need {needed}")
    rows, groups = parquet.metadata.num_rows, parquet.metadata.num_row_groups
    if (rows, groups) != (header.images, header.shards):
        raise InvalidInputError(
            f"the plan is damaged: {rows} images in {groups} shards, its header says {header.images} in {header.shards}"
        )
    largest = max(parquet.metadata.row_group(i).num_rows for i in range(groups))
    if largest > MAX_SHARD:
        raise InvalidInputError(f"the plan has a shard of {largest} images: at most {MAX_SHARD} are allowed")


def _rows(columns: Mapping[str, Sequence[Any]], header: PlanHeader, first: int) -> Iterator[PlannedImage]:
    vectors: dict[bytes, NDArray[np.float32]] = {}
    for i, image in enumerate(columns["image"]):
        name = f"image {image}"
        identity, seed, scale = (columns[key][i] for key in ("identity", "seed", "guidance_scale"))
        if image != first + i:
            raise InvalidInputError(f"the plan is damaged: image {image} stands where {first + i} belongs")
        if identity is None or not 0 <= identity < header.identities:
            raise InvalidInputError(f"{name}: identity={identity}: must be from 0 to {header.identities - 1}")
        if seed is None or not 0 <= seed <= MAX_SEED:
            raise InvalidInputError(f"{name}: seed={seed}: must be from 0 to 2^63 - 1")
        if scale is None or not 1.0 <= scale <= 10.0:
            raise InvalidInputError(f"{name}: guidance_scale={scale}: must be between 1 (off) and 10")
        data = columns["id_vector"][i]
        if data not in vectors:
            vectors[data] = _vector(data, header.identity_dim, name, header.l2_normalised)
        yield PlannedImage(
            image=image,
            identity=identity,
            vector=vectors[data],
            origin=columns["origin"][i] or "",
            seed=seed,
            guidance_scale=scale,
            attributes=_attributes(columns["attributes"][i] if "attributes" in columns else None, header, name),
        )


def _vector(data: bytes | None, dim: int, name: str, normalised: bool = False) -> NDArray[np.float32]:
    if data is None or len(data) != 4 * dim:
        size = "none" if data is None else f"{len(data)} bytes"
        raise InvalidInputError(f"{name}: id_vector has {size}: need {4 * dim} for {dim} float32 numbers")
    vector = np.frombuffer(data, "<f4").astype(np.float32)
    norm = float(np.linalg.norm(vector.astype(np.float64)))
    if not np.isfinite(norm) or not norm:
        raise InvalidInputError(f"{name}: id_vector is zero or not finite (NaN or infinity)")
    if normalised and abs(norm - 1.0) > NORM_TOLERANCE:
        raise InvalidInputError(f"{name}: id_vector has L2 norm {norm:.6g}: must be 1")
    return vector


def _attributes(values: Sequence[float | None] | None, header: PlanHeader, name: str) -> NDArray[np.float32] | None:
    if values is None:
        return None
    vector = np.array(values, np.float32)  # null becomes NaN
    if vector.shape != (header.attribute_dim,) or not np.isfinite(vector).all():
        raise InvalidInputError(f"{name}: attributes must be {header.attribute_dim} finite numbers, or null")
    return vector


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
