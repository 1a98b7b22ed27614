//! What a route retries: failures, statuses, and the codes with which services refuse calls of gRPC.

use super::names::status_code;
use super::problem::{Refusal, did_you_mean};
use super::read::{Scalar, Written};
use super::tables::scalar_schema;
use super::values::{integer, text};
use super::{RETRIED_CODES, RetryOn};
use http::StatusCode;
use serde_json::json;
use toml::de::DeValue;

/// An entry of `retry.on`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryWord {
    /// No connection.
    Connect,
    /// Broken before a head.
    Reset,
    /// No head in time.
    Timeout,
    /// This status.
    Status(StatusCode),
    /// This code of gRPC.
    Code(u8),
}

impl Scalar for RetryWord {
    fn allowed() -> String {
        "one of connect, reset, timeout, a status from \"400\" to \"599\", or a code of gRPC: cancelled, deadline-exceeded, internal, \
         resource-exhausted, unavailable"
            .to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        if let Some(status) = integer(value) {
            return Err(Refusal::plain().help(format!("with quotes: \"{status}\"")));
        }
        match text(value)? {
            "connect" => Ok(Self::Connect),
            "reset" => Ok(Self::Reset),
            "timeout" => Ok(Self::Timeout),
            "5xx" => Err(Refusal::plain().help("name the statuses: \"500\", \"502\", \"503\", \"504\"")),
            other => {
                if let Some((_, code)) = RETRIED_CODES.iter().find(|(name, _)| *name == other) {
                    return Ok(Self::Code(*code));
                }
                let status = status_code(other).filter(|status| *status >= 400);
                let status = status.and_then(|status| StatusCode::from_u16(status).ok());
                let help = did_you_mean(
                    other,
                    ["connect", "reset", "timeout"].into_iter().chain(RETRIED_CODES.map(|(name, _)| name)),
                );
                status.map(Self::Status).ok_or(Refusal { why: None, help })
            }
        }
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^(connect|reset|timeout|cancelled|deadline-exceeded|internal|resource-exhausted|unavailable|[45][0-9][0-9])$" })
    }
}

scalar_schema!(RetryWord);

/// What these words say together.
pub(super) fn retry_on(words: &[Written<RetryWord>]) -> RetryOn {
    let has = |word: RetryWord| words.iter().any(|written| written.value == word);
    let status = |written: &Written<RetryWord>| match written.value {
        RetryWord::Status(status) => Some(status),
        _ => None,
    };
    let mut statuses: Vec<_> = words.iter().filter_map(status).collect();
    statuses.sort_unstable();
    statuses.dedup();
    let code = |written: &Written<RetryWord>| match written.value {
        RetryWord::Code(code) => Some(code),
        _ => None,
    };
    let codes = words.iter().filter_map(code).collect();
    RetryOn {
        connect: has(RetryWord::Connect),
        reset: has(RetryWord::Reset),
        timeout: has(RetryWord::Timeout),
        statuses,
        codes,
    }
}
