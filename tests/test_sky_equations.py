"""One step of a global solution: full and sparse equations give the same, and it is the step of least squares."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from awetools.core.sky import equations
from awetools.core.sky.adjustfit import (
    Problem,
    State,
    equations_of,
    first_state,
    matched,
    problem_of,
    starts_in,
)
from awetools.core.sky.adjuststart import numbered, started
from awetools.core.sky.adjusttable import catalogue_of, table_of
from awetools.core.sky.equations import Equations, Starts, solved
from tests.sky_frames import Run, run


def begun(sky: Run, reference: bool, degree: int = 3) -> tuple[Problem, State, Equations, Starts]:
    frames = sky.frames
    start = started(frames, degree)
    table = table_of(frames, degree)
    catalogue = catalogue_of(sky.reference if reference else None, table.epoch)
    numbers = numbered([one.detector for one in frames]), numbered([one.exposure for one in frames])
    problem = problem_of(frames, table, catalogue, degree, start.apart_arcsec, *numbers, 4.0, 10)
    state = first_state(problem, start.model)
    given = equations_of(problem, state, matched(problem, state.model, 1.5))
    return problem, state, given, starts_in(problem, state.model)


def free(state: State) -> tuple[np.ndarray, np.ndarray]:
    terms = np.ones(state.model.detectors.shape, bool)
    pointings = np.ones((len(state.model.frames), 2), bool)
    terms[0, -2:] = False
    pointings[1, 1] = False
    return terms, pointings


@pytest.mark.parametrize("reference", [True, False])
@pytest.mark.parametrize("chunk", [200_000, 300])
def test_full_and_sparse_are_the_same(reference: bool, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    _, state, given, starts = begun(run(seed=1, exposures=6, detectors=3, stars=60), reference)
    full = solved(state.model, given, starts, *free(state), full=True)
    monkeypatch.setattr(equations, "CHUNK", chunk)
    sparse = solved(state.model, given, starts, *free(state), full=False)
    assert np.abs(full).max() > 1e-7
    assert np.abs(sparse - full).max() < 1e-6 * np.abs(full).max()


def test_the_sparse_factors_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    _, state, given, starts = begun(run(seed=2, exposures=6, detectors=2, stars=60), True)
    full = solved(state.model, given, starts, *free(state), full=False)
    monkeypatch.setattr(equations, "MOST_DENSE", 0)
    sparse = solved(state.model, given, starts, *free(state), full=False)
    assert np.abs(sparse - full).max() < 1e-6 * np.abs(full).max()


def test_what_may_not_change_does_not() -> None:
    _, state, given, starts = begun(run(seed=3, stars=60), True)
    terms, pointings = free(state)
    pointings[:, 1] = False
    step = solved(state.model, given, starts, terms, pointings)
    own = state.model.detectors.size
    assert (step[:own].reshape(terms.shape)[~terms] == 0).all()
    assert (step[own + 1 :: 2] == 0).all()


def test_a_step_lowers_the_squares_and_the_next_is_small() -> None:
    problem, state, given, starts = begun(run(seed=4, stars=100), True)
    terms, pointings = (np.ones_like(one) for one in free(state))
    stars = matched(problem, state.model, 1.5)

    def squares(now: Equations) -> float:
        total = np.bincount(now.star, now.weight) + now.anchor
        mean = np.zeros(len(total), complex)
        mean.real = np.bincount(now.star, now.weight * now.rows.away.real)
        mean.imag = np.bincount(now.star, now.weight * now.rows.away.imag)
        mean = (mean + now.anchor * now.above) / total
        return float((now.weight * np.abs(now.rows.away - mean[now.star]) ** 2).sum())

    first = solved(state.model, given, starts, terms, pointings)
    after = replace(state, model=state.model.moved(first))
    now = equations_of(problem, after, stars)
    assert squares(now) < squares(given)
    second = solved(after.model, now, starts_in(problem, after.model), terms, pointings)
    # Between the place of the detectors and the pointings nothing decides: so it is the sky that counts.
    last = equations_of(problem, replace(after, model=after.model.moved(second)), stars)
    moved = [np.abs(b.rows.away - a.rows.away).max() for a, b in ((given, now), (now, last))]
    assert moved[1] < 1e-3 * moved[0]
