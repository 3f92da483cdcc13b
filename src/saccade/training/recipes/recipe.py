"""The recipe of one trial: every hyperparameter with its type, range, default and aliases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from saccade.errors import HyperparameterError, suggestion
from saccade.models.network import CustomObject, wrap_custom_objects
from saccade.space import Categorical, Dict, Int, Real, Space
from saccade.space.base import plain

# Aliases of hyperparameters.
ALIASES: dict[str, str] = {
    "net": "model",
    "transform": "train_transform",
    "optimizer": "opt",
    "wd": "weight_decay",
    "learning_rate": "lr",
    "num_epochs": "epochs",
    "input_size": "img_size",
    "label_smoothing": "smoothing",
    "ema": "model_ema",
    "ema_decay": "model_ema_decay",
    "reprob": "re_prob",
    "layer_decay_rate": "layer_decay",
}

_EXPECTED = {
    "model": "expected a name, a torch.nn.Module, or a function f(num_classes) that makes one",
    "opt": "expected timm's name or a class, not an optimizer of some network",
    "train_transform": "expected a transform, which is called with a tensor of uint8, or None",
}


class Recipe(BaseModel):
    """All hyperparameters of one trial. Names and meanings are timm's where timm has them.

    Three of them may be custom objects, which are sent to workers by cloudpickle:

    - ``model``: a `torch.nn.Module`, of which each trial trains a copy, or a function or class ``f(num_classes)`` that
      makes one. ``weights``, ``drop`` and ``drop_path`` apply to timm's networks only. The default ``img_size`` is 224,
      and it counts as pretrained only with an explicit ``pretrained=True``. No code is saved with a predictor, so pass
      it again to load one: ``ImagePredictor.load(path, net=…)``.
    - ``opt``: an optimizer class, called with parameter groups and those of ``lr``, ``momentum`` and ``weight_decay``
      that it accepts.
    - ``train_transform``: called with a training image, uint8 RGB of shape (3, height, width) (or ``in_chans``
      channels) whose shorter side is ``img_size / crop_pct`` or less. It replaces all augmentation, and returns
      ``img_size`` by ``img_size`` pixels, uint8 or floats from 0 to 1, not normalised. Validation and prediction use
      the default crop, because a transform cannot be saved with a predictor.

    Examples
    --------
    >>> Recipe.of({"model": "resnet18", "optimizer": "sgd", "epochs": 3}).opt
    'sgd'
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False, arbitrary_types_allowed=True
    )

    model: str | CustomObject = Field("resnet18", description="network: a name of timm or GluonCV, or a custom one")
    pretrained: bool = Field(True, description="start from pretrained weights")
    weights: str | None = Field(None, description="file of pretrained weights, or a folder of such files")

    epochs: int = Field(5, ge=1, description="passes over the training images")
    images_per_epoch: int | None = Field(
        None, ge=1, description="most images of an epoch; each epoch uses others. None is all"
    )
    val_interval: int = Field(
        1, ge=1, description="epochs from one validation to the next; the last epoch is always validated"
    )
    batch_size: int = Field(16, ge=1, description="images per step")
    lr: float = Field(1e-3, gt=0, description="learning rate")
    opt: str | CustomObject = Field("adamw", description="optimizer: a timm name, or a custom class")
    weight_decay: float = Field(1e-4, ge=0, description="weight decay; not on biases and normalisation")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum, for optimizers that have it")
    sched: Literal["cosine", "step", "poly", "tanh", "constant"] = Field(
        "cosine", description="schedule of the learning rate"
    )
    warmup_epochs: float = Field(0.2, ge=0, description="epochs of warm-up of the learning rate")
    min_lr: float = Field(0.0, ge=0, description="learning rate at the end of the schedule")
    layer_decay: float | None = Field(
        None,
        gt=0,
        le=1,
        description="factor on the learning rate from layer to layer; None is 0.75 when pretrained, or 1",
    )
    layer_decay_no_opt_scale: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="layers with a smaller factor are frozen, to save time; None is 0.1 if layer_decay is None, or 0",
    )
    transfer_lr_mult: float = Field(1.0, ge=0, description="factor on the learning rate of the backbone")
    output_lr_mult: float = Field(1.0, ge=0, description="factor on the learning rate of the new classifier layer")
    lora_rank: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="rank of the updates of linear layers, for vision transformers; the other weights are frozen",
    )
    linear_probe: bool = Field(
        True, description="fit the new classifier layer to frozen features first; requires pretrained"
    )
    freeze_bn: bool | None = Field(
        None, description="freeze pretrained batch statistics; None is yes for batches of less than 32 images"
    )
    clip_grad: float | None = Field(None, gt=0, description="largest norm of the gradient")

    in_chans: Literal[1, 3, 4] = Field(3, description="channels: 1 grey, 3 RGB, 4 RGB and alpha or another band")
    img_size: int | None = Field(
        None, ge=8, le=8192, description="image size in pixels; None is the network's own, but 224 for DINOv2"
    )
    first_img_size: int | None = Field(
        None, ge=8, le=8192, description="image size in the first epoch, which grows to img_size until the last one"
    )
    crop_pct: float | None = Field(
        1.0,
        gt=0,
        le=1,
        description="fraction of the shorter side in the evaluation crop; None is that of the pretraining",
    )
    scale: tuple[float, float] = Field((0.35, 1.0), description="area of the random crop")
    ratio: tuple[float, float] = Field((3 / 4, 4 / 3), description="aspect ratio of the random crop")
    hflip: float = Field(0.5, ge=0, le=1, description="probability of a left-right flip")
    vflip: float = Field(0.0, ge=0, le=1, description="probability of an upside-down flip")
    color_jitter: float = Field(0.0, ge=0, description="strength of random colour changes")
    auto_augment: str | None = Field(None, description="randaugment, autoaugment, trivialaugment or augmix")
    re_prob: float = Field(0.0, ge=0, le=1, description="probability of erasing a rectangle")
    train_transform: CustomObject | None = Field(None, description="custom transform that replaces all augmentation")
    mixup: float = Field(0.0, ge=0, description="mixup alpha")
    cutmix: float = Field(0.0, ge=0, description="cutmix alpha")

    class_weight: Any = Field(None, description="class weights: 'balanced', or a dict from label to weight")
    balanced_sampling: bool = Field(False, description="draw training images of all classes equally often")
    smoothing: float = Field(0.0, ge=0, lt=1, description="label smoothing")
    robust_loss: float | None = Field(
        None,
        ge=0,
        le=1,
        description="for wrong labels: q of generalised cross entropy; None is chosen by the linear probe",
    )
    drop: float = Field(0.0, ge=0, lt=1, description="dropout before the classifier layer")
    drop_path: float | None = Field(None, ge=0, lt=1, description="stochastic depth")
    model_ema: bool = Field(False, description="validate and save a moving average of the weights")
    model_ema_decay: float = Field(0.9998, ge=0, lt=1, description="decay of the moving average, with warm-up")
    tta: bool = Field(
        False, description="test-time augmentation: average predictions over an image and its mirror image"
    )

    amp: bool | None = Field(None, description="16-bit arithmetic; None measures what is fastest")
    channels_last: bool | None = Field(None, description="memory format; None measures what is fastest")
    compile: bool = Field(False, description="torch.compile, which takes about a minute, for long trials on a GPU")
    seed: int = Field(0, ge=0, description="random seed of a trial")

    early_stop_patience: int | None = Field(
        None, description="epochs without improvement before stopping; -1 or None never"
    )
    early_stop_min_delta: float = Field(0.0, ge=0, description="smallest improvement that counts")
    early_stop_baseline: float | None = Field(None, description="score above which improvements count")
    early_stop_max_value: float | None = Field(None, description="score at which to stop")

    @field_validator("model", "opt", "train_transform", mode="before")
    @classmethod
    def _custom_object(cls, value: Any, info: ValidationInfo) -> Any:
        name = str(info.field_name)
        value = wrap_custom_objects({name: value})[name]
        if not isinstance(value, (CustomObject, type(None) if name == "train_transform" else str)):
            raise ValueError(_EXPECTED[name])
        return value

    @field_validator("class_weight", mode="before")
    @classmethod
    def _class_weight(cls, value: Any) -> Any:
        if not isinstance(value, Mapping | None) and not (isinstance(value, str) and value == "balanced"):
            raise ValueError("expected 'balanced', a dict from label to weight, or None")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        has_transform, message = self.train_transform is not None, ""
        if self.balanced_sampling and self.class_weight == "balanced":
            message = "class_weight='balanced' and balanced_sampling balance twice; choose one of them"
        elif self.in_chans == 4 and (self.color_jitter or self.auto_augment) and not has_transform:
            message = "color_jitter and auto_augment do not support a fourth channel; pass train_transform instead"
        elif self.first_img_size is not None and has_transform:
            message = "first_img_size requires the built-in augmentation; a custom train_transform has one image size"
        if message:
            raise ValueError(message)
        return self

    @model_validator(mode="before")
    @classmethod
    def _affordable_size(cls, given: dict[str, Any]) -> dict[str, Any]:
        if given.get("img_size") is None and (side := usual_side(given.get("model"))) is not None:
            return {**given, "img_size": side}
        return given

    @property
    def starts_pretrained(self) -> bool:
        """Whether the first weights are pretrained; for a custom network only if the user says so."""
        return self.pretrained and (isinstance(self.model, str) or "pretrained" in self.model_fields_set)

    @field_validator("scale", "ratio")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1]:
            raise ValueError("expected two numbers, 0 < lower <= upper")
        return value

    @classmethod
    def of(cls, hyperparameters: Mapping[str, Any]) -> Recipe:
        """Return the recipe with these names or aliases; unknown names, or values, are a HyperparameterError."""
        try:
            return cls(**canonical(hyperparameters))
        except ValidationError as error:
            problems = [_problem(dict(detail)) for detail in error.errors(include_url=False)]
            raise HyperparameterError("; ".join(problems)) from None


