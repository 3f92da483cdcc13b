from __future__ import annotations

import io

import pytest
from rich.console import Console

from saccade.data.findings import CheckReport, Finding, FlaggedImage, count_of

BROKEN = Finding(
    "IMG001",
    "Unreadable images",
    "warning",
    "5 files.",
    "Replace them.",
    tuple(FlaggedImage("train", i, f"folder/[{i}].jpg", "cat", "truncated") for i in range(5)),
)
IMBALANCE = Finding("IMG007", "Strong imbalance", "warning", "40 of a, 1 of b.", "Add images.")
COPIES = Finding("IMG002", "Duplicates", "info", "1 copy.", "Delete it.")


def rendered(report: CheckReport) -> str:
    buffer = io.StringIO()
    Console(file=buffer, width=120).print(report.render())
    return buffer.getvalue()


def test_a_frame_has_a_row_per_image_and_one_for_a_finding_about_the_whole() -> None:
    frame = CheckReport((BROKEN, IMBALANCE), {"train": 41}).to_frame()
    assert frame["code"].tolist() == ["IMG001"] * 5 + ["IMG007"]
    assert frame["position"].tolist()[:5] == [0, 1, 2, 3, 4]
    assert frame["position"].isna().tolist() == [False] * 5 + [True]
    assert frame.loc[0, ["part", "file", "label", "detail"]].tolist() == ["train", "folder/[0].jpg", "cat", "truncated"]
    assert frame.loc[5, "detail"] == "40 of a, 1 of b."


def test_a_report_without_findings_has_an_empty_frame_with_the_same_columns() -> None:
    empty = CheckReport((), {"train": 3})
    assert len(empty.to_frame()) == 0
    assert empty.to_frame().columns.tolist() == CheckReport((BROKEN,)).to_frame().columns.tolist()
    assert empty.to_frame().dtypes["position"] == "Int64"


@pytest.mark.parametrize("show", [str, rendered], ids=["text", "table"])
def test_both_faces_show_codes_counts_first_files_and_advice(show: object) -> None:
    text = show(CheckReport((BROKEN, IMBALANCE), {"train": 41, "val": 2}))
    for part in ("IMG001", "IMG007", "folder/[0].jpg (truncated)", "folder/[2].jpg", "... and 2 more", "Add images."):
        assert part in text
    assert "folder/[3].jpg" not in text
    assert "Checked 41 train, 2 val images: 2 findings" in text


def test_only_notes_leave_a_report_ok() -> None:
    assert CheckReport((COPIES,)).ok
    assert not CheckReport((COPIES, IMBALANCE)).ok


def test_a_code_that_was_not_found_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="found: IMG002"):
        CheckReport((COPIES,))["IMG001"]


def test_counting() -> None:
    assert count_of(1, "class", "classes") == "1 class"
    assert count_of(0, "class", "classes") == "0 classes"
    assert count_of(2, "image") == "2 images"
