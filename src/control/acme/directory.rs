//! How an authority's directory is asked: with an end to what it may answer, and an ear for how long it wants to be left alone.

use crate::tls::provider;
use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::Limited;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::timeout;

/// The most of one answer: chains are some kilobytes, directories less.
const ANSWER_BYTES_MAX: usize = 256 << 10;
/// For the head of one answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many seconds the authority has asked for when it has turned something down (RFC 8555 §6.6).
#[derive(Clone, Debug, Default)]
pub(super) struct Asked(Arc<AtomicU64>);

impl Asked {
    /// Since this was last taken.
    pub(super) fn take(&self) -> Duration {
        Duration::from_secs(self.0.swap(0, Ordering::Relaxed))
    }

    fn hear(&self, status: StatusCode, headers: &HeaderMap, now: u64) {
        let asks = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let Some(value) = headers.get(header::RETRY_AFTER).filter(|_| asks) else { return };
        let text = value.to_str().unwrap_or_default().trim();
        let date = || crate::http::date::parse(text.as_bytes()).map(|at| at.saturating_sub(now));
        if let Some(seconds) = text.parse().ok().or_else(date) {
            self.0.fetch_max(seconds, Ordering::Relaxed);
        }
    }
}

/// A client of one directory.
pub(super) struct Directory {
    client: Client<HttpsConnector<HttpConnector>, BodyWrapper<Bytes>>,
    asked: Asked,
}

impl Directory {
    /// `ca` is a PEM file of who vouches for it; `None`: whom the system trusts.
    pub(super) fn try_new(ca: Option<&Path>, asked: Asked) -> anyhow::Result<Self> {
        let connector = match ca {
            Some(ca) => {
                let mut roots = RootCertStore::empty();
                for root in CertificateDer::pem_file_iter(ca).with_context(|| ca.display().to_string())? {
                    roots.add(root.with_context(|| ca.display().to_string())?)?;
                }
                let rules = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
                HttpsConnectorBuilder::new().with_tls_config(rules.with_root_certificates(roots).with_no_client_auth())
            }
            None => HttpsConnectorBuilder::new().try_with_platform_verifier()?,
        };
        let connector = connector.https_only().enable_http1().enable_http2().build();
        Ok(Self { client: Client::builder(TokioExecutor::new()).build(connector), asked })
    }
}

impl HttpClient for Directory {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let (answer, asked) = (self.client.request(request), self.asked.clone());
        Box::pin(async move {
            let answer = timeout(PATIENCE, answer).await.map_err(|_| Error::Other("no answer in time".into()))?;
            let answer = answer.map_err(|error| Error::Other(Box::new(error)))?;
            asked.hear(answer.status(), answer.headers(), u64::try_from(super::now()).unwrap_or_default());
            Ok(bounded(answer))
        })
    }
}

fn bounded<B>(answer: Response<B>) -> BytesResponse
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    BytesResponse::from(answer.map(|body| Limited::new(body, ANSWER_BYTES_MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Full;

    #[tokio::test]
    async fn an_answer_has_an_end() {
        for (bytes, is_taken) in [(ANSWER_BYTES_MAX, true), (ANSWER_BYTES_MAX + 1, false), (10 << 20, false)] {
            let mut answer = bounded(Response::new(Full::new(Bytes::from(vec![b'x'; bytes]))));
            assert_eq!(answer.body.into_bytes().await.is_ok(), is_taken, "{bytes}");
        }
    }

    #[test]
    fn what_an_authority_asks_for_is_heard_where_it_turns_something_down() {
        let now = 1_796_063_052;
        let date = crate::http::date::format(now + 90);
        let date = std::str::from_utf8(&date).unwrap();
        for (status, value, seconds) in [
            (429, "120", 120),
            (503, " 7 ", 7),
            (429, date, 90),
            (200, "120", 0),
            (400, "120", 0),
            (429, "", 0),
            (429, "-1", 0),
            (429, "soon", 0),
            (429, "Thu, 01 Jan 1970 00:00:00 GMT", 0),
            (429, "18446744073709551615", u64::MAX),
        ] {
            let asked = Asked::default();
            let headers = HeaderMap::from_iter([(header::RETRY_AFTER, value.parse().unwrap())]);
            asked.hear(StatusCode::from_u16(status).unwrap(), &headers, now);
            assert_eq!(asked.take(), Duration::from_secs(seconds), "{status} {value}");
            assert_eq!(asked.take(), Duration::ZERO, "once");
        }
    }
}
