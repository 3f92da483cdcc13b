from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from saccade.data.checks import CheckedPart, CheckReport, Finding, FlaggedImage, check_dataset, count_of
from saccade.data.scanning import scan_images
from saccade.data.store.store import ImageStore
from saccade.errors import DataError


def noise(seed: int, width: int = 12, height: int = 10) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def part(images: list[object], labels: list[object] | None = None, names: list[str] | None = None) -> CheckedPart:
    names = names or [f"{position}.png" for position in range(len(images))]
    return CheckedPart(names, labels, scan_images(images))


def several(label: str, num: int, seed: int = 1000) -> tuple[list[np.ndarray], list[str]]:
    return [noise(seed + i) for i in range(num)], [label] * num


def test_a_clean_data_set_has_no_findings() -> None:
    images, labels = several("cat", 5)
    report = check_dataset(part(images, labels), val=part([noise(1)], ["cat"]), test=part([noise(2)], ["cat"]))
    assert report.findings == ()
    assert report.ok
    assert str(report) == "Checked 5 train, 1 val, 1 test images: nothing found"


def test_unreadable_files_are_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("no image")
    Image.fromarray(noise(0)).save(tmp_path / "good.png")
    files = sorted(str(path) for path in tmp_path.iterdir())
    finding = check_dataset(CheckedPart(files, None, scan_images(files)))["IMG001"]
    assert [Path(file).name for file in finding.files] == ["empty.jpg", "text.jpg"]
    assert [flagged.detail for flagged in finding.flagged] == [
        "file is empty",
        "not an image: cannot identify its format",
    ]
    assert [flagged.position for flagged in finding.flagged] == [0, 2]


def test_duplicates_with_one_label_are_info() -> None:
    images, labels = several("cat", 5)
    report = check_dataset(part([*images, images[2], images[2]], [*labels, "cat", "cat"]))
    assert report.codes == ["IMG002"]
    assert report["IMG002"].files == ["5.png", "6.png"]
    assert report["IMG002"].flagged[0].detail == "same as 2.png"
    assert report.ok


def test_one_image_under_two_labels_is_an_error() -> None:
    cats, cat_labels = several("cat", 5)
    dogs, dog_labels = several("dog", 5, seed=2000)
    report = check_dataset(part([*cats, *dogs, cats[0]], [*cat_labels, *dog_labels, "dog"]))
    assert report.codes == ["IMG003"]
    assert report["IMG003"].severity == "error"
    assert report["IMG003"].files == ["0.png", "10.png"]
    assert report["IMG003"].flagged[0].detail == "labels: cat, dog"
    assert not report.ok


def test_an_image_in_two_parts_is_found_in_the_later_one() -> None:
    images, labels = several("cat", 5)
    val, test = [noise(1), images[3]], [noise(2), noise(1), images[4]]
    report = check_dataset(part(images, labels), part(val, ["cat"] * 2), part(test, ["cat"] * 3))
    assert report.codes == ["IMG004"]
    assert [(f.part, f.file, f.detail) for f in report["IMG004"].flagged] == [
        ("val", "1.png", "also in train: 3.png"),
        ("test", "2.png", "also in train: 4.png"),
        ("test", "1.png", "also in val: 0.png"),
    ]


def test_conflicting_labels_across_parts_are_found_too() -> None:
    images, labels = several("cat", 5)
    report = check_dataset(part(images, labels), val=part([images[0]], ["dog"]))
    assert report.codes == ["IMG003", "IMG004"]


def test_tiny_classes_count_readable_training_images() -> None:
    cats, cat_labels = several("cat", 5)
    images = [*cats, noise(1), noise(2), b""]
    report = check_dataset(part(images, [*cat_labels, "dog", "dog", "gone"]))
    assert report.codes == ["IMG001", "IMG005"]
    assert "dog (2), gone (0)" in report["IMG005"].message
    assert report["IMG005"].files == ["5.png", "6.png", "7.png"]


@pytest.mark.parametrize(
    ("image", "detail"),
    [
        (noise(0, 1, 1), "only 1 x 1 pixels, one colour only"),
        (noise(0, 300, 20), "elongated: 300 x 20 pixels"),
        (noise(0, 20, 300), "elongated: 20 x 300 pixels"),
        (np.full((20, 20), 255, dtype=np.uint8), "one colour only"),
    ],
)
def test_suspicious_images_are_flagged(image: np.ndarray, detail: str) -> None:
    images, labels = several("cat", 5)
    report = check_dataset(part([*images, image], [*labels, "cat"]))
    assert report.codes == ["IMG006"]
    assert [flagged.detail for flagged in report["IMG006"].flagged] == [detail]


@pytest.mark.parametrize(("num_cats", "codes"), [(100, []), (101, ["IMG007"])])
def test_imbalance_beyond_twenty_to_one_is_reported(num_cats: int, codes: list[str]) -> None:
    cats, cat_labels = several("cat", num_cats)
    dogs, dog_labels = several("dog", 5, seed=5000)
    report = check_dataset(part([*cats, *dogs], [*cat_labels, *dog_labels]))
    assert report.codes == codes
    if codes:
        assert report["IMG007"].message == "Class cat has 101 training images, class dog only 5."
        assert report["IMG007"].files == []


