"""A pandas table of images that keeps its class names through pandas operations, and views of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from saccade.data.splitting import split_parts
from saccade.errors import DataError, suggests_names

if TYPE_CHECKING:
    from typing_extensions import Self

    from saccade.data.checks import CheckReport
    from saccade.data.gallery import Gallery
    from saccade.data.torch_dataset import TorchImages


@suggests_names()
class ImageTable(pd.DataFrame):
    """Base of `ImageDataset`: a table whose metadata pandas operations pass on, from the first table of several."""

    classes: list[str] | None = None
    image_column: str = "image"
    label_column: str = "label"
    empty_classes: tuple[str, ...] = ()  # folders without images
    _metadata: ClassVar[list[str]] = ["classes", "image_column", "label_column", "empty_classes"]

    @property
    def _constructor(self) -> Callable[..., ImageTable]:
        return type(self)._of_pandas

    @property
    def _constructor_sliced(self) -> type[pd.Series[Any]]:
        return pd.Series

    @classmethod
    def _of_pandas(cls, *args: Any, **kwargs: Any) -> ImageTable:
        """Create a table from arguments of `pandas.DataFrame`, without checks of its columns."""
        table: ImageTable = cls.__new__(cls)
        table._fill(*args, **kwargs)
        return table

    def _fill(self, *args: Any, **kwargs: Any) -> None:
        """Call the constructor of pandas instead of a subclass's."""
        init: Callable[..., None] = pd.DataFrame.__init__
        init(self, *args, **kwargs)

    def __finalize__(self, other: Any, method: str | None = None, **kwargs: Any) -> ImageTable:
        """Copy the metadata of the tables that this one was made of; called by pandas."""
        super().__finalize__(other, method=method, **kwargs)  # type: ignore[misc]  # absent from pandas-stubs
        if method == "concat":
            parts = list(other.objs)
        else:  # a merge has two tables, all other operations have one
            parts = [getattr(other, "left", other), getattr(other, "right", None)]
        tables = [part for part in parts if isinstance(part, ImageTable)]
        if tables:
            self.image_column = tables[0].image_column
            self.label_column = tables[0].label_column
            self.classes = common_classes(tables)
            self.empty_classes = tables[0].empty_classes
        return self

    def label_names(self) -> pd.Series[Any]:
        """Return the label of each image as text: its name in `classes` if labels are numbers, else itself.

        Raises
        ------
        DataError
            If there are no labels.

        Examples
        --------
        >>> from saccade.data import ImageDataset
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

        Raises
        ------
        DataError
            If the sizes are negative, or not less than 1 together.

        Examples
        --------
        >>> images = [f"{i}.jpg" for i in range(20)]
        >>> from saccade.data import ImageDataset
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

        Raises
        ------
        DataError
            If the dataset is empty, or a position is outside it.

        Examples
        --------
        >>> from PIL import Image
        >>> from saccade.data import ImageDataset
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

        Raises
        ------
        DataError
            If labels are neither numbers nor among `classes`.

        Examples
        --------
        >>> from PIL import Image
        >>> from saccade.data import ImageDataset
        >>> dataset = ImageDataset({"image": [Image.new("RGB", (32, 24))], "label": ["dog"]})
        >>> x_CHW, label = dataset.to_torch()[0]
        >>> tuple(x_CHW.shape), label
        ((3, 24, 32), 0)
        """
        from saccade.data.torch_dataset import TorchImages

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


def are_numbers_of_classes(labels: pd.Series[Any], classes: Sequence[str] | None) -> bool:
    """Return whether labels are integers, so that label ``i`` is the class ``classes[i]``."""
    return classes is not None and bool(pd.api.types.is_integer_dtype(labels))


def whole_numbers(labels: pd.Series[Any]) -> pd.Series[Any]:
    """Return whole numbers that are stored as floats as integers, and other labels as they are.

    >>> whole_numbers(pd.Series([0.0, 1.0])).tolist(), whole_numbers(pd.Series([0.5, 1.0])).tolist()
    ([0, 1], [0.5, 1.0])
    """
    if not pd.api.types.is_float_dtype(labels) or are_values(labels):
        return labels
    return labels.astype("Int64" if labels.isna().any() else "int64")


def are_values(labels: pd.Series[Any]) -> bool:
    """Return whether labels are fractional numbers (regression) rather than classes."""
    return bool(pd.api.types.is_float_dtype(labels)) and bool((labels.dropna() % 1 != 0).any())


def checked_classes(classes: Sequence[str] | None, labels: pd.Series[Any]) -> list[str] | None:
    """Return the class names: the given ones, or the distinct labels if text; a DataError if they do not fit."""
    known = labels.dropna().astype(object)
    are_strings = bool(known.map(lambda label: isinstance(label, str)).all())
    if classes is None:
        return sorted(set(known)) if are_strings and len(known) else None
    if isinstance(classes, str):
        raise DataError(f"classes is the string {classes!r}; expected a list of names.")
    names = [str(name) for name in classes]
    if twice := sorted(name for name, num in Counter(names).items() if num > 1):
        raise DataError(f"Classes are named twice: {', '.join(map(repr, twice))}. Expected distinct names.")
    if are_strings:
        for label in known.unique():
            if label not in names:
                raise DataError(f"The label {label!r} is not among the classes {names}.")
    elif are_numbers_of_classes(labels, names) and len(known) and not 0 <= known.min() <= known.max() < len(names):
        raise DataError(
            f"Labels range from {known.min()} to {known.max()}, but there are {len(names)} classes: "
            f"expected labels from 0 to {len(names) - 1}."
        )
    return names


def common_classes(datasets: Sequence[ImageTable]) -> list[str] | None:
    """Return the classes of concatenated datasets; a DataError if a number is a different class in two of them."""
    labelled = [part for part in datasets if part.classes is not None and len(part) and part.label_column in part]
    if not labelled:
        return next((list(part.classes) for part in datasets if part.classes is not None), None)
    first = labelled[0].classes
    are_numbers = {are_numbers_of_classes(part[part.label_column], part.classes) for part in labelled}
    if len(are_numbers) > 1 or (True in are_numbers and any(part.classes != first for part in labelled)):
        different = next((part.classes for part in labelled if part.classes != first), first)
        raise DataError(
            f"These datasets number their classes differently ({first} and {different}), so their labels "
            "cannot be put into one column. Convert the numbers to names first: "
            "dataset.assign(label=dataset.label_names())."
        )
    if are_numbers == {True}:
        return list(first or ())
    return sorted({name for part in labelled for name in part.classes or ()})
