"""`ImageDataset`: a pandas table of images and labels with the names of its classes."""

from __future__ import annotations

import base64
import html
import io
import unicodedata
import warnings
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np
import pandas as pd

from saccade.data.classes import are_numbers_of_classes, are_values, checked_classes, common_classes, whole_numbers
from saccade.data.decoding import read_image
from saccade.data.sources.folders import Folder, descend, folder_names, has_files, images_by_class
from saccade.data.sources.huggingface import read_rows
from saccade.data.sources.sources import as_frame, as_images, check_column, folder_of, list_image_paths, local_file
from saccade.data.sources.splits import choose_splits, class_folder, descend_to_splits, find_splits, role_of
from saccade.data.sources.tables import read_table
from saccade.data.splitting import split_parts
from saccade.errors import (
    DataError,
    DataWarning,
    ImageReadError,
    SuggestingClass,
    UnknownNameError,
    explained_file_errors,
    suggests_names,
)
from saccade.remote.urls import is_url

if TYPE_CHECKING:
    from typing_extensions import Self

    from saccade.data.batches import TorchImages
    from saccade.data.checks import CheckReport
    from saccade.data.gallery import Gallery

Extensions = str | Collection[str] | None
FolderLabels = Literal["names", "numbers"]

NUM_THUMBNAILS, THUMBNAIL_SIDE = 8, 112  # of the data set in a notebook; the side is in pixels


