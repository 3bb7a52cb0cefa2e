"""`make load`: load tests of the real server.

    python benchmarks/loadtest.py sweep       # perf_analyzer: concurrencies, then Poisson rates
    python benchmarks/loadtest.py mix         # our open-loop generator: mixed steps, priorities, cancellations
    python benchmarks/loadtest.py compare     # beside request-level dynamic batching, same arrivals
    python benchmarks/loadtest.py overhead    # what each layer costs; cancel; memory
    python benchmarks/loadtest.py soak        # half an hour; does memory grow?
    python benchmarks/loadtest.py faults      # kills, hangs, cuts: is anything lost or wrong?

Each writes JSON, a Markdown table and mostly a picture into `--out`.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import click

from id3pm.command_options import numbers, option, takes
from load import charts, compare, fault_actions, faults, layers, overhead, soak, stand_ins, summary, sweep
from load.perf_analyzer import install
from load.running import (
    BAD,
    ROOT,
    LoadOptions,
    MixtureOptions,
    capacity,
    people_of,
    say,
    service,
    serving,
)

POSITIVE = click.FloatRange(0, min_open=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepOptions(LoadOptions):
    """The options of `sweep`."""

    gateway: bool = option(is_flag=True, help="Load `id3pm serve` in place of Triton alone.")
    concurrency: tuple[int, ...] = option(
        callback=numbers(int), default="1,2,4,8,16", show_default=True, help="Requests at once."
    )
    loads: tuple[float, ...] = option(
        callback=numbers(), default="0.5,0.7,0.9", show_default=True, help="Poisson rates, as shares of the best."
    )
    requests: int = option(type=click.IntRange(1), default=40, show_default=True, help="Of each run, at least.")
    preset: str | None = option(help="Sampling preset, such as fast; the bundle's options if not given.")
    people: int = option(type=click.IntRange(1), default=32, show_default=True, help="Different ID vectors.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixOptions(MixtureOptions):
    """The options of `mix`."""

    gateway: bool = option(is_flag=True, help="Load `id3pm serve` in place of Triton alone.")
    rate: float | None = option(type=POSITIVE, help="Requests a second; 70 % of the capacity if not given.")
    requests: int = option(type=click.IntRange(1), default=100, show_default=True)
    cancelled: float = option(
        type=click.FloatRange(0, 1), default=0.1, show_default=True, help="Share that is given up."
    )
    urgent: float = option(type=click.FloatRange(0, 1), default=0.1, show_default=True, help="Share with priority 0.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OverheadOptions(LoadOptions):
    """The options of `overhead`."""

    steps: int = option(type=click.IntRange(1), default=10, show_default=True, help="Of both stages.")
    sr_steps: int | None = option(type=click.IntRange(1), help="Of super-resolution, where that has another number.")
    images: int = option(type=click.IntRange(1), default=overhead.AT_ONCE, show_default=True, help="At once.")
    rounds: int = option(type=click.IntRange(1), default=7, show_default=True, help="Turns of each.")
    cancels: int = option(
        type=click.IntRange(0), default=10, show_default=True, help="In each stage, of 200 steps: 0 for a student."
    )
    stand_ins: bool = option(
        "--stand-ins/--no-stand-ins", default=True, help="Measure the layers with stand-ins for the networks, too."
    )
    memory: bool = option("--memory/--no-memory", default=True, help="Measure the memory without engines.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoakOptions(MixtureOptions):
    """The options of `soak`."""

    minutes: float = option(type=POSITIVE, default=30.0, show_default=True)
    limit: float = option(type=float, default=20.0, show_default=True, help="Growth in MB/h that is too much.")
    rate: float | None = option(type=POSITIVE, help="Requests a second; 70 % of the capacity if not given.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FaultsOptions(MixtureOptions):
    """The options of `faults`."""

    steps: str = option(default="10,25", show_default=True, help="Step counts that are mixed in equal parts.")
    seconds: float = option(type=click.FloatRange(1), default=30.0, show_default=True, help="Of load for each fault.")
    rate: float = option(type=POSITIVE, default=0.5, show_default=True, help="Requests a second.")
    only: tuple[str, ...] = option(
        multiple=True, type=click.Choice(list(fault_actions.FAULTS)), help="Not all of them; may be repeated."
    )


@click.group(help=(__doc__ or "").split("\n\n")[0])
def main() -> None:
    """Command line; see the module's text."""


