"""Makes shards of a plan and stores them; the work of every kind of worker."""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from id3pm.errors import InvalidInputError
from id3pm.pipeline import Pipeline
from id3pm.sampling.receipt import Receipt
from id3pm.synthetic.errors import OtherDatasetError
from id3pm.synthetic.generators import Generator, LocalGenerator, ServedGenerator
from id3pm.synthetic.judging import ImageJudges
from id3pm.synthetic.plan_file import Plan
from id3pm.synthetic.plan_header import PlanHeader
from id3pm.synthetic.shard import OnImage, job_of, make_shard
from id3pm.synthetic.shard_files import tar_name
from id3pm.synthetic.store import Store, StoreError, open_store, split

DESCRIPTION_FILE = "dataset.json"
PLAN_FILE = "plan.parquet"
SCHEMA = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """How a worker makes images.

    Attributes:
        plan: Path or URL.
        out: Folder or URL.
        repository: Built engines and face models.
        device: See `Pipeline.load`.
        threads: CPU threads of each engine; `None` for all cores.
        servers: Services, `host:port`; where there are any, no engine is loaded.
        client: Settings of `id3pm_client.Client`, such as `token`.
        in_flight: Images on the way to services at once.
        timeout_s: Seconds that a service may take for an image.
        overlap: Shards that are made at once, so that batches stay full at the end of each.
    """

    plan: str
    out: str
    repository: str = "triton_repo"
    device: str = "cpu"
    threads: int | None = None
    servers: tuple[str, ...] = ()
    client: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    in_flight: int = 32
    timeout_s: float = 300.0
    overlap: int = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """What became of one shard.

    Attributes:
        number: Of the shard.
        kept: Images in it.
        rejected: Images made in vain.
        missing: Planned images without an attempt that was kept.
        seconds: That it took.
        found: Another worker had made it meanwhile; nothing was made.
    """

    number: int
    kept: int = 0
    rejected: int = 0
    missing: int = 0
    seconds: float = 0.0
    found: bool = False


class ShardMaker:
    """Makes shards of a plan; may be used by several threads.

    Args:
        plan: The plan.
        store: Where the files go.
        generator: Makes images; closed with the maker.
        judges: Judges them.
    """

    def __init__(self, plan: Plan, store: Store, generator: Generator, judges: ImageJudges) -> None:
        self._plan = plan
        self._store = store
        self._generator = generator
        self._judges = judges
        self._closed = False
        self._agreed: list[dict[str, Any]] = []  # environments that were compared

    @classmethod
    def load(cls, settings: WorkerSettings) -> ShardMaker:
        """The maker that the settings describe.

        Raises:
            OtherDatasetError: Bundle, engines or FR models are not those of the plan, or of the folder.
            Id3pmError: Something is damaged, missing or not installed.
            OSError: A file cannot be read.
        """
        plan, store, repository = open_plan(settings.plan), open_store(settings.out), Path(settings.repository)
        filters = plan.header.filters
        targets = plan.targets() if filters.on else None
        judges = ImageJudges.load(plan.header, repository, targets)
        if settings.servers:
            served = ServedGenerator(settings.servers, settings.in_flight, settings.timeout_s, **settings.client)
            return cls(plan, store, served, judges)
        pipeline = Pipeline.load(repository, settings.device, settings.threads)
        maker = cls(plan, store, LocalGenerator(pipeline), judges)
        try:
            job = job_of(plan.header, plan.shard(0)[0])
            receipts = pipeline.receipts(job.embedding, job.seed, attributes=job.attributes, **job.options)
            maker.require_environment(receipts)
        except BaseException:
            maker.close()
            raise
        return maker

    def make(self, number: int, on_image: OnImage = lambda kept: None) -> Summary:
        """Makes a shard unless it is there.

        Raises:
            OtherDatasetError: See `require_environment`; nothing is written.
            Id3pmError: An image cannot be made, or a file not be written.
        """
        if self._store.exists(tar_name(number)):
            return Summary(number=number, found=True)
        start = time.monotonic()
        rows = self._plan.shard(number)
        shard = make_shard(number, self._plan.header, rows, self._generator, self._judges, on_image)
        self.require_environment(shard.receipts)
        for name, content in shard.files.items():
            self._store.write(name, content)
        return Summary(
            number=number,
            kept=shard.kept,
            rejected=shard.rejected,
            missing=shard.missing,
            seconds=time.monotonic() - start,
        )

    def require_environment(self, receipts: Sequence[Receipt]) -> None:
        """Compares what made images with the plan and with the folder's first images.

        Raises:
            OtherDatasetError: It differs; the message names what does.
        """
        for environment in _unique(environment_of(receipt) for receipt in receipts):
            if environment not in self._agreed:
                require_plan(environment, self._plan.header)
                self._begin(environment)
                self._agreed.append(environment)

    def _begin(self, environment: Mapping[str, Any]) -> None:
        """Writes the folder's description, or compares with the one that is there."""
        description = {
            "kind": "synthetic",
            "schema": SCHEMA,
            "plan_sha256": self._plan.sha256,
            "environment": environment,
        }
        if not self._store.exists(DESCRIPTION_FILE):
            text = json.dumps(description, indent=2) + "\n"
            self._store.write_new(DESCRIPTION_FILE, text.encode())
        found = read_description(self._store)
        differences = _differences(found, description)
        if differences:
            raise OtherDatasetError(
                f"{self._store.address} holds images that were made otherwise ({'; '.join(differences[:4])}): choose "
                "another folder, or the plan and the engines of that one"
            )

    def close(self) -> None:
        """Frees engines and connections; what is being made ends with an error."""
        if not self._closed:
            self._closed = True
            self._generator.close()