def test_regression_has_no_classes() -> None:
    images = [noise(seed) for seed in range(4)]
    assert check_dataset(part(images, [0.1, 0.2, 0.3, 0.4]), is_regression=True).findings == ()


def test_images_skipped_by_the_deadline_do_not_make_a_class_tiny(tmp_path: Path) -> None:
    images, labels = several("cat", 9)
    store = ImageStore.build(images, tmp_path / "store", shorter_side=None, deadline=lambda: 0.0)
    report = check_dataset(CheckedPart(["x.png"] * 9, labels, store.scan))
    assert report.findings == ()


def test_images_without_a_file_name_are_shown_by_position() -> None:
    images = [b"", b"", noise(0), np.zeros((9, 9), dtype=np.uint8)]
    images[1] = Path("missing.png")
    report = check_dataset(CheckedPart(images, None, scan_images(images)))
    assert report["IMG001"].files == ["<bytes #0>", "missing.png"]
    assert report["IMG006"].files == ["<image #3>"]


def test_labels_may_be_a_series_with_any_index() -> None:
    images = [noise(0), noise(0)]
    labels = pd.Series(["cat", "dog"], index=[7, 3])
    report = check_dataset(CheckedPart(["a", "b"], labels, scan_images(images)))
    assert [flagged.label for flagged in report["IMG003"].flagged] == ["cat", "dog"]


def test_parts_scanned_at_different_sizes_are_refused() -> None:
    images = [noise(0)]
    at_full_size = CheckedPart(["a"], None, scan_images(images))
    reduced = CheckedPart(["a"], None, scan_images(images, min_shorter_side=8))
    with pytest.raises(DataError, match="scan all parts alike"):
        check_dataset(at_full_size, val=reduced)


def test_images_labels_and_scan_must_have_equal_lengths() -> None:
    with pytest.raises(DataError, match="2 images, 1 labels and the scan of 2"):
        CheckedPart(["a", "b"], ["cat"], scan_images([noise(0), noise(1)]))


def test_findings_do_not_depend_on_the_order_of_images() -> None:
    images = [*several("cat", 6)[0], b"", noise(1), noise(1), np.zeros((3, 3), dtype=np.uint8)]
    labels = ["cat"] * 6 + ["dog"] * 4
    names = [f"{position}.png" for position in range(10)]

    def found(order: np.ndarray) -> set[tuple[str, str]]:
        frame = check_dataset(
            part([images[i] for i in order], [labels[i] for i in order], [names[i] for i in order])
        ).to_frame()
        frame = frame[frame["code"] != "IMG002"]  # which of two copies is the copy depends on the order
        return set(zip(frame["code"], frame["file"], strict=True))

    rng = np.random.default_rng(0)
    assert len({frozenset(found(rng.permutation(10))) for _ in range(5)}) == 1


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


def test_the_text_has_codes_counts_first_files_and_advice() -> None:
    text = str(CheckReport((BROKEN, IMBALANCE), {"train": 41, "val": 2}))
    for part in ("IMG001", "IMG007", "folder/[0].jpg (truncated)", "folder/[2].jpg", "... and 2 more", "Add images."):
        assert part in text
    assert "folder/[3].jpg" not in text
    assert "Checked 41 train, 2 val images: 2 findings" in text


def test_a_report_with_info_findings_only_is_ok() -> None:
    assert CheckReport((COPIES,)).ok
    assert not CheckReport((COPIES, IMBALANCE)).ok


def test_a_code_that_was_not_found_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="found: IMG002"):
        CheckReport((COPIES,))["IMG001"]


def test_counting() -> None:
    assert count_of(1, "class", "classes") == "1 class"
    assert count_of(0, "class", "classes") == "0 classes"
    assert count_of(2, "image") == "2 images"


def patients(num: int = 12) -> CheckedPart:
    names = [f"patient{i // 3}_{i % 3}.png" for i in range(num)]
    return part([noise(i) for i in range(num)], ["cat", "dog"] * (num // 2), names)


def test_groups_on_both_sides_of_a_split_are_reported() -> None:
    finding = check_dataset(patients(), held_out=[1, 5])["IMG008"]
    assert finding.severity == "warning"
    assert [(one.position, one.detail) for one in finding.flagged] == [
        (1, "group patient0_ in train and held out"),
        (5, "group patient1_ in train and held out"),
    ]
    assert "IMG008" not in check_dataset(patients(), held_out=[0, 1, 2]).codes
    assert "IMG008" not in check_dataset(patients()).codes
    given = [replace(patients(), groups=keys) for keys in (["p"] * 12, ["p", "q"] + [""] * 10)]
    finding = check_dataset(given[0], val=given[1])["IMG008"]
    assert (finding.severity, [one.position for one in finding.flagged]) == ("error", [0])
