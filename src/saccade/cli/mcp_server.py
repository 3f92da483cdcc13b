"""The tools of ``saccade mcp``: the commands that agents use, within one folder. It needs the extra ``mcp``.

Tools import pandas and torch when they are called, so that the server answers at once.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Annotated, Any, Literal

from mcp.server.mcpserver import Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult, TextContent, ToolAnnotations
from pydantic import Field

from saccade._version import __version__
from saccade.cli import apps, runs
from saccade.cli import check as checking
from saccade.cli import predict as predicting
from saccade.cli.results import (
    CheckResult,
    EvaluateResult,
    ExplainResult,
    LeaderboardResult,
    ModelsResult,
    PredictResult,
    ReportResult,
    Result,
    Table,
)
from saccade.errors import DataError, RunInUseError, SaccadeError, UnknownArgumentError, explained_file_errors
from saccade.events import NetworksScreened, RunPlanned, RunStarted, Warned
from saccade.study.event_log import EventLog
from saccade.study.run_folder import EVENTS, lock_owner

INSTRUCTIONS = """\
Saccade finds the best image classifier within a time limit. Call fit with a folder of images (a subfolder for each
class), an archive of it or a CSV table. It returns the run folder at once; ask status until the state is not "running".
Then use leaderboard, evaluate, predict, explain and report with that run. Paths are relative to {root}.
"""

STOP_TIMEOUT_S = 60.0  # how long `stop` waits for the end of a fit

_PROGRAM = """\
import signal, sys
sys.path[:] = {path!a}
signal.signal(signal.SIGINT, signal.default_int_handler)
from saccade.cli import main
main()
"""
"""What the process of a fit runs. It finds modules where this process does, not in the folder of the images; and it
obeys Ctrl-C, which a process in the background may inherit as ignored."""

State = Literal["running", "finished", "interrupted", "failed"]
RunPath = Annotated[str, Field(description="The run folder, as fit returns it, or the folder of a saved predictor.")]
DataPath = Annotated[
    str, Field(description="A folder with a subfolder for each class, an archive of such a folder, or a CSV table.")
]
ImageColumn = Annotated[str, Field(description="The column of a table with the paths of the images.")]


class RunStatus(Result):
    """The state of a run."""

    run: str
    state: State
    """interrupted: it can be continued by the tool resume; failed: the error says why it ended."""
    metric: str | None = None
    networks: list[str]
    """Networks that are searched."""
    num_trials: dict[str, int]
    """By status."""
    best_trial: int | None = None
    best_score: float | None = None
    """The best validation score so far, higher is better."""
    seconds: float = 0.0
    """Used so far."""
    time_limit_s: float | None = None
    warnings: list[str]
    error: str | None = None
    advice: str | None = None
    """What to do with a run that was interrupted."""


class Root:
    """The folder in which tools read and write; paths outside of it raise a DataError, also those behind links."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.expanduser().resolve()
        if not self.folder.is_dir():
            raise DataError(f"{folder} is not a folder; pass --root with the folder in which agents may work")

    def path(self, given: str | Path) -> Path:
        """Return the absolute path without links; a relative one is relative to the root."""
        if "://" in str(given):
            raise DataError(f"{given} is a URL. Pass a path in {self.folder}")
        try:
            path = (self.folder / given).resolve()
        except (OSError, RuntimeError, ValueError) as error:  # a loop of links, or a null byte
            raise DataError(f"{str(given)!r} is not a valid path: {error}") from None
        if not path.is_relative_to(self.folder):
            raise DataError(f"{given} is outside of {self.folder}. Pass a path in this folder")
        return path

    def tree(self, given: str, unread: str | None = None) -> Path:
        """Return the path of a file or folder; all links must stay in the root, except those in its folder `unread`."""
        path = self.path(given)
        seen, found = {path}, [path] if path.is_dir() else []
        while found:
            with os.scandir(found.pop()) as entries:
                for entry in entries:
                    target = self.path(entry.path) if entry.is_symlink() else Path(entry.path)
                    is_unread = unread is not None and target == path / unread
                    if target not in seen and entry.is_dir() and not is_unread:
                        seen.add(target)
                        found.append(target)
        return path

    def data(self, given: str, image_column: str = "image") -> Path:
        """Return the path of labelled images; the paths in a table must stay in the root."""
        from saccade.data.sources.tables import is_table, read_table

        path = self.tree(given)
        if is_table(str(path)) and path.is_file():
            table = read_table(path, image_column)
            self.check(path.parent / name for name in table.get(image_column, ()) if isinstance(name, str))
        return path

    def run(self, given: str, *, with_images: bool = False) -> Path:
        """Return the path of a run; `with_images` checks that its images are in the root as well."""
        from saccade.fit.run_data import read_run_data, read_unlabeled
        from saccade.fit.run_folder import DATA

        path = self.tree(given, unread="wandb")  # Weights & Biases links to its logs in the user's cache
        if with_images and (file := path / DATA).is_file():
            images = [image for part in read_run_data(file) if part is not None for image in part.images]
            unlabeled = read_unlabeled(file)
            images += unlabeled.images if unlabeled else []
            self.check(image for image in images if isinstance(image, str))
        return path

    def images(self, given: list[str]) -> list[str]:
        """Return the paths of images, folders, archives and patterns; the files of patterns must be in the root."""
        paths = [self.tree(each) for each in given]
        for path in paths:
            if not path.exists():  # a pattern
                self.check(self.folder.glob(str(path.relative_to(self.folder))))
        return list(map(str, paths))

    def check(self, paths: Iterable[str | Path]) -> None:
        """Raise a DataError if a path is outside of the root."""
        for path in paths:
            self.path(path)