def usual_side(model: Any) -> int | None:
    """Return the image size of a network if none is given; None is its own.

    DINOv2 takes images of any size. Those of 518 pixels, its own, take five times as long.
    """
    return 224 if isinstance(model, str) and "dinov2" in model.lower() else None


def canonical(hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyperparameters under their names in `Recipe`."""
    renamed: dict[str, Any] = {}
    for given, value in hyperparameters.items():
        name = ALIASES.get(given, given)
        if name not in Recipe.model_fields:
            known = suggestion(str(given), [*Recipe.model_fields, *ALIASES])
            advice = known or f"Known: {', '.join(Recipe.model_fields)}"
            raise HyperparameterError(f"unknown hyperparameter {given!r}; {advice[0].lower()}{advice[1:]}")
        if name in renamed:
            raise HyperparameterError(f"hyperparameter {name!r} is given twice, once as {given!r}")
        renamed[name] = str(value) if isinstance(value, Path) else value
    if "class_weight" in renamed:
        renamed["class_weight"] = _with_plain_labels(renamed["class_weight"])
    return wrap_custom_objects(renamed)


def _with_plain_labels(class_weight: Any) -> Any:
    """Return class weights whose labels are plain numbers and strings, because JSON keys must be."""
    match class_weight:
        case Categorical():
            return Categorical(*(_with_plain_labels(choice) for choice in class_weight.data))
        case Mapping():
            return {plain(label): plain(weight) for label, weight in class_weight.items()}
    return class_weight


def recipe_space(hyperparameters: Mapping[str, Any]) -> Dict:
    """Return the search space of these hyperparameters; each choice and bound is validated."""
    space = Dict(canonical(hyperparameters))
    plain = {name: value for name, value in hyperparameters.items() if not isinstance(value, Space)}
    Recipe.of(plain)
    for name, value in hyperparameters.items():
        for edge in edges_of(value):
            Recipe.of({**plain, name: edge})
    return space


def edges_of(value: Any) -> list[Any]:
    """Return all choices, or both bounds, of a space; an empty list for a constant."""
    match value:
        case Categorical():
            return [edge for choice in value.data for edge in (edges_of(choice) or [choice])]
        case Real() | Int():
            return [value.lower, value.upper]
        case Space():
            return [value.default]
    return []


def choices(space: Dict, name: str) -> list[Any]:
    """Return the values of a hyperparameter in a search space: all choices, both bounds, or its one value."""
    value = space.data.get(name, Recipe.model_fields[name].default)
    return edges_of(value) or [value]


def _problem(detail: dict[str, Any]) -> str:
    text = str(detail["msg"]).removeprefix("Value error, ")
    if not detail["loc"]:  # about several hyperparameters
        return text
    name = ".".join(str(part) for part in detail["loc"])
    field = Recipe.model_fields.get(str(detail["loc"][0]))
    what = f" ({field.description})" if field and field.description else ""
    given = detail["input"]
    if isinstance(given, list) and given and len(detail["loc"]) == 1:
        text += f". To search these values, pass saccade.Categorical({', '.join(map(repr, given))})"
    return f"hyperparameter {name!r}{what} was given {given!r}: {text[0].lower()}{text[1:]}"
