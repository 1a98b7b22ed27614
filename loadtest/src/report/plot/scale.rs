//! Axes: from values to places on paper, and where the ticks stand.

use crate::units::{digits, grouped, shown};

/// What an axis measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::report) enum Unit {
    /// A latency, in seconds.
    Latency,
    /// Time of a run, in seconds from its start.
    Clock,
    /// Requests a second.
    Rate,
    /// A number of something.
    Count,
    /// CPU microseconds.
    Micros,
    /// 1 / (1 − q) of a quantile q.
    Nines,
}

impl Unit {
    /// For a tick: short.
    fn tick(self, value: f64) -> String {
        match self {
            Self::Latency => super::super::words::bound(value),
            Self::Clock => clock(value),
            Self::Rate | Self::Count => thousands(value),
            Self::Micros => format!("{} µs", plain(value)),
            Self::Nines => nines(value),
        }
    }

    /// For a tooltip: three digits and the unit.
    pub(super) fn exact(self, value: f64) -> String {
        match self {
            _ if value.is_infinite() => "∞".to_owned(),
            Self::Latency => shown(value),
            Self::Clock if value < 600.0 => format!("{} s", digits(value)),
            Self::Clock => clock(value),
            Self::Rate => format!("{} requests/s", digits(value)),
            Self::Count => digits(value),
            Self::Micros => format!("{} µs", digits(value)),
            Self::Nines => nines(value),
        }
    }
}

/// A tick: its value, and what stands beside it.
pub(super) type Tick = (f64, String);

/// The values between an axis' ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::report) struct Scale {
    low: f64,
    high: f64,
    is_log: bool,
    unit: Unit,
}

/// Powers of ten that a logarithmic axis shows at most.
const DECADES_MAX: f64 = 12.0;

impl Scale {
    /// A linear axis from `low` to at least `high`; the upper end becomes a round number.
    pub(in crate::report) fn linear(unit: Unit, low: f64, high: f64) -> Self {
        let high = if high.is_finite() && high > low { high } else { low + 1.0 };
        let step = step(unit, high - low, 5);
        Self { low, high: low + ((high - low) / step - 1e-9).ceil() * step, is_log: false, unit }
    }

    /// A linear axis with exactly these ends.
    pub(in crate::report) fn exact(unit: Unit, low: f64, high: f64) -> Self {
        Self { low, high: if high > low { high } else { low + 1.0 }, is_log: false, unit }
    }

    /// A logarithmic axis that holds all of these values; what is not finite or not above 0 is left out.
    pub(in crate::report) fn log(unit: Unit, values: impl IntoIterator<Item = f64>) -> Self {
        let (mut low, mut high) = (f64::INFINITY, 0.0_f64);
        for value in values.into_iter().filter(|value| value.is_finite() && *value > 0.0) {
            (low, high) = (low.min(value), high.max(value));
        }
        if low > high {
            (low, high) = (1e-3, 1e-2);
        }
        // outwards to 1, 2 or 5 of a decade
        let down = |value: f64| {
            rounded(value, |part| {
                if part < 2.0 {
                    1.0
                } else if part < 5.0 {
                    2.0
                } else {
                    5.0
                }
            })
        };
        let up = |value: f64| {
            rounded(value, |part| match part {
                p if p <= 1.0 => 1.0,
                p if p <= 2.0 => 2.0,
                p if p <= 5.0 => 5.0,
                _ => 10.0,
            })
        };
        let (mut low, high) = (down(low * (1.0 + 1e-9)), up(high * (1.0 - 1e-9)));
        if high / low < 10.0 {
            low = down(high / 10.0);
        }
        low = low.max(high / 10_f64.powf(DECADES_MAX));
        Self { low, high, is_log: true, unit }
    }

    /// What it measures.
    pub(super) fn unit(&self) -> Unit {
        self.unit
    }

