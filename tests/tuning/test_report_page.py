"""The HTML page with the plots of a search."""

import re

import optuna
import pytest
from optuna.trial import TrialState

from sentiment.tuning.report_page import render_search_page
from tests.tuning.studies import searched, searched_params

PLOTS = ("history", "importance", "parallel-coordinates", "clipping", "intermediate-values")


@pytest.fixture(scope="module")
def study() -> optuna.Study:
    return searched(30)


def _without_library(page: str) -> str:
    """The markup and data of the page, without plotly.js in its head."""
    return page[page.index("</head>") :]


def test_page_has_every_plot_and_one_copy_of_the_library(study: optuna.Study) -> None:
    page = render_search_page(study, searched_params(), winner=0)
    assert page.count("plotly.js v") == 1
    assert len(page) < 8_000_000
    for plot in PLOTS:
        assert f'<div id="{plot}"' in page


def test_page_loads_nothing_from_outside(study: optuna.Study) -> None:
    page = render_search_page(study, searched_params(), winner=0)
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=", page)
    assert "https://" not in _without_library(page)


def test_equal_studies_give_equal_pages(study: optuna.Study) -> None:
    assert render_search_page(study, searched_params(), winner=0) == render_search_page(
        searched(30), searched_params(), winner=0
    )


def test_pruned_trials_are_marked(study: optuna.Study) -> None:
    page = _without_library(render_search_page(study, searched_params(), winner=0))
    for trial in study.trials:
        assert (f'"trial {trial.number}, pruned"' in page) == (trial.state == TrialState.PRUNED)


def test_parallel_coordinates_name_the_omitted_parameters(study: optuna.Study) -> None:
    assert "are omitted: train.clip" in render_search_page(study, searched_params(), winner=0)


def test_page_of_one_trial_explains_missing_importance() -> None:
    page = render_search_page(searched(1), searched_params(), winner=0)
    assert "Not computed: fewer than 6 trials finished." in page
    assert '<div id="importance"' not in page


def test_page_of_an_empty_space() -> None:
    page = render_search_page(searched(2, space={}), searched_params({}), winner=0)
    assert "the finished trials have no parameter in common" in page
