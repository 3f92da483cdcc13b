from __future__ import annotations

from typing import ClassVar

from saccade.compat.tuned_function import TunedFunction
from saccade.testing.trainable_contract import TrainableContract


def train(args, reporter):
    for epoch in range(1, args["epochs"] + 1):
        reporter(epoch=epoch, reward=args.lr * epoch, note="kept, but no metric")


class TestTunedFunction(TrainableContract):
    config: ClassVar = {"lr": 0.1, "epochs": 4}
    num_epochs = 4
    broken_config: ClassVar = {"lr": 0.1, "epochs": "four"}

    def make(self, tmp_path):
        return TunedFunction(train, "reward", {})
