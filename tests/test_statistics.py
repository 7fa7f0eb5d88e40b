"""Statistics: intervals with measured coverage, exact tests against enumeration, R, comparisons.

Coverage tests state their seed and false-alarm rate; `python -m benchmarks.statistics` prints the coverage
from many more draws.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings, strategies as st

from finetune.study.analysis import best_rival, compare_conditions, compare_stages, is_apart, stage_summaries
from finetune.study.archive import Archive, Study, split_stage
from finetune.study.cli import main
from finetune.study.results import About
from finetune.study.statistics import (
    chips_needed,
    compare,
    compare_images,
    holm,
    recovered_fraction,
    signed_rank_p,
    spread,
)
from rramsim.checks import InputError

N_SAMPLES = 2500
# the share of 2500 intervals that hold the truth has a standard error of 0.44 points at 95 %; 1.9 points
# beyond the wanted range are more than 4 of them: a false alarm in 3e-5 of the seeds where coverage is 95 %
SLACK = 0.019
NORMAL: Callable[..., np.ndarray] = lambda rng, n: rng.normal(size=n)  # noqa: E731
SKEWED: Callable[..., np.ndarray] = lambda rng, n: rng.gamma(2.0, size=n) - 2.0  # noqa: E731  skewness 1.41


@pytest.mark.parametrize("n", (5, 10, 20))
@pytest.mark.parametrize("draw", (NORMAL, SKEWED), ids=("normal", "skewed"))
def test_intervals_cover_as_often_as_they_say(draw: Callable[..., np.ndarray], n: int) -> None:
    """Wanted: 93-97 % (the percentile bootstrap of version 0.1 gives 85 % at 5 chips). Seed 0."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(N_SAMPLES):
        over = spread(draw(rng, n))
        covered += over.low <= 0.0 <= over.high
    assert 0.93 - SLACK < covered / N_SAMPLES < 0.97 + SLACK


def test_a_percentile_bootstrap_would_fail_the_coverage_test() -> None:
    """The method of version 0.1, at five chips: the test above has the power to see it."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        x = rng.normal(size=5)
        means = x[rng.integers(0, 5, (1000, 5))].mean(axis=1)
        low, high = np.quantile(means, [0.025, 0.975])
        covered += low <= 0.0 <= high
    assert covered / 300 < 0.93 - SLACK


def test_no_interval_below_three_chips() -> None:
    for values in ([0.5], [0.5, 0.7]):
        over = spread(values)
        assert math.isnan(over.low)
        assert math.isnan(over.high)
        result = compare(values, np.zeros(len(values)))
        assert math.isnan(result.low)
        assert math.isnan(result.effect)
    assert math.isfinite(spread([0.5, 0.7, 0.6]).low)
    assert math.isnan(spread([0.5]).std)  # one chip has no deviation, not one of 0


def test_spread_by_hand() -> None:
    """Three values: Student's interval, 4.303 standard errors wide on each side."""
    over = spread([0.8, 0.9, 1.0])
    assert (over.mean, over.worst, over.best, over.n) == (pytest.approx(0.9), 0.8, 1.0, 3)
    assert over.std == pytest.approx(0.1)
    assert over.high - over.mean == pytest.approx(4.302653 * 0.1 / math.sqrt(3), rel=1e-6)
    with pytest.raises(InputError, match="at least one"):
        spread([])


def test_symmetric_values_have_students_interval() -> None:
    over = spread([-2.0, -1.0, 0.0, 1.0, 2.0])
    assert over.high == pytest.approx(2.776445 * math.sqrt(2.5 / 5), rel=1e-6)
    assert over.low == pytest.approx(-over.high)


def test_skewed_values_have_the_longer_arm_on_the_long_tail() -> None:
    over = spread([0.0, 0.1, 0.2, 0.3, 3.0])
    assert over.high - over.mean > 1.5 * (over.mean - over.low)


@given(st.lists(st.integers(0, 1000), min_size=3, max_size=12), st.integers(-300, 300))
@settings(deadline=None)
def test_a_shift_of_all_chips_is_found_exactly(values: list[int], shift: int) -> None:
    """Also where the differences of doubles are not exactly equal."""
    a, b = (np.array(values) + shift) / 1000, np.array(values) / 1000
    result = compare(a, b)
    for got in (result.mean, result.low, result.high):
        assert got == pytest.approx(shift / 1000, abs=1e-12)
    assert result.p_value == (1.0 if shift == 0 else pytest.approx(2.0 / 2 ** len(values)))


