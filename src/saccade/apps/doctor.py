"""Checks of this machine: one fact for each thing that a fit depends on, with advice."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import httpx2
import torch
from huggingface_hub import constants
from PIL import features
from rich.filesize import decimal

from saccade._version import __version__
from saccade.errors import SaccadeError, count_of
from saccade.executor import num_usable_cpus
from saccade.executor.local_cluster import running_cluster
from saccade.fit.run_folder import RUNS_FOLDER
from saccade.models.catalogue import resolve_name
from saccade.models.embedded import embedded_networks, package_faults
from saccade.models.network import build_network
from saccade.models.weights import SUFFIX, WEIGHTS_FOLDER_VARIABLE, hub_cache_folder, hub_endpoint, tensor_names
from saccade.numerics.device import Numerics, choose_device
from saccade.remote.urls import cache_folder

Verdict = Literal["OK", "note", "problem"]

LEAST_DISK_BYTES = 2_000_000_000
LEAST_MEMORY_BYTES = 2_000_000_000
PROBE_TIMEOUT_S = 3.0
TIMED_NETWORK, TIMED_BATCH, TIMED_SIDE = "resnet18", 4, 64
"""A training step that takes some hundredths of a second on a laptop."""

MOST_TIMED_STEPS, TIMING_S = 5, 0.5  # limits of the timing of one number format


@dataclass(frozen=True)
class Fact:
    """One thing that a fit depends on."""

    name: str
    text: str  # the result of the check
    verdict: Verdict = "OK"  # "note": something may be missing or slow; "problem": a fit would fail
    advice: str = ""  # what to do


def examine() -> Iterator[Fact]:
    """Yield the facts; all of them take a few seconds."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "timm", "optuna"))
    yield Fact("Saccade", f"{__version__} with {versions}, Python {platform.python_version()}")
    yield _device()
    yield _processor()
    yield _memory()
    yield _arithmetic()
    yield _disk("cache", cache_folder(), "set SACCADE_CACHE to a folder elsewhere")
    yield _disk("runs", Path.cwd() / RUNS_FOLDER, "change to another folder, or pass one to fit --out")
    yield _weights()
    yield _hub()
    yield _image_formats()
    yield _cluster()
    if extras := _extras():
        yield extras


def _device() -> Fact:
    device = choose_device()
    bits = {torch.bfloat16: "bfloat16", torch.float16: "float16", torch.float32: "float32"}
    numerics = bits[Numerics.choose(device, None).dtype]
    if device.type == "cuda":
        properties = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
        named = ", ".join(f"{gpu.name} ({decimal(gpu.total_memory)})" for gpu in properties)
        return Fact("device", f"{named}; trains in {numerics}")
    if device.type == "mps":
        return Fact("device", f"Apple GPU (MPS); trains in {numerics}")
    if shutil.which("nvidia-smi"):
        advice = "torch does not see the NVIDIA GPU: install torch for its driver, see pytorch.org/get-started"
        return Fact("device", f"CPU, although there is an NVIDIA driver; trains in {numerics}", "note", advice)
    advice = "choose small networks, such as mobilenetv3_small_100, and give enough --time-limit"
    return Fact("device", f"CPU, no GPU; trains in {numerics}", "note", advice)


def _processor() -> Fact:
    num_cores, num_threads = num_usable_cpus(), torch.get_num_threads()
    capability = torch.backends.cpu.get_cpu_capability().replace("DEFAULT", "no vector instructions")
    text = f"{count_of(num_cores, 'core')}, {count_of(num_threads, 'thread')} for arithmetic, {capability}"
    if num_threads > num_cores:
        advice = f"threads wait for each other: set OMP_NUM_THREADS={num_cores}, or fit --threads {num_cores}"
        return Fact("processor", text, "note", advice)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > num_cores:
        advice = "other programs use the processor: trials will be slower"
        return Fact("processor", f"{text}, load {load:.1f}", "note", advice)
    return Fact("processor", text)


def _memory() -> Fact:
    free = available_memory_bytes()
    try:
        total = f"{decimal(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES'))}"
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        total = ""
    if free is None:
        return Fact("memory", f"{total} in all" if total else "unknown")
    text = f"{decimal(free)} free" + (f" of {total}" if total else "")
    if free < LEAST_MEMORY_BYTES:
        return Fact("memory", text, "note", "stop other programs, or choose a small batch_size and img_size")
    return Fact("memory", text)