class Fits:
    """The processes of fits that this server has started, each with the files of its standard output and errors."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[Path, tuple[subprocess.Popen[bytes], IO[bytes], IO[bytes]]] = {}
        self._stopped: set[Path] = set()

    def start(self, run: Path, arguments: list[str]) -> None:
        """Start a command whose run folder is `run`; it continues until its time limit when this server ends."""
        if self.is_running(run):
            raise RunInUseError(f"A fit is running in {run}. Wait until its status is another one, or stop it")
        out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115  they outlive this call
        program = [sys.executable, "-c", _PROGRAM.format(path=sys.path), *arguments, "--json"]
        # A session of its own: clients kill the server with all processes of its group.
        process = subprocess.Popen(  # noqa: S603  the arguments are not a shell's
            program, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
        )
        self.processes[run] = process, out, err
        self._stopped.discard(run)

    def stop(self, run: Path, *, at_once: bool) -> None:
        """Interrupt a fit as Ctrl-C does, and wait for its end; `at_once` interrupts it twice."""
        if run not in self.processes or self.processes[run][0].poll() is not None:
            raise DataError(f"No fit of this server is running in {run}, so there is nothing to stop")
        process = self.processes[run][0]
        self._stopped.add(run)
        for timeout_s in (1.0, STOP_TIMEOUT_S) if at_once else (STOP_TIMEOUT_S,):
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout_s)

    def is_running(self, run: Path) -> bool:
        """Return whether a process works in a run folder."""
        if run in self.processes:
            return self.processes[run][0].poll() is None
        return lock_owner(run) is not None

    def error(self, run: Path) -> str | None:
        """Return why the last process of a run failed; None if it did not, or is not this server's."""
        if run not in self.processes or run in self._stopped or self.processes[run][0].poll() in (None, 0, 130):
            return None
        _, out, err = self.processes[run]
        for file in (out, err):
            file.seek(0)
        lines = out.read().decode(errors="replace").splitlines()
        record = json.loads(lines[-1]) if lines and lines[-1].endswith("}") else {}
        return record.get("message") or err.read().decode(errors="replace")[-2000:] or "the process was killed"


