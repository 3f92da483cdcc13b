"""A predictor as an API of LitServe, for `benchmarks.serving`."""

from __future__ import annotations

from typing import Any

import litserve
from typing_extensions import override


class PredictorApi(litserve.LitAPI):
    """Decodes and predicts a batch of files by the pipeline of a run."""

    def __init__(self, run: str, **options: Any) -> None:
        super().__init__(**options)
        self.run_folder = run

    @override
    def setup(self, device: str) -> None:
        from saccade import ImagePredictor
        from saccade.serve.models import ServedPredictor

        self.served = ServedPredictor(ImagePredictor.load(self.run_folder, verbosity=0, device=device))

    @override
    def decode_request(self, request):  # type: ignore[no-untyped-def]  # LitServe reads annotations as types of forms
        content: bytes = request["files"].file.read()
        return content

    @override
    def batch(self, inputs: list[bytes]) -> list[bytes]:
        return inputs

    @override
    def predict(self, inputs: list[bytes]) -> list[dict[str, Any]]:
        return self.served.predict(inputs)

    @override
    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return output

    @override
    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return {"predictions": [output]}