def enumerated(d: np.ndarray) -> float:
    """Two-sided p from the definition: every sign of every non-zero difference; zeros are ranked too."""
    size = np.abs(d)
    ranks = np.array([(np.sum(size < x) + 1 + np.sum(size <= x)) / 2 for x in size])[d != 0]
    observed = ranks[d[d != 0] > 0].sum()
    middle = ranks.sum() / 2
    sums = [float(np.dot(ranks, signs)) for signs in itertools.product((0, 1), repeat=len(ranks))]
    return float(np.mean([abs(s - middle) >= abs(observed - middle) - 1e-9 for s in sums]))


@given(st.lists(st.integers(-4, 4), min_size=2, max_size=9).filter(any))
@settings(deadline=None)
def test_signed_rank_test_equals_enumeration_with_ties_and_zeros(differences: list[int]) -> None:
    assert signed_rank_p(differences) == pytest.approx(enumerated(np.array(differences)), rel=1e-12)


def test_signed_rank_test_agrees_with_scipy_where_both_are_exact() -> None:
    from scipy.stats import wilcoxon

    d = np.random.default_rng(0).normal(0.3, 1.0, 25)
    assert signed_rank_p(d) == pytest.approx(wilcoxon(d, method="exact").pvalue, rel=1e-12)
    many = np.random.default_rng(0).normal(0.1, 1.0, 201)  # beyond enumeration
    assert signed_rank_p(many) == pytest.approx(signed_rank_p(many[:200]), rel=0.2)


def test_five_pairs_cannot_give_less_than_a_sixteenth() -> None:
    """Version 0.1 gave p = 0.025 for five tied pairs."""
    assert signed_rank_p([1.0, 1.0, 2.0, 2.0, 2.0]) == 2 / 2**5
    assert compare([0.9, 0.9, 0.9, 0.8, 0.8], [0.8, 0.8, 0.8, 0.7, 0.7]).p_value == 2 / 2**5
    assert compare([0.5, 0.6], [0.5, 0.6]).p_value == 1.0
    assert math.isnan(compare([0.5], [0.4]).p_value)


def test_holm_by_hand() -> None:
    """Holm 1979, section 3: the smallest p times n, the next times n - 1, never falling, never above 1."""
    assert holm([0.01, 0.02, 0.03, 0.9]).tolist() == pytest.approx([0.04, 0.06, 0.06, 0.9])
    assert holm([0.6, math.nan, 0.7])[[0, 2]].tolist() == [1.0, 1.0]
    assert math.isnan(holm([0.6, math.nan, 0.7])[1])


def test_recovered_fraction() -> None:
    r = recovered_fraction([0.9, 0.91, 0.92], [0.8, 0.81, 0.82], 1.0)
    assert r.value == pytest.approx(0.1 / 0.19)  # ratio of the means, not mean of the ratios
    assert r.low < r.value < r.high
    lost_nothing = recovered_fraction([0.9] * 5, [0.95] * 5, 0.93)
    assert math.isnan(lost_nothing.value)
    assert math.isnan(lost_nothing.low)
    unsure = recovered_fraction([0.9, 0.9, 0.9, 0.9], [0.9, 0.7, 0.94, 0.93], 0.92)
    assert unsure.high == math.inf  # these chips cannot exclude that nothing was lost
    assert math.isnan(recovered_fraction([0.9, 0.9], [0.8, 0.7], 0.92).low)


@pytest.mark.parametrize("n", (5, 20))
def test_interval_of_r_covers(n: int) -> None:
    """Losses of 10 +- 3 points, gains of 0.9 times the loss +- 1 point; 600 samples, seed 0.

    The standard error of the share is 0.9 points: 3.9 points beyond 95 % +- 2 are a false alarm in 1e-5.
    """
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(600):
        lost = rng.normal(0.1, 0.03, n)
        r = recovered_fraction(1 - lost + 0.9 * lost + rng.normal(0, 0.01, n), 1 - lost, 1.0)
        covered += r.low <= 0.9 <= r.high
    assert 0.93 - 0.039 < covered / 600 <= 1.0


