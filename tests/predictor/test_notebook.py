"""A notebook that a kernel executes: the live display, Ctrl-C, and what the last expression of a cell shows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

pytest.importorskip("nbclient", reason="notebooks are executed by nbclient")
pytest.importorskip("ipykernel", reason="notebooks are executed by ipykernel")

SETTINGS = '"model": "test_resnet", "pretrained": False, "img_size": 32, "batch_size": 4, "epochs": 2'

CELLS = (
    "from saccade import Categorical, ImageDataset, ImagePredictor\n"
    "dataset = ImageDataset.from_folder('colours_0')\ndataset",
    f"space = {{{SETTINGS}, 'lr': Categorical(1e-3, 1e-2)}}\n"
    "options = {'hyperparameters': space, 'searcher': 'grid', 'executor': 'inline'}\n"
    "predictor = ImagePredictor(path='run').fit(dataset, num_trials=2, time_limit=None, report=False, **options)",
    "predictor",
    "predictor.leaderboard()",
    "predictor.report()",
    "import os, signal\n"
    "def interrupt(event):\n"
    "    if event.kind == 'epoch_done' and event.epoch == 1 and event.trial == 1:\n"
    "        os.kill(os.getpid(), signal.SIGINT)\n"
    "other = ImagePredictor(path='other')\n"
    "other = other.fit(dataset, num_trials=2, time_limit=None, report=False, callbacks=[interrupt], **options)",
)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Jupyter's libraries
def test_a_notebook_shows_data_set_fit_predictor_leaderboard_and_report(make_colours: Any, tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    make_colours(6)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in CELLS])
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}}).execute()
    pages = []
    for cell in notebook.cells:
        assert not any(output.output_type == "error" for output in cell.outputs)
        pages.append("".join(output.get("data", {}).get("text/html", "") for output in cell.outputs))
    dataset, fit, predictor, leaderboard, report, interrupted = pages
    assert dataset.count('<img src="data:image/webp') == 8
    assert "<table" in dataset
    assert len(notebook.cells[1].outputs) == 1  # the live display is replaced, not repeated
    text = re.sub("<[^>]*>", "", fit)
    assert "12 images" not in text
    assert "trial 1  accuracy" in text
    assert "result: " in text
    assert predictor.startswith("<table><tr><th>state</th><td>fitted")
    assert "2 trials" in predictor
    assert "score_val" in leaderboard
    assert "<iframe" in report
    assert "the search was interrupted" in re.sub("<[^>]*>", "", interrupted)


def test_a_data_set_in_a_notebook_is_a_table_under_a_few_images(make_colours: Any) -> None:
    from saccade import ImageDataset

    frame = make_colours(20, ("blue", "green", "red"))
    frame.loc[0, "label"] = "<b>&"
    dataset = ImageDataset(frame)
    page = dataset._repr_html_()
    assert page is not None
    assert page.count("<img ") == 8
    assert all(f'alt="{name}"' in page for name in ("blue", "green", "red", "&lt;b&gt;&amp;"))
    assert page.count("<tr") == 61
    many = pd.concat([dataset] * 1700, ignore_index=True)
    assert (many._repr_html_() or "").count("<img ") == 8
    assert (dataset[["label"]]._repr_html_() or "").count("<img ") == 0
    assert (dataset.describe()._repr_html_() or "").startswith("<div>")
    lost = ImageDataset({"image": ["missing.jpg", "https://host/a.jpg"], "label": [0, 1]})
    assert (lost._repr_html_() or "").count("unreadable: ") == 1
    assert (ImageDataset({"image": [], "label": []})._repr_html_() or "").startswith("<div>")
    with pd.option_context("display.notebook_repr_html", False):
        assert dataset._repr_html_() is None
