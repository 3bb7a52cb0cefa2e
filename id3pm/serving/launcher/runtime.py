"""Finds a `tritonserver` on this machine, and its libraries and backends."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from id3pm.errors import MissingExtraError, ServerError
from id3pm.installation import how_to_install

WHEEL = "nvidia-pytriton"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TritonRuntime:
    """A Triton server that can be started.

    Attributes:
        binary: The `tritonserver` program.
        origin: Where it was found, for messages.
        wheel: The server folder inside the `nvidia-pytriton` wheel, or `None` for an installation of its own.
        library_path: Folders for LD_LIBRARY_PATH that the Python backend needs.
    """

    binary: Path
    origin: str
    wheel: Path | None = None
    library_path: tuple[Path, ...] = ()

    def arguments(self, folder: Path) -> list[str]:
        """Options that make this server find its Python backend; `folder` is scratch that lives as long as it.

        The wheel keeps one stub per Python version apart from the backend. Links bring them together, outside
        site-packages; the libraries find each other from where the real files are.
        """
        if self.wheel is None:
            return []
        backend, caches = folder / "backends" / "python", folder / "caches"
        backend.mkdir(parents=True)
        caches.mkdir()
        for source in (*sorted((self.wheel / "backends" / "python").glob("*triton_python*")), _stub(self.wheel)):
            (backend / source.name).symlink_to(source)
        # In the way of bytecode: on a full disk Python writes a part of it, which cannot be imported (cpython#126606).
        (backend / "__pycache__").touch()
        (caches / "local").symlink_to(self.wheel / "caches" / "local")
        return [f"--backend-directory={folder / 'backends'}", f"--cache-directory={caches}"]

    def environment(self) -> dict[str, str]:
        """The environment of the server: its Python stubs take the first `python3` on PATH, which must be this one."""
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        libraries = [*map(str, self.library_path), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
        extra = {"LD_LIBRARY_PATH": os.pathsep.join(libraries)} if self.library_path else {}
        return {**os.environ, "PATH": path, **extra}


def find_runtime() -> TritonRuntime:
    """The `tritonserver` on PATH (NVIDIA's container), else the one inside the `nvidia-pytriton` wheel.

    Raises:
        MissingExtraError: There is neither.
        ServerError: The server cannot work in this environment; the message says what to do.
    """
    _require_ascii_paths(Path(__file__).parents[3], Path(sys.prefix), Path(sys.base_prefix), *map(Path, sys.path[1:]))
    if found := shutil.which("tritonserver"):
        return TritonRuntime(binary=Path(found), origin="tritonserver on PATH")
    spec = importlib.util.find_spec("pytriton")
    if spec is None or spec.origin is None:
        raise MissingExtraError(f"no tritonserver on PATH and no nvidia-pytriton: {how_to_install('serve')}")
    wheel = Path(spec.origin).parent / "tritonserver"
    binary = wheel / "bin" / "tritonserver"
    if not binary.exists():
        raise ServerError("nvidia-pytriton carries no server for this platform: use Linux on x86-64, or the container")
    _require_numpy_1()
    return TritonRuntime(
        binary=binary,
        origin=f"{WHEEL} {importlib.metadata.version(WHEEL)}",
        wheel=wheel,
        library_path=_libraries_of(_stub(wheel)),
    )


def _stub(wheel: Path) -> Path:
    """The Python backend's worker program for this version of Python."""
    stubs = wheel / "python_backend_stubs"
    version = _python_version()
    stub = stubs / version / "triton_python_backend_stub"
    if not stub.exists():
        known = ", ".join(sorted((path.name for path in stubs.iterdir()), key=lambda name: int(name.split(".")[1])))
        raise ServerError(f"Python {version}: {WHEEL} serves models in Python {known}; make an environment with one")
    return stub


def _python_version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _require_ascii_paths(*folders: Path) -> None:
    """Triton's Python starts without a locale: it dies over other letters, and Triton waits for it without end.

    Raises:
        ServerError: A folder that Python imports from has such letters.
    """
    for folder in folders:
        if folder.exists() and not str(folder).isascii():
            raise ServerError(
                f"{folder}: Triton's Python can only be started from folders whose names are ASCII. Move the checkout, "
                "its virtual environment and the Python under it to such a folder and install anew; model "
                "repositories, bundles and photographs may lie anywhere"
            )


def _require_numpy_1() -> None:
    version = importlib.metadata.version("numpy")
    if int(version.split(".")[0]) >= 2:
        raise ServerError(
            f"numpy {version}: the Python backend of {WHEEL} reads every tensor as zeros under numpy 2; "
            "run: pip install 'numpy<2'"
        )


def _libraries_of(program: Path) -> tuple[Path, ...]:
    """Extra folders in which the dynamic linker finds all libraries of `program` (libpython, mostly).

    Raises:
        ServerError: A library or a C library version is missing.
    """
    problems = _missing(program)
    if not problems:
        return ()
    libpython = f"libpython{_python_version()}.so.1.0"
    folder = Path(sysconfig.get_config_var("LIBDIR") or "/nonexistent")
    if all(line.startswith(libpython) for line in problems):
        if (folder / libpython).exists():
            return (folder,)
        package = libpython.removesuffix(".so.1.0")
        raise ServerError(
            f"{libpython} is not installed, and Triton's Python backend needs it; on Debian or Ubuntu run: "
            f"apt-get install {package}"
        )
    raise ServerError(f"this system lacks what tritonserver needs: {'; '.join(problems)}; use a newer Linux")


def _missing(program: Path) -> list[str]:
    """What the dynamic linker does not find for a program, in its own words."""
    listing = subprocess.run(["ldd", str(program)], capture_output=True, text=True, timeout=30, check=False)
    return [line.strip() for line in (listing.stdout + listing.stderr).splitlines() if "not found" in line]
