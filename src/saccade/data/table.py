"""A pandas table of images that keeps its class names through all that pandas does to it, and its views."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from saccade.data.labels import are_numbers_of_classes, are_values, common_classes
from saccade.data.splitting import split_parts
from saccade.errors import DataError

if TYPE_CHECKING:
    from typing_extensions import Self

    from saccade.data.findings import CheckReport
    from saccade.data.gallery import Gallery
    from saccade.data.torch_dataset import TorchImages


class ImageTable(pd.DataFrame):
    """The base of `ImageDataset`: its metadata, and how these pass from table to table.

    pandas makes new tables of old ones by the four members below. They are its published way of subclassing;
    see "Extending pandas" in its documentation. A result has the metadata of the (first) table that it was
    made of.
    """

    classes: list[str] | None = None
    image_column: str = "image"
    label_column: str = "label"
    _metadata: ClassVar[list[str]] = ["classes", "image_column", "label_column"]

    @property
    def _constructor(self) -> Callable[..., ImageTable]:
        return type(self)._of_pandas

    @property
    def _constructor_sliced(self) -> type[pd.Series[Any]]:
        return pd.Series

    @classmethod
    def _of_pandas(cls, *args: Any, **kwargs: Any) -> ImageTable:
        """Make a table of what `pandas.DataFrame` takes, without looking at its columns."""
        table: ImageTable = cls.__new__(cls)
        table._fill(*args, **kwargs)
        return table

    def _fill(self, *args: Any, **kwargs: Any) -> None:
        """Initialise the way pandas does, past a subclass's own constructor."""
        init: Callable[..., None] = pd.DataFrame.__init__
        init(self, *args, **kwargs)

    def __finalize__(self, other: Any, method: str | None = None, **kwargs: Any) -> ImageTable:
        """Take over the metadata of what this table was made of; pandas calls it."""
        super().__finalize__(other, method=method, **kwargs)  # type: ignore[misc]  # absent from pandas-stubs
        if method == "concat":
            parts = list(other.objs)
        else:  # a merge has two tables, everything else is made of one
            parts = [getattr(other, "left", other), getattr(other, "right", None)]
        tables = [part for part in parts if isinstance(part, ImageTable)]
        if tables:
            self.image_column = tables[0].image_column
            self.label_column = tables[0].label_column
            self.classes = common_classes(tables)
        return self

    def label_names(self) -> pd.Series[Any]:
        """Return the label of each image by its name: from `classes` where labels are numbers, else itself.

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
            Shares of all images, from 0 on and together less than 1.
        random_state : int or numpy.random.Generator, optional
            The seed; None for another split each time.

        Returns
        -------
        train, val, test : ImageDataset
            Rows keep their index and their order. In each class the numbers are exact up to rounding, and at
            least one image stays in `train`. Labels that are no classes (fractional numbers), or none, are
            not stratified.

        Raises
        ------
        DataError
            If the sizes cannot be.

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
                f"test_size={test_size} and val_size={val_size} cannot be; expected shares of all images, "
                "from 0 on and together less than 1, such as 0.1."
            )
        groups = np.zeros(len(self), dtype=int)
        if self.label_column in self.columns and not are_values(self[self.label_column]):
            labels = self[self.label_column]
            is_listed = labels.map(lambda label: isinstance(label, list | tuple | set | np.ndarray)).any()
            # Several labels an image: images with the same ones are alike.
            groups = pd.factorize(labels.map(lambda label: str(sorted(label))) if is_listed else labels)[0]
        parts = split_parts(groups, [val_size, test_size], np.random.default_rng(random_state))
        train, val, test = (self[parts == part] for part in range(3))
        return train, val, test

    def check(self) -> CheckReport:
        """Look for what is wrong with the images: unreadable, duplicate, odd ones, labels at odds, tiny classes.

        Returns
        -------
        CheckReport
            Findings with a code (IMG001 …), the files, and what to do; `to_frame` gives a table, `render` one for the
            terminal.
        """
        from saccade.data.checks import CheckedPart, check_dataset
        from saccade.data.scanning import scan_images

        images = list(self[self.image_column])
        labels = self.label_names() if self.label_column in self.columns else None
        return check_dataset(CheckedPart(images, labels, scan_images(images)))

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
            How many at most, where `indices` is None.
        ncol : int
            Number of columns.
        shuffle : bool
            Draw the sample at random, rather than take the first rows.
        resize : int
            Side of each tile in pixels.
        fontsize : float
            Size of the labels in points, if they fit.
        random_state : int or numpy.random.Generator, optional
            The seed of the sample; None for another one each time.

        Returns
        -------
        Gallery
            A `matplotlib.figure.Figure`: shown by notebooks, written by ``savefig``. An image that cannot be
            read is a tile that says why.

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

        positions = self._sample(nsample, shuffle, random_state) if indices is None else np.asarray(indices, dtype=int)
        outside = positions[(positions < -len(self)) | (positions >= len(self))]
        if len(outside):
            raise DataError(f"Position {outside[0]} is outside the dataset of {len(self)} images.")
        chosen = self.iloc[positions]
        titles = chosen.label_names().tolist() if self.label_column in self.columns else None
        return draw_gallery(chosen[self.image_column].tolist(), titles, ncol, resize, fontsize)

    def _sample(self, num: int, shuffle: bool, random_state: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
        if not shuffle:
            return np.arange(min(num, len(self)))
        return np.random.default_rng(random_state).permutation(len(self))[:num]

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