def available_memory_bytes() -> int | None:
    """Return the available memory, within the limit of a container; None if it is unknown."""
    free = []
    with contextlib.suppress(OSError):  # no container
        limit, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text().strip() for name in ("max", "current"))
        if limit.isdigit() and used.isdigit():
            free.append(max(0, int(limit) - int(used)))
    with contextlib.suppress(OSError):  # only Linux has it
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"))
        free += [int(found[1]) * 1024] if found else []
    return min(free, default=None)


def _arithmetic() -> Fact:
    """Time a training step in the formats that the device may train in."""
    device = choose_device()
    half = torch.float16 if device.type == "mps" else torch.bfloat16
    try:
        plain_s = _step_s(Numerics(device))
        half_s = _step_s(Numerics(device, half))
    except RuntimeError as error:  # torch's, which may be about anything
        reason = str(error).strip().partition("\n")[0]
        return Fact("arithmetic", f"a training step failed: {reason}", "problem", "install torch for this machine")
    name = str(half).removeprefix("torch.")
    text = f"a step of {TIMED_NETWORK} takes {plain_s * 1000:.0f} ms in float32, {half_s * 1000:.0f} ms in {name}"
    if half_s < plain_s / 1.25 and Numerics.choose(device, None).dtype is torch.float32:
        return Fact("arithmetic", text, advice=f"{name} is faster here: try fit --set amp=True")
    return Fact("arithmetic", text)


def _step_s(numerics: Numerics) -> float:
    """Return the seconds of one training step, the first one, which sets things up, left out."""
    network = numerics.place(build_network(TIMED_NETWORK, 10, pretrained=False))
    images = torch.zeros(TIMED_BATCH, 3, TIMED_SIDE, TIMED_SIDE, device=numerics.device)
    images = images.contiguous(memory_format=torch.channels_last)

    def step() -> None:
        with numerics.autocast():
            loss = network(images).float().square().mean()
        loss.backward()
        loss.item()  # waits until the device is done

    until_s = time.perf_counter() + TIMING_S
    step()
    times_s: list[float] = []
    while not times_s or (len(times_s) < MOST_TIMED_STEPS and time.perf_counter() < until_s):
        start_s = time.perf_counter()
        step()
        times_s.append(time.perf_counter() - start_s)
    return min(times_s)  # the one that other programs disturbed least


def _disk(name: str, folder: Path, advice: str) -> Fact:
    """Look at the disk of a folder, or of the nearest one above it that exists."""
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    if not nearest.is_dir():
        return Fact(name, f"{folder} cannot be made: {nearest} is a file", "problem", advice)
    if not os.access(nearest, os.W_OK | os.X_OK):
        return Fact(name, f"{folder} cannot be written", "problem", advice)
    free = shutil.disk_usage(nearest).free
    text = f"{folder}, {decimal(free)} free"
    return Fact(name, text) if free >= LEAST_DISK_BYTES else Fact(name, text, "note", f"make room, or {advice}")


def _weights() -> Fact:
    given = os.environ.get(WEIGHTS_FOLDER_VARIABLE)
    if not given:
        cached = sorted(hub_cache_folder().glob("models--timm--*"))
        installed = ", ".join(embedded_networks()) or "none"
        text = f"no folder of one's own ({WEIGHTS_FOLDER_VARIABLE}); {len(cached)} in the hub's cache; "
        text += f"in installed packages: {installed}"
        advice = "; ".join(package_faults())
        return Fact("weights", text, "note" if advice else "OK", advice)
    folder = Path(given).expanduser()
    if not folder.is_dir():
        advice = f"set {WEIGHTS_FOLDER_VARIABLE} to a folder of {SUFFIX} files, or unset it"
        return Fact("weights", f"{folder} is not a folder ({WEIGHTS_FOLDER_VARIABLE})", "problem", advice)
    files = sorted(folder.glob(f"*{SUFFIX}"))
    odd = [file.name for file in files if not is_usable(file)]
    text = (
        f"{folder} ({WEIGHTS_FOLDER_VARIABLE}): {len(files) - len(odd)} of {count_of(len(files), 'file')} can be used"
    )
    if odd:
        shown = ", ".join(odd[:3]) + (", …" if len(odd) > 3 else "")
        advice = f"these are damaged, or not named after a network, as resnet18{SUFFIX} is: {shown}"
        return Fact("weights", text, "note", advice)
    return Fact("weights", text) if files else Fact("weights", text, "note", f"put files <network>{SUFFIX} there")


