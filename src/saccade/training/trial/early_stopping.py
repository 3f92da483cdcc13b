"""When to stop a trial before its last epoch."""

from __future__ import annotations

import math
from typing import Any

from saccade.training.recipes.recipe import Recipe


class EarlyStopping:
    """Watches a trial's score by the `early_stop_*` hyperparameters of its recipe."""

    def __init__(self, recipe: Recipe) -> None:
        patience = recipe.early_stop_patience
        self.patience = math.inf if patience is None or patience < 0 else patience
        self.min_delta = recipe.early_stop_min_delta
        self.max_value = math.inf if recipe.early_stop_max_value is None else recipe.early_stop_max_value
        self.best = -math.inf if recipe.early_stop_baseline is None else recipe.early_stop_baseline
        self.num_waited = 0
        self._last_epoch: int | None = None

    def reason(self, score: float, epoch: int) -> str:
        """Return why to stop after this epoch, which has this score, and may not be the next one; "" to go on."""
        num_since = 1 if self._last_epoch is None else epoch - self._last_epoch
        self._last_epoch = epoch
        if score > self.best + self.min_delta:
            self.best, self.num_waited = score, 0
        else:
            self.num_waited += num_since
        if score >= self.max_value:
            return f"early stop: the score reached {self.max_value}"
        if self.num_waited > self.patience:
            return f"early stop: no improvement in {self.num_waited} epochs"
        return ""

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` reads; no best score yet is None, as JSON knows no infinity."""
        best = self.best if math.isfinite(self.best) else None
        return {"best": best, "num_waited": self.num_waited, "last_epoch": self._last_epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from an earlier state."""
        self.best = -math.inf if state["best"] is None else state["best"]
        self.num_waited = state["num_waited"]
        self._last_epoch = state.get("last_epoch")  # earlier versions judged each epoch
