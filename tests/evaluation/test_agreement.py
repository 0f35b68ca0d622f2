"""Agreement of a judge with people."""

from __future__ import annotations

import math
from pathlib import Path

import krippendorff
import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from sftchat import DataError, UsageError
from sftchat.evaluation.agreement import Agreement, Statistic, cohen_kappa, kendall, krippendorff_alpha, measure_agreement, spearman
from sftchat.evaluation.ratings import RatingColumns, Ratings, Value, read_ratings

CODES = st.integers(2, 6).flatmap(
    lambda size: st.tuples(st.just(size), st.lists(st.tuples(*[st.integers(0, size - 1)] * 2), min_size=2, max_size=40))
)
WITH_MISSING = st.integers(2, 5).flatmap(
    lambda raters: st.lists(st.tuples(*[st.sampled_from([-1, 0, 1, 2, 4, 9])] * raters), min_size=2, max_size=25)
)


def ratings_of(*pairs: tuple[Value, Value], scale: str = "ordinal", categories: tuple[Value, ...] = (1.0, 2.0, 3.0)) -> Ratings:
    """Ratings of a person and the judge."""
    by_item = {str(index): {"person": person, "judge": judge} for index, (person, judge) in enumerate(pairs)}
    return Ratings("judge", ("person",), by_item, scale, categories)  # type: ignore[arg-type]


def values_of(statistics: tuple[Statistic, ...]) -> dict[str, float | None]:
    return {statistic.name: None if statistic.value is None else round(statistic.value, 4) for statistic in statistics}


