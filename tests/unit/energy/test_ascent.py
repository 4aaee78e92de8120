"""Laws of the three ascents: closed forms, the papers' algorithms row by row, promises kept, early stops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ebmtrack.energy.ascent import ascent_s1, ascent_s2, plain_ascent
from ebmtrack.errors import ConfigError


def randn(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal float64 numbers that depend on shape and seed only."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bowl(y: Tensor) -> Tensor:
    """f(y) = -|y|^2 / 2, whose gradient is -y."""
    return -0.5 * y.square().sum(dim=-1)


def rough(y: Tensor) -> Tensor:
    """An energy with many local maxima."""
    return (torch.sin(5 * y) + torch.cos(3 * y * y) - 0.1 * y * y).sum(dim=-1)


class Counted:
    """An energy that counts how often it is evaluated."""

    def __init__(self, energy):
        self.energy, self.calls = energy, 0

    def __call__(self, y: Tensor) -> Tensor:
        self.calls += 1
        return self.energy(y)


def value_and_slope(energy, y: Tensor) -> tuple[float, Tensor]:
    """f and its gradient at one row y (D,), by the plainest autograd."""
    y = y.clone().requires_grad_(True)
    f = energy(y)
    f.backward()
    assert y.grad is not None
    return f.item(), y.grad


def s1_by_the_book(energy, y: Tensor, step: Tensor, steps: int, decay: float) -> Tensor:
    """Algorithm S1 (ECCV 2020, supplement A), line by line, for one row."""
    for _ in range(steps):
        previous, slope = value_and_slope(energy, y)
        y_new = y + step * slope
        new, _ = value_and_slope(energy, y_new)
        if new > previous:
            y = y_new
        else:
            step = decay * step
    return y


def s2_by_the_book(energy, y: Tensor, step: Tensor, steps: int, omega1: float, omega2: float) -> Tensor:
    """Algorithm S2 (ECCV 2020, supplement E.3), line by line, for one row."""
    for _ in range(steps):
        previous, slope = value_and_slope(energy, y)
        y = y + step * slope
        new, _ = value_and_slope(energy, y)
        if abs(previous - new) < omega1 or new - previous < omega2:
            return y
    return y


STEP = torch.tensor([0.05, 0.2], dtype=torch.float64)


def test_plain_ascent_closed_form():
    """On f = -|y|^2 / 2 each step multiplies dimension d by 1 - step_d, so y_T = (1 - step)^T y_0 and the
    last step starts at f((1 - step)^(T - 1) y_0)."""
    start = randn(3, 4, 2)
    result = plain_ascent(bowl, start, STEP, steps=10)
    torch.testing.assert_close(result.y, (1 - STEP) ** 10 * start)
    torch.testing.assert_close(result.f_before_last_step, bowl((1 - STEP) ** 9 * start))


def test_plain_ascent_evaluates_once_per_step_and_never_checks():
    """Ten steps, ten evaluations; with a step of 3 on the bowl y doubles and flips each time: it goes
    downhill."""
    energy = Counted(bowl)
    result = plain_ascent(energy, torch.ones(1, 1), 3.0)
    assert energy.calls == 10
    assert result.y.item() == pytest.approx((-2.0) ** 10)


def test_no_steps_is_the_start():
    start = randn(5, 2)
    assert torch.equal(plain_ascent(bowl, start, 0.1, steps=0).y, start)
    torch.testing.assert_close(plain_ascent(bowl, start, 0.1, steps=0).f_before_last_step, bowl(start))
    for climb in (ascent_s1, ascent_s2):
        result = climb(bowl, start, 0.1, steps=0)
        assert torch.equal(result.y, start)
        torch.testing.assert_close(result.f, bowl(start))


@pytest.mark.parametrize("decay", [0.5, 1.0])
def test_s1_is_the_papers_algorithm_for_every_row(decay):
    start = 2 * randn(4, 6, 2)
    result = ascent_s1(rough, start, STEP, steps=12, decay=decay)
    rows = torch.stack([s1_by_the_book(rough, y, STEP, 12, decay) for y in start.reshape(-1, 2)])
    torch.testing.assert_close(result.y, rows.reshape(4, 6, 2))
    torch.testing.assert_close(result.f, rough(result.y))


def test_s2_is_the_papers_algorithm_for_every_row():
    """Thresholds large enough that rows stop at different steps, for both reasons."""
    start = 2 * randn(4, 6, 2)
    result = ascent_s2(rough, start, STEP / 4, steps=4, early_stop=0.02, degeneration=-0.1)
    rows = torch.stack([s2_by_the_book(rough, y, STEP / 4, 4, 0.02, -0.1) for y in start.reshape(-1, 2)])
    torch.testing.assert_close(result.y, rows.reshape(4, 6, 2))
    torch.testing.assert_close(result.f, rough(result.y))
    everything = plain_ascent(rough, start, STEP / 4, steps=4).y
    assert 0 < (everything != result.y).any(dim=-1).sum() < 24  # some rows stopped early, some did not


@pytest.mark.parametrize("climb", [ascent_s1, ascent_s2])
def test_batched_equals_single(climb):
    start = 2 * randn(7, 3)
    together = climb(rough, start, 0.1, 10)
    alone = [climb(rough, start[i], 0.1, 10) for i in range(7)]
    torch.testing.assert_close(together.y, torch.stack([one.y for one in alone]))
    torch.testing.assert_close(together.f, torch.stack([one.f for one in alone]))


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), log_step=st.floats(-6, 6), decay=st.floats(0.01, 1), steps=st.integers(0, 15))
def test_s1_never_goes_down(seed, log_step, decay, steps):
    start = 3 * randn(8, 2, seed=seed)
    result = ascent_s1(rough, start, math.exp(log_step), steps, decay)
    assert (result.f >= rough(start)).all()
    torch.testing.assert_close(result.f, rough(result.y))


def test_s1_refuses_steps_to_nowhere():
    """f is NaN beyond |y| = 1; a step there does not count as a rise."""
    edge = lambda y: torch.where(y.abs() > 1, torch.nan, y * y).sum(dim=-1)  # noqa: E731
    result = ascent_s1(edge, torch.tensor([[0.9], [-0.5]]), 0.5, steps=20)
    assert result.y.isfinite().all() and (result.y.abs() <= 1).all()
    assert (result.f >= torch.tensor([0.81, 0.25])).all()


def test_s1_stops_when_no_row_can_move():
    """At the top the gradient is zero: one look at a step that leads nowhere. Without decay a refused step
    would be refused for ever: from y = 1, step 3, the bowl's first step lands at -2 and is refused."""
    energy = Counted(bowl)
    ascent_s1(energy, torch.zeros(5, 2), 0.1, steps=1000)
    assert energy.calls == 2
    energy = Counted(bowl)
    ascent_s1(energy, torch.ones(1, 1), 3.0, steps=1000, decay=1.0)
    assert energy.calls == 2


