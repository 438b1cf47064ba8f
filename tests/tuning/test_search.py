"""The search: equal budgets, pruning, going on, and the score."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import optuna
import pytest
from small_runs import run, settings

from smoothout.tuning import search as module
from smoothout.tuning.search import Arm, Budget, best, score, search, start, tried
from smoothout.tuning.space import Space


def arms():
    plain = settings(strength=0.0, epochs=2)
    noisy = settings(epochs=2)
    return [Arm("noise", noisy, Space(("lr", "strength"), {})), Arm("no noise", plain, Space(("lr",), {}))]


def finish(folder, made, budget, **options):
    start(folder, made, budget)
    return list(search(folder, made, budget, 1, **options))


def test_every_arm_gets_the_same_number_of_trials_and_the_first_is_what_was_given(tmp_path):
    folder, made, budget = tmp_path / "search", arms(), Budget(3, (7,), prune=False)
    assert finish(folder, made, budget) == [(done, 6) for done in range(7)]
    for arm in made:
        trials = tried(folder, arm, budget)
        assert [trial.number for trial in trials] == [0, 1, 2]
        assert trials[0].values["lr"] == 0.05
        assert len({trial.values["lr"] for trial in trials}) == 3
        assert best(trials).score == max(trial.score for trial in trials)


def test_the_score_is_the_mean_hold_out_accuracy_of_the_runs(tmp_path):
    chosen, told = settings(epochs=2), []
    found = score(tmp_path / "trial", chosen, (7, 8), lambda step, value: told.append((step, value)))
    results = [run(tmp_path / str(seed), chosen.replace(seed=seed))[1] for seed in (7, 8)]
    assert found == pytest.approx(sum(result.holdout_accuracy_last for result in results) / 2)
    assert [step for step, _ in told] == [1, 2, 3, 4]
    assert told[1][1] == results[0].holdout_accuracy_last
    assert not list((tmp_path / "trial").rglob("checkpoints"))


def test_a_run_that_diverges_scores_0(tmp_path):
    assert score(tmp_path / "trial", settings(lr=1e30, clip=0.0), (7,), lambda *_: None) == 0.0


def test_it_goes_on_where_it_was_interrupted(tmp_path, monkeypatch):
    folder, made, budget = tmp_path / "search", arms(), Budget(3, (7,), prune=False)
    start(folder, made, budget)
    for done, _ in search(folder, made, budget, 1):
        if done == 3:
            break
    before = [tried(folder, arm, budget) for arm in made]
    assert [len(trials) for trials in before] == [2, 1]
    assert next(iter(search(folder, made, budget, 1))) == (3, 6)
    assert finish(folder, made, budget)[-1] == (6, 6)
    for arm, trials in zip(made, before, strict=True):
        assert tried(folder, arm, budget)[: len(trials)] == trials


def test_a_larger_budget_goes_on(tmp_path):
    folder, made = tmp_path / "search", arms()[1:]
    finish(folder, made, Budget(1, (7,)))
    assert finish(folder, made, Budget(2, (7,)))[-1] == (2, 2)


def test_what_others_add_beyond_the_budget_does_not_count(tmp_path):
    folder, made = tmp_path / "search", arms()[1:]
    finish(folder, made, Budget(3, (7,), prune=False))
    assert len(tried(folder, made[0], Budget(2, (7,), prune=False))) == 2


def test_a_bad_trial_ends_early(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_BEFORE_PRUNING", 1)
    folder, budget = tmp_path / "search", Budget(2, (7,))
    arm = Arm("arm", settings(strength=0.0, epochs=6), Space(("lr",), {}))
    start(folder, [arm], budget)
    study = module._study(folder, f"sqlite:///{folder / 'trials.db'}", arm, budget)
    study.enqueue_trial({"lr": 0.1})
    study.enqueue_trial({"lr": 0.005})
    list(search(folder, [arm], budget, 1))
    good, bad = tried(folder, arm, budget)
    assert (good.pruned, bad.pruned) == (False, True)
    assert bad.score < good.score
    assert best([bad, good]) is good


def test_workers_share_the_trials(tmp_path):
    folder, made, budget = tmp_path / "search", arms(), Budget(2, (7,), prune=False)
    start(folder, made, budget)
    assert list(search(folder, made, budget, 2))[-1] == (4, 4)
    assert [len(tried(folder, arm, budget)) for arm in made] == [2, 2]


def test_no_two_processes_take_the_same_waiting_trial(tmp_path):
    [arm, _], budget = arms(), Budget(1, (7,))
    url = f"sqlite:///{tmp_path / 'trials.db'}"
    studies = [module._study(tmp_path, url, arm, budget) for _ in range(4)]
    waiting = threading.Barrier(len(studies))

    def take(study):
        waiting.wait()
        return study._pop_waiting_trial_id()

    with ThreadPoolExecutor(len(studies)) as pool:
        for _ in range(10):
            studies[0].enqueue_trial({})
            taken = [each for each in pool.map(take, studies) if each is not None]
            assert len(taken) == 1


def test_another_storage(tmp_path):
    folder, made, budget = tmp_path / "search", arms()[1:], Budget(1, (7,))
    url = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    finish(folder, made, budget, storage=url)
    assert len(optuna.get_all_study_names(url)) == 1
    assert not (folder / "trials.db").exists()
    assert len(tried(folder, made[0], budget, url)) == 1


def test_a_search_of_other_arms_is_refused(tmp_path):
    folder, made = tmp_path / "search", arms()
    start(folder, made, Budget(1, (7,)))
    start(folder, made, Budget(5, (7,)))
    with pytest.raises(ValueError, match="holds a search of other arms, ranges or seeds; use --overwrite"):
        start(folder, made[1:], Budget(1, (7,)))
    start(folder, made[1:], Budget(1, (7,)), overwrite=True)
    assert list(json.loads((folder / "tuning.json").read_text())["arms"]) == ["no noise"]


def test_overwriting_forgets_a_search_in_another_storage(tmp_path):
    folder, made, budget = tmp_path / "search", arms()[1:], Budget(1, (7,))
    url = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    finish(folder, made, budget, storage=url)
    other = [Arm("no noise", settings(strength=0.0, epochs=2, lr=0.5), made[0].space)]
    with pytest.raises(ValueError, match="the storage holds a search 'search/no-noise' of other settings"):
        list(search(folder, other, budget, 1, url))
    start(folder, other, budget, overwrite=True, storage=url)
    list(search(folder, other, budget, 1, url))
    assert tried(folder, other[0], budget, url)[0].values["lr"] == 0.5


def test_the_given_settings_are_tried_although_the_first_trial_was_interrupted(tmp_path, monkeypatch):
    folder, made, budget = tmp_path / "search", arms()[1:], Budget(2, (7,), prune=False)
    start(folder, made, budget)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(module, "score", interrupted)
        with pytest.raises(KeyboardInterrupt):
            list(search(folder, made, budget, 1))
    list(search(folder, made, budget, 1))
    assert 0.05 in [trial.values["lr"] for trial in tried(folder, made[0], budget)]


def test_the_given_settings_are_tried_although_the_process_that_tried_them_has_vanished(tmp_path, monkeypatch):
    folder, made, budget = tmp_path / "search", arms()[1:], Budget(2, (7,), prune=False)
    monkeypatch.setattr(module, "score", lambda *_: 1.0)
    start(folder, made, budget)
    url = f"sqlite:///{folder / 'trials.db'}"
    study = module._study(folder, url, made[0], budget)
    module._queue_start(study, made[0], budget)
    study._storage.record_heartbeat(study._pop_waiting_trial_id())  # and was then killed
    searching = search(folder, made, budget, 1)
    assert next(searching) == (0, 2)  # restarted at once: the trial may still be alive
    with module._storage(url).engine.begin() as connection:
        connection.exec_driver_sql("UPDATE trial_heartbeats SET heartbeat = '2000-01-01 00:00:00'")
    assert list(searching)[-1] == (2, 2)
    assert [trial.values["lr"] for trial in tried(folder, made[0], budget)].count(0.05) == 1


def test_where_nothing_is_searched_over_one_trial_says_all(tmp_path):
    folder, budget = tmp_path / "search", Budget(3, (7,), prune=False)
    made = [arms()[0], Arm("no noise", settings(strength=0.0, epochs=2), Space((), {}))]
    assert finish(folder, made, budget)[-1] == (4, 4)
    assert [len(tried(folder, arm, budget)) for arm in made] == [3, 1]


def test_pruning_waits_for_a_third_of_the_stretched_run(tmp_path):
    adapted = settings(
        strength=0.0, epochs=6, batch_size=400, ghost_batch_size=100, base_batch=100, regime_adaptation=True
    )
    study = module._study(
        tmp_path, f"sqlite:///{tmp_path / 'trials.db'}", Arm("arm", adapted, Space(("lr",), {})), Budget(2, (7,))
    )
    assert study.pruner._n_warmup_steps == 8  # of 6 * 4 epochs


def test_many_seeds_a_trial_do_not_make_all_trials_equal(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "score", lambda *_: 1.0)
    folder, made, budget = tmp_path / "search", arms()[1:], Budget(3, (7, 8, 9, 10, 11), prune=False)
    finish(folder, made, budget)
    assert len({trial.values["lr"] for trial in tried(folder, made[0], budget)}) == 3


def test_arms_try_the_same_rates_so_that_none_is_lucky_in_them(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "score", lambda *_: 1.0)
    folder, budget = tmp_path / "search", Budget(10, (7,), prune=False)
    plain = Space(("lr", "weight_decay", "warmup_steps"), {})
    noisy = Space((*plain.names, "strength"), {})
    made = [Arm("noise", settings(), noisy), Arm("no noise", settings(strength=0.0), plain)]
    finish(folder, made, budget)
    noise, none = ([trial.values for trial in tried(folder, arm, budget)] for arm in made)
    assert [{name: values[name] for name in plain.names} for values in noise] == none
    assert len({values["lr"] for values in none}) == 10


def test_a_run_is_no_search(tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(FileExistsError, match="exists and holds no search; use another --name"):
        start(tmp_path / "run", arms(), Budget(1, (7,)))


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(FileExistsError, match="was not made by smoothout"):
        start(tmp_path / "mine", arms(), Budget(1, (7,)), overwrite=True)