def open_plan(address: str) -> Plan:
    """The plan at a path or URL.

    Raises:
        InvalidInputError: It does not exist, is no plan, or damaged.
        OSError: It cannot be read.
    """
    store, name = split(address)
    return _open_plan(store, name, f"{address} does not exist: make a plan with id3pm dataset plan")


def plan_of(store: Store) -> Plan:
    """The plan in the folder of a data set.

    Raises:
        InvalidInputError: There is none, or see `open_plan`.
        OSError: It cannot be read.
    """
    missing = (
        f"{store.address} has no {PLAN_FILE}, which says what the data set should hold: copy the plan that "
        f"id3pm dataset run was given into the folder as {PLAN_FILE}"
    )
    return _open_plan(store, PLAN_FILE, missing)


def _open_plan(store: Store, name: str, if_missing: str) -> Plan:
    try:
        return Plan(functools.partial(store.open, name))
    except InvalidInputError as error:
        raise type(error)(f"{name}: {error}") from error
    except (FileNotFoundError, StoreError) as error:
        if isinstance(error, FileNotFoundError) or isinstance(error.__cause__, FileNotFoundError):
            raise InvalidInputError(if_missing) from error
        raise


def copy_plan(plan: str, store: Store) -> None:
    """Puts the plan into the data set's folder, which is complete with it."""
    source, name = split(plan)
    if not store.exists(PLAN_FILE):
        store.write_new(PLAN_FILE, source.read(name))


def require_same_plan(store: Store, plan: Plan) -> None:
    """Raises `OtherDatasetError` if the folder has images of another plan."""
    if store.exists(DESCRIPTION_FILE):
        found = read_description(store).get("plan_sha256")
        if found != plan.sha256:
            raise OtherDatasetError(
                f"{store.address} holds images of another plan (sha256 {str(found)[:12]}..., this one has "
                f"{plan.sha256[:12]}...): choose another folder"
            )


def read_description(store: Store) -> dict[str, Any]:
    """`dataset.json` of a folder.

    Raises:
        InvalidInputError: There is none, or it is damaged.
    """
    if not store.exists(DESCRIPTION_FILE):
        raise InvalidInputError(f"{store.address} is no synthetic data set (no {DESCRIPTION_FILE})")
    try:
        found = json.loads(store.read(DESCRIPTION_FILE))
    except ValueError as error:
        raise InvalidInputError(f"{DESCRIPTION_FILE} is damaged ({error}): restore it") from error
    if not isinstance(found, dict) or found.get("kind") != "synthetic" or found.get("schema") != SCHEMA:
        raise InvalidInputError(f"{DESCRIPTION_FILE}: is not of a synthetic data set of schema {SCHEMA}")
    return found


def environment_of(receipt: Receipt) -> dict[str, Any]:
    """What a receipt says of the programs and networks, which are the same for all images of a data set."""
    stages = {
        stage: {name: value for name, value in said.items() if name != "options"}
        for stage, said in receipt["stages"].items()
    }
    return {"id3pm": receipt["id3pm"], "bundle": receipt["bundle"], "stages": stages}


def require_plan(environment: Mapping[str, Any], header: PlanHeader) -> None:
    """Raises `OtherDatasetError` unless these are the plan's bundle and weights."""
    weights = {stage: said["weights_sha256"] for stage, said in environment["stages"].items()}
    if (environment["bundle"], weights) != (header.bundle, header.weights_sha256):
        raise OtherDatasetError(
            f"the plan is for bundle {header.bundle} (weights {_short(header.weights_sha256)}), the engines were built "
            f"from {environment['bundle']} (weights {_short(weights)}): make a new plan, or build that bundle's engines"
        )


def _short(weights: Mapping[str, str]) -> str:
    return ", ".join(f"{stage} {sha256[:8]}" for stage, sha256 in weights.items())


def _differences(found: Any, wanted: Any, name: str = "") -> list[str]:
    """`name: value there, value here` of all leaves that differ."""
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        keys = [key for key in {**found, **wanted} if found.get(key) != wanted.get(key)]
        return [
            text for key in keys for text in _differences(found.get(key), wanted.get(key), f"{name}.{key}".lstrip("."))
        ]
    return [f"{name}: there {str(found)[:40]!r}, here {str(wanted)[:40]!r}"]


def _unique(environments: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for environment in environments:
        if environment not in found:
            found.append(environment)
    return found