def drawn(rng: np.random.Generator, n_chips: int, n_images: int) -> tuple[np.ndarray, float]:
    """Wrong answers of chips on images that differ in difficulty, and their true share."""
    difficulty = rng.beta(0.2, 4.0, n_images)  # mean 0.2 / 4.2
    weakness = rng.gamma(20.0, 1 / 20.0, n_chips)  # mean 1
    p = np.minimum(difficulty * weakness[:, None], 1.0)
    return rng.random((n_chips, n_images)) >= p, 0.2 / 4.2


@pytest.mark.parametrize("n_chips, at_most", ((5, 0.93), (10, 0.85)))
def test_gap_covers_other_chips_and_other_images(n_chips: int, at_most: float) -> None:
    """An interval over chips alone misses the sampling error of the images that all chips share.

    400 samples, seed 0: standard error 1.1 points, so 4.4 points below 93 % have a false-alarm rate of 4e-5.
    """
    rng = np.random.default_rng(0)
    both = chips_alone = 0
    for _ in range(400):
        right, lost = drawn(rng, n_chips, 400)
        result = compare_images(np.ones(400), right)
        both += result.low <= lost <= result.high
        naive = compare(np.ones(n_chips), right.mean(axis=1))
        chips_alone += naive.low <= lost <= naive.high
    assert both / 400 > 0.93 - 0.044
    assert chips_alone / 400 < at_most
    assert result.std_images > 0