@main.command("sweep")
@takes(SweepOptions)
def sweep_command(options: SweepOptions) -> None:
    """perf_analyzer against the ensemble."""
    tool = install(ROOT / "build" / "perf_analyzer")
    with service(options.repository, options.out) if options.gateway else serving(options.repository) as server:
        results = sweep.measure(
            tool,
            server.grpc_url,
            people_of(server, options.people),
            concurrencies=options.concurrency,
            loads=options.loads,
            requests=options.requests,
            preset=options.preset,
            seed=options.seed,
        )
    options.write("sweep", results, sweep.markdown(results), charts.sweep)


@main.command("mix")
@takes(MixOptions)
def mix_command(options: MixOptions) -> None:
    """Our open-loop generator: mixed step counts, priorities and cancellations."""
    traffic = options.traffic(options.urgent)
    with service(options.repository, options.out) if options.gateway else serving(options.repository) as server:
        rate = options.rate or 0.7 * capacity(server, traffic, options.seed)
        arrivals = traffic.arrivals(
            rate, options.requests, seed=options.seed, known=0.25, cancelled=options.cancelled, patience_s=2.0
        )
        say(f"{options.requests} requests, {rate:.3g} a second")
        results = summary.summarise(traffic.send(server.grpc_url, arrivals))
    options.write("mix", {"rate": rate, **results}, summary.markdown(results))
    everything = results["kinds"][summary.ALL]
    finish(not (everything["wrong"] or everything["unexpected"]))


@main.command("compare")
@takes(compare.CompareOptions)
def compare_command(options: compare.CompareOptions) -> None:
    """The step scheduler beside request-level dynamic batching."""
    results = compare.compare(options, options.traffic())
    results["verdicts"] = compare.verdicts(results)
    options.write("compare", results, compare.markdown(results), charts.comparison)
    finish(results["verdicts"]["met"])


@main.command("overhead")
@takes(OverheadOptions)
def overhead_command(options: OverheadOptions) -> None:
    """What each layer costs; steps after a cancel; memory without engines."""
    repository, out = options.repository, options.out
    out.mkdir(parents=True, exist_ok=True)
    given = {name: getattr(options, name) for name in ("images", "steps", "sr_steps", "rounds")}
    say("layers, with the engines")
    results: dict[str, Any] = {"layers": layers.measure(repository, out, **given)}
    if options.stand_ins:
        say("layers, with stand-ins for the networks")
        copy = stand_ins.build_repository(out / "layers", repository, same_work=True)
        results["layers_alone"] = layers.measure(copy, out, **given)
    if options.cancels:
        with serving(repository) as server:
            say("cancels")
            results["cancel_steps"] = overhead.cancel_steps(server, people_of(server, 1)[0], options.cancels)
    if options.memory:
        say("memory of a server with stand-ins for the networks")
        results["own_memory"] = overhead.own_memory(repository, out)
    options.write("overhead", results, overhead.markdown(results))
    finish(all(met for _, _, met in overhead.verdicts(results)))


@main.command("soak")
@takes(SoakOptions)
def soak_command(options: SoakOptions) -> None:
    """Mixed load with cancels and bad requests on `id3pm serve`, and a line through its memory in the second half."""
    traffic = options.traffic(urgent=0.1)
    with service(options.repository, options.out) as server:
        results = soak.soak(
            server,
            dataclasses.replace(traffic, kinds=[*traffic.kinds, BAD]),
            rate=options.rate or 0.7 * capacity(server, traffic, options.seed),
            seconds=60 * options.minutes,
            seed=options.seed,
            limit_mb_per_h=options.limit,
        )
    options.write("soak", results, soak.markdown(results), charts.memory)
    finish(soak.passed(results))


@main.command("faults")
@takes(FaultsOptions)
def faults_command(options: FaultsOptions) -> None:
    """Kills, hangs, failures and cuts under load."""
    traffic = options.traffic(known_seeds=4)
    options.out.mkdir(parents=True, exist_ok=True)
    results = faults.inject_all(
        options.repository,
        options.out,
        traffic,
        rate=options.rate,
        seconds=options.seconds,
        seed=options.seed,
        faults=options.only or list(fault_actions.FAULTS),
    )
    options.write("faults", results, faults.markdown(results))
    finish(faults.passed(results))


def finish(good: bool) -> None:
    """The exit status says whether what was asked for is met."""
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
