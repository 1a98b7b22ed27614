//! The simulated services: what an endpoint does with an attempt, and how its mood changes.

use http::StatusCode;
use ringgate::error::ProxyError;
use ringgate::policy::chance::below;
use ringgate::policy::event::Event;
use ringgate::policy::retry::Sent;
use ringgate::units::Rng;
use std::time::Duration;

/// What an endpoint does with the attempts that reach it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mood {
    Well,
    Slow,
    Refuses,
    Unreachable,
    Hangs,
    Resets,
    Fails(u16),
    Throttles,
    AsksForPause,
    Truncates,
    /// Works or not, by chance.
    Flaky,
}

impl Mood {
    /// Whether a connection to it can be made.
    pub(crate) fn is_reachable(self) -> bool {
        !matches!(self, Self::Refuses | Self::Unreachable)
    }

    /// Half of them well, so that a simulation is not all outage.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        match below(rng, 22) {
            0 => Self::Slow,
            1 => Self::Refuses,
            2 => Self::Unreachable,
            3 => Self::Hangs,
            4 => Self::Resets,
            5 => Self::Fails(500),
            6 => Self::Fails(503),
            7 => Self::Throttles,
            8 => Self::AsksForPause,
            9 => Self::Truncates,
            10 => Self::Flaky,
            _ => Self::Well,
        }
    }

    /// What an attempt meets: after how long, what, and (when a response is passed on) how its body ends after how long.
    /// `None`: nothing ever.
    pub(crate) fn meet(self, rng: &mut Rng) -> Meeting {
        let quick = Duration::from_micros(200 + below(rng, 20_000) as u64);
        let head = |status: u16, pause: Option<u64>| Event::Head {
            status: StatusCode::from_u16(status).expect("a status"),
            retry_after: pause.map(Duration::from_millis),
        };
        let (phase, event, body) = match self {
            Self::Well => (Phase::Head(quick), head(200, None), Event::BodyDone),
            Self::Slow => (Phase::Head(quick * 50), head(200, None), Event::BodyDone),
            Self::Refuses => (Phase::Connect(quick / 20), Event::ConnectFailed, Event::BodyDone),
            Self::Unreachable => (Phase::NoConnection, Event::ConnectTimedOut, Event::BodyDone),
            Self::Hangs => (Phase::NoHead, Event::TimedOut, Event::BodyDone),
            Self::Resets => {
                let sent = if below(rng, 3) == 0 { Sent::Nothing } else { Sent::Maybe };
                let excused = below(rng, 2) == 0;
                (Phase::Head(quick), Event::ResetBeforeHead { sent, excused }, Event::BodyDone)
            }
            Self::Fails(status) => (Phase::Head(quick), head(status, None), Event::BodyDone),
            Self::Throttles => (Phase::Head(quick), head(429, None), Event::BodyDone),
            Self::AsksForPause => {
                let status = if below(rng, 2) == 0 { 429 } else { 503 };
                (Phase::Head(quick), head(status, Some(below(rng, 4_000) as u64)), Event::BodyDone)
            }
            // before or after something of it was passed on
            Self::Truncates if below(rng, 2) == 0 => (
                Phase::Head(quick),
                head(200, None),
                Event::AnswerBroken { reply: ProxyError::UpstreamTruncated, excused: false },
            ),
            Self::Truncates => (Phase::Head(quick), head(200, None), Event::BodyFailed),
            Self::Flaky if below(rng, 2) == 0 => return Self::Well.meet(rng),
            Self::Flaky => return Self::Fails(503).meet(rng),
        };
        Meeting { phase, event, body, body_time: Duration::from_micros(below(rng, 30_000) as u64) }
    }
}

/// Where an attempt ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Phase {
    Connect(Duration),
    Head(Duration),
    NoConnection,
    NoHead,
}

/// What one attempt meets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meeting {
    pub(crate) phase: Phase,
    pub(crate) event: Event,
    pub(crate) body: Event,
    pub(crate) body_time: Duration,
}
