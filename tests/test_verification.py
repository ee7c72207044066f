"""Forecasters' scores: against the definitions, and against the library's own on whole fields."""

from __future__ import annotations

import json
import operator

import gridded
import numpy as np
import pytest
import xarray as xr
from commands import one_error_line

from vmrnn_cli.errors import InputError
from vmrnn_cli.verification import Verification, rows_of

KEYS = ("csi", "pod", "far", "frequency_bias")


def fields(seed=0, leads=3, events=2):
    """Forecasts and truths by event, (L, 1, H, W) each."""
    rng = np.random.default_rng(seed)
    return {event: rng.gamma(1.0, 10.0, (2, leads, 1, 20, 30)) for event in range(events)}


def verified(pairs, thresholds=(5, 20), scales=(1, 4)):
    found = Verification(thresholds, scales)
    for event, (forecast, truth) in pairs.items():
        found.add(event, {"it": forecast}, truth)
    return found


def test_tables_are_those_of_the_definitions():
    forecast, truth = np.zeros((1, 1, 4, 4)), np.zeros((1, 1, 4, 4))
    forecast[0, 0, 0, :3] = 30  # three are forecast
    truth[0, 0, 0, 1:] = 20  # three came, two of them where they were forecast; 20 reaches the threshold
    found = verified({0: (forecast, truth)}, (20,)).summary()["forecasts"]["it"]
    at = found["thresholds"]["20"]
    expected = {"csi": 2 / 4, "pod": 2 / 3, "far": 1 / 3, "frequency_bias": 1.0}
    assert {key: at[key]["per_lead"][0] for key in KEYS} == pytest.approx(expected)
    assert found["mae"]["per_lead"][0] == pytest.approx((30 + 10 + 10 + 20) / 16)
    assert found["bias"]["per_lead"][0] == pytest.approx(30 / 16)
    assert found["rmse"]["per_lead"][0] == pytest.approx(np.sqrt((900 + 100 + 100 + 400) / 16))


def test_pooled_scores_are_those_of_the_library_on_whole_fields():
    from scores.categorical import ThresholdEventOperator
    from scores.spatial import fss_2d

    pairs = fields()
    found = verified(pairs).summary()["forecasts"]["it"]
    forecast, truth = (
        xr.DataArray(np.stack([pair[place][:, 0] for pair in pairs.values()]), dims=("event", "lead", "y", "x"))
        for place in (0, 1)
    )
    for threshold in (5, 20):
        at = found["thresholds"][f"{threshold}"]
        event = ThresholdEventOperator(default_event_threshold=threshold, default_op_fn=operator.ge)
        manager = event.make_contingency_manager(forecast, truth).transform(preserve_dims="lead")
        csi, far = manager.critical_success_index(), manager.false_alarm_ratio()
        np.testing.assert_allclose(at["csi"]["per_lead"], csi)
        np.testing.assert_allclose(at["far"]["per_lead"], far)
        for side in (1, 4):
            fss = fss_2d(
                forecast, truth, event_threshold=threshold, window_size=(side, side), spatial_dims=("y", "x"),
                threshold_operator=np.greater_equal, preserve_dims="lead",
            )  # fmt: skip
            np.testing.assert_allclose(at["fss"][f"{side}"]["per_lead"], fss)


def test_a_perfect_forecast_has_perfect_scores():
    pairs = {event: (truth, truth) for event, (_, truth) in fields().items()}
    found = verified(pairs).summary()["forecasts"]["it"]
    for at in found["thresholds"].values():
        assert [at[key]["per_lead"][0] for key in KEYS] == [1, 1, 0, 1]
        assert at["fss"]["4"]["per_lead"] == [1, 1, 1]
    assert found["rmse"]["per_lead"] == [0, 0, 0]


def test_what_is_missing_of_the_truth_is_left_out():
    pairs = fields(events=1)
    forecast, truth = pairs[0]
    holes = np.where(np.random.default_rng(1).random(truth.shape) < 0.3, np.nan, truth)
    found = verified({0: (forecast, holes)}).summary()["forecasts"]["it"]
    known = ~np.isnan(holes[0])
    said, came = forecast[0][known] >= 5, truth[0][known] >= 5
    assert found["thresholds"]["5"]["csi"]["per_lead"][0] == pytest.approx((said & came).sum() / (said | came).sum())
    assert found["mae"]["per_lead"][0] == pytest.approx(np.abs(forecast[0] - truth[0])[known].mean())
    nothing = verified({0: (forecast, np.full_like(truth, np.nan))}).summary()["forecasts"]["it"]
    assert nothing["mae"]["per_lead"] == [None] * 3
    assert nothing["thresholds"]["5"]["csi"]["per_lead"] == [None] * 3


