"""What stays running: ``saccade serve``, ``mcp``, ``dashboard`` and ``cluster``."""

from __future__ import annotations

import inspect
import os
import signal
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from saccade.cli.output import emit
from saccade.errors import DataError, UnknownArgumentError, count_of
from saccade.serve.settings import ServerSettings
from saccade.study.url_folder import fetched

if TYPE_CHECKING:
    from saccade.cli.results import ClusterNode
    from saccade.executor.local_cluster import LocalCluster

Model = Annotated[
    str,
    typer.Argument(
        metavar="RUN|FILE.onnx", help="A run folder, the folder of a saved predictor, or an exported file; or its URL."
    ),
]


def serve(model: Model, **settings: Any) -> Any:
    """Serve predictions over HTTP, with a page for people at /, and a description of the endpoints at /docs.

    Ctrl-C or SIGTERM stops the server; accepted requests are finished.
    """
    from saccade.cli.results import ServeResult, Serving
    from saccade.serve import serve

    url = ""

    def on_start(name: str, at: str) -> None:
        nonlocal url
        url = at
        emit(Serving.make(name=name, url=url).model_dump())

    serve(model, on_start=on_start, **{**settings, "cors": tuple(settings["cors"])})
    return ServeResult.make(url=url)


def mcp(
    root: Annotated[
        Path, typer.Option(metavar="DIR", help="The folder that tools may read and write; nothing outside of it.")
    ] = Path(),
    http: Annotated[
        int | None,
        typer.Option(metavar="PORT", help="Serve streamable HTTP on 127.0.0.1 instead of standard input and output."),
    ] = None,
) -> None:
    """Offer fit, predict, explain and others as tools of the Model Context Protocol, for agents."""
    try:
        from saccade.cli.mcp_server import make_server
    except ModuleNotFoundError as error:
        if error.name not in ("mcp", "mcp_types"):
            raise
        raise DataError('The server needs mcp. Install it: pip install "saccade[mcp]"') from None
    server = make_server(root)
    if http is None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # the thread that reads standard input would hold up Ctrl-C
        server.run("stdio")
    else:
        server.run("streamable-http", host="127.0.0.1", port=http)


def dashboard(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...", help="Run folders of fit or tune, or folders of saved predictors, or their URLs."
        ),
    ],
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="NUM", min=0, max=65535, help="Port to listen on; 0 chooses a free one.")
    ] = 8080,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Open no browser.")] = False,
) -> Any:
    """Show studies in optuna-dashboard, and the reports of the runs beside it.

    It reads copies, also of runs that still run, and changes nothing in the folders. Ctrl-C stops it.
    """
    from saccade.apps.dashboard import run_dashboard
    from saccade.cli.results import ServeResult, Serving

    def on_start(url: str) -> None:
        emit(Serving.make(name="dashboard", url=url).model_dump())

    folders = [fetched(run) for run in runs]
    return ServeResult.make(url=run_dashboard(folders, host, port, opens_browser=not no_browser, on_start=on_start))


def _options() -> list[inspect.Parameter]:
    """Return an option for each field of `ServerSettings`, as Typer reads them from a signature."""
    options = []
    for name, hint in get_type_hints(ServerSettings, include_extras=True).items():
        kind: Any = hint.__origin__
        metavar, text = hint.__metadata__
        default = getattr(ServerSettings, name)
        if isinstance(default, tuple):  # Typer has lists for options that can be repeated
            kind, default = list[str], list(default)
        annotation = Annotated[kind, typer.Option(metavar=metavar, help=text)]
        options.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation))
    return options


_PARAMETERS = [inspect.signature(serve, eval_str=True).parameters["model"], *_options()]
serve.__signature__ = inspect.Signature(_PARAMETERS)  # type: ignore[attr-defined]  # Typer reads it
serve.__annotations__ = {parameter.name: parameter.annotation for parameter in _PARAMETERS}


class Action(str, Enum):
    """What to do with the cluster."""

    UP = "up"
    STATUS = "status"
    DOWN = "down"