def test_s2_stops_when_all_rows_have_stopped():
    """The bowl from y = 1 with step 0.5: f = -1/2, -1/8, -1/32, -1/128, -1/512, ..: the changes 3/8, 3/32,
    3/128, 3/512 (0.0059), 0.0015, 0.0004; the sixth step is the first below 0.001, so 7 evaluations."""
    energy = Counted(bowl)
    result = ascent_s2(energy, torch.ones(2, 1), 0.5, steps=100)
    assert energy.calls == 7
    assert result.y[0].item() == pytest.approx(0.5**6)


def test_s2_keeps_the_step_that_made_it_stop():
    """Step 3 on the bowl from y = 1 lands at -2: f falls from -0.5 to -2, the row stops there."""
    result = ascent_s2(bowl, torch.ones(1, 1), 3.0, steps=5)
    assert result.y.item() == pytest.approx(-2.0)
    assert result.f.item() == pytest.approx(-2.0)


@pytest.mark.parametrize("climb", [plain_ascent, ascent_s1, ascent_s2])
def test_no_gradient_leaks_and_none_is_needed(climb):
    """Inside no_grad the climb still works; parameters of the energy get no gradient and the start stays as
    it was."""
    scale = torch.tensor(1.0, requires_grad=True)
    start = torch.ones(3, 2, requires_grad=True)
    with torch.no_grad():
        result = climb(lambda y: bowl(y) * scale, start, 0.1, 3)
    assert not result[0].requires_grad and not result[1].requires_grad
    assert scale.grad is None and start.grad is None
    assert torch.equal(start, torch.ones(3, 2)) and (result.y < 1).all()


@pytest.mark.parametrize("climb", [plain_ascent, ascent_s1, ascent_s2])
def test_no_rows_and_flat_energies(climb):
    """No candidates come back as no candidates; an energy that ignores y moves nobody."""
    assert climb(bowl, torch.zeros(0, 4), 0.1, 3).y.shape == (0, 4)
    assert torch.equal(climb(lambda y: torch.zeros(y.shape[:-1]), torch.ones(2, 4), 0.1, 3).y, torch.ones(2, 4))


def test_bad_arguments_are_refused():
    for call in (
        lambda: plain_ascent(bowl, torch.ones(3, 2), 0.1, steps=-1),
        lambda: ascent_s1(bowl, torch.ones(3, 2), 0.1, decay=1.5),
        lambda: ascent_s1(bowl, torch.ones(3, 2), 0.1, decay=0.0),
        lambda: ascent_s2(bowl, torch.ones(3, 2, dtype=torch.int64), 0.1),
        lambda: ascent_s2(bowl, torch.tensor(1.0), 0.1),
    ):
        with pytest.raises(ConfigError):
            call()


@pytest.mark.parametrize("climb", [plain_ascent, ascent_s1, ascent_s2])
def test_an_energy_with_a_column_too_many_is_refused(climb):
    """What `nn.Linear(n, 1)` gives broadcasts silently otherwise, and climbs to nowhere."""
    with pytest.raises(ConfigError, match=r"must be \(4,\), one value a row, got \(4, 1\); squeeze"):
        climb(lambda y: -y.square().sum(-1, keepdim=True), torch.ones(4, 2), 0.1)
