"""The search: Optuna's trials, each a run or several, scored on the hold-out; test samples play no part."""

import json
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.trial import FrozenTrial, TrialState

from smoothout.noise.philox import fold
from smoothout.results.comparisons import slug
from smoothout.results.files import write_json
from smoothout.results.processes import recorded
from smoothout.results.runs import EpochMetrics, Risk
from smoothout.train.config import Settings
from smoothout.train.loop import train
from smoothout.train.plan import stretch
from smoothout.train.provenance import command_of, machine, versions
from smoothout.train.run import prepare
from smoothout.train.run_folder import RunFolder, refuse_foreign
from smoothout.train.workers import each
from smoothout.tuning.space import Space

_SAMPLER = 6  # tells its seed from other uses
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
_HEARTBEAT = 30  # seconds, by which a trial is told from one whose process has vanished
_BEFORE_PRUNING = 5  # trials
optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True)
class Arm:
    """One way to train, and what of it is searched over."""

    name: str
    settings: Settings
    space: Space


@dataclass(frozen=True)
class Budget:
    """What every arm gets.

    Attributes:
        trials: Settings that are tried, pruned ones included.
        seeds: Of the runs of each; the score is the mean over them.
        prune: Whether a trial ends early whose hold-out accuracy is below the median of those before it.
    """

    trials: int
    seeds: tuple[int, ...]
    prune: bool = True


@dataclass(frozen=True)
class Tried:
    """One finished trial of an arm.

    Attributes:
        number: In the order of their start.
        score: Mean hold-out accuracy after the last epoch, percent; of a pruned trial after its last evaluation.
        pruned: Whether it ended early.
        values: What was tried.
        settings: All of them, as JSON.
    """

    number: int
    score: float
    pruned: bool
    values: dict[str, Any]
    settings: str


@dataclass(frozen=True)
class Task:
    """One trial to be made, in any process."""

    folder: Path
    storage: str
    arm: Arm
    budget: Budget
    index: int


def start(
    folder: Path, arms: Sequence[Arm], budget: Budget, *, overwrite: bool = False, storage: str | None = None
) -> None:
    """Make the search's folder, or check that the one there is of the same arms.

    Raises:
        FileExistsError: If it holds something else.
        ValueError: If other arms, ranges or seeds were searched there.
    """
    path = folder / "tuning.json"
    record = {
        "seeds": list(budget.seeds),
        "prune": budget.prune,
        "arms": {arm.name: {"settings": arm.settings.to_json(), "space": repr(arm.space)} for arm in arms},
    }
    if folder.exists() and not overwrite and not path.is_file():
        raise FileExistsError(f"{folder} exists and holds no search; use another --name, or --overwrite.")
    if folder.exists() and overwrite:
        if not path.is_file():
            refuse_foreign(folder)
        shutil.rmtree(folder)
    if overwrite and storage is not None:
        known = optuna.get_all_study_names(storage)
        for name in {_study_name(folder, arm) for arm in arms} & set(known):
            optuna.delete_study(study_name=name, storage=storage)
    if path.is_file():
        if json.loads(path.read_text(encoding="utf-8")) != record:
            raise ValueError(
                f"{folder} holds a search of other arms, ranges or seeds; use --overwrite or another --name. (More "
                f"--trials go on with the same search.)"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, record)


def search(
    folder: Path, arms: Sequence[Arm], budget: Budget, workers: int, storage: str | None = None
) -> Iterator[tuple[int, int]]:
    """Make the trials that are still missing; yields how many of how many are done.

    Args:
        folder: Made by :func:`start`; holds every run's metrics, not its checkpoints.
        arms: What is searched.
        budget: Of each arm.
        workers: Processes on this machine. Others, here or elsewhere, may work on the same storage.
        storage: An Optuna URL; by default a SQLite file in the folder.

    Raises:
        ValueError: If the storage holds another search of this name.
    """
    url = storage or f"sqlite:///{folder.resolve() / 'trials.db'}"
    for arm in arms:
        _queue_start(_study(folder, url, arm, budget), arm, budget)
    done = {arm.name: len(tried(folder, arm, budget, storage)) for arm in arms}
    # By rounds, so that an interrupted search has given every arm the same.
    missing = [
        Task(folder, url, arm, budget, index)
        for index in range(budget.trials)
        for arm in arms
        if done[arm.name] <= index < trials_of(arm, budget)
    ]
    total = sum(trials_of(arm, budget) for arm in arms)
    yield total - len(missing), total
    for count, _ in enumerate(each(_try, missing, workers), 1):
        yield total - len(missing) + count, total


def trials_of(arm: Arm, budget: Budget) -> int:
    """How many an arm gets: those of the budget, or one where nothing is searched over and all would be equal."""
    return budget.trials if arm.space.names else 1


def _queue_start(study: optuna.Study, arm: Arm, budget: Budget) -> None:
    """Let the settings as given be the first trial, also where that was interrupted before it was finished."""
    searched = {"settings": arm.settings.to_json(), "space": repr(arm.space), "seeds": list(budget.seeds)}
    known = study.user_attrs.get("searched", searched)
    if known != searched:
        raise ValueError(
            f"the storage holds a search {study.study_name!r} of other settings, ranges or seeds; use another --name, "
            f"or --overwrite."
        )
    study.set_user_attr("searched", searched)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)
    if not any("fixed_params" in trial.system_attrs and trial.state != TrialState.FAIL for trial in study.trials):
        study.enqueue_trial(arm.space.start(arm.settings))


