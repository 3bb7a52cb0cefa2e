"""`make load`: load on the real server, as an operator would put it there.

    python benchmarks/loadtest.py sweep       # perf_analyzer: concurrencies, then Poisson rates
    python benchmarks/loadtest.py mix         # our open-loop generator: mixed steps, priorities, cancellations
    python benchmarks/loadtest.py compare     # beside request-level dynamic batching, same arrivals
    python benchmarks/loadtest.py overhead    # beside the engines in process; cancel; memory
    python benchmarks/loadtest.py soak        # half an hour; does memory grow?
    python benchmarks/loadtest.py faults      # kills, hangs, cuts: is anything lost or wrong?

Each writes JSON, a Markdown table and mostly a picture into `--out`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from load import charts, compare, faults, generator, overhead, soak, summary, sweep
from load.arrivals import poisson
from load.perf_analyzer import install
from load.running import BAD, capacity, mixture, people_of, prepared, say, service, serving, write

ROOT = Path(__file__).resolve().parents[1]
GATEWAY = click.option("--gateway", is_flag=True, help="Load `id3pm serve` in place of Triton alone.")
FOLDER = click.Path(path_type=Path, file_okay=False)


def common(command: Callable[..., None]) -> Callable[..., None]:
    """The options that all commands have."""
    for option in (
        click.option("--docs", type=click.Path(path_type=Path, dir_okay=False), help="Page to put the table into."),
        click.option("--seed", default=0, show_default=True, help="Of the arrivals."),
        click.option("--out", type=FOLDER, default=ROOT / "out" / "load", show_default="out/load"),
        click.option("--repository", type=FOLDER, default=ROOT / "triton_repo", help="Models and built engines."),
    ):
        command = option(command)
    return command


@click.group(help=(__doc__ or "").split("\n\n")[0])
def main() -> None:
    """Command line; see the module's text."""


@main.command("sweep")
@common
@GATEWAY
@click.option("--concurrency", default="1,2,4,8,16", show_default=True, help="Requests at once.")
@click.option("--loads", default="0.5,0.7,0.9", show_default=True, help="Poisson rates, as shares of the best.")
@click.option("--requests", type=click.IntRange(1), default=40, show_default=True, help="Of each run, at least.")
@click.option("--preset", help="Sampling preset, such as fast; the bundle's options if not given.")
@click.option("--people", type=click.IntRange(1), default=32, show_default=True, help="Different ID vectors.")
def sweep_command(
    repository: Path,
    out: Path,
    seed: int,
    docs: Path | None,
    gateway: bool,
    concurrency: str,
    loads: str,
    requests: int,
    preset: str | None,
    people: int,
) -> None:
    """perf_analyzer against the ensemble."""
    tool = install(ROOT / "build" / "perf_analyzer")
    with service(repository, out) if gateway else serving(repository) as server:
        vectors = people_of(server, people)
        results = sweep.measure(
            tool,
            server.grpc_url,
            vectors,
            concurrencies=[int(word) for word in concurrency.split(",")],
            loads=[float(word) for word in loads.split(",") if word],
            requests=requests,
            preset=preset,
            seed=seed,
            say=say,
        )
    write(out, "sweep", results, sweep.markdown(results), docs, charts.sweep)


@main.command("mix")
@common
@GATEWAY
@click.option("--steps", default="10,50", show_default=True, help="Step counts that are mixed in equal parts.")
@click.option("--sr-steps", type=click.IntRange(1), help="Of super-resolution; as many as at 64 px if not given.")
@click.option(
    "--rate", type=click.FloatRange(0, min_open=True), help="Requests a second; 70 % of the capacity if not given."
)
@click.option("--requests", type=click.IntRange(1), default=100, show_default=True)
@click.option(
    "--cancelled", type=click.FloatRange(0, 1), default=0.1, show_default=True, help="Share that is given up."
)
@click.option("--urgent", type=click.FloatRange(0, 1), default=0.1, show_default=True, help="Share with priority 0.")
def mix_command(
    repository: Path,
    out: Path,
    seed: int,
    docs: Path | None,
    gateway: bool,
    steps: str,
    sr_steps: int | None,
    rate: float | None,
    requests: int,
    cancelled: float,
    urgent: float,
) -> None:
    """Our open-loop generator: mixed step counts, priorities and cancellations."""
    kinds = mixture(steps, sr_steps, urgent)
    vectors, known = prepared(repository, kinds, known_seeds := 2)
    with service(repository, out) if gateway else serving(repository) as server:
        rate = rate or 0.7 * capacity(server, vectors, kinds, seed)
        arrivals = poisson(
            kinds,
            rate,
            requests,
            seed=seed,
            identities=len(vectors),
            known=0.25,
            known_seeds=known_seeds,
            cancelled=cancelled,
            patience_s=2.0,
        )
        say(f"{requests} requests, {rate:.3g} a second")
        results = summary.summarise(generator.drive(generator.Generator(server.grpc_url, vectors, known), arrivals))
    write(out, "mix", {"rate": rate, **results}, summary.markdown(results), docs)
    everything = results["kinds"][summary.ALL]
    finish(not (everything["wrong"] or everything["unexpected"]))


