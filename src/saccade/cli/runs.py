"""Commands on a run folder: ``saccade resume``, ``leaderboard``, ``choose``, ``evaluate`` and ``watch``."""

from __future__ import annotations

import contextlib
import functools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from saccade.cli.output import emit_event
from saccade.cli.words import Encoding, ImageColumn, ImageRoot, LabelSep, Run, print_places
from saccade.errors import DataError
from saccade.study.event_log import EventLog
from saccade.study.run_folder import EVENTS, NEW, is_vacant
from saccade.study.url_folder import WatchedFolder, fetched, with_urls

if TYPE_CHECKING:
    from saccade.study.display.progress import ProgressDisplay


def resume(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run folder, or its URL.")],
    time_limit: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Time for the whole run, earlier sessions included.  [default: unchanged]"),
    ] = None,
    verbosity: Annotated[
        int | None,
        typer.Option(metavar="0-3", min=0, max=3, help="0 silent, 1 result, 2 trials, 3 epochs."),
    ] = None,
    finish: Annotated[
        bool, typer.Option("--finish", help="Train nothing more: make the predictor of the trials that the run has.")
    ] = False,
    executor: Annotated[
        str | None, typer.Option(metavar="NAME", help="Where trials run, as in fit.  [default: unchanged]")
    ] = None,
    address: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Another Ray cluster, as in fit.  [default: unchanged]")
    ] = None,
) -> Any:
    """Resume an interrupted run.

    It needs the run folder, and the images in their places. Only the interrupted epoch is trained again. A finished run
    is shown.
    """
    from saccade.fit.options import FitOptions

    given = {} if time_limit is None else {"time_limit": time_limit}
    limit = FitOptions.of(given, label=lambda _: "--time-limit").time_limit
    from saccade.cli.results import FitResult
    from saccade.predictor import ImagePredictor
    from saccade.report.tables import output_console, print_trials

    predictor = ImagePredictor.resume(run, limit, verbosity, finish=finish, executor=executor, address=address)
    if predictor.verbosity > 0:
        print_trials(output_console(), predictor.leaderboard(), predictor.fit_summary())
    print_places(predictor)
    return FitResult.of(predictor)


def leaderboard(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run folder, or a saved predictor's, or its URL.")],
) -> Any:
    """Show the trials of a run, the best first, and where its time went."""
    from saccade.cli.results import LeaderboardResult, trial_lines
    from saccade.fit.run_folder import has_predictor, how_to_finish, is_run, read_trials
    from saccade.predictor import ImagePredictor
    from saccade.report.tables import output_console, print_trials, seconds_line
    from saccade.selection.summary import leaderboard as as_table
    from saccade.selection.summary import trial_rows

    folder = fetched(run)
    if is_run(folder) and not has_predictor(folder):
        rows, advice = trial_rows(read_trials(folder)), with_urls(how_to_finish(folder))
        if rows:
            print_trials(output_console(), as_table(rows, {}))
        typer.echo(advice)
        return LeaderboardResult.make(run=run, is_finished=False, trials=trial_lines(rows, {}), advice=advice)
    predictor = ImagePredictor.load(run)
    summary = predictor.fit_summary()
    print_trials(output_console(), predictor.leaderboard(), summary)
    if seconds := summary.get("seconds"):
        typer.echo(seconds_line(seconds))
    saved = predictor.pipeline.saved
    return LeaderboardResult.make(
        run=run,
        is_finished=True,
        trials=trial_lines(saved.trials, saved.trial_weights),
        result=saved.result,
        why_not_best_trial=summary.get("why_not_best_trial") or None,
        seconds=seconds,
    )


def choose(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="The run folder, or its URL, of a search with several --objectives.")
    ],
    out: Annotated[str, typer.Option(metavar="DIR", help="Folder for the predictor, or its URL.")],
    min_images_per_s: Annotated[
        float | None,
        typer.Option(metavar="N", help="Minimum throughput in images per second, as measured by the search."),
    ] = None,
    max_latency_ms: Annotated[
        float | None,
        typer.Option(metavar="MS", help="Maximum latency in ms per image, as measured by the search."),
    ] = None,
    max_params: Annotated[float | None, typer.Option(metavar="N", help="Maximum number of parameters.")] = None,
    max_bytes: Annotated[float | None, typer.Option(metavar="N", help="Maximum size of the weights in bytes.")] = None,
    min_score: Annotated[
        float | None,
        typer.Option(metavar="SCORE", help="Minimum score: save the cheapest predictor, not the best."),
    ] = None,
) -> Any:
    """Save the best predictor of a search within the given limits."""
    from saccade.cli.results import PredictorResult, of_predictor
    from saccade.predictor import ImagePredictor

    chosen = ImagePredictor.load(run).choose(
        min_images_per_s=min_images_per_s,
        max_latency_ms=max_latency_ms,
        max_params=max_params,
        max_bytes=max_bytes,
        min_score=min_score,
    )
    chosen.save(out)
    typer.echo(f"result: {chosen.fit_summary()['result']}")
    typer.echo(f"predictor {out}")
    return PredictorResult.make(**of_predictor(chosen.pipeline.saved, out))


