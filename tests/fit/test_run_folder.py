"""The run folder of a fit, and which trials keep their files in it."""

from __future__ import annotations

from pathlib import Path

from saccade.events import EpochDone
from saccade.executor import InlineExecutor
from saccade.fit.run_folder import WeightsKeeper, tidy_up
from saccade.scheduler import ASHAScheduler, FIFOScheduler
from saccade.searcher import GridSearcher, RandomSearcher
from saccade.space import Categorical, Dict, Real
from saccade.study.event_log import EventLog
from saccade.study.study import Study
from saccade.study.trial import Decision, Job, Reporter, Trainable
from saccade.study.trial_files import LocalTrialFiles, parse_name
from saccade.testing.simulated_executor import SimulatedExecutor
from saccade.training.trial_files import BEST, LAST


class Writing(Trainable):
    """Scores the configuration's `x`, and writes the files that a trainer writes; `x` below 0 fails after an epoch."""

    def train(self, job: Job, report: Reporter) -> str:
        assert job.files is not None
        start = parse_name(job.checkpoint)[1] or 0 if job.checkpoint else 0
        for epoch in range(start + 1, (job.until_epoch or 4) + 1):
            for kind in (BEST, LAST):
                checkpoint = job.files.put(job.trial, kind, epoch, lambda path: path.touch())
            job.files.drop(job.trial, BEST, LAST, before_epoch=epoch)
            score = abs(job.config["x"]) + 1e-3 * epoch
            if report(EpochDone(job.trial, epoch, score, checkpoint=checkpoint, is_last=epoch == 4)) is not (
                Decision.CONTINUE
            ):
                return "stopped"
            if job.config["x"] < 0:
                raise ZeroDivisionError
        return ""


def names(folder: Path) -> dict[str, list[str]]:
    return {path.name: sorted(file.name[:9] for file in path.glob("*-*")) for path in sorted(folder.iterdir())}


def test_of_ended_trials_only_the_best_keeps_its_weights(tmp_path: Path) -> None:
    space = {"x": Categorical(3, 2, 7, 5, 7.0001)}
    study = Study(
        InlineExecutor(Writing()), GridSearcher(space), FIFOScheduler(), files=LocalTrialFiles(tmp_path / "trials")
    )
    seen: list[dict[str, list[str]]] = []
    study.listeners += [WeightsKeeper(study.trials), lambda event: seen.append(names(tmp_path / "trials"))]
    study.run()
    for state in seen:
        assert sum("best" in name for files in state.values() for name in files) <= 2  # the best, and the one at work
        assert sum("last" in name for files in state.values() for name in files) <= 1
    assert names(tmp_path / "trials") == {f"{number:04d}": ["best-0004"] if number == 4 else [] for number in range(5)}


def test_the_second_best_is_kept_until_the_best_trial_has_completed(tmp_path: Path) -> None:
    space = {"x": Categorical(3, -9, 2)}
    study = Study(
        InlineExecutor(Writing()), GridSearcher(space), FIFOScheduler(), files=LocalTrialFiles(tmp_path / "trials")
    )
    study.listeners.append(WeightsKeeper(study.trials))
    study.run()
    assert study.best_trial is not None
    assert study.best_trial.number == 0
    assert names(tmp_path / "trials") == {"0000": ["best-0004"], "0001": [], "0002": []}


def test_paused_trials_keep_their_state_also_when_a_study_is_resumed(tmp_path: Path) -> None:
    space = Dict(x=Real(1, 2))
    for num_trials in (6, 9):
        with EventLog(tmp_path / "events.jsonl", space) as log:
            study = Study(
                InlineExecutor(Writing()), RandomSearcher(space), ASHAScheduler(max_epochs=4), num_trials=num_trials,
                files=LocalTrialFiles(tmp_path / "trials"), log=log, max_score=1.99,
            )  # fmt: skip
            study.listeners.append(WeightsKeeper(study.trials))

            def check(event: object, study: Study = study) -> None:
                for trial in study.trials:
                    files = names(tmp_path / "trials")[f"{trial.number:04d}"]
                    if trial.status.value == "paused":
                        assert files == [f"best-{trial.num_epochs:04d}", f"last-{trial.num_epochs:04d}"]
                if (best := study.best_trial) is not None:
                    assert (BEST, best.best_report.epoch) in best.files.list(best.number)

            study.listeners.append(check)
            study.run()


def test_trials_without_folders_need_no_files(tmp_path: Path) -> None:
    executor = SimulatedExecutor(lambda config: [config["x"]], 1, 1.0)
    study = Study(executor, RandomSearcher({"x": Real(0, 1)}), FIFOScheduler(), num_trials=50)
    study.listeners.append(WeightsKeeper(study.trials))  # there are no folders at all
    study.run()
    assert len(study.trials) == 50


def test_for_an_ensemble_the_best_trials_of_the_best_networks_are_kept(tmp_path: Path) -> None:
    scores = {"a": (1, 4, 3), "b": (9, 8, 7), "c": (5, 6, 2), "d": (1, 3, 2)}
    space = {"model": Categorical(*scores), "x": Categorical(*range(1, 10))}
    configs = [{"model": name, "x": score} for name, given_ in scores.items() for score in given_]
    study = Study(
        InlineExecutor(Writing()), GridSearcher(space, starting_configs=configs), FIFOScheduler(), num_trials=12,
        files=LocalTrialFiles(tmp_path / "trials"),
    )  # fmt: skip
    study.listeners.append(WeightsKeeper(study.trials, max_members=2))
    study.run()
    kept = [study.trials[int(name)].config for name, files in names(tmp_path / "trials").items() if files]
    assert sorted((config["model"], config["x"]) for config in kept) == [("a", 4), ("b", 9), ("c", 6)]  # one to spare


def test_tidy_up_keeps_results_and_is_idempotent(tmp_path: Path) -> None:
    for name in ("trials/0000/last-0003.safetensors", "trials/0000/best-0002.safetensors", "trials/start.safetensors",
                 "trials/0000/best-0003.safetensors.part", "trials/0000/config.json", "store/pixels.bin",
                 "trials/0000/best-0002.outputs.npy", "trials/0000/best-0003.outputs.npy.part",
                 "refit/best-0003.safetensors", "predictor/predictor.json"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for _ in range(2):
        tidy_up(tmp_path)
        files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
        best = ["trials/0000/best.outputs.npy", "trials/0000/best.safetensors"]
        assert files == ["predictor/predictor.json", *best, "trials/0000/config.json"]