@suggests_names()
class ImageDataset(pd.DataFrame, metaclass=SuggestingClass):
    """A `pandas.DataFrame` with one row per image.

    Slicing, sampling, concatenating, merging, copying and pickling return an `ImageDataset` with the same classes.
    Concatenating datasets whose integer labels denote different classes raises an error. Raises a DataError if a column
    is missing, or labels and `classes` do not fit together.

    Parameters
    ----------
    data : pandas.DataFrame, dict of columns, list of dict, or list of images
        Images are paths (``str`` or ``Path``) or the bytes of image files. Paths become ``str``.
    classes : list of str, optional
        Class names. An integer label ``i`` is the class ``classes[i]``. None: the sorted labels if these are
        strings, else no names.
    image_column, label_column : str
        Names of the two columns, of which the second may be absent. Other columns are kept.
    root : str or Path, optional
        Base of relative paths: a folder, or the path or address (``http://``, ``https://``, ``s3://``, ``file://``
        and so on) of a zip or tar archive, which is downloaded and unpacked once. None leaves paths as they are.
    no_class : bool
        The images have no labels; a label column is dropped.

    Examples
    --------
    >>> dataset = ImageDataset({"image": ["rex.jpg", "tom.jpg", "odie.jpg"], "label": ["dog", "cat", "dog"]})
    >>> dataset.classes
    ['cat', 'dog']
    >>> type(dataset[dataset["label"] == "dog"]).__name__
    'ImageDataset'
    """

    classes: list[str] | None = None
    image_column: str = "image"
    label_column: str = "label"
    empty_classes: tuple[str, ...] = ()  # folders without images
    _metadata: ClassVar[list[str]] = ["classes", "image_column", "label_column", "empty_classes"]

    def __init__(
        self,
        data: Any,
        classes: Sequence[str] | None = None,
        image_column: str = "image",
        label_column: str = "label",
        root: str | Path | None = None,
        no_class: bool = False,
    ) -> None:
        if isinstance(data, ImageDataset):
            classes = data.classes if classes is None else classes
            image_column = image_column if image_column in data.columns else data.image_column
            label_column = label_column if label_column in data.columns else data.label_column
        frame = as_frame(data, image_column)
        check_column(frame, image_column, "image_column")
        if no_class:
            frame = frame.drop(columns=label_column, errors="ignore")
        else:
            advice = "; pass no_class=True for images without labels"
            check_column(frame, label_column, "label_column", advice)
            if classes is not None:  # a merge makes floats of whole numbers
                frame = frame.assign(**{label_column: whole_numbers(frame[label_column])})
        images = as_images(frame[image_column], root)
        super().__init__(frame.assign(**{image_column: images}))  # type: ignore[call-arg]  # not in pandas-stubs
        self.image_column, self.label_column = image_column, label_column
        self.classes = None if no_class else checked_classes(classes, self[label_column])

    @property
    def _constructor(self) -> Callable[..., ImageDataset]:
        return type(self)._of_pandas

    @property
    def _constructor_sliced(self) -> type[pd.Series[Any]]:
        return pd.Series

    @classmethod
    def _of_pandas(cls, *args: Any, **kwargs: Any) -> ImageDataset:
        """Create a data set from arguments of `pandas.DataFrame`, without checks of its columns."""
        dataset: ImageDataset = cls.__new__(cls)
        super(ImageDataset, dataset).__init__(*args, **kwargs)
        return dataset

    def __finalize__(self, other: Any, method: str | None = None, **kwargs: Any) -> ImageDataset:
        """Copy the metadata of the tables that this one was made of, from the first of several; called by pandas."""
        super().__finalize__(other, method=method, **kwargs)  # type: ignore[misc]  # absent from pandas-stubs
        if method == "concat":
            parts = list(other.objs)
        else:  # a merge has two tables, all other operations have one
            parts = [getattr(other, "left", other), getattr(other, "right", None)]
        if datasets := [part for part in parts if isinstance(part, ImageDataset)]:
            first = datasets[0]
            self.image_column, self.label_column = first.image_column, first.label_column
            self.classes, self.empty_classes = common_classes(datasets), first.empty_classes
        return self

    @classmethod
    def from_folder(
        cls,
        root: str | Path,
        exts: Extensions = None,
        no_class: bool = False,
        sha256: str | None = None,
        labels: FolderLabels = "names",
    ) -> ImageDataset:
        """Create a dataset from a folder with one sub-folder per class.

        Raises a DataError if there are no images, none in class folders, or folders named like splits.

        Parameters
        ----------
        root : str or Path
            The folder, or the path or address of a zip or tar archive of it. The folder may be a URL such as
            ``s3://bucket/pets``, whose images are read from there. A folder that wraps all others in an archive is
            stepped into.
        exts : str or collection of str, optional
            The file name extensions of images; upper and lower case are the same. None for all common ones.
        no_class : bool
            Take the images anywhere below `root`, without labels.
        sha256 : str, optional
            The digest, in hexadecimal, that the file at an address must have.
        labels : {"names", "numbers"}
            "names": labels are the names of the folders. "numbers": labels are integers from 0, the positions in
            `classes`. Other sets are matched by the names in either case.

        Returns
        -------
        ImageDataset
            `classes` are the sorted names of the folders that have images. Images in folders within a class folder
            are of that class. Hidden files are left out.

        Examples
        --------
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> for name in ("dog", "cat"):
        ...     (root / name).mkdir()
        ...     (root / name / "1.jpg").touch()
        >>> dataset = ImageDataset.from_folder(root)
        >>> dataset["label"].tolist(), ImageDataset.from_folder(root, labels="numbers")["label"].tolist()
        (['cat', 'dog'], [0, 1])
        """
        folder = folder_of(root, sha256=sha256)
        if not no_class:  # archives and downloads often wrap the classes in another folder
            inner = descend(folder, lambda name: role_of(name) is not None)
            if splits := find_splits(inner):
                raise DataError(
                    f"The folders in {inner} are splits rather than classes: {', '.join(splits.values())}. Use "
                    "ImageDataset.from_folders, or from_folder with one of them."
                )
            if inner != folder and not is_url(root) and Path(root).expanduser().is_dir():
                only = repr(str(inner).removeprefix(str(folder)).strip("/\\"))
                text = f"{folder} contains only {only}; the folders in that are taken as the classes"
                warnings.warn(DataWarning(text), stacklevel=3)
            folder = inner
        by_class = images_by_class(folder, exts, no_class)
        classes = None if no_class else sorted(name for name, images in by_class.items() if images)
        if classes:
            _check_folders_below(folder, classes)
        return cls._of_classes(by_class, classes, labels)

    @classmethod
    def _of_classes(
        cls, by_class: dict[str, list[str]], classes: list[str] | None, labels: FolderLabels
    ) -> ImageDataset:
        if labels not in get_args(FolderLabels):
            raise UnknownNameError.of("labels", labels, get_args(FolderLabels))
        if classes is None:
            return cls([image for images in by_class.values() for image in images], no_class=True)
        nums = [len(by_class.get(name, ())) for name in classes]
        values = np.arange(len(classes)) if labels == "numbers" else np.array(classes, dtype=object)
        # Of type object, since the string type of pandas does not support all file names.
        images = pd.Series([image for name in classes for image in by_class.get(name, ())], dtype=object)
        dataset = cls({"image": images, "label": pd.Series(np.repeat(values, nums), dtype=values.dtype)}, classes)
        dataset.empty_classes = tuple(name for name, images in by_class.items() if not images)
        return dataset

    @classmethod
    def from_folders(
        cls,
        root: str | Path,
        train: str = "train",
        val: str | None = "val",
        test: str | None = "test",
        exts: Extensions = None,
        no_class: bool = False,
        sha256: str | None = None,
        labels: FolderLabels = "names",
    ) -> tuple[ImageDataset, ImageDataset, ImageDataset]:
        """Create three datasets from a folder with one sub-folder per split, and in each one per class.

        Raises a DataError without training images, without a folder of a name that is given, or if a split's folder
        holds files but no images. A DataWarning names folders with images that are left out.

        Parameters
        ----------
        root : str or Path
            The folder, or the path or address of a zip or tar archive of it. Folders that wrap all others are
            stepped into.
        train, val, test : str
            The names of the splits' folders. The defaults stand for all usual names, such as ``Training``, ``valid``
            or ``test_set``, and `val` and `test` need not exist then. None leaves a split out.
        exts, no_class, sha256, labels
            See `from_folder`.

        Returns
        -------
        train, val, test : ImageDataset
            All with the same `classes`, those of all splits together, so that numbers mean the same in each. A
            split without a folder, or with an empty one, is an empty dataset with the same columns.

        Examples
        --------
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> for name in ("train/dog", "train/cat", "test/dog"):
        ...     (root / name).mkdir(parents=True)
        ...     (root / name / "1.jpg").touch()
        >>> splits = ImageDataset.from_folders(root)
        >>> [split["label"].tolist() for split in splits]
        [['cat', 'dog'], [], ['dog']]
        """
        wanted = {"train": train, "val": val, "test": test}
        folder = descend_to_splits(folder_of(root, sha256=sha256), wanted)
        chosen = choose_splits(folder, wanted)
        splits = [
            images_by_class(class_folder(folder / chosen[role]), exts, no_class)
            if role in chosen and (role == "train" or has_files(folder / chosen[role]))
            else {}
            for role in wanted
        ]
        classes = None if no_class else sorted({name for split in splits for name, images in split.items() if images})
        of_train, of_val, of_test = (cls._of_classes(split, classes, labels) for split in splits)
        return of_train, of_val, of_test

    @classmethod
    @explained_file_errors()
    def from_csv(
        cls,
        csv: str | Path,
        root: str | Path | None = None,
        image_column: str = "image",
        label_column: str = "label",
        no_class: bool = False,
        sha256: str | None = None,
        sep: str | None = None,
        encoding: str | None = None,
    ) -> ImageDataset:
        r"""Create a dataset from a table of paths and labels.

        Raises a DataError if the file does not exist, is not such a table, or lacks a column, or if a row has more
        fields than the header.

        Parameters
        ----------
        csv : str or Path
            The path or address of a table with a header: CSV or TSV; or Parquet, JSON (a list of records), or JSON
            Lines, by the end of its name. Only empty fields are missing values: a class may be
            called "None" or "NA". Labels stay as they are written; they are numbers only where no number would be
            written differently (1 and 2.5, but not 007 and 1.0).
        root, image_column, label_column, no_class
            See `ImageDataset`.
        sha256 : str, optional
            The digest, in hexadecimal, that the table at an address must have.
        sep : str, optional
            The separator; None detects a comma, a semicolon, a tab or a vertical bar.
        encoding : str, optional
            Such as ``"cp1252"``. None is UTF-8, or UTF-16 with a byte order mark.

        Returns
        -------
        ImageDataset
            Without labels, after a DataWarning, if no name is given and the table has no column ``label``.

        Examples
        --------
        >>> import tempfile
        >>> csv = Path(tempfile.mkdtemp()) / "pets.csv"
        >>> _ = csv.write_text("image,label\nrex.jpg,dog\ntom.jpg,cat\n")
        >>> ImageDataset.from_csv(csv, root=csv.parent).classes
        ['cat', 'dog']
        """
        frame = read_table(local_file(csv, sha256=sha256), image_column, sep, encoding)
        if (
            not no_class
            and label_column == "label"
            and label_column not in frame.columns
            and image_column in frame.columns
        ):
            others = ", ".join(str(name) for name in frame.columns if name != image_column) or "none"
            text = f"{csv} has no column 'label', so its images have no labels; other columns: {others}"
            warnings.warn(DataWarning(f"{text}. Name it with label_column=…, or pass no_class=True"), stacklevel=4)
            no_class = True
        return cls(frame, image_column=image_column, label_column=label_column, root=root, no_class=no_class)

    @classmethod
    def from_name_func(
        cls,
        images: str | Path | Iterable[str | Path],
        fn: Callable[[Any], Any],
        root: str | Path | None = None,
        no_class: bool = False,
    ) -> ImageDataset:
        """Create a dataset whose labels are computed from the names of the images.

        Raises a DataError if there are no images, or `fn` returns None for one.

        Parameters
        ----------
        images : list of path, or str or Path
            The images; or a folder, an archive or an address of one, of which all images are taken; or a
            pattern such as ``"photos/*.jpg"``.
        fn : callable
            Given each path as a `pathlib.Path`, returns its label.
        root : str or Path, optional
            Base of relative paths; see `ImageDataset`.
        no_class : bool
            Do not call `fn`; the images get no labels.

        Examples
        --------
        >>> dataset = ImageDataset.from_name_func(["cat_1.jpg", "dog_1.jpg"], lambda path: path.stem.split("_")[0])
        >>> dataset["label"].tolist()
        ['cat', 'dog']
        """
        paths = list_image_paths(images, root)
        if no_class:
            return cls({"image": paths}, root=root, no_class=True)
        labels = [fn(Path(path)) for path in paths]
        for path, label in zip(paths, labels, strict=True):
            if label is None:
                raise DataError(f"The function returned None as the label of {str(path)!r}; expected its label.")
        return cls({"image": paths, "label": labels}, root=root)

    @classmethod
    def from_huggingface(
        cls, dataset: Any, image_column: str | None = None, label_column: str | None = None
    ) -> ImageDataset:
        """Create a dataset from a ``datasets.Dataset`` of Hugging Face.

        Raises a DataError for a dictionary of splits, without images or such columns, or if only some labels are known.

        Parameters
        ----------
        dataset : datasets.Dataset
            One split, or any iterable of one mapping per image; the package `datasets` is not required.
        image_column, label_column : str, optional
            The columns to take. None chooses the column of type ``Image`` and the one of type ``ClassLabel``,
            else by name. The columns of the result are called ``image`` and ``label``.

        Returns
        -------
        ImageDataset
            Images are paths if the dataset has only these, else bytes. `classes` are those of the
            ``ClassLabel``.

        Examples
        --------
        >>> rows = [{"image": "rex.jpg", "label": "dog"}, {"image": "tom.jpg", "label": "cat"}]
        >>> ImageDataset.from_huggingface(rows).classes
        ['cat', 'dog']
        """
        images, labels, classes = read_rows(dataset, image_column, label_column)
        if labels is None:
            return cls({"image": images}, no_class=True)
        return cls({"image": images, "label": labels}, classes=classes)

    def label_names(self) -> pd.Series[Any]:
        """Return the label of each image as text: its name in `classes` if labels are numbers, else itself.

        Raises a DataError without labels.

        Examples
        --------
        >>> ImageDataset({"image": ["rex.jpg"], "label": [1]}, classes=["cat", "dog"]).label_names().tolist()
        ['dog']
        """
        if self.label_column not in self.columns:
            raise DataError(f"These images have no labels: there is no column {self.label_column!r}.")
        labels = self[self.label_column]
        if not are_numbers_of_classes(labels, self.classes):
            return labels.astype(str)
        return labels.map(dict(enumerate(self.classes or ())))

    def random_split(
        self, test_size: float = 0.1, val_size: float = 0, random_state: Any = None
    ) -> tuple[Self, Self, Self]:
        """Split into training, validation and test images, each class in the same proportions.

        Raises a DataError for sizes that are negative, or not less than 1 together.

        Parameters
        ----------
        test_size, val_size : float
            Fractions of all images, 0 or more, together less than 1.
        random_state : int or numpy.random.Generator, optional
            Seed; None for another split each time.

        Returns
        -------
        train, val, test : ImageDataset
            Rows keep their index and their order. In each class the numbers are exact up to rounding, and at
            least one image stays in `train`. Fractional numbers and missing labels are not stratified.

        Examples
        --------
        >>> images = [f"{i}.jpg" for i in range(20)]
        >>> dataset = ImageDataset({"image": images, "label": ["cat", "dog"] * 10})
        >>> [len(split) for split in dataset.random_split(test_size=0.2, val_size=0.1, random_state=0)]
        [14, 2, 4]
        """
        if not (test_size >= 0 and val_size >= 0 and test_size + val_size < 1):  # NaN is none of these
            raise DataError(
                f"test_size={test_size} and val_size={val_size} were given; expected fractions of all images, "
                "0 or more and together less than 1, such as 0.1."
            )
        groups = np.zeros(len(self), dtype=int)
        if self.label_column in self.columns and not are_values(self[self.label_column]):
            labels = self[self.label_column]
            is_listed = labels.map(lambda label: isinstance(label, list | tuple | set | np.ndarray)).any()
            # Images with the same set of labels are a class.
            groups = pd.factorize(labels.map(lambda label: str(sorted(label))) if is_listed else labels)[0]
        parts = split_parts(groups, [val_size, test_size], np.random.default_rng(random_state))
        train, val, test = (self[parts == part] for part in range(3))
        return train, val, test

    def check(self) -> CheckReport:
        """Check for unreadable, duplicate and suspicious images, conflicting labels and tiny classes.

        Returns
        -------
        CheckReport
            Findings with a code (IMG001 …), the files, and advice; `to_frame` returns a table.
        """
        from saccade.data.checks import CheckedPart, check_dataset
        from saccade.data.scanning import measure_pixel_range, scan_images

        images = list(self[self.image_column])
        labels = self.label_names() if self.label_column in self.columns else None
        return check_dataset(CheckedPart(images, labels, scan_images(images, pixel_range=measure_pixel_range(images))))

    def _repr_html_(self) -> str | None:
        """Return the table of pandas for notebooks, under thumbnails of a few images of different classes."""
        table: str | None = super()._repr_html_()  # type: ignore[misc]  # absent from pandas-stubs
        if table is None or self.image_column not in self.columns or not self.columns.is_unique:
            return table
        tiles = [tile for row in self._mixed_rows(NUM_THUMBNAILS) if (tile := self._tile(row))]
        style = "display:flex;flex-wrap:wrap;gap:8px;margin-bottom:8px"
        return f'<div style="{style}">{"".join(tiles)}</div>{table}' if tiles else table

    def _mixed_rows(self, num: int) -> list[int]:
        """Return positions of up to `num` rows, of as many classes as possible, in the order of the classes."""
        rows = np.sort(np.random.default_rng(0).permutation(len(self))[:1000])
        labels = self[self.label_column].iloc[rows].map(str) if self.label_column in self.columns else None
        keys = pd.Series("", rows) if labels is None else pd.Series(labels.to_numpy(), rows)
        order = keys.groupby(keys).cumcount().sort_values(kind="stable").index[:num]
        return [int(row) for row in keys.loc[order].sort_values(kind="stable").index]

    def _tile(self, row: int) -> str:
        """Return an image with its label as HTML; "" for what is not an image on this machine."""
        image = self[self.image_column].iloc[row]
        if not isinstance(image, str | bytes) or is_url(image):
            return ""
        label = self[self.label_column].iloc[row] if self.label_column in self.columns else ""
        if self.classes is not None and isinstance(label, int | np.integer) and 0 <= label < len(self.classes):
            label = self.classes[label]
        text = html.escape(str(label))
        try:
            thumbnail = read_image(image, min_shorter_side=THUMBNAIL_SIDE)
            thumbnail.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
            file = io.BytesIO()
            thumbnail.save(file, "WEBP", quality=80)
            url = f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
            style = f"width:{THUMBNAIL_SIDE}px;height:{THUMBNAIL_SIDE}px;object-fit:contain"
            picture = f'<img src="{url}" alt="{text or "image"}" style="{style}">'
        except ImageReadError as error:
            picture = f"<small>unreadable: {html.escape(str(error)[:100])}</small>"
        cut = "overflow:hidden;text-overflow:ellipsis;white-space:nowrap"
        caption = f'<figcaption style="text-align:center;{cut}" title="{text}">{text}</figcaption>'
        return f'<figure style="margin:0;width:{THUMBNAIL_SIDE}px">{picture}{caption}</figure>'

    def show_images(
        self,
        indices: Sequence[int] | None = None,
        nsample: int = 16,
        ncol: int = 4,
        shuffle: bool = True,
        resize: int = 224,
        fontsize: float = 20,
        random_state: Any = None,
    ) -> Gallery:
        """Draw some of the images in a grid, with their labels.

        Raises a DataError without images, or for a position outside the dataset.

        Parameters
        ----------
        indices : list of int, optional
            Positions of the rows to show; None for `nsample` of them.
        nsample : int
            Maximum number of images if `indices` is None.
        ncol : int
            Number of columns.
        shuffle : bool
            Whether to draw the sample at random instead of the first rows.
        resize : int
            Side of each tile in pixels.
        fontsize : float
            Size of the labels in points, if they fit.
        random_state : int or numpy.random.Generator, optional
            Seed of the sample; None for another one each time.

        Returns
        -------
        Gallery
            A `matplotlib.figure.Figure`: shown by notebooks, written by ``savefig``. The tile of an unreadable
            image shows the reason.

        Examples
        --------
        >>> from PIL import Image
        >>> dataset = ImageDataset([Image.new("RGB", (32, 32), "teal")], no_class=True)
        >>> len(dataset.show_images().axes)
        1
        """
        from saccade.data.gallery import draw_gallery

        if indices is not None:
            positions = np.asarray(indices, dtype=int)
        else:
            order = np.random.default_rng(random_state).permutation(len(self)) if shuffle else np.arange(len(self))
            positions = order[:nsample]
        outside = positions[(positions < -len(self)) | (positions >= len(self))]
        if len(outside):
            raise DataError(f"Position {outside[0]} is outside the dataset of {len(self)} images.")
        chosen = self.iloc[positions]
        titles = chosen.label_names().tolist() if self.label_column in self.columns else None
        return draw_gallery(chosen[self.image_column].tolist(), titles, ncol, resize, fontsize)

    def to_torch(self, transform: Callable[[Any], Any] | None = None) -> TorchImages:
        """Return a `torch.utils.data.Dataset` of the images and their labels.

        Raises a DataError if labels are neither numbers nor among `classes`.

        Parameters
        ----------
        transform : callable, optional
            Called with each image as a Pillow image in mode RGB.

        Returns
        -------
        TorchImages
            Its items are (image, label). Without `transform` the image is a uint8 tensor of shape
            (3, height, width), of each image's own size. The label is an integer, the position in `classes`
            where there are any, or a float. Without labels, the items are the images alone.

        Examples
        --------
        >>> from PIL import Image
        >>> dataset = ImageDataset({"image": [Image.new("RGB", (32, 24))], "label": ["dog"]})
        >>> x_CHW, label = dataset.to_torch()[0]
        >>> tuple(x_CHW.shape), label
        ((3, 24, 32), 0)
        """
        from saccade.data.batches import TorchImages

        images = self[self.image_column].tolist()
        if self.label_column not in self.columns:
            return TorchImages(images, None, transform)
        labels = self[self.label_column]
        if not pd.api.types.is_numeric_dtype(labels):
            position_of: dict[Any, int] = {name: position for position, name in enumerate(self.classes or ())}
            codes = labels.map(lambda label: position_of.get(label) if isinstance(label, Hashable) else None)
            if codes.isna().any():
                raise DataError(f"The label {labels[codes.isna()].iloc[0]!r} is not among the classes {self.classes}.")
            labels = codes.astype(int)
        return TorchImages(images, labels.tolist(), transform)