class Tools:
    """The tools of agents: each public method is one."""

    def __init__(self, root: Root) -> None:
        self.root, self.fits = root, Fits(root.folder)

    def fit(
        self,
        data: DataPath,
        time_limit_s: Annotated[float, Field(gt=0, description="Seconds for the whole fit.")] = 600.0,
        out: Annotated[str | None, Field(description="The run folder; by default a new one in saccade_runs.")] = None,
        label: Annotated[str, Field(description="Label column of a table; several are separated by commas.")] = "label",
        image_column: ImageColumn = "image",
        metric: Annotated[str | None, Field(description="Metric for model selection, such as f1_macro.")] = None,
        models: Annotated[list[str] | None, Field(description="Networks to search; see list_models.")] = None,
        num_trials: Annotated[int | None, Field(gt=0, description="Maximum number of trials.")] = None,
        hyperparameters: Annotated[
            dict[str, str | int | float | bool] | None,
            Field(description='Other hyperparameters, such as {"epochs": 3, "lr": "1e-4:1e-2:log"}.'),
        ] = None,
    ) -> RunStatus:
        """Start a fit in the background, and return its run folder at once; call status until it has ended."""
        from saccade.fit.run_folder import RUNS_FOLDER, is_run

        run = self.root.tree(out or datetime.now().strftime(f"{RUNS_FOLDER}/%Y-%m-%d_%H%M%S_%f"))
        given = {"out": run, "time-limit": time_limit_s, "label": label, "image-column": image_column}
        given |= {"metric": metric, "model": ",".join(models) if models else None, "num-trials": num_trials}
        options = [f"--{name}={value}" for name, value in given.items() if value is not None]
        options += [f"--set={name}={value}" for name, value in (hyperparameters or {}).items()]
        if is_run(run):
            raise DataError(f"{run} contains a run. Pass another folder, or call resume to continue it")
        self.fits.start(run, ["fit", str(self.root.data(data, image_column)), *options])
        return _status(run, self.fits, time_limit_s)

    def resume(
        self,
        run: RunPath,
        time_limit_s: Annotated[
            float | None, Field(gt=0, description="Seconds for the whole run, earlier sessions included.")
        ] = None,
        finish: Annotated[bool, Field(description="Train nothing more: make the predictor of what there is.")] = False,
    ) -> RunStatus:
        """Continue an interrupted run in the background."""
        from saccade.fit.run_folder import is_run

        path = self.root.run(run, with_images=True)
        if not is_run(path):
            raise DataError(f"{path} is not a run folder. Pass the folder of an interrupted run, or call fit")
        limit = [] if time_limit_s is None else [f"--time-limit={time_limit_s}"]
        self.fits.start(path, ["resume", str(path), *limit, *(["--finish"] if finish else [])])
        return _status(path, self.fits, time_limit_s)

    def stop(
        self,
        run: RunPath,
        at_once: Annotated[bool, Field(description="Do not make a predictor of the trials so far.")] = False,
    ) -> RunStatus:
        """End the search of a fit: the predictor is made of the trials so far, and resume continues the run."""
        path = self.root.path(run)
        self.fits.stop(path, at_once=at_once)
        return _status(path, self.fits)

    def status(self, run: RunPath) -> RunStatus:
        """Return the state of a run, its trials and best score."""
        return _status(self.root.run(run), self.fits)

    def leaderboard(self, run: RunPath) -> LeaderboardResult:
        """Return the trials of a run, the best first, and the result."""
        return runs.leaderboard(str(self.root.run(run)))  # type: ignore[no-any-return]

    def evaluate(
        self,
        run: RunPath,
        data: DataPath,
        metrics: Annotated[
            list[str] | None, Field(description="Such as f1_macro, confusion_matrix or classification_report.")
        ] = None,
        label: Annotated[str | None, Field(description="Label column of a table, if not that of the fit.")] = None,
        image_column: ImageColumn = "image",
    ) -> EvaluateResult:
        """Return metrics on labelled images; of a folder with train and test, those in test."""
        asked = ",".join(metrics) if metrics else None
        path = str(self.root.data(data, image_column))
        return runs.evaluate(str(self.root.run(run)), path, asked, label, image_column)  # type: ignore[no-any-return]

    def predict(
        self,
        run: RunPath,
        images: Annotated[list[str], Field(min_length=1, description="Image files, folders, archives or patterns.")],
        top_k: Annotated[int, Field(ge=0, description="How many of the most probable classes are returned.")] = 5,
        max_images: Annotated[int, Field(gt=0, description="Maximum number of predictions returned.")] = 200,
        csv: Annotated[str | None, Field(description="Write a table of all predictions to this file.")] = None,
    ) -> PredictResult:
        """Return the label of each image, and its probability."""
        table = None if csv is None else self.root.path(csv)
        found: PredictResult = predicting.predict(str(self.root.run(run)), self.root.images(images), table)()
        found.images = found.images[:max_images]
        for image in found.images:
            ranked = sorted((image.probabilities or {}).items(), key=lambda item: -(item[1] or 0.0))
            image.probabilities = dict(ranked[:top_k]) if image.probabilities else None
        return found

    def explain(
        self,
        run: RunPath,
        images: Annotated[list[str], Field(min_length=1, description="Image files, folders, archives or patterns.")],
        k: Annotated[int, Field(ge=0, le=10, description="Similar training images for each image.")] = 3,
        num_images: Annotated[int, Field(gt=0, le=12, description="Of more, those with the lowest confidence.")] = 4,
    ) -> Annotated[CallToolResult, ExplainResult]:
        """Return a picture that explains predictions: a saliency map, and the most similar training images."""
        path, files = str(self.root.run(run, with_images=True)), self.root.images(images)
        with tempfile.TemporaryDirectory() as folder:
            figure = Path(folder, "why.png")
            found: ExplainResult = predicting.explain(path, files, figure, k, num_images)
            for image in found.images:  # those of a saved predictor are in its own files
                self.root.check(similar.image for similar in image.nearest)
            picture = Image(figure).to_image_content()
        found.figure = None
        text = TextContent(type="text", text=found.model_dump_json())
        return CallToolResult(content=[picture, text], structured_content=found.model_dump())

    def report(
        self,
        run: RunPath,
        section: Annotated[str | None, Field(description="Return the table of this section as well.")] = None,
        out: Annotated[str | None, Field(description="The HTML file; by default report.html in the run.")] = None,
    ) -> ReportResult:
        """Write the report of a run as an HTML file, and return its sections, such as leaderboard or confusion."""
        from saccade.report.report import Report

        made = Report.read(self.root.run(run, with_images=True))
        table = None if section is None else Table.of(made.frames[section])
        file = made.save(None if out is None else self.root.path(out))
        return ReportResult.make(file=file, sections=list(made.frames), table=table)

    def check(self, data: DataPath, image_column: ImageColumn = "image") -> CheckResult:
        """Look for problems in images: unreadable files, duplicates, images in training and test set, tiny classes."""
        return checking.check(str(self.root.data(data, image_column)), image_column=image_column)  # type: ignore[no-any-return]

    def list_models(
        self,
        pattern: Annotated[str | None, Field(description="Part of a name, or a pattern such as resnet*.")] = None,
        license: Annotated[str | None, Field(description="Such as apache-2.0, or free for any use.")] = None,  # noqa: A002
        detailed: Annotated[bool, Field(description="Return licences, sizes and accuracies as well.")] = False,
    ) -> ModelsResult:
        """Return the networks that can be searched."""
        return apps.models(pattern, license, detailed)  # type: ignore[no-any-return]


