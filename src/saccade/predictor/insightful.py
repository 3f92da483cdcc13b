"""What a fitted predictor shows of its images: what speaks for a label, what is alike, what is doubtful."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image

from saccade.data.examples import Examples, ImageLike, read_examples, read_labelled_examples
from saccade.inference.prediction import labels_by_name
from saccade.insight.embeddings import EmbeddedImages
from saccade.insight.label_issues import check_has_classes, label_issues
from saccade.insight.near_duplicates import near_duplicates
from saccade.insight.neighbours import nearest_images
from saccade.insight.overlays import check_form, in_form
from saccade.insight.reasons import Verdicts, check_numbers, neighbours_of, small_overlay
from saccade.insight.saliency import check_method, saliency_maps, target_numbers
from saccade.insight.training_images import embedded_training_images
from saccade.predictor.fitted import FittedPredictor
from saccade.report.reasons import Reason, reasons_figure

if TYPE_CHECKING:
    from saccade.data.gallery import Gallery


class InsightfulPredictor(FittedPredictor):
    """The part of `saccade.predictor.predictor.ImagePredictor` that shows what a network sees; see `saccade.insight`.

    Parameters
    ----------
    eval_metric, verbosity
        As in `saccade.predictor.predictor.ImagePredictor`.
    """

    def explain(
        self, data: Any, method: str = "auto", target: Any = None, form: str = "network"
    ) -> np.ndarray | list[np.ndarray | None] | list[Image.Image | None]:
        """Return saliency maps: which places of each image speak for its label.

        Of an ensemble, the first member is explained, which has the highest score.

        Parameters
        ----------
        data
            As in `predict`.
        method : {"auto", "grad_cam", "hires_cam", "smooth_grad"}
            See `saccade.insight.saliency`; "auto" suits every network.
        target : label, sequence of labels or None
            The label that is to be explained: one for all images, or one for each. None is the likeliest one.
        form : {"network", "image", "overlay"}
            "network" gives the maps of what the network saw, its central crop of the image; "image" those of the whole
            image, 0 where the network did not look; "overlay" pictures of these over the images.

        Returns
        -------
        ndarray of float32, shape (num_images, height, width)
            From 0 to 1 in each image; NaN for those that cannot be read. For the other forms a list with an array of
            shape (height, width), or a Pillow image, for each image; None for those that cannot be read.

        Raises
        ------
        UnknownNameError
            When there is no such method, target or form.
        HyperparameterError
            When the method does not suit the network.

        Examples
        --------
        >>> predictor.explain("cat.jpg", form="overlay")[0].save("why.png")    # doctest: +SKIP
        """
        saved = self._fitted()
        check_method(method)
        check_form(form)
        examples = read_examples(data, saved.label)
        targets = target_numbers(target, saved.problem, saved.names_of_classes, len(examples))
        if targets is None and len(saved.members) > 1:
            targets = self._predictions(examples)[0].argmax(1)  # what all members say, and not the one that is asked
        maps, errors = self._in_batches(examples, partial(saliency_maps, targets=targets, method=method))
        return in_form(form, maps, examples, errors, saved.blueprint.input)

    def nearest(self, data: Any, k: int = 5, among: Any = None) -> pd.DataFrame:
        """Return the training images that are most like each image, as the network sees them.

        Parameters
        ----------
        data
            As in `predict`.
        k : int
            How many for each.
        among : ImageDataset, DataFrame, list or None
            Images to search instead. None is the training images, which are looked up in the run folder at the first
            call; what the network makes of them is then kept with the predictor, if it takes no more than 64 MB.

        Returns
        -------
        DataFrame
            ``query`` (from the index of `data`), ``rank`` from 1, ``image``, ``label`` and ``similarity``, the cosine
            of the features. Images that cannot be read have no rows.

        Raises
        ------
        DataError
            When `among` is needed: see `saccade.insight.training_images`.
        """
        queries = self._embedded(data)
        return nearest_images(queries, self._training_images() if among is None else self._embedded(among), k)

    def why(self, data: Any, k: int = 4, num_images: int = 12, among: Any = None) -> Gallery:
        """Draw why images get their labels: where the network looks, and the training images that are most like them.

        A row for each image: it, under what is predicted (in red, and with the true label, where that is known to be
        wrong); the same image with the places that speak for the label; and the nearest training images, where ≠ stands
        before the labels that are others than the predicted one.

        Parameters
        ----------
        data
            As in `predict`. Of more than `num_images` images, those of which it is most worth asking are drawn: the
            mistakes, where labels are known, those of which the predictor is surest first, and then the images of which
            it is least sure. For regression these are the largest errors, and without labels the first images.
        k : int
            How many training images for each, at most 50.
        num_images : int
            How many images at most; no more than 200.
        among
            As in `nearest`.

        Returns
        -------
        Gallery
            A `matplotlib.figure.Figure`; ``savefig`` writes it, and notebooks show it.

        Raises
        ------
        HyperparameterError
            When `k` or `num_images` is no such number.
        DataError
            When the training images cannot be found: as `nearest`.

        Examples
        --------
        >>> predictor.why(test).savefig("why.png")                          # doctest: +SKIP
        """
        return reasons_figure(self.reasons(data, k, num_images, among))

    def reasons(self, data: Any, k: int = 4, num_images: int = 12, among: Any = None) -> list[Reason]:
        """Return what `why` draws: for each image what is predicted, an overlay, and the nearest training images.

        Parameters
        ----------
        data, k, num_images, among
            As in `why`.

        Returns
        -------
        list of saccade.report.reasons.Reason
            The rows of the picture. Those of images that cannot be read have no `predicted`.

        Raises
        ------
        HyperparameterError, DataError
            As `why`.

        Examples
        --------
        >>> predictor.reasons("cat.jpg")[0].neighbours[0].label             # doctest: +SKIP
        'cat'
        """
        saved = self._fitted()
        check_numbers(k, num_images)
        examples = read_examples(data, saved.label)
        train = self._training_images() if among is None else self._embedded(among)
        predictions, errors = self._predictions(examples)
        verdicts = Verdicts.of(predictions, examples, saved)
        rows = verdicts.rows_to_show(errors, num_images)
        readable = [row for row in rows if row not in errors]
        asked = Examples([examples.images[row] for row in readable], pd.RangeIndex(len(readable)))
        targets = None if verdicts.targets is None else verdicts.targets[readable]
        maps, _ = self._in_batches(asked, partial(saliency_maps, targets=targets))
        near = neighbours_of(EmbeddedImages.of(asked, self._features), train, k, saved)
        found = dict(zip(readable, zip(maps, near, strict=True), strict=True))
        reasons = []
        for row in rows:
            image, true = examples.images[row], verdicts.true[row]
            if row not in found:
                reasons.append(Reason(image, None, true=true))
                continue
            map_HW, neighbours = found[row]
            overlay = small_overlay(image, map_HW, saved.blueprint.input)
            reasons.append(
                Reason(
                    image,
                    verdicts.predicted[row],
                    verdicts.probabilities[row],
                    true,
                    overlay,
                    neighbours,
                    is_number=not saved.problem.has_classes,
                )
            )
        return reasons

    def near_duplicates(self, data: Any, among: Any = None, threshold: float | None = None) -> pd.DataFrame:
        """Return pairs of images that show the same picture: resized, encoded anew, cropped, mirrored or brightened.

        Parameters
        ----------
        data
            As in `predict`.
        among
            Images to look for copies in; None is `data` itself.
        threshold : float or None
            See `saccade.insight.near_duplicates.near_duplicates`.

        Returns
        -------
        DataFrame
            A row for each pair: ``index``, ``image``, ``other_index``, ``other_image``, ``similarity``,
            ``pixel_similarity``, ``is_mirrored``, and ``label`` and ``other_label`` where they are known.
        """
        return near_duplicates(self._embedded(data), None if among is None else self._embedded(among), threshold)

    def find_leaks(self, test: Any, among: Any = None, threshold: float | None = None) -> pd.DataFrame:
        """Return the test images that are training images, or nearly so: what makes figures on them too good.

        Parameters
        ----------
        test
            As in `predict`.
        among
            The training images; None looks them up as `nearest` does.
        threshold : float or None
            As in `near_duplicates`.

        Returns
        -------
        DataFrame
            As `near_duplicates` returns it; the other image of each pair is the training image.
        """
        train = self._training_images() if among is None else self._embedded(among)
        return near_duplicates(self._embedded(test), train, threshold)

    def label_issues(self, data: Any = None) -> pd.DataFrame:
        """Return the images whose label is doubtful, the most doubtful first.

        Logistic regressions on the features of the network judge images that they have not learned from; see
        `saccade.insight.label_issues`.

        Parameters
        ----------
        data : ImageDataset, DataFrame or None
            Labelled images; None is the training images, looked up as `nearest` does.

        Returns
        -------
        DataFrame
            With the index of `data`: ``image``, ``label``, ``suggested_label``, ``self_confidence`` and ``rank``.

        Raises
        ------
        DataError
            For multilabel problems and regression; or when the training images cannot be found.
        """
        saved = self._fitted()
        check_has_classes(saved.problem)
        images = self._training_images() if data is None else self._embedded(data, is_labelled=True)
        return label_issues(images, labels_by_name(images.examples, saved), saved.problem)

    def _embedded(self, data: Any, *, is_labelled: bool = False) -> EmbeddedImages:
        """Return images with what the network makes of them."""
        label = self._fitted().label
        examples = read_labelled_examples(data, label) if is_labelled else read_examples(data, label)
        return EmbeddedImages.of(examples, self._features)

    def _training_images(self) -> EmbeddedImages:
        return embedded_training_images(self._fitted(), self._features)

    def _features(self, images: list[ImageLike]) -> np.ndarray:
        return np.asarray(self.predict_feature(images, as_pandas=False))
