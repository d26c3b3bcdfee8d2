"""`ifdefault lab`: build a multihomed world in network namespaces, use it, and break it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import click

from ifdefault.cli.complete import from_values
from ifdefault.cli.show.output import echo, echo_json, echo_lines
from ifdefault.lab import dns, faults, netns, registry, rootless, services
from ifdefault.lab.fitting import dns_targets, fit
from ifdefault.lab.node import CommandFailed
from ifdefault.lab.topology import Topology, load, names, read
from ifdefault.lab.world import World
from ifdefault.model.errors import HostError, Problem

_topologies, _worlds_up = from_values(lambda _: names()), from_values(lambda _: registry.names())
_world = click.option(
    "--world",
    "name",
    metavar="NAME",
    help="The world; by default the only one.",
    shell_complete=_worlds_up,
)


@click.group(name="lab")
def command() -> None:
    """Build test networks (worlds) in network namespaces.

    They have clients, an Internet, providers that filter source addresses (BCP 38), the host, and
    in some a private LAN. The machine's own network isn't affected. Without root, user namespaces
    are needed.
    """


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(as_json: bool) -> None:
    """List the topologies."""
    titles = {name: str(read(name)["title"]) for name in names()}
    if as_json:
        echo_json(titles, indent=None)
        return
    width = max(map(len, titles))
    echo_lines(f"{name:<{width}}  {title}" for name, title in titles.items())


@command.command()
@click.argument("topology", required=False, shell_complete=_topologies)
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Build a world that matches this configuration.",
)
@click.option("--name", metavar="NAME", help="The name of the world; by default a random one.")
@click.option(
    "--serve/--no-serve",
    default=True,
    help="Start the lab's own servers on the host (the default), or not.",
)
@click.option(
    "--dns/--no-dns",
    "with_dns",
    default=None,
    help="Start DNS servers: a root, a parent that delegates the host's zones, and a resolver; by"
    " default if the configuration serves zones.",
)
def up(
    topology: str | None,
    config: Path | None,
    name: str | None,
    serve: bool,
    with_dns: bool | None,
) -> None:
    """Start a world from TOPOLOGY or a configuration file."""
    if (topology is None) == (config is None):
        raise click.UsageError("no world to build, or two; give either TOPOLOGY or --config FILE")
    spec, serves = _fit(config) if config else (load(topology or ""), False)
    probed = _dns_targets(config, spec) if config else []
    with_dns = serves if with_dns is None else with_dns
    rootless.enter_held(start=True)
    try:
        with World.up(spec, name=name) as world:
            if serve:
                services.builtin(world["host"], http=True)
            if probed:
                services.builtin(world["core"], dns=probed)
            if with_dns:
                dns.start(world)
            world.keep = True
    finally:
        rootless.end_holder()  # nothing to hold if that failed
    echo(f"{spec.drawing}\n\nworld {world.name}: {spec.title}")
    echo(f"nodes: {' '.join(world.nodes)}")
    echo(f"look around: ifdefault lab shell --world {world.name} host")
    if with_dns:
        for delegation in spec.delegations():
            servers = " ".join(name for name, _ in delegation.nameservers)
            echo(f"{delegation.zone} is delegated to {servers}; a resolver is {dns.RESOLVER[0]}")


@command.command()
@click.argument("worlds", nargs=-1, metavar="[NAME]…", shell_complete=_worlds_up)
@click.option("--all", "every", is_flag=True, help="Remove all worlds of this user.")
def down(worlds: tuple[str, ...], every: bool) -> None:
    """Remove the named worlds, or the only one."""
    rootless.enter_held()
    try:
        for name in registry.names() if every else worlds or [_only()]:
            World.adopt(name).down()
            echo(f"world {name} removed")
    finally:
        rootless.end_holder()


@command.command()
@_world
@click.argument("node", default="host")
def shell(name: str | None, node: str) -> None:
    """Open a shell in NODE, by default the host."""
    _execute(name, node, [os.environ.get("SHELL", "/bin/sh")])


@command.command("exec", context_settings={"ignore_unknown_options": True})
@_world
@click.argument("node")
@click.argument("argv", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND...")
def exec_(name: str | None, node: str, argv: tuple[str, ...]) -> None:
    """Run COMMAND in NODE."""
    _execute(name, node, list(argv))


@command.command()
@_world
@click.argument("fault", type=click.Choice(list(faults.FAULTS)))
@click.argument("provider")
@click.option("--amount", type=int, metavar="N", help="The amount, in the fault's unit.")
@click.option("--every", type=float, metavar="SECONDS", help="The mean time between bursts.")
@click.option("--undo", is_flag=True, help="End the fault.")
def fault(
    name: str | None,
    fault: str,
    provider: str,
    amount: int | None,
    every: float | None,
    undo: bool,
) -> None:
    """Inject FAULT at PROVIDER, which may have several at once."""
    world = _adopt(name)
    if undo:
        faults.remove(world, fault, provider)
        echo(f"{provider}: {fault} ended")
    else:
        faults.inject(world, fault, provider, amount, every)
        echo(f"{provider}: {faults.FAULTS[fault].what}")


@command.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--dump", is_flag=True, help="Print the whole state of every node too.")
def status(as_json: bool, dump: bool) -> None:
    """Show the worlds, the packets that their providers dropped, and their faults."""
    if not rootless.capable() and not registry.names():
        echo("[]" if as_json else "no world is up")
        return
    rootless.enter_held()
    worlds = _worlds()
    if as_json:
        echo_json([_facts(world) for world in worlds], indent=None)
        return
    for world in worlds:
        dropped = _dropped(world)
        counts = ", ".join(f"{name} {count}" for name, count in dropped.items())
        echo(f"{world.name}: {world.topology.name}; nodes: {' '.join(world.nodes)}")
        echo(
            f"  packets dropped for their source address: {counts}" if dropped else f"  {_PARTIAL}"
        )
        for provider, suffered in _suffered(world).items():
            echo(f"  {provider}: faults {', '.join(suffered)}")
        if dump:
            echo(world.dump())
    if not worlds:
        echo("no world is up")


command.commands["fault"].epilog = "Faults: " + "; ".join(
    f"{name}: {fault.what}" for name, fault in faults.FAULTS.items()
)


_PARTIAL = "incomplete: still being built, or its builder was killed; `lab down` removes it"


def _worlds() -> list[World]:
    """All worlds, except those being removed meanwhile."""
    worlds = []
    for name in registry.names():
        with suppress(HostError):
            worlds.append(World.adopt(name))
    return worlds


def _dropped(world: World) -> dict[str, int]:
    """Packets dropped for their source address, by provider; none if the world is incomplete."""
    try:
        return world.misrouted()
    except CommandFailed:
        return {}


def _suffered(world: World) -> dict[str, tuple[str, ...]]:
    """The faults of the providers that have any."""
    by_provider = {p.name: faults.active(world, p.name) for p in world.topology.providers}
    return {provider: suffered for provider, suffered in by_provider.items() if suffered}


def _facts(world: World) -> dict[str, object]:
    return {
        "world": world.name,
        "topology": world.topology.name,
        "nodes": list(world.nodes),
        "misrouted": _dropped(world),
        "faults": _suffered(world),
        "config": str(world.config),
    }


def _adopt(name: str | None) -> World:
    rootless.enter_held()
    return World.adopt(name or _only())


def _only() -> str:
    worlds = registry.names()
    if len(worlds) != 1:
        remedy = f"name one of {', '.join(worlds)}" if worlds else "build one with ifdefault lab up"
        raise HostError(Problem("lab", f"{len(worlds) or 'no'} worlds are up", remedy))
    return worlds[0]


def _execute(name: str | None, node: str, argv: list[str]) -> None:
    world = _adopt(name)
    if node not in world.nodes:
        remedy = f"use one of {', '.join(world.nodes)}"
        raise HostError(Problem("lab", f'no node "{node}"', remedy))
    os.environ["IFDEFAULT_CONFIG"] = str(world.config)
    os.environ["IFDEFAULT_STATE_DIR"] = str(world.dir / "state")
    os.execvpe("ip", netns.argv(world[node].netns, argv), world[node].environment())


def _dns_targets(config: Path, topology: Topology) -> list[str]:
    """The targets of the config's DNS probes in the core."""
    from ifdefault.config import read as read_config

    return dns_targets(read_config(config), topology)


def _fit(path: Path) -> tuple[Topology, bool]:
    """A world that fits a config, and whether the config serves zones."""
    from ifdefault.config import read as read_config

    config = read_config(path)
    text = path.read_text("utf-8", "replace")
    return fit(config, text, str(path)), bool(config.dns.server.zones)