def evaluate(
    run: Run,
    data: Annotated[
        str,
        typer.Argument(
            metavar="DIR|ZIP|CSV|URL", help="Images in a folder for each class, test/ with such folders, or a table."
        ),
    ],
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[,NAME...]",
            help="Metrics to print, such as f1_macro, classification_report or confusion_matrix.",
        ),
    ] = None,
    label: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of labels in a table.  [default: that of the fit]")
    ] = None,
    image_column: ImageColumn = "image",
    image_root: ImageRoot = None,
    label_sep: LabelSep = None,
    encoding: Encoding = None,
) -> Any:
    """Print the metrics of a run on labelled images."""
    from saccade.cli.inputs import TableColumns, label_columns, read_test_images
    from saccade.cli.results import EvaluateResult, Table
    from saccade.predictor import ImagePredictor

    predictor = ImagePredictor.load(run)
    fitted = predictor.label
    columns_of_labels = label_columns(label) if label else fitted if isinstance(fitted, str) else list(fitted)
    columns = TableColumns(image_column, columns_of_labels, image_root, label_sep, encoding)
    images = read_test_images(data, columns)
    names = None if metrics is None else [name.strip() for name in metrics.split(",")]
    scores = predictor.evaluate(images, names)
    for name, score in scores.items():
        typer.echo(f"{name} {score:.4f}" if isinstance(score, float) else f"{name}\n{score.to_string()}")
    tables = {name: Table.of(score) for name, score in scores.items() if not isinstance(score, float)}
    return EvaluateResult.make(
        metrics={name: score for name, score in scores.items() if name not in tables}, tables=tables
    )


def watch(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="The folder or URL of a run of fit or tune, which may not exist yet.")
    ],
    verbosity: Annotated[
        int, typer.Option(metavar="0-3", min=0, max=3, help="1 result, 2 trials and a live display, 3 epochs.")
    ] = 2,
) -> Any:
    """Follow a run from another terminal until it ends; Ctrl-C ends only the watching.

    The event log of the run is read, and nothing is written. A run that has finished is shown.
    """
    from saccade.cli.results import WatchResult
    from saccade.study.display.progress import ProgressDisplay, make_console
    from saccade.study.display.state import RunState

    watched = WatchedFolder(run)
    state = RunState(clock=time.time)
    console = make_console(stderr=False)
    display = ProgressDisplay(verbosity, "", console, state, pid=None)
    is_ended = is_news = False
    with contextlib.suppress(KeyboardInterrupt):
        with display:
            is_news = _follow(watched, display)
        is_ended = True
    if is_ended and not (is_news and state.is_finished):
        display.print_end()
    if is_ended and not state.is_finished:
        raise DataError(with_urls(_how_it_ended(watched.folder)))
    best = state.record.best_trial
    return WatchResult.make(
        run=run,
        is_finished=state.is_finished,
        best_trial=None if best is None else best.number,
        score=None if best is None or best.best_report is None else best.best_report.score,
        num_trials=len(state.record.trials),
    )


def _follow(watched: WatchedFolder, display: ProgressDisplay) -> bool:
    """Show the events of a run as they come, until no process works on it; return whether any came after the first."""
    log: EventLog | None = None
    num_reads, is_waiting, is_over, last_s = 0, False, False, 0.0
    run = watched.folder
    while True:
        watched.refresh()
        path = next((each / EVENTS for each in (run / NEW, run) if (each / EVENTS).is_file()), None)
        if path is not None and (log is None or log.path != path):
            log = EventLog(path, as_text=True)
            display.state.metric = _metric(run)
        news = [] if log is None or path is None else list(log.news())
        for event, last_s in news:
            emit_event(event, last_s)
            # On a terminal, the display shows what came before the watching.
            show = display.apply if display.is_live and not num_reads and not is_waiting else display
            show(event, last_s)
        if news:
            num_reads, is_over = num_reads + 1, False
            continue
        if is_over:  # and its last events were read
            display.state.clock = functools.partial(float, last_s)
            return num_reads > 1 or is_waiting
        owner = watched.owner()
        if owner is None and log is None and is_vacant(run):
            if not is_waiting:
                display.note(with_urls(f"{run} does not contain a run yet; waiting for it (Ctrl-C ends watching)"))
            is_waiting = True
        elif owner is None:
            if log is None:
                _check_is_run(run)
            is_over = True
            continue
        display.pid = owner or None
        time.sleep(watched.pause_s)


def _metric(run: Path) -> str:
    """Return the metric of a search of `tune`; a run of `fit` has it in its log."""
    from saccade.tuning.folder import ABOUT, read_about

    return str(read_about(run)["metric"]) if (run / ABOUT).is_file() else ""


def _check_is_run(run: Path) -> None:
    from saccade.fit.run_folder import is_run  # slow to import, as torch is
    from saccade.tuning.folder import ABOUT

    if not (run / ABOUT).is_file() and not is_run(run):
        raise DataError(
            with_urls(f"{run} is not a run folder. Pass the folder of a run of saccade fit or saccade.tune")
        )


def _how_it_ended(run: Path) -> str:
    """Return why a run without an end in its log has ended, and how to continue it."""
    from saccade.fit.run_folder import how_to_finish
    from saccade.tuning.folder import ABOUT

    if (run / ABOUT).is_file():
        how = f"Continue the search in {run} in Python: call saccade.tune again, with `resume` set to True"
    else:
        how = how_to_finish(run) or "It failed before a trial had a result; its own output has the reason"
    return f"No process works on the run any more: it was interrupted, was killed or has failed. {how}"
