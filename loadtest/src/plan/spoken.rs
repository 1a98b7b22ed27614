//! What is spoken with the server: which HTTP, over TLS or not.

use super::check::{Place, given, value, wrong};
use super::file;
use super::values::ProtocolWord;
use crate::load::Protocol;
use crate::wire::{TlsSettings, believed, is_of_connections, server_name};
use ringgate::config::reading::Sink;

/// Which HTTP; that what is said of it fits.
pub(super) fn protocol(load: &file::Load, file: &file::File, sink: &mut Sink<'_>) -> Option<Protocol> {
    let streams = value(&load.streams)?.0;
    if value(&load.protocol)? == ProtocolWord::Http1 {
        if let Some(streams) = given(&load.streams) {
            let message = "HTTP/1.1 has one request on a connection".to_owned();
            let help = "write protocol = \"h2\", or take it away".to_owned();
            wrong(sink, load.at.key("streams"), streams, message, Some(help));
        }
        return Some(Protocol::Http1);
    }
    let reconnects = load.reconnect.as_ref().filter(|reconnect| reconnect.value);
    if let (Some(streams), Some(_)) = (given(&load.streams), reconnects) {
        let message = "with reconnect = true a connection has one request".to_owned();
        wrong(sink, load.at.key("streams"), streams, message, Some("take one of them away".to_owned()));
    }
    for target in file.target.iter().flat_map(|list| &list.value.0) {
        for (name, text) in target.value.headers.iter().flat_map(|map| &map.value.0) {
            let header = name.value.0.as_str();
            if is_of_connections(header, text.value.0.to_str().unwrap_or_default()) {
                let key = format_args!("{}.{header}", target.value.at.key("headers"));
                let message = "HTTP/2 has no such header (RFC 9113 §8.2.2)".to_owned();
                sink.place(key, name.span.start, message, Some("take it away".to_owned()));
            }
        }
    }
    let streams = if reconnects.is_some() { 1 } else { usize::try_from(streams).ok()? };
    Some(Protocol::Http2 { streams })
}

/// Whether a `connections_max` that is not given stands for its default: an HTTP/2 client opens no more unless it is told to.
pub(super) fn is_elastic(load: &file::Load) -> bool {
    let shares = value(&load.protocol) == Some(ProtocolWord::H2) && value(&load.reconnect) == Some(false);
    given(&load.connections_max).is_some() || !shares
}

/// Connections at most.
pub(super) fn connections_max(load: &file::Load) -> Option<usize> {
    let most = if is_elastic(load) { value(&load.connections_max)?.0 } else { value(&load.connections)?.0 };
    usize::try_from(most).ok()
}

/// How TLS is spoken, if it is; that what is said of it can be used.
pub(super) fn tls(load: &file::Load, file: &file::File, place: &Place<'_>, sink: &mut Sink<'_>) -> Option<TlsSettings> {
    let table = &load.tls.as_ref()?.value;
    let ca = table.ca.as_ref().map(|ca| (ca, place.folder.join(&ca.value.0)));
    let settings = TlsSettings {
        ca: ca.as_ref().map(|(_, path)| path.clone()),
        name: table.name.as_ref().map(|name| name.value.0.clone()),
        skips_verify: value(&table.insecure_skip_verify)?,
        never_resumes: !value(&table.resumption)?,
    };
    let of_gateway = file.gateway.as_ref().and_then(|gateway| value(&gateway.value.tls)).unwrap_or_default();
    let is_spoken = of_gateway || load.url.as_ref().is_some_and(|url| url.value.0.is_tls);
    if settings != TlsSettings::default() && !is_spoken {
        let message =
            "how TLS is spoken is said, and neither does load.url begin with https://, nor is gateway.tls true"
                .to_owned();
        sink.place(&table.at.path, table.at.offset, message, None);
    }
    if let (Some((ca, _)), true) = (&ca, settings.skips_verify) {
        let message = "with insecure_skip_verify nobody's word is asked for".to_owned();
        wrong(sink, table.at.key("ca"), ca, message, Some("take one of them away".to_owned()));
    } else if let Some((ca, path)) = &ca
        && let Err(why) = believed(Some(path))
    {
        wrong(sink, table.at.key("ca"), ca, why, None);
    }
    if let Some(name) = &table.name
        && let Err(why) = server_name(&name.value.0)
    {
        wrong(sink, table.at.key("name"), name, why, None);
    }
    Some(settings)
}
