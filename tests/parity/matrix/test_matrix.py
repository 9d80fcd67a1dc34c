"""Each way of splitting each model trains as the unsplit one does, from the same weights to the same weights."""

from collections.abc import Callable

import pytest

from tests.parity.matrix.cases import CASES, CONTROLS, DAILY
from tests.parity.matrix.data import make_data
from tests.parity.matrix.records import Case, Control
from tests.parity.matrix.runner import Runner, differences, differences_of_figures

Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    return Runner(make_data(tmp_path_factory.mktemp("data")), tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if str(case) in DAILY else pytest.mark.slow) for case in CASES], ids=str
)
def test_a_split_model_trains_as_the_unsplit_one(case: Case, runner: Runner, record_property: Record) -> None:
    found, expected = runner.split(case), runner.unsplit(case)
    assert not found.wrong, "these parameters began with other values than the table says"
    too_large = []
    for kind, difference in differences(found, expected).items():
        record_property(kind, difference.size)
        if not difference.size <= case.tolerance.of(kind):  # which a NaN is not either
            too_large.append(f"{kind} of {difference.at}: {difference.size:.1e} > {case.tolerance.of(kind):.0e}")
    assert not too_large, case.tolerance.reason
    losses = expected.figures["loss"]
    assert losses[-1] < losses[0] - 0.3, "nothing was learned: equal losses would prove nothing"


@pytest.mark.parametrize("control", CONTROLS, ids=str)
def test_the_comparison_sees_a_fault(control: Control, runner: Runner, record_property: Record) -> None:
    case = control.case
    found = differences_of_figures(runner.with_fault(control.fault, case), runner.unsplit(case).figures)
    for kind in control.seen_by:
        record_property(kind, found[kind].size)
        assert found[kind].size > case.tolerance.of(kind)