def test_intervals_are_over_whole_events():
    assert "interval_95" not in verified(fields(events=1)).summary()["forecasts"]["it"]["mae"]
    same = fields(events=1)[0]
    alike = verified(dict.fromkeys(range(4), same)).summary()["forecasts"]["it"]["mae"]
    assert alike["interval_95"][0] == pytest.approx([alike["per_lead"][0]] * 2)
    several = verified(fields(events=6)).summary()
    low, high = several["forecasts"]["it"]["mae"]["interval_95"][0]
    assert low < several["forecasts"]["it"]["mae"]["per_lead"][0] < high
    assert several["events"] == 6
    assert verified(fields(events=6)).summary() == several  # the same draws


def test_clips_of_an_event_add_up_and_so_do_processes():
    pairs = fields(events=4)
    together = Verification((5,), (4,))
    one, other = Verification((5,), (4,)), Verification((5,), (4,))
    for event, (forecast, truth) in pairs.items():
        together.add(event % 2, {"it": forecast}, truth)
        (one if event < 2 else other).add(event % 2, {"it": forecast}, truth)
    one.replace([one.tallies, other.tallies])
    assert json.dumps(one.summary()) == json.dumps(together.summary())


def test_power_is_found_where_the_waves_are():
    wave = np.sin(2 * np.pi * np.arange(64) / 4) + np.zeros((64, 1))  # a quarter of a cycle a place
    found = verified({0: (wave[None, None], wave[None, None])}).summary()
    power = np.array(found["forecasts"]["it"]["spectrum"][0])
    assert found["cycles_per_place"][int(power.argmax())] == pytest.approx(0.25, abs=0.02)
    assert found["true_spectrum"] == found["forecasts"]["it"]["spectrum"]


def test_rows_name_what_they_hold():
    found = verified(fields()).summary() | {"units": "dBZ"}
    labels = [label for label, _ in rows_of(found)]
    assert labels[:3] == ["MAE dBZ", "RMSE dBZ", "bias dBZ"]
    assert "FSS at 20 dBZ, 4 places" in labels


@pytest.mark.parametrize(
    ("thresholds", "scales", "said"),
    [
        ("a,b", None, "no thresholds"),
        ("nan", None, "takes numbers"),
        ("20", "x", "no scales"),
        ("20", "0", "takes numbers"),
    ],
)
def test_bad_options_are_refused(thresholds, scales, said):
    with pytest.raises(InputError, match=said):
        Verification.parse(thresholds, scales)


# ---- The command


@pytest.fixture
def events(tmp_path):
    """Two stretches of rain with a gap between them."""
    data = gridded.reflectivity(24).drop_vars("time_bnds")
    del data.time.attrs["bounds"]
    data.isel(time=[*range(10), *range(14, 24)]).to_netcdf(tmp_path / "rain.nc", engine="h5netcdf")
    return tmp_path / "rain.nc"


def test_eval_scores_grids_in_their_units(run, events, tmp_path):
    code, out, err = run(
        "eval", "--data", events, "--thresholds", "20,35", "--scales", "2,8", "--context", 4, "--frames", 4,
        "--threads", 1, "--plot", "scores.png", "--json", "--report", "report.html",
    )  # fmt: skip
    assert code == 0, err
    told = json.loads(out)
    found = told["verification"]
    assert told["clips"] == 4  # every second scan begins one, and none reaches over the gap
    assert (found["events"], found["units"]) == (2, "dBZ")
    assert found["leads"] == ["+5 min", "+10 min", "+15 min", "+20 min"]
    ours, stay = (found["forecasts"][name] for name in ("this_network", "baseline_last_frame"))
    assert len(ours["mae"]["per_lead"]) == 4
    assert ours["mae"]["per_lead"][-1] < stay["mae"]["per_lead"][-1]
    assert ours["thresholds"]["20"]["csi"]["per_lead"][-1] > stay["thresholds"]["20"]["csi"]["per_lead"][-1]
    assert set(ours["thresholds"]["35"]["fss"]) == {"2", "8"}
    assert (tmp_path / "scores.png").stat().st_size > 10000
    assert (tmp_path / "report.html").exists()