class _Server(MCPServer[None]):
    """A server that refuses arguments which a tool does not have; the SDK ignores them."""

    async def call_tool(self, name: str, arguments: dict[str, Any], context: Any = None) -> Any:
        known = next(
            (tool.input_schema["properties"] for tool in await self.list_tools() if tool.name == name), arguments
        )
        for given in arguments.keys() - known.keys():
            raise ToolError(str(UnknownArgumentError.of(f"argument of the tool {name}", given, known)))
        return await super().call_tool(name, arguments, context)


def make_server(folder: Path) -> MCPServer[None]:
    """Return the server, whose tools work in `folder`."""
    tools = Tools(Root(folder))

    @asynccontextmanager
    async def quiet(_: MCPServer[None]) -> AsyncIterator[None]:
        """Drop the text that commands print."""
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            yield

    instructions = INSTRUCTIONS.format(root=tools.root.folder)
    server = _Server("saccade", instructions=instructions, version=__version__, lifespan=quiet, log_level="ERROR")
    for name in (name for name in vars(Tools) if not name.startswith("_")):
        is_reading = name not in ("fit", "resume", "stop", "predict", "report")
        hints = ToolAnnotations(read_only_hint=is_reading)
        server.add_tool(_with_plain_errors(getattr(tools, name)), annotations=hints)
    return server


def _with_plain_errors(tool: Callable[..., Any]) -> Callable[..., Any]:
    """Return a tool whose errors are messages without a traceback."""

    @functools.wraps(tool)
    def called(*arguments: Any, **named: Any) -> Any:
        try:
            with explained_file_errors():
                return tool(*arguments, **named)
        except (SaccadeError, OSError) as error:
            raise ToolError(str(error).partition("\n\n")[0]) from None

    return called


def _status(run: Path, fits: Fits, time_limit_s: float | None = None) -> RunStatus:
    """Return the state of a run; `time_limit_s` is that of a run that has not begun to write its folder."""
    from saccade.fit.run_folder import how_to_finish, is_finished, is_run, read_trials

    is_running, error = fits.is_running(run), fits.error(run)
    if not (run in fits.processes or is_running or is_run(run)):
        raise DataError(f"{run} is not a run folder. Pass the folder that fit has returned")
    log = EventLog(run / EVENTS, as_text=True)
    found: dict[str, Any] = {"networks": [], "warnings": [], "time_limit_s": time_limit_s}
    for event in log:
        match event:
            case RunStarted():
                found["time_limit_s"] = event.time_limit_s
            case RunPlanned():
                found |= {"metric": event.metric, "networks": event.networks}
            case NetworksScreened() if event.scores:
                found["networks"] = list(event.scores)
            case Warned():
                found["warnings"].append(event.text)
    trials = read_trials(run)
    scores = [(trial.best_report.score, -trial.number) for trial in trials if trial.best_report]
    best_score, best = max(scores, default=(None, None))
    state: State = "running" if is_running else "failed" if error else "finished" if is_finished(run) else "interrupted"
    statuses = Counter(trial.status.value for trial in trials)
    if not is_running and (num_open := statuses.pop("running", 0)):  # their jobs ended with the process
        statuses["interrupted"] = num_open
    return RunStatus.make(
        **found,
        run=run,
        state=state,
        num_trials=statuses,
        best_trial=None if best is None else -best,
        best_score=best_score,
        seconds=round(log.seconds_used(), 3),
        error=error,
        advice=how_to_finish(run) if state == "interrupted" else None,
    )
