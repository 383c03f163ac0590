"""Learning-rate schedules compared with values calculated by hand: 10 steps per epoch, 4 epochs."""

import math

import pytest

from sentiment.errors import UserError
from sentiment.params.train import (
    ConstantSchedule,
    CosineSchedule,
    ExponentialSchedule,
    LearningRateSchedule,
    NoamSchedule,
    PolynomialSchedule,
    StepSchedule,
)
from sentiment.training.optimization import compute_learning_rate_factor, validate_schedule

CONSTANT = ConstantSchedule(kind="constant", warmup_steps=0)
STEP = StepSchedule(kind="step", warmup_steps=0, every_epochs=2, factor=0.1)
EXPONENTIAL = ExponentialSchedule(kind="exponential", warmup_steps=0, factor=0.25)
POLYNOMIAL = PolynomialSchedule(kind="polynomial", warmup_steps=0, power=2.0, end_factor=0.2)
COSINE = CosineSchedule(kind="cosine", warmup_steps=0, end_factor=0.1)
NOAM = NoamSchedule(kind="noam", warmup_steps=4)


@pytest.mark.parametrize(
    ("schedule", "step", "factor"),
    [
        (CONSTANT, 0, 1.0),
        (CONSTANT, 39, 1.0),
        (STEP, 19, 1.0),
        (STEP, 20, 0.1),
        (STEP, 39, 0.1),
        (EXPONENTIAL, 0, 1.0),
        (EXPONENTIAL, 5, 0.5),
        (EXPONENTIAL, 20, 0.0625),
        (POLYNOMIAL, 0, 1.0),
        (POLYNOMIAL, 20, 0.4),
        (POLYNOMIAL, 40, 0.2),
        (COSINE, 0, 1.0),
        (COSINE, 20, 0.55),
        (COSINE, 40, 0.1),
        (COSINE, 10, 0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2),
        (NOAM, 0, 0.25),
        (NOAM, 3, 1.0),
        (NOAM, 15, 0.5),
        (NOAM, 35, 1 / 3),
    ],
)
def test_factor_equals_hand_calculated_value(
    schedule: LearningRateSchedule, step: int, factor: float
) -> None:
    assert compute_learning_rate_factor(schedule, step, 10, 4) == pytest.approx(factor)


@pytest.mark.parametrize(
    ("schedule", "step", "factor"),
    [
        (CONSTANT, 39, 1.0),
        (STEP, 27, 1.0),
        (STEP, 28, 0.1),
        (EXPONENTIAL, 8, 1.0),
        (EXPONENTIAL, 13, 0.5),
        (EXPONENTIAL, 28, 0.0625),
        (POLYNOMIAL, 24, 0.4),  # half of the remaining 32 steps
        (POLYNOMIAL, 40, 0.2),
        (COSINE, 24, 0.55),
        (COSINE, 40, 0.1),
        (COSINE, 16, 0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2),
        (NOAM, 7, 1.0),
        (NOAM, 31, 0.5),
    ],
)
def test_factor_after_a_warm_up_equals_hand_calculated_value(
    schedule: LearningRateSchedule, step: int, factor: float
) -> None:
    warmed = schedule.model_copy(update={"warmup_steps": 8})
    assert compute_learning_rate_factor(warmed, step, 10, 4) == pytest.approx(factor)


@pytest.mark.parametrize("schedule", [CONSTANT, STEP, EXPONENTIAL, POLYNOMIAL, COSINE, NOAM])
def test_schedule_starts_after_a_linear_warm_up(schedule: LearningRateSchedule) -> None:
    warmed = schedule.model_copy(update={"warmup_steps": 8})
    factors = [compute_learning_rate_factor(warmed, step, 10, 4) for step in range(9)]
    after = math.sqrt(8 / 9) if schedule is NOAM else 1.0
    assert factors == pytest.approx([(step + 1) / 8 for step in range(8)] + [after])


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (CONSTANT.model_copy(update={"warmup_steps": 41}), "warmup_steps: 41, but the run has 40 steps"),
        (NOAM.model_copy(update={"warmup_steps": 4000}), "warmup_steps: 4000, but the run has 40 steps"),
        (
            STEP.model_copy(update={"warmup_steps": 20}),
            "first drops after 40 steps, but the run has 40 steps",
        ),
    ],
)
def test_schedule_longer_than_the_run_is_an_error(schedule: LearningRateSchedule, message: str) -> None:
    with pytest.raises(UserError, match=message):
        validate_schedule(schedule, 10, 4)


@pytest.mark.parametrize(
    "schedule",
    [
        CONSTANT.model_copy(update={"warmup_steps": 40}),
        STEP.model_copy(update={"warmup_steps": 19}),
        POLYNOMIAL,
        COSINE,
        NOAM,
    ],
)
def test_schedule_that_fits_the_run_is_valid(schedule: LearningRateSchedule) -> None:
    validate_schedule(schedule, 10, 4)


def test_run_of_one_epoch_requires_no_drop() -> None:
    validate_schedule(STEP, 10, 1)