@given(CODES)
def test_kappa_equals_that_of_scikit_learn(drawn: tuple[int, list[tuple[int, int]]]) -> None:
    size, pairs = drawn
    first, second = np.array(pairs).T
    assume(len({*first, *second}) > 1)
    places, once = np.arange(size, dtype=float), np.ones((1, len(pairs)))

    ours = [float(cohen_kappa(first, second, places, once, power=power)[0]) for power in (0, 1, 2)]

    theirs = [cohen_kappa_score(first, second, labels=list(range(size)), weights=weights) for weights in (None, "linear", "quadratic")]
    assert ours == pytest.approx(theirs, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("scale", ["nominal", "ordinal", "interval"])
@given(WITH_MISSING)
def test_alpha_equals_that_of_the_library_also_with_missing_ratings(scale: str, rows: list[tuple[int, ...]]) -> None:
    matrix = np.array(rows)
    compared = matrix[(matrix >= 0).sum(axis=1) > 1]
    values = np.unique(compared[compared >= 0])
    assume(len(values) > 1)
    categories = np.unique(matrix[matrix >= 0])
    codes = np.where(matrix < 0, -1, np.searchsorted(categories, matrix))

    ours = float(krippendorff_alpha(codes, scale, categories.astype(float), np.ones((1, len(matrix))))[0])

    theirs = krippendorff.alpha(np.where(matrix < 0, np.nan, matrix).T, level_of_measurement=scale, value_domain=list(categories))
    assert ours == pytest.approx(theirs, abs=1e-9)


@given(CODES)
def test_rank_correlations_equal_those_of_scipy(drawn: tuple[int, list[tuple[int, int]]]) -> None:
    size, pairs = drawn
    first, second = np.array(pairs).T
    assume(len(set(first)) > 1 and len(set(second)) > 1)
    once = np.ones((1, len(pairs)))

    ours = [float(function(first, second, size, once)[0]) for function in (spearman, kendall)]

    assert ours == pytest.approx([scipy.stats.spearmanr(first, second)[0], scipy.stats.kendalltau(first, second)[0]], abs=1e-12)


@given(CODES, st.integers(0, 9))
def test_the_weight_of_an_item_is_how_often_it_occurs(drawn: tuple[int, list[tuple[int, int]]], seed: int) -> None:
    size, pairs = drawn
    times = np.random.default_rng(seed).integers(0, 3, len(pairs))
    first, second = np.array(pairs).T
    many, once, weighted = (np.repeat(first, times), np.repeat(second, times)), np.ones((1, int(times.sum()))), times[None].astype(float)
    assume(times.sum() > 1)
    places = np.arange(size, dtype=float)

    def all_statistics(one: np.ndarray, other: np.ndarray, weights: np.ndarray) -> list[float]:
        kappas = [cohen_kappa(one, other, places, weights, power=power) for power in (0, 1, 2)]
        alphas = [krippendorff_alpha(np.stack((one, other), 1), scale, places, weights) for scale in ("nominal", "ordinal", "interval")]
        return [float(values[0]) for values in (*kappas, *alphas, spearman(one, other, size, weights), kendall(one, other, size, weights))]

    assert all_statistics(first, second, weighted) == pytest.approx(all_statistics(*many, once), abs=1e-9, nan_ok=True)


TWELVE = ratings_of(*[(1.0, 1.0)] * 4, *[(2.0, 2.0)] * 3, (2.0, 3.0), *[(3.0, 3.0)] * 3, (1.0, 2.0))


def test_a_judge_that_mostly_agrees() -> None:
    agreement = measure_agreement(TWELVE)

    assert (agreement.items, agreement.unused, agreement.among_people) == (12, 0, ())
    assert agreement.confusion == ((4, 1, 0), (0, 3, 1), (0, 0, 3))
    assert values_of(agreement.with_people) == {
        "agreement": 0.8333, "kappa": 0.75, "kappa_linear": 0.8125, "kappa_quadratic": 0.875,
        "alpha": 0.8793, "spearman": 0.8977, "kendall": 0.8632, "bias": 0.1667,
    }  # fmt: skip
    assert all(statistic.low is not None and statistic.low < statistic.value < statistic.high for statistic in agreement.with_people)  # type: ignore[operator]
    assert agreement.with_people[0] == Statistic("agreement", 10 / 12, pytest.approx(0.5520, abs=1e-4), pytest.approx(0.9530, abs=1e-4))


def test_weighted_kappa_of_interval_ratings_uses_their_distances_and_of_ordinal_ones_their_places() -> None:
    pairs = [(1.0, 1.0), (2.0, 2.0), (5.0, 5.0), (1.0, 2.0), (2.0, 5.0), (5.0, 1.0), (1.0, 1.0)]
    first, second = zip(*pairs, strict=True)

    found = [
        values_of(measure_agreement(ratings_of(*pairs, scale=scale, categories=(1.0, 2.0, 5.0))).with_people)["kappa_linear"]
        for scale in ("interval", "ordinal")
    ]

    places = {1.0: 1, 2.0: 2, 5.0: 3}
    by_place = cohen_kappa_score([places[value] for value in first], [places[value] for value in second], weights="linear")
    by_value = cohen_kappa_score([*map(int, first)], [*map(int, second)], labels=[1, 2, 3, 4, 5], weights="linear")
    assert found == [round(by_value, 4), round(by_place, 4)]
    assert found[0] != found[1]


def test_the_same_seed_gives_the_same_intervals_and_another_one_others() -> None:
    assert measure_agreement(TWELVE) == measure_agreement(TWELVE)
    assert measure_agreement(TWELVE).alpha != measure_agreement(TWELVE, seed=1).alpha


def test_the_number_of_resamples_at_a_time_does_not_change_the_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    together = measure_agreement(TWELVE)
    monkeypatch.setattr("sftchat.evaluation.agreement.MAX_DRAWN_WEIGHTS", 100)

    assert measure_agreement(TWELVE) == together


def test_several_people_are_compared_pair_by_pair_and_with_each_other() -> None:
    by_item: dict[str, dict[str, Value]] = {
        "a": {"judge": "x", "anna": "x", "ben": "x"},
        "b": {"judge": "x", "anna": "y", "ben": "x"},
        "c": {"judge": "y", "anna": "y"},
        "d": {"anna": "y", "ben": "y"},
        "e": {"anna": "x"},
    }
    agreement = measure_agreement(Ratings("judge", ("anna", "ben"), by_item, "nominal", ("x", "y")))

    assert (agreement.items, agreement.unused) == (3, 2)
    assert agreement.confusion == ((3, 0), (1, 1))  # person x: judge x three times; person y: judge x once and y once
    # judge and anna agree in 2 of 3, judge and ben in 2 of 2; anna and ben in 2 of 3
    assert [statistic.value for statistic in agreement.with_people] == [0.8, pytest.approx(0.4), pytest.approx(4 / 9)]
    assert [statistic.value for statistic in agreement.among_people] == [pytest.approx(2 / 3), pytest.approx(0.4), pytest.approx(4 / 9)]


def advice(*pairs: tuple[Value, Value]) -> str:
    return measure_agreement(ratings_of(*pairs, scale="nominal", categories=("a", "b"))).advice


def test_the_advice_follows_alpha_and_its_lower_bound() -> None:
    right: list[tuple[Value, Value]] = [("a", "a"), ("b", "b")]
    wrong: list[tuple[Value, Value]] = [("a", "b"), ("b", "a")]

    assert advice(*right) == "2 items are too few to say anything about this judge: rate at least 50."
    assert advice(*[("a", "a")] * 20) == (
        "All ratings are equal, so agreement beyond chance cannot be measured: rate items of different quality."
    )
    assert advice(*right * 50).startswith("The judge can stand in for these people")
    assert advice(*right * 200, *wrong * 20).startswith("The judge is good enough for tentative conclusions")
    assert advice(*right * 10, *wrong).startswith("The judge may be good enough, but 22 items do not show it")
    assert advice(*right * 10, *wrong * 10).startswith("Do not decide with this judge")


def test_people_who_disagree_cannot_check_a_judge() -> None:
    by_item: dict[str, dict[str, Value]] = {
        str(index): {"judge": value, "anna": value, "ben": "a"} for index, value in enumerate(["a", "b"] * 10)
    }
    agreement = measure_agreement(Ratings("judge", ("anna", "ben"), by_item, "nominal", ("a", "b")))

    assert agreement.advice == (
        "The people themselves agree too little (α -0.30), so no judge can be checked with these ratings: "
        "state the criteria more exactly and rate again."
    )


def test_perfect_agreement_has_no_bootstrap_interval_but_wilsons() -> None:
    agreement = measure_agreement(ratings_of(*[(1.0, 1.0), (2.0, 2.0)] * 10))

    assert agreement.alpha == Statistic("alpha", 1.0)
    assert agreement.with_people[0].low == pytest.approx(0.8389, abs=1e-4)


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_table_with_one_column_for_each_person(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", "id,anna,ben,gpt", "1,4,5,4", "2,,3,2", "3,1,1,")

    ratings = read_ratings([path], RatingColumns(judge="gpt", people=("anna", "ben")))

    assert ratings == Ratings(
        "gpt", ("anna", "ben"),
        {"1": {"gpt": 4.0, "anna": 4.0, "ben": 5.0}, "2": {"gpt": 2.0, "ben": 3.0}, "3": {"anna": 1.0, "ben": 1.0}},
        "ordinal", (1.0, 2.0, 3.0, 4.0, 5.0),
    )  # fmt: skip


def test_the_long_format_and_rows_of_one_item_in_two_files(tmp_path: Path) -> None:
    people = write(tmp_path / "people.csv", "id,who,rating", "1,anna,good", "1,ben,bad", "2,anna,bad")
    judge = write(tmp_path / "judge.jsonl", '{"id": 1, "judge": "good"}', '{"id": "2", "judge": "bad"}')
    long = write(tmp_path / "long.csv", "id,who,rating", "1,judge,good", "1,anna,good", "1,ben,bad", "2,anna,bad", "2,judge,bad")
    columns = RatingColumns(people=("rating",), rater="who")

    expected = {"1": {"judge": "good", "anna": "good", "ben": "bad"}, "2": {"judge": "bad", "anna": "bad"}}
    for paths in ([people, judge], [long]):
        ratings = read_ratings(paths, columns)
        assert (ratings.by_item, ratings.scale, ratings.categories) == (expected, "nominal", ("bad", "good"))
        assert set(ratings.people) == {"anna", "ben"}


def test_texts_with_an_order_are_ordinal_and_numbers_may_be_any_scale(tmp_path: Path) -> None:
    texts = write(tmp_path / "texts.csv", "id,judge,person", "1,low,high", "2,high,high")
    numbers = write(tmp_path / "numbers.csv", "id,judge,person", "1,0.5,2", "2,2,2")

    assert read_ratings([texts], order=("low", "middle", "high")).categories == ("low", "middle", "high")
    assert read_ratings([texts], order=("low", "middle", "high")).scale == "ordinal"
    assert [(r.scale, r.categories) for r in (read_ratings([numbers]), read_ratings([numbers], scale="interval"))] == [
        ("ordinal", (0.5, 2.0)),
        ("interval", (0.5, 2.0)),
    ]


@pytest.mark.parametrize(
    ("lines", "columns", "message"),
    [
        (["id,judge,person", "1,2,3", "1,2,3"], {}, "r.csv:3: item '1' has a second rating by 'person'"),
        (["id,judge,person", "1,2,", "2,,3"], {}, "r.csv: no item has both a rating by 'judge' and one by a person"),
        (["id,judge,person", ",2,3"], {}, "r.csv:2: the row has no item id in 'id'; it has \"id\", \"judge\", \"person\""),
        (["id,judge,persn", "1,2,3"], {}, "r.csv: unknown column 'person'; did you mean 'persn'? (available: id, judge, persn)"),
        (["id,who,rating", "1,ben,3"], {"rater": "who", "people": ("rating",)}, "r.csv: no item has both a rating by 'judge' and one by a person"),
    ],
)  # fmt: skip
def test_ratings_that_cannot_be_used_are_refused(tmp_path: Path, lines: list[str], columns: dict[str, str], message: str) -> None:
    write(tmp_path / "r.csv", *lines)

    with pytest.raises(DataError) as raised:
        read_ratings([tmp_path / "r.csv"], RatingColumns(**columns))  # type: ignore[arg-type]

    assert str(raised.value) == f"{tmp_path}/{message}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": "interval"}, "--scale interval needs numbers, and a rating is 'high'"),
        ({"scale": "ordinal"}, "--scale ordinal needs the order of the ratings 'high', 'low': --order LOWEST,…,HIGHEST"),
        ({"order": ("low",)}, "--order low lacks the ratings 'high'"),
        ({"order": ("low", "high", "low")}, "--order low,high,low has a rating twice"),
    ],
)  # fmt: skip
def test_a_scale_that_does_not_fit_is_refused(tmp_path: Path, options: dict[str, str], message: str) -> None:
    path = write(tmp_path / "r.csv", "id,judge,person", "1,low,high")

    with pytest.raises(UsageError) as raised:
        read_ratings([path], **options)  # type: ignore[arg-type]

    assert str(raised.value) == message


def test_wide_scales_and_many_items_are_measured_within_seconds() -> None:
    generator = np.random.default_rng(0)
    truth = generator.normal(size=400)
    pairs = [
        (float(value + noise), float(value - noise)) for value, noise in zip(truth, generator.normal(scale=0.3, size=400), strict=True)
    ]
    categories = tuple(sorted({value for pair in pairs for value in pair}))

    agreement = measure_agreement(ratings_of(*pairs, scale="interval", categories=categories), resamples=200)

    assert isinstance(agreement, Agreement)
    assert agreement.alpha.value is not None
    assert math.isclose(agreement.alpha.value, 0.835, abs_tol=0.03)