    /// Where a value lies: 0 at the low end, 1 at the high one; outside it is at the end. What is no number lies nowhere.
    pub(super) fn place(&self, value: f64) -> f64 {
        // `max` would make the low end of it, where nothing was measured
        if value.is_nan() {
            return value;
        }
        let share = if self.is_log {
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        share.clamp(0.0, 1.0)
    }

    /// Whether a value is on it.
    pub(super) fn holds(&self, value: f64) -> bool {
        value >= self.low && value <= self.high
    }

    /// Ticks, ascending, about `at_most` of them.
    pub(super) fn ticks(&self, at_most: usize) -> Vec<Tick> {
        let at_most = at_most.max(2);
        let values = match (self.is_log, self.unit) {
            (true, Unit::Nines) => {
                self.thinned(self.decades(&[1.0, 2.0]).into_iter().filter(is_usual).collect(), at_most)
            }
            (true, _) => {
                let fine = self.decades(&[1.0, 2.0, 5.0]);
                let middle = self.decades(&[1.0, 3.0]);
                [fine, middle]
                    .into_iter()
                    .find(|ticks| ticks.len() <= at_most)
                    .unwrap_or_else(|| self.thinned(self.decades(&[1.0]), at_most))
            }
            (false, unit) => {
                let step = step(unit, self.high - self.low, at_most);
                let first = (self.low / step - 1e-9).ceil() * step;
                (0..=at_most * 2)
                    .map(|row| first + row as f64 * step)
                    .filter(|v| *v <= self.high + step * 1e-9)
                    .collect()
            }
        };
        values.into_iter().map(|value| (value, self.unit.tick(value))).collect()
    }

    /// These parts of every decade, as far as they are on the axis.
    fn decades(&self, parts: &[f64]) -> Vec<f64> {
        let (from, to) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
        let all = (from..=to).flat_map(|power| parts.iter().map(move |part| part * 10_f64.powi(power)));
        all.filter(|value| *value >= self.low * 0.999 && *value <= self.high * 1.001).collect()
    }

    /// Every second, third … of the ticks, so that few enough are left.
    fn thinned(&self, ticks: Vec<f64>, at_most: usize) -> Vec<f64> {
        let every = ticks.len().div_ceil(at_most).max(1);
        ticks.into_iter().step_by(every).collect()
    }
}

/// Of 1 / (1 − q): 0 %, 50 % and the nines.
fn is_usual(value: &f64) -> bool {
    (*value - 2.0).abs() < 1e-9 || (value.log10() - value.log10().round()).abs() < 1e-9
}

/// The value with the leading part of its decade (1 to 10) replaced.
fn rounded(value: f64, part: impl Fn(f64) -> f64) -> f64 {
    let decade = 10_f64.powf(value.log10().floor());
    part(value / decade) * decade
}

/// A step of 1, 2, 2.5 or 5 of a decade (of minutes and seconds on a clock) of which about `at_most` are in `span`.
fn step(unit: Unit, span: f64, at_most: usize) -> f64 {
    let least = span / at_most as f64;
    if unit == Unit::Clock && least > 2.0 {
        let usual = [5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1_800.0, 3_600.0, 7_200.0];
        return usual.into_iter().find(|step| *step >= least).unwrap_or_else(|| (least / 3_600.0).ceil() * 3_600.0);
    }
    let found = rounded(least, |part| match part {
        p if p <= 1.0 => 1.0,
        p if p <= 2.0 => 2.0,
        p if p <= 2.5 => 2.5,
        p if p <= 5.0 => 5.0,
        _ => 10.0,
    });
    if unit == Unit::Count { found.max(1.0).ceil() } else { found }
}

/// `"30 s"`, `"1:30"`, `"1:00:00"`.
fn clock(seconds: f64) -> String {
    let whole = seconds.round() as i64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, _) => format!("{} s", plain(seconds)),
        (0, m, s) => format!("{m}:{s:02}"),
        (h, m, s) => format!("{h}:{m:02}:{s:02}"),
    }
}

/// `"500"`, `"2,500"`, `"12.5k"`, `"1.2M"`.
fn thousands(value: f64) -> String {
    match value.abs() {
        v if v >= 1e6 => format!("{}M", plain(value / 1e6)),
        v if v >= 1e4 => format!("{}k", plain(value / 1e3)),
        v if v >= 1e3 => grouped(value.round() as i64),
        _ => plain(value),
    }
}

/// As few places as say it, two at most.
fn plain(value: f64) -> String {
    super::super::words::without_zeros(&format!("{value:.2}")).to_owned()
}

/// `"50 %"` for 2, `"99.9 %"` for 1,000.
fn nines(value: f64) -> String {
    let percent = 100.0 * (1.0 - 1.0 / value.max(1.0));
    format!("{} %", super::super::words::without_zeros(&format!("{percent:.6}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: Scale, at_most: usize) -> Vec<String> {
        scale.ticks(at_most).into_iter().map(|tick| tick.1).collect()
    }

    #[test]
    fn ticks_are_round_and_have_units() {
        assert_eq!(labels(Scale::linear(Unit::Rate, 0.0, 23_400.0), 5), ["0", "5,000", "10k", "15k", "20k", "25k"]);
        assert_eq!(labels(Scale::linear(Unit::Count, 0.0, 3.0), 5), ["0", "1", "2", "3"]);
        assert_eq!(labels(Scale::exact(Unit::Clock, 0.0, 95.0), 5), ["0 s", "20 s", "40 s", "1:00", "1:20"]);
        let latencies = Scale::log(Unit::Latency, [0.000_3, 0.02, f64::INFINITY]);
        assert_eq!(
            labels(latencies, 8),
            ["200 µs", "500 µs", "1 ms", "2 ms", "5 ms", "10 ms", "20 ms"].map(String::from)
        );
        let nines = Scale::log(Unit::Nines, [1.0, 100_000.0]);
        assert_eq!(labels(nines, 8), ["0 %", "50 %", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %"]);
    }

    #[test]
    fn places_run_from_nought_to_one_and_stay_there() {
        let scale = Scale::log(Unit::Latency, [0.001, 1.0]);
        assert!(scale.place(0.0) == 0.0 && scale.place(1e9) == 1.0);
        assert!((scale.place(0.030) - 0.5).abs() < 0.05);
    }

    #[test]
    fn what_is_no_number_lies_nowhere() {
        let scales = [Scale::log(Unit::Latency, [0.001, 0.1]), Scale::linear(Unit::Count, 0.0, 10.0)];
        assert!(scales.iter().all(|scale| scale.place(f64::NAN).is_nan() && scale.place(1e-9) < 0.01));
    }

    #[test]
    fn an_axis_of_nothing_still_has_ticks() {
        for scale in [
            Scale::log(Unit::Latency, []),
            Scale::linear(Unit::Rate, 0.0, 0.0),
            Scale::linear(Unit::Rate, 0.0, f64::NAN),
        ] {
            assert!((2..12).contains(&scale.ticks(5).len()), "{scale:?}");
        }
    }
}