def is_usable(file: Path) -> bool:
    """Tell whether a file of weights is named after a network and can be read."""
    try:
        resolve_name(file.name.removesuffix(SUFFIX).partition(".")[0])
        tensor_names(file)
    except SaccadeError:
        return False
    return True


def _hub() -> Fact:
    endpoint = hub_endpoint()
    if constants.HF_HUB_OFFLINE:
        return Fact("hub", "not asked, because HF_HUB_OFFLINE is set", "note", "unset it to download weights")
    try:
        status = httpx2.head(endpoint, timeout=PROBE_TIMEOUT_S, follow_redirects=True).status_code
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        advice = "pretrained weights come from a folder (fit --weights) or installed packages (see weights)"
        return Fact("hub", f"{endpoint} cannot be reached: {reason}", "note", advice)
    if status >= 400:
        return Fact("hub", f"{endpoint} answers HTTP {status}", "note", "look at HF_ENDPOINT and the proxy's settings")
    return Fact("hub", f"{endpoint} can be reached")


def _image_formats() -> Fact:
    formats = {"jpg": "JPEG", "zlib": "PNG", "webp": "WebP", "avif": "AVIF", "libtiff": "TIFF", "jpg_2000": "JPEG 2000"}
    known = features.modules | features.codecs  # older versions of Pillow do not know newer features
    lacking = [name for feature, name in formats.items() if feature not in known or not features.check(feature)]
    text = f"Pillow {metadata.version('pillow')} reads " + ", ".join(n for n in formats.values() if n not in lacking)
    if not lacking:
        return Fact("images", text)
    return Fact("images", text, "note", f"for {', '.join(lacking)}, install another build of Pillow")


def _cluster() -> Fact:
    """Tell whether Ray is installed, and which cluster ``fit --executor ray`` would use."""
    try:
        version = metadata.version("ray")
    except metadata.PackageNotFoundError:
        return Fact("cluster", "Ray is not installed", advice="for fit --executor ray: pip install 'saccade[ray]'")
    if address := os.environ.get("RAY_ADDRESS", ""):
        host, _, port = address.removeprefix("ray://").rpartition(":")
        try:
            socket.create_connection((host, int(port)), PROBE_TIMEOUT_S).close()
        except (OSError, ValueError) as error:
            text = f"Ray {version}; the cluster at {address} (RAY_ADDRESS) is not reached: {error}"
            return Fact("cluster", text, "note", "start it, or unset RAY_ADDRESS")
        return Fact("cluster", f"Ray {version}; the cluster at {address} (RAY_ADDRESS) can be reached")
    if (local := running_cluster()) is not None:
        return Fact(
            "cluster", f"Ray {version}; {count_of(len(local.nodes), 'node')} on this machine at {local.address}"
        )
    return Fact("cluster", f"Ray {version}; no cluster of saccade cluster up runs, and RAY_ADDRESS is not set")


def _extras() -> Fact | None:
    """Tell which of the package's optional requirements, other than the developers', are there."""
    missing: dict[str, list[str]] = {}
    for requirement in metadata.requires("saccade") or ():
        found = re.fullmatch(r"\s*([\w.-]+)[^;]*;.*extra\s*==\s*['\"]([\w-]+)['\"].*", requirement)
        if found and found[2] not in ("dev", "docs"):
            names = missing.setdefault(found[2], [])
            try:
                metadata.version(found[1])
            except metadata.PackageNotFoundError:
                names.append(found[1])
    if not missing:
        return None
    text = ", ".join(f"{extra} {'is missing' if names else 'is there'}" for extra, names in missing.items())
    wanted = [extra for extra, names in missing.items() if names]
    advice = f"where you want them: pip install 'saccade[{','.join(wanted)}]'" if wanted else ""
    return Fact("extras", text, "OK", advice)
