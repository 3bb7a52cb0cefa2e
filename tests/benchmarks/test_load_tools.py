"""What the load tests bring along: perf_analyzer, a network to cut, engines to break. No server here."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import numpy as np
import pytest

from id3pm.export.repository import write_repository
from load import perf_analyzer, sweep
from load.faulty_repository import STAGE, FaultyRepository
from load.proxy import Proxy

ROOT = Path(__file__).parents[2]


def test_the_program_fits_the_c_library() -> None:
    assert not perf_analyzer.is_new(("glibc", "2.36"))
    assert perf_analyzer.is_new(("glibc", "2.38")) and perf_analyzer.is_new(("glibc", "2.41"))
    assert not perf_analyzer.is_new(("", ""))


FAKE = """#!{python}
import json, sys
given = dict(zip(sys.argv, sys.argv[1:]))
data = json.load(open(given["--input-data"]))["data"]
seeds = [entry["seed"]["content"][0] for entry in data]
assert len(set(seeds)) == len(seeds) and data[0]["preset"]["content"] == ["fast"]
requests = [{{"timestamp": i * 10**9, "response_timestamps": [i * 10**9 + 5 * 10**8], "x": "RAW"}} for i in range(4)]
text = json.dumps({{"experiments": [{{"requests": requests}}]}})
open(given["--profile-export-file"], "wb").write(text.encode().replace(b"RAW", b"\\xff\\n"))
open(given["-f"], "w").write("Concurrency,Inferences/Second\\n1,1.25\\n")
"""


def test_perf_analyzer_runs_are_read_with_raw_bytes_in_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "perf_analyzer"
    program.write_text(FAKE.format(python=sys.executable))
    program.chmod(0o755)
    said: list[str] = []
    monkeypatch.setattr(sweep, "say", said.append)
    results = sweep.measure(
        perf_analyzer.PerfAnalyzer(program),
        "host:1",
        np.zeros((2, 3), np.float32),
        concurrencies=[1, 8],
        loads=[0.5],
        requests=4,
        preset="fast",
        seed=0,
    )
    assert said[1] == "perf_analyzer: concurrency 8, 16 requests"
    assert results["sweep"][0]["images_per_s"] == pytest.approx(4 / 3.5)
    assert results["sweep"][0]["p50_s"] == 0.5 and results["sweep"][0]["perf_analyzer_images_per_s"] == 1.25
    assert results["poisson"][0]["sent_per_s"] == pytest.approx(1.0)
    table = sweep.markdown(results)
    assert "| 8 | 4 | 1.14 | 0.50 | 0.50 | 0.50 |" in table and "| 50% | 0.571 | 1 | 4 | 0.50 | 0.50 | 0.50 |" in table


def test_a_failing_perf_analyzer_shows_its_last_words(tmp_path: Path) -> None:
    program = tmp_path / "perf_analyzer"
    program.write_text("#!/bin/sh\necho the reason\nexit 3\n")
    program.chmod(0o755)
    with pytest.raises(RuntimeError, match="exit status 3:\nthe reason"):
        perf_analyzer.PerfAnalyzer(program).run(["-m", "id3pm"], timeout_s=5)


def test_a_cut_breaks_connections_until_it_is_mended() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    async def ask(url: str) -> bytes:
        host, port = url.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(b"hello")
            return await asyncio.wait_for(reader.read(100), 5)
        except OSError:
            return b""
        finally:
            writer.close()

    async def story() -> list[bytes]:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with Proxy(f"127.0.0.1:{port}") as proxy:
            host, own = proxy.url.split(":")
            reader, writer = await asyncio.open_connection(host, int(own))
            writer.write(b"a")
            answers = [await reader.read(10)]
            proxy.cut()
            try:
                answers.append(await asyncio.wait_for(reader.read(10), 5))
            except ConnectionError:
                answers.append(b"")
            writer.close()
            answers.append(await ask(proxy.url))
            proxy.mend()
            answers.append(await ask(proxy.url))
        server.close()
        return answers

    assert asyncio.run(story()) == [b"a", b"", b"", b"hello"]


def test_a_copy_with_faulty_engines_leaves_the_original_alone(tmp_path: Path) -> None:
    repository = tmp_path / "triton_repo"
    write_repository(repository)
    original = (repository / STAGE / "1" / "model.py").read_text()
    copy = FaultyRepository(tmp_path / "copy", repository)
    text = (copy.folder / STAGE / "1" / "model.py").read_text()
    compile(text, "model.py", "exec")
    assert "FaultyEngine" in text and "class TritonPythonModel" in text
    assert (repository / STAGE / "1" / "model.py").read_text() == original
    assert (copy.folder / "id3pm" / "config.pbtxt").exists() and (copy.folder / "id3pm" / "1").is_dir()
    copy.order("slow 2")
    assert (tmp_path / "copy.order").read_text() == "slow 2"
    copy.recover()
    assert not (tmp_path / "copy.order").exists()