def cluster(
    action: Annotated[Action, typer.Argument(help="Start the cluster, show its nodes, or end it.", show_default=False)],
    nodes: Annotated[
        int | None, typer.Option(min=1, metavar="NUM", help="up: number of nodes.  [default: 2]", show_default=False)
    ] = None,
    cpus_per_node: Annotated[
        int | None, typer.Option(min=1, metavar="NUM", help="up: cores of each node.  [default: an equal part]")
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="up: address of this machine for other machines; Ray then listens on all of its addresses.  "
            "[default: 127.0.0.1, for this machine alone]",
        ),
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1024, max=65535, metavar="NUM", help="up: port of Ray.  [default: a free one]")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="status: another Ray cluster.  [default: RAY_ADDRESS, or that of up]"),
    ] = None,
) -> Any:
    """Start, show or end a Ray cluster on this machine, to try what `fit --executor ray` does on many.

    The nodes are groups of processes that share the cores of this machine; they train on the CPU. They outlive the
    command, until `saccade cluster down`. No other Ray is touched.
    """
    from saccade.cli.results import ClusterResult
    from saccade.executor.local_cluster import end_cluster, running_cluster, start_cluster

    of_up = {"--nodes": nodes, "--cpus-per-node": cpus_per_node, "--host": host, "--port": port}
    given = [flag for flag, value in of_up.items() if value is not None and action is not Action.UP]
    given += ["--address"] if address is not None and action is not Action.STATUS else []
    if given:
        of = Action.STATUS if given == ["--address"] else Action.UP
        raise UnknownArgumentError(f"{given[0]} is an option of saccade cluster {of.value}, not of {action.value}.")
    if action is Action.UP:
        started = start_cluster(nodes or 2, cpus_per_node, host or "127.0.0.1", port or 0)
        rows = [f"{node.name}  {count_of(node.num_cpus, 'core')}  pid {node.pid}" for node in started.nodes]
        typer.echo("\n".join([f"Ray runs at {started.address}, with {count_of(len(rows), 'node')}:", *rows]))
        _print_how_to_use(started)
        return _result(started.address, _local_nodes(started), cluster=started)
    local = running_cluster()
    if action is Action.DOWN:
        ended = end_cluster()
        typer.echo(f"the cluster at {ended.address} has ended" if ended else "no cluster of saccade cluster up runs")
        return ClusterResult.make(
            is_running=False,
            address=None,
            nodes=[node.model_copy(update={"is_alive": False}) for node in _local_nodes(ended)] if ended else [],
            free={},
            workers=[],
            logs=None,
        )
    address = address or os.environ.get("RAY_ADDRESS") or (local.address if local else None)
    if address is None:
        typer.echo("no cluster of saccade cluster up runs; for another one, pass --address")
        return ClusterResult.make(is_running=False, address=None, nodes=[], free={}, workers=[], logs=None)
    return _status(address, local if local is not None and local.address == address else None)


def _print_how_to_use(cluster: LocalCluster) -> None:
    if not cluster.is_on_loopback:
        typer.echo(
            "warning: Ray listens on all addresses of this machine. Close its ports to everybody but the nodes: who "
            "has the token can run any program here.",
            err=True,
        )
        typer.echo(f"token {cluster.token_file}: copy it to each machine, set RAY_AUTH_MODE=token, and")
        typer.echo("RAY_AUTH_TOKEN_PATH to its place. Then another machine joins by:")
        typer.echo(f"  ray start --address {cluster.address}")
    typer.echo(f"logs {cluster.logs}")
    typer.echo(f"To train on it: saccade fit DATA --executor ray --address {cluster.address}")
    typer.echo("To end it: saccade cluster down")


def _local_nodes(cluster: LocalCluster) -> list[ClusterNode]:
    from saccade.cli.results import ClusterNode

    return [
        ClusterNode.make(name=node.name, is_alive=True, resources={"CPU": node.num_cpus}, pid=node.pid)
        for node in cluster.nodes
    ]


def _result(address: str, nodes: list[ClusterNode], cluster: LocalCluster | None, **more: Any) -> Any:
    from saccade.cli.results import ClusterResult

    free: dict[str, float] = {}
    for node in nodes:
        free = {name: free.get(name, 0.0) + node.resources.get(name, 0.0) for name in {**free, **node.resources}}
    values = {"free": free, "workers": [], **more}
    return ClusterResult.make(
        is_running=True, address=address, nodes=nodes, logs=cluster.logs if cluster else None, **values
    )


def _status(address: str, local: LocalCluster | None) -> Any:
    """Ask a cluster for its nodes, and print them."""
    from saccade.cli.results import ClusterNode
    from saccade.executor.local_cluster import ask_cluster

    answer = ask_cluster(address, local)
    pids = {node.name: node.pid for node in local.nodes} if local else {}
    nodes = [ClusterNode.make(**node, pid=pids.get(node["name"])) for node in answer["nodes"]]
    typer.echo(f"Ray runs at {address}")
    for node in nodes:
        resources = "  ".join(f"{value:g} {name}" for name, value in node.resources.items() if name != "memory")
        memory = f"  {node.resources['memory'] / 1e9:.1f} GB" if "memory" in node.resources else ""
        pid = f"  pid {node.pid}" if node.pid is not None and node.is_alive else ""
        typer.echo(f"{node.name}  {f'{resources}{memory}{pid}' if node.is_alive else 'dead'}")
    free = "  ".join(f"{value:g} {name}" for name, value in answer["free"].items() if name in ("CPU", "GPU"))
    typer.echo(f"free: {free or 'nothing'}")
    for worker in answer["workers"]:
        typer.echo(f"worker {worker}")
    return _result(address, nodes, local, free=answer["free"], workers=answer["workers"])