def _check_folders_below(folder: Folder, classes: Sequence[str]) -> None:
    """Warn if all class folders have the same sub-folders; a DataError if these are classes, and the folders splits."""
    names = [name for name in folder_names(folder) if unicodedata.normalize("NFC", name) in classes]
    common = set.intersection(*(set(folder_names(folder / name)) for name in names))
    if len(common) < 2:
        return
    inside = sorted(common)
    text = f"Each folder in {folder} has the sub-folders {', '.join(inside[:5])}{', …' if len(inside) > 5 else ''}"
    by_class = "call ImageDataset.from_name_func(root, lambda path: path.parent.name)"
    if splits := [name for name in names if role_of(name) is not None and len(names) > 1]:
        raise DataError(
            f"{text}, and {splits[0]!r} is a usual name of a split, so the folders are probably splits rather than "
            f"classes: {', '.join(names)}. Use ImageDataset.from_folders with train=…, val=… and test=…, or "
            f"from_folder with one of them. If all are training images, {by_class}."
        )
    if all(role_of(name) is not None for name in inside):
        one = f"ImageDataset.from_name_func('{folder}/*/{inside[-1]}/*', lambda path: path.parent.parent.name)"
        text += f", which are splits by their names; the images of all are taken together. For one of them call {one}"
    else:
        text += f". If these are the classes, {f'pass {folder / names[0]}' if len(names) == 1 else by_class}"
    warnings.warn(DataWarning(text), stacklevel=4)
