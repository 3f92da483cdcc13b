"""The report: its page is valid HTML with the numbers of its frames, whatever names of classes are."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import html5lib
import matplotlib.figure
import pandas as pd
import pytest
from typer.testing import CliRunner

from saccade import ImagePredictor
from saccade.cli import app
from saccade.errors import DataError, DataWarning, UnknownFrameError
from saccade.fit.config_file import FitConfig
from saccade.fit.run_folder import EVENTS
from saccade.report.compare import Comparison
from saccade.report.image_sections import pictures_of
from saccade.report.page import figure, table
from saccade.report.record import RunRecord
from saccade.report.report import Report
from saccade.report.sections import Section
from saccade.report.style import SERIES, new_figure
from saccade.study.run_folder import locked

TINY = {"model": "test_resnet", "pretrained": False, "img_size": 32, "batch_size": 8, "epochs": 2, "lr": 3e-3}
ODD = {"blue": "<b>'bold' & \"$x$\"</b>", "green": "عربي", "red": "🍎\n`co`de_x"}


@pytest.fixture(scope="module")
def fitted(make_colours_once: Callable[..., pd.DataFrame], tmp_path_factory: pytest.TempPathFactory) -> ImagePredictor:
    images = make_colours_once(20, tuple(ODD))
    predictor = ImagePredictor(path=tmp_path_factory.mktemp("run") / "run", verbosity=0)
    return predictor.fit(
        images.assign(label=images["label"].map(ODD)), hyperparameters=TINY, holdout_frac=0.3, report=True
    )


def test_the_page_is_valid_html_without_scripts_and_links_to_others(fitted: ImagePredictor, tmp_path: Path) -> None:
    report = Report.read(fitted.path)
    page = report.save(tmp_path / "new" / "report.html").read_text(encoding="utf-8")
    of_fit = (Path(fitted.path) / "report.html").read_text(encoding="utf-8")
    html5lib.HTMLParser(strict=True).parse(of_fit)
    assert fitted.pipeline.saved.result in of_fit
    html5lib.HTMLParser(strict=True).parse(page)
    assert "<script" not in page
    assert "http" not in page.replace("http://www.w3.org", "")
    assert fitted.pipeline.saved.result in page
    for name in report.frames:
        assert f'<section id="{name}"' in page


def test_frames_are_named_and_misspelt_names_get_a_suggestion(fitted: ImagePredictor) -> None:
    report = Report.read(fitted.path)
    pd.testing.assert_frame_equal(report.frames["leaderboard"], fitted.leaderboard())
    assert report.frames["leaderboard"] is report.frames["leaderboard"]
    with pytest.raises(UnknownFrameError, match="Did you mean 'leaderboard'"):
        report.frames["leaderbord"]
    with pytest.raises(DataError, match="'summary' has no figure"):
        report.plot("summary")


def test_a_folder_without_a_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a run folder or a saved predictor"):
        Report.read(tmp_path)


def test_names_are_escaped_in_tables_and_figures() -> None:
    names = [*ODD.values(), "a & b"]
    frame = pd.DataFrame({"<class>": names, "value": [0.123456, 2, 3e7, float("nan")]})

    def plot(frame: pd.DataFrame) -> matplotlib.figure.Figure:
        drawn = new_figure()
        axes = drawn.add_subplot()
        axes.barh(frame["<class>"], frame["value"], color=SERIES[1])
        axes.set_title(ODD["blue"])
        return drawn

    section = Section("odd", "A title", "", lambda _: frame, plot, summary=lambda _: '"quoted" <b>')
    svg = figure(section, frame)
    shown = table(frame, "A <caption>", shown_rows=2)
    document = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(
        f"<!DOCTYPE html><html lang=en><title>x</title>{svg}{shown}"
    )
    texts = {"".join(node.itertext()).strip() for node in document.iter()}
    assert ODD["blue"] in texts
    assert {"عربي", "0.1235", "30,000,000"} <= texts
    assert 'aria-label="A title. &#34;quoted&#34; &lt;b&gt;"' in svg
    assert "var(--series-1)" in svg
    assert SERIES[1] not in svg
    assert 'id="figure_1"' not in svg


def test_the_command_writes_the_report_of_a_run_and_of_a_saved_predictor(
    fitted: ImagePredictor, tmp_path: Path
) -> None:
    saved = fitted.save(tmp_path / "saved")
    there, here = (Report.read(folder).record for folder in (fitted.path, saved))
    assert there.events == here.events
    assert there.times_s == here.times_s
    assert [len(trial.reports) for trial in here.trials] == [2]
    for folder in (fitted.path, saved):
        result = CliRunner().invoke(app, ["report", folder, "--out", str(tmp_path / "a.html")])
        assert (result.exit_code, result.output) == (0, f"report {tmp_path / 'a.html'}\n")
    assert CliRunner().invoke(app, ["report", saved]).output == f"report {Path(saved) / 'report.html'}\n"
    assert fitted.report().save() == Path(fitted.path) / "report.html"
    result = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert result.exit_code == 2
    assert result.output.startswith("saccade: ")
    assert len(result.output.splitlines()) == 1


def test_images_have_saliency_maps_and_training_images_until_they_are_deleted(
    fitted: ImagePredictor, tmp_path: Path
) -> None:
    record = RunRecord.of(fitted.pipeline)
    report = Report(record)
    pictures = pictures_of(record)
    assert record.validation is not None
    assert pictures.note == ""
    assert set(pictures.neighbours) == set(pictures.thumbnails)
    assert pictures.overlays
    neighbours = report.frames["neighbours"]
    given = record.data
    assert given is not None
    train = pd.DataFrame({"image": given[0].images, "label": given[0].labels})
    train = train[~train["image"].isin(record.validation.paths)]
    queries = [record.validation.paths[row] for row in neighbours["image"].unique()]
    expected = fitted.nearest(queries, k=3, among=train)
    assert neighbours["similarity"].tolist() == pytest.approx(expected["similarity"].tolist(), abs=2e-3)
    assert dict(zip(train["image"], train["label"], strict=True)).items() >= set(
        zip(neighbours["path"], neighbours["label"], strict=True)
    )

    without_time = RunRecord.of(fitted.pipeline)
    without_time.seconds_left = lambda: 0.1
    assert "left no time" in pictures_of(without_time).note
    moved = Report(RunRecord.of(fitted.pipeline))
    moved.record.__dict__["validation"] = replace(
        record.validation, paths=tuple(f"/moved{path}" for path in record.validation.paths)
    )
    page = moved.save(tmp_path / "moved.html").read_text(encoding="utf-8")
    assert "No image: the file is not found" in page
    assert "data:image" not in page


def test_the_summary_says_what_was_asked_and_how_to_repeat_it(fitted: ImagePredictor) -> None:
    summary = fitted.report().frames["summary"].set_index("what")["value"]
    assert summary["Asked"].startswith(
        "multiclass (3 different labels, not numbers), metric accuracy; 42 training images"
    )
    assert summary["Result"] == fitted.pipeline.saved.result
    assert summary["Repeat it"] == f"saccade fit DATA --config {fitted.path} --out OTHER"
    names = {"ImagePredictor": lambda **given: given or Asked, "Asked": Asked}
    given = eval(summary["In Python"], names, {"train_data": None})
    assert given["holdout_frac"] == 0.3
    assert TINY.items() <= given["hyperparameters"].items()


class Asked:
    @staticmethod
    def fit(train_data: object, **given: object) -> dict[str, object]:
        return given


def test_a_run_without_a_predictor_has_a_report(fitted: ImagePredictor, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(fitted.path, run)
    shutil.rmtree(run / "predictor")
    log = run / EVENTS
    lines = log.read_text().splitlines(keepends=True)
    for num in (len(lines), next(row for row, line in enumerate(lines) if "epoch_done" in line) + 1, 3, 1, 0):
        log.write_text("".join(lines[:num]) + '{"cut short')  # another process writes it
        report = Report.read(run)
        assert "The run has no predictor" in report.frames["summary"].set_index("what")["value"]["Result"]
        assert ("leaderboard" in report.frames) == (num > 3)
        html5lib.HTMLParser(strict=True).parse(report.html())
    with locked(run):  # by another process
        assert "The run has not ended" in Report.read(run).frames["summary"].set_index("what")["value"]["Result"]
    (run / "events.jsonl").unlink()
    html5lib.HTMLParser(strict=True).parse(Report.read(run).html())


def test_a_long_leaderboard_is_folded() -> None:
    frame = pd.DataFrame({"trial": range(500), "score_val": 0.5})
    shown = table(frame, "Leaderboard", max_rows=10_000, shown_rows=30)
    first, rest = shown.split("<details>")
    assert (first.count('<th scope="row"'), rest.count('<th scope="row"')) == (30, 470)
    assert "400 more rows are not shown" in table(frame, "Leaderboard")


def test_a_place_that_cannot_be_written_is_an_error_of_one_line(fitted: ImagePredictor, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = CliRunner().invoke(app, ["report", fitted.path, "--out", str(tmp_path / "file" / "a.html")])
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)


def test_a_section_that_fails_is_a_warning_and_leaves_the_others(fitted: ImagePredictor) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    report = fitted.report()
    report.sections["summary"] = replace(report.sections["summary"], frame=fail)
    with pytest.warns(
        DataWarning, match="The section 'Summary' of the report cannot be made: ZeroDivisionError: a bug"
    ):
        page = report.html()
    html5lib.HTMLParser(strict=True).parse(page)
    assert page.count("ZeroDivisionError") == 1
    assert "Leaderboard" in page


def test_without_time_sections_are_left_out(fitted: ImagePredictor) -> None:
    report = fitted.report()
    report.record.seconds_left = lambda: 0.0
    page = report.html()
    html5lib.HTMLParser(strict=True).parse(page)
    assert page.count("Left out, as the time limit") == len(report.sections)
    assert "<svg" not in page


def test_a_fit_from_a_path_is_repeated_by_its_run_folder_alone(
    make_colours: Callable[..., pd.DataFrame], tmp_path: Path
) -> None:
    folder = Path(make_colours(6)["image"][0]).parents[1]
    predictor = ImagePredictor(path=tmp_path / "run", verbosity=0).fit(folder, hyperparameters={**TINY, "epochs": 1})
    summary = predictor.report().frames["summary"].set_index("what")["value"]
    assert summary["Repeat it"] == f"saccade fit --config {predictor.path} --out OTHER"
    assert FitConfig.read(predictor.path).data == str(folder)


def test_every_section_has_a_name_of_its_own_and_is_explained_in_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "report.md").read_text(encoding="utf-8")
    for kind in (Report, Comparison):
        names = [section.name for _, sections in kind.groups for section in sections]
        assert len(names) == len(set(names)), "two sections have the same name"
        titles = [section.title for _, sections in kind.groups for section in sections]
        explained = names if kind is Report else titles
        assert [each for each in explained if f"`{each}`" not in page and f"| {each} |" not in page] == []