def tried(folder: Path, arm: Arm, budget: Budget, storage: str | None = None) -> list[Tried]:
    """The finished trials of an arm, of those that the budget allows the first."""
    url = storage or f"sqlite:///{folder.resolve() / 'trials.db'}"
    finished = [trial for trial in _study(folder, url, arm, budget).trials if trial.state in _FINISHED]
    return [_record(trial) for trial in finished[: trials_of(arm, budget)]]


def best(found: Sequence[Tried]) -> Tried:
    """The one with the highest score of those that were not pruned; of equals the first."""
    return max((each for each in found if not each.pruned), key=lambda each: each.score)


def _record(trial: FrozenTrial) -> Tried:
    pruned = trial.state == TrialState.PRUNED
    last = trial.intermediate_values[max(trial.intermediate_values)] if pruned else trial.value
    assert last is not None
    return Tried(trial.number, last, pruned, dict(trial.params), trial.user_attrs["settings"])


def _study(folder: Path, url: str, arm: Arm, budget: Budget, seed: int = 0) -> optuna.Study:
    """The study of an arm, made if it is not there."""
    storage = _storage(url)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)
    pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
    if budget.prune:
        batches = arm.settings.batches
        warm = arm.settings.schedule.epochs * stretch(arm.settings, batches.batch_size * batches.accumulation) // 3
        pruner = optuna.pruners.MedianPruner(n_startup_trials=_BEFORE_PRUNING, n_warmup_steps=warm)
    return optuna.create_study(
        storage=storage,
        sampler=sampler,
        pruner=pruner,
        direction="maximize",
        study_name=_study_name(folder, arm),
        load_if_exists=True,
    )


def _storage(url: str) -> optuna.storages.RDBStorage:
    """Trials in a database, which no two processes take the same of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = optuna.storages.RDBStorage(url, heartbeat_interval=_HEARTBEAT)
    if storage.engine.dialect.name == "sqlite":
        # It has no SELECT ... FOR UPDATE, by which Optuna takes a waiting trial elsewhere: lock before reading instead.
        sqlalchemy.event.listen(storage.engine, "connect", _without_implicit_begin)
        sqlalchemy.event.listen(storage.engine, "begin", _begin_immediate)
        storage.engine.dispose()  # connections made before
    return storage


def _without_implicit_begin(connection: Any, _record: Any) -> None:
    connection.isolation_level = None


def _begin_immediate(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _study_name(folder: Path, arm: Arm) -> str:
    return f"{folder.name}/{slug(arm.name)}"


def _try(task: Task) -> None:
    """Make one trial."""
    # The number of trials so far, too: after one that failed the next must not draw the same values.
    started = len(_study(task.folder, task.storage, task.arm, task.budget).trials)
    seed = fold(task.budget.seeds[0], _SAMPLER, task.index, started) % 2**32
    study = _study(task.folder, task.storage, task.arm, task.budget, seed)
    _queue_start(study, task.arm, task.budget)  # again, if the process that had taken it has vanished since

    def objective(trial: optuna.Trial) -> float:
        settings = task.arm.space.suggest(trial, task.arm.settings)
        trial.set_user_attr("settings", settings.to_json())
        place = task.folder / slug(task.arm.name) / str(trial.number)
        return score(place, settings, task.budget.seeds, lambda step, value: _report(trial, step, value))

    study.optimize(objective, n_trials=1)


def _report(trial: optuna.Trial, step: int, value: float) -> None:
    trial.report(value, step)
    if trial.should_prune():
        raise optuna.TrialPruned


def score(place: Path, settings: Settings, seeds: Sequence[int], told: Callable[[int, float], None]) -> float:
    """Mean hold-out accuracy of runs after their last epoch, percent; 0 for a run that diverges."""
    found: list[float] = []
    for index, seed in enumerate(seeds):
        folder = place / str(seed)
        run = prepare(settings.replace(seed=seed, checkpoint_every=settings.schedule.epochs))
        made = RunFolder.create(folder, run.settings, overwrite=True)
        try:
            watcher = _Watcher(lambda epoch, value, i=index, n=run.plan.epochs: told(i * n + epoch, value))  # type: ignore[misc]
            with recorded(
                folder,
                command_of(run.settings),
                versions(),
                machine(run.accelerator.device),
                stops=(optuna.TrialPruned,),
            ):
                found.append(train(run, made, watcher).holdout_accuracy_last)
        except FloatingPointError:
            found.append(0.0)
        finally:
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return sum(found) / len(found)


class _Watcher:
    """Tells the hold-out accuracy where it was evaluated."""

    def __init__(self, told: Callable[[int, float], None]) -> None:
        self._told = told

    def started(self, lines: list[str], updates: int) -> None:
        """Nothing."""

    def updated(self, seen: Callable[[], Risk]) -> None:
        """Nothing."""

    def finished_epoch(self, row: EpochMetrics, _best: bool) -> None:
        """Tell the accuracy."""
        if row.holdout_error1 == row.holdout_error1:
            self._told(row.epoch, 100 - row.holdout_error1)