@main.command("compare")
@common
@click.option("--steps", default="10,50", show_default=True, help="Step counts that are mixed in equal parts.")
@click.option("--sr-steps", type=click.IntRange(1), help="Of super-resolution; as many as at 64 px if not given.")
@click.option("--load", "load_share", type=click.FloatRange(0, min_open=True), default=0.7, show_default=True)
@click.option("--requests", type=click.IntRange(1), default=80, show_default=True, help="Of each run.")
@click.option("--capacity-requests", type=click.IntRange(1), default=24, show_default=True, help="Sent at once.")
@click.option(
    "--capacity-rounds", type=click.IntRange(1), default=3, show_default=True, help="Of each system, in turn."
)
@click.option(
    "--repeats", type=click.IntRange(1), default=2, show_default=True, help="Pairs of runs, another seed each."
)
def compare_command(
    repository: Path,
    out: Path,
    seed: int,
    docs: Path | None,
    steps: str,
    sr_steps: int | None,
    load_share: float,
    requests: int,
    capacity_requests: int,
    capacity_rounds: int,
    repeats: int,
) -> None:
    """The step scheduler beside request-level dynamic batching."""
    kinds = mixture(steps, sr_steps, urgent=0.0)
    vectors, known = prepared(repository, kinds, known_seeds := 2)
    results = compare.compare(
        repository,
        out,
        vectors,
        known,
        kinds,
        known_seeds=known_seeds,
        load=load_share,
        requests=requests,
        capacity_requests=capacity_requests,
        capacity_rounds=capacity_rounds,
        seeds=range(seed, seed + repeats),
        say=say,
    )
    results["verdicts"] = compare.verdicts(results)
    write(out, "compare", results, compare.markdown(results), docs, charts.comparison)
    finish(results["verdicts"]["met"])


@main.command("overhead")
@common
@click.option("--steps", type=click.IntRange(1), default=10, show_default=True, help="Of both stages.")
@click.option("--rounds", type=click.IntRange(1), default=7, show_default=True, help="Turns of each.")
@click.option("--cancels", type=click.IntRange(1), default=10, show_default=True, help="In each stage.")
def overhead_command(
    repository: Path, out: Path, seed: int, docs: Path | None, steps: int, rounds: int, cancels: int
) -> None:
    """Beside the engines in process; steps after a cancel; memory without engines."""
    say("served beside in process")
    out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"served": overhead.served_share(repository, steps, rounds, out)}
    with serving(repository) as server:
        say("cancels")
        results["cancel_steps"] = overhead.cancel_steps(server, people_of(server, 1)[0], cancels)
    say("memory of a server with stand-ins for the networks")
    results["own_memory"] = overhead.own_memory(repository, out)
    write(out, "overhead", results, overhead.markdown(results), docs)
    finish(all(met for _, _, met in overhead.verdicts(results)))


@main.command("soak")
@common
@click.option("--minutes", type=click.FloatRange(0, min_open=True), default=30.0, show_default=True)
@click.option("--steps", default="10,50", show_default=True, help="Step counts that are mixed in equal parts.")
@click.option("--sr-steps", type=click.IntRange(1), help="Of super-resolution; as many as at 64 px if not given.")
@click.option("--limit", type=float, default=20.0, show_default=True, help="Growth in MB/h that is too much.")
@click.option(
    "--rate", type=click.FloatRange(0, min_open=True), help="Requests a second; 70 % of the capacity if not given."
)
def soak_command(
    repository: Path,
    out: Path,
    seed: int,
    docs: Path | None,
    minutes: float,
    steps: str,
    sr_steps: int | None,
    limit: float,
    rate: float | None,
) -> None:
    """Mixed load with cancels and bad requests on `id3pm serve`, and a line through its memory in the second half."""
    kinds = mixture(steps, sr_steps, urgent=0.1)
    vectors, known = prepared(repository, kinds, known_seeds := 2)
    with service(repository, out) as server:
        results = soak.soak(
            server,
            vectors,
            known,
            [*kinds, BAD],
            known_seeds=known_seeds,
            rate=rate or 0.7 * capacity(server, vectors, kinds, seed),
            seconds=60 * minutes,
            seed=seed,
            limit_mb_per_h=limit,
            say=say,
        )
    write(out, "soak", results, soak.markdown(results), docs, charts.memory)
    finish(soak.passed(results))


@main.command("faults")
@common
@click.option("--seconds", type=click.FloatRange(1), default=30.0, show_default=True, help="Of load for each fault.")
@click.option(
    "--rate", type=click.FloatRange(0, min_open=True), default=0.5, show_default=True, help="Requests a second."
)
@click.option("--steps", default="10,25", show_default=True, help="Step counts that are mixed in equal parts.")
@click.option("--sr-steps", type=click.IntRange(1), help="Of super-resolution; as many as at 64 px if not given.")
@click.option("--only", multiple=True, type=click.Choice(list(faults.FAULTS)), help="Not all of them; may be repeated.")
def faults_command(
    repository: Path,
    out: Path,
    seed: int,
    docs: Path | None,
    seconds: float,
    rate: float,
    steps: str,
    sr_steps: int | None,
    only: Sequence[str],
) -> None:
    """Kills, hangs, failures and cuts under load."""
    kinds = mixture(steps, sr_steps, urgent=0.0)
    vectors, known = prepared(repository, kinds, known_seeds := 4)
    out.mkdir(parents=True, exist_ok=True)
    results = faults.inject_all(
        repository,
        out,
        vectors,
        known,
        kinds,
        known_seeds=known_seeds,
        rate=rate,
        seconds=seconds,
        seed=seed,
        faults=only or list(faults.FAULTS),
        say=say,
    )
    write(out, "faults", results, faults.markdown(results), docs)
    finish(faults.passed(results))


def finish(good: bool) -> None:
    """The exit status says whether what was asked for is met."""
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