def test_eval_prints_tables_and_other_rivals(run, events, monkeypatch):
    from vmrnn_cli import evaluate, rivals

    more = {**rivals.RIVALS, "baseline_pysteps": rivals.last_frame}
    monkeypatch.setattr(evaluate, "rivals_of_grids", lambda: more)
    code, out, err = run(
        "eval", "--data", events, "--thresholds", "20", "--context", 4, "--frames", 2, "--limit", 1, "--threads", 1
    )
    assert code == 0, err
    assert "CSI at 20 dBZ" in out
    assert "pysteps" in out
    assert "2 event(s)" in err  # of which one was scored


def test_eval_takes_files_of_several_events_and_sizes(run, tmp_path):
    (tmp_path / "events").mkdir()
    for number, width in enumerate((32, 48)):
        data = gridded.reflectivity(9, width=width)
        data.to_netcdf(tmp_path / "events" / f"{number}.nc", engine="h5netcdf")
    arguments = ("--thresholds", "20", "--context", 4, "--frames", 4, "--threads", 1, "--json")
    code, out, err = run("eval", "--data", "events", *arguments)
    assert code == 0, err
    assert json.loads(out)["verification"]["events"] == 2
    code, out, err = run("eval", "--data", "events", *arguments, "--split", "val")
    assert code == 0, err
    assert json.loads(out)["clips"] == 1  # of the event that training would hold out


def test_eval_of_rain_rates_counts_no_rain_as_zero(run, tmp_path):
    rate = xr.DataArray(
        gridded.blobs(9) * 40, {"time": gridded.times(9)}, ("time", "y", "x"), "rain", {"units": "mm h-1"}
    )
    rate.to_netcdf(tmp_path / "rate.nc", engine="h5netcdf")
    code, out, err = run(
        "eval", "--data", "rate.nc", "--thresholds", "1", "--context", 4, "--frames", 4, "--threads", 1, "--json"
    )
    assert code == 0, err
    stay = json.loads(out)["verification"]["forecasts"]["baseline_last_frame"]
    truth = gridded.blobs(9)[4] * 40
    before = gridded.blobs(9)[3] * 40
    expected = np.abs(np.where(before <= 0.1, 0, before) - np.where(truth <= 0.1, 0, truth)).mean()
    assert stay["mae"]["per_lead"][0] == pytest.approx(expected, rel=0.02)


def test_thresholds_are_for_arrays_too(run, tmp_path):
    np.save(tmp_path / "clips.npy", (gridded.blobs(30)[None] * 255).astype("u1"))
    code, out, err = run(
        "eval", "--data", "clips.npy", "--thresholds", "100", "--context", 4, "--frames", 3, "--threads", 1, "--json",
        "--layout", "NTHW", "--weights", "vmrnn-d-motion",
    )  # fmt: skip
    assert code == 0, err
    found = json.loads(out)["verification"]
    assert found["leads"] == ["+1", "+2", "+3"]
    assert found["forecasts"]["this_network"]["thresholds"]["100"]["csi"]["per_lead"][0] > 0.5


def test_windows_longer_than_any_stretch_are_refused(run, events):
    code, _, err = run("eval", "--data", events, "--context", 8, "--frames", 8, "--threads", 1)
    assert code == 2
    assert "at most 10 scans follow each other without a gap" in one_error_line(err)


def test_leads_of_series_with_other_steps_are_numbered(tmp_path):
    from vmrnn_cli.data.grids import GridClips, open_series
    from vmrnn_cli.readings import UNDECLARED

    (tmp_path / "events").mkdir()
    for number, minutes in enumerate((5, 6)):
        times = gridded.times(8, step=np.timedelta64(minutes, "m"))
        data = xr.DataArray(gridded.blobs(8) * 60, {"time": times}, ("time", "y", "x"), "dbz", {"units": "dBZ"})
        data.to_netcdf(tmp_path / "events" / f"{number}.nc", engine="h5netcdf")
    assert GridClips("events", open_series(tmp_path / "events", UNDECLARED), 3, 2).lead(2) == "+2"
    alone = GridClips("one", open_series(tmp_path / "events" / "1.nc", UNDECLARED), 3, 2)
    assert alone.lead(2) == "+12 min"
    assert alone.label(1) == "1.nc 2024-06-01 12:06"