def test_compare_images_by_hand() -> None:
    """Equal chips: what is left is the binomial error of the images."""
    n = 1000
    right = np.ones((4, n), dtype=bool)
    right[:, :100] = False
    result = compare_images(np.ones(n), right)
    assert result.mean == pytest.approx(0.1)
    assert (result.high - result.low) / 2 == pytest.approx(1.96 * math.sqrt(0.1 * 0.9 / n), rel=0.01)
    assert result.std == 0.0
    assert math.isnan(result.effect)
    with pytest.raises(InputError, match="same chips and images"):
        compare_images(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(InputError, match="same chips"):
        compare_images(np.ones((2, 3)), np.ones((4, 3)))


@pytest.mark.parametrize("effect, n", ((0.2, 199), (0.5, 34), (0.8, 15), (5.0, 6)))
def test_chips_needed_as_gpower_says(effect: float, n: int) -> None:
    """Paired t test, two-sided 0.05, power 0.8: G*Power 3.1 and R's `power.t.test` give 199, 34 and 15 pairs.

    Six is the least with which an exact signed-rank test can reach 0.05.
    """
    assert chips_needed(1.0, effect) == n
    assert chips_needed(0.0, effect) == 6
    for bad in ((1.0, 0.0), (math.inf, 1.0)):
        with pytest.raises(InputError, match="must be"):
            chips_needed(*bad)


# -- archives -------------------------------------------------------------------------------------


def test_stages_of_an_archive_are_taken_apart() -> None:
    assert split_stage("mapped") == ("mapped", "")
    assert split_stage("lsq.affine + adapter") == ("lsq.affine + adapter", "")
    assert split_stage("maintain(x=1) + 3e+07 s") == ("maintain(x=1)", "3e+07 s")
    assert is_apart("lsq.identify(probe=True) + 10 reads")
    assert not is_apart("mapped + 10 reads")


def test_summaries_speak_of_the_same_images(quick_archive: Archive) -> None:
    rows = {row.stage: row for row in stage_summaries(quick_archive)}
    assert list(rows) == quick_archive.stages
    mapped, tuned = rows["mapped"], rows["lsq.affine"]
    assert mapped.gain is None
    assert mapped.recovered is None
    assert mapped.rival == ""
    assert tuned.rival == best_rival(quick_archive, "lsq.affine") == "batch_norm"  # not `mapped`
    gap = 100 * (quick_archive.teacher_accuracy - quick_archive.accuracy("lsq.affine").mean())
    assert tuned.gap.mean == pytest.approx(gap)
    assert tuned.gain is not None
    assert tuned.recovered is not None
    assert tuned.recovered.value == pytest.approx(tuned.gain.mean / mapped.gap.mean)
    assert math.isnan(tuned.gap.low)  # two chips
    assert tuned.p_value == 1.0  # 0.5 for two chips, twice by Holm


def test_compare_gives_a_frame_and_a_table(quick_archive: Archive, tmp_path: Path) -> None:
    frame = compare_stages(quick_archive, baseline="mapped")
    assert frame["strategy"].tolist() == ["batch_norm", "lsq.affine"]
    wanted = 100 * (quick_archive.accuracy("lsq.affine") - quick_archive.accuracy("mapped")).mean()
    assert frame["difference"][1] == pytest.approx(wanted)
    assert frame["p_holm"].tolist() == pytest.approx(holm(frame["p"]).tolist())
    assert compare_stages(quick_archive)["baseline"][0] == "lsq.affine"  # the best one
    out = tmp_path / "c.csv"
    result = CliRunner().invoke(main, ["compare", str(quick_archive.path), "--csv", str(out)])
    assert result.exit_code == 0, result.output
    assert "against lsq.affine" in result.output
    assert out.read_text().splitlines()[0].startswith("strategy,age,baseline,n_chips")
    for arguments, message in (
        (["--baseline", "lsq.afine"], "did you mean 'lsq.affine'"),
        (["--by", "size"], "by must be"),
        (["--by", "age"], "nothing to compare"),
    ):
        refused = CliRunner().invoke(main, ["compare", str(quick_archive.path), *arguments])
        assert refused.exit_code == 2
        assert message in refused.stderr


def changed(archive: Archive, **values: object) -> Archive:
    """A copy of an archive with other arrays under some names (`/` written as `__`)."""
    own = {name.replace("__", "/"): np.asarray(value) for name, value in values.items()}
    readers = {name: (lambda name=name: own.get(name, archive[name])) for name in archive}
    about = {name: About(archive.dims(name), archive.unit(name), archive.text(name)) for name in archive}
    return Archive(archive.path, archive.attributes, readers, about, archive.planned)


def test_conditions_of_a_study_are_compared_chip_by_chip(quick_archive: Archive) -> None:
    predictions = quick_archive["trial/predictions"].copy()
    worse = (quick_archive["labels"][:30] + 1) % 10
    predictions[:, :, :30] = worse  # thirty images wrong on every chip
    other = changed(
        quick_archive,
        trial__predictions=predictions[::-1],
        trial__chip=quick_archive["trial/chip"][::-1],  # another order of the same chips
    )
    study = Study(
        quick_archive.path,
        {"a": quick_archive, "b": other},
        {"a": {"sigma": 0.1, "mode": "x"}, "b": {"sigma": 0.5, "mode": "x"}},
    )
    frame = compare_conditions(study, by="sigma")
    assert frame["strategy"].tolist() == quick_archive.stages
    assert set(frame["baseline"]) == {"sigma=0.1"}
    assert set(frame["sigma"]) == {"0.5"}
    before = (quick_archive["trial/predictions"] == quick_archive["labels"])[:, :, :30].mean(axis=(0, 2))
    share = 30 / len(quick_archive["labels"])
    assert np.allclose(frame["difference"], -100 * before * share)  # paired by id, not by place
    within = compare_conditions(study, by="strategy", baseline="mapped")
    assert within["sigma"].tolist() == ["0.1", "0.1", "0.5", "0.5"]
    assert np.allclose(within["p_holm"], holm(within["p"].tolist()), equal_nan=True)
    with pytest.raises(InputError, match="did you mean 'sigma'"):
        compare_conditions(study, by="sigm")
    with pytest.raises(InputError, match=r"no sigma '0.2'"):
        compare_conditions(study, by="sigma", baseline="0.2")
    far = changed(quick_archive, trial__chip=quick_archive["trial/chip"] + 50)
    apart = Study(study.path, {"a": quick_archive, "b": far}, dict(study.coordinates))
    with pytest.raises(InputError, match="share no chip"):
        compare_conditions(apart, by="sigma")
    shifted = changed(quick_archive, labels=np.roll(quick_archive["labels"], 1))
    with pytest.raises(InputError, match="different images"):
        compare_conditions(
            Study(study.path, {"a": quick_archive, "b": shifted}, study.coordinates), by="sigma"
        )
