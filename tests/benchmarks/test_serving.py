from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from benchmarks import serving

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from contracts.servers import photo, png
from contracts.servers import serving as a_server
from saccade.serve.models import ModelInfo, ServedModel


class Sizes(ServedModel):
    """A model that returns the number of bytes of a file."""

    info = ModelInfo(
        name="sizes", saccade_version="0", problem_type="regression", class_names=[], metrics={}, coverage=None,
        can_embed=False, can_explain=False, has_neighbours=False, has_novelty=False,
    )  # fmt: skip

    def decode(self, data: bytes) -> int:
        if not data.startswith(b"\x89PNG") or not data.endswith(b"\xaeB`\x82"):
            from saccade.errors import ImageReadError

            raise ImageReadError("not an image")
        return len(data)

    def predict(self, images: list[int]) -> list[dict[str, Any]]:
        return [{"label": float(num)} for num in images]


def test_clients_count_what_the_server_answers() -> None:
    files = [png(photo(number)) for number in range(2)]
    good = [serving._form(data) for data in files]
    with a_server(Sizes()) as server:
        port = server.address[1]
        found = asyncio.run(serving._clients(port, 4, 0.3, good))
        mixed = asyncio.run(serving._clients(port, 4, 1.0, [*good, *serving._bad_requests(files)]))
    assert set(found["statuses"]) == {"200"}
    assert found["images_per_s"] > 0
    assert 0 < found["p50_ms"] <= found["p99_ms"]
    assert {"200", "400", "404", "413", "415", "422", "431"} <= set(mixed["statuses"])
    assert not [status for status in mixed["statuses"] if status.startswith("5") and status != "503"]


def test_the_table_has_ratios_with_errors(capsys: pytest.CaptureFixture[str]) -> None:
    def measured(images_per_s: float, p99_ms: float) -> dict[str, Any]:
        return {"images_per_s": images_per_s, "p50_ms": 1.0, "p99_ms": p99_ms, "statuses": {"200": 5}}

    cases = [
        {"clients": 8, "bare": {"images_per_s": 100.0, "batch_s": 0.045}, "saccade": measured(rate, 50.0),
         "litserve": measured(60.0, 100.0)}
        for rate in (90.0, 100.0)
    ]  # fmt: skip
    serving.print_cases(cases, ["saccade", "litserve"])
    printed = capsys.readouterr().out
    assert f"{0.95:.2f} ± {0.1 / math.sqrt(2) / math.sqrt(2):.2f}" in printed
    assert "0.50" in printed
    assert "{'200': 10}" in printed
