//! What the two ends of a connection have told each other about it (RFC 9113 §6.5).

use super::code::Code;
use super::dynamic_table::TABLE_BYTES_MAX;
use super::frame::{self, FRAME_BYTES_MAX};
use super::window::WINDOW_MAX;

/// SETTINGS_HEADER_TABLE_SIZE
const HEADER_TABLE_SIZE: u16 = 1;
/// SETTINGS_ENABLE_PUSH
const ENABLE_PUSH: u16 = 2;
/// SETTINGS_MAX_CONCURRENT_STREAMS
const MAX_CONCURRENT_STREAMS: u16 = 3;
/// SETTINGS_INITIAL_WINDOW_SIZE
const INITIAL_WINDOW_SIZE: u16 = 4;
/// SETTINGS_MAX_FRAME_SIZE
const MAX_FRAME_SIZE: u16 = 5;
/// SETTINGS_MAX_HEADER_LIST_SIZE
const MAX_HEADER_LIST_SIZE: u16 = 6;
/// SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 8441 §3)
const ENABLE_CONNECT_PROTOCOL: u16 = 8;
/// SETTINGS_NO_RFC7540_PRIORITIES (RFC 9218 §2.1)
const NO_RFC7540_PRIORITIES: u16 = 9;
/// What §6.5.2 recommends as the least that a server should allow.
const STREAMS_ASSUMED: u32 = 100;
/// Bytes of one setting.
const SETTING_BYTES: usize = 6;

/// What a client has asked of us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerSettings {
    /// Bytes of DATA that a new stream may be sent before it gives more room.
    pub window: u32,
    /// The largest frame that it takes, 2¹⁴ to 2²⁴ − 1.
    pub frame_max: u32,
    /// Streams that it takes at once; before it has said, as many as most servers do.
    pub streams_max: u32,
    /// It has said that it takes pushes.
    pub is_push_enabled: bool,
    /// It has said that it takes extended CONNECT (RFC 8441).
    pub takes_connect: bool,
    /// It has said that it keeps a smaller table for what we send than it would without a word.
    pub has_small_table: bool,
}

impl Default for PeerSettings {
    /// What holds before anything was said (§6.5.2).
    fn default() -> Self {
        Self {
            window: 65_535,
            frame_max: FRAME_BYTES_MAX as u32,
            streams_max: STREAMS_ASSUMED,
            is_push_enabled: false,
            takes_connect: false,
            has_small_table: false,
        }
    }
}

impl PeerSettings {
    /// Takes the payload of a SETTINGS frame. What is unknown is passed over.
    ///
    /// # Errors
    /// A length that is no multiple of a setting's, or a value out of its range; the connection is lost.
    pub(super) fn apply(&mut self, payload: &[u8]) -> Result<(), Code> {
        let (settings, rest) = payload.as_chunks::<SETTING_BYTES>();
        if !rest.is_empty() {
            return Err(Code::FrameSize);
        }
        for &[i, d, a, b, c, e] in settings {
            let value = u32::from_be_bytes([a, b, c, e]);
            match u16::from_be_bytes([i, d]) {
                // we have no table to make smaller, but must say so
                HEADER_TABLE_SIZE => self.has_small_table |= value < TABLE_BYTES_MAX as u32,
                ENABLE_PUSH if value > 1 => return Err(Code::Protocol),
                ENABLE_PUSH => self.is_push_enabled = value == 1,
                MAX_CONCURRENT_STREAMS => self.streams_max = value,
                INITIAL_WINDOW_SIZE if value > WINDOW_MAX => return Err(Code::FlowControl),
                INITIAL_WINDOW_SIZE => self.window = value,
                MAX_FRAME_SIZE if !(1 << 14..1 << 24).contains(&value) => return Err(Code::Protocol),
                MAX_FRAME_SIZE => self.frame_max = value,
                ENABLE_CONNECT_PROTOCOL if value > 1 => return Err(Code::Protocol),
                // RFC 8441 §3: what was said once cannot be taken back
                ENABLE_CONNECT_PROTOCOL => self.takes_connect |= value == 1,
                _ => {}
            }
        }
        Ok(())
    }
}

/// What we tell a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnSettings {
    /// Streams that it may have at once, at least 1.
    pub streams_max: u32,
    /// Bytes of DATA that it may send on a new stream, up to 2³¹ − 1.
    pub window: u32,
    /// The same for all streams together, at least 65,535.
    pub connection_window: u32,
    /// Bytes of a head as [`super::section::Bounds`] counts them.
    pub head_bytes_max: u32,
    /// Fields of a head.
    pub fields_max: usize,
}

impl OwnSettings {
    /// What we tell an endpoint: that it pushes nothing, and what it may send.
    pub(super) fn push_asking(&self, out: &mut Vec<u8>) {
        self.push_all(out, &[(ENABLE_PUSH, 0)]);
    }

    /// Appends SETTINGS, which say that PRIORITY is without effect, and WINDOW_UPDATE where the connection's window is larger than it is without being told (§6.9.2).
    pub(super) fn push(&self, out: &mut Vec<u8>) {
        let ours =
            [(MAX_CONCURRENT_STREAMS, self.streams_max), (ENABLE_CONNECT_PROTOCOL, 1), (NO_RFC7540_PRIORITIES, 1)];
        self.push_all(out, &ours);
    }

    fn push_all(&self, out: &mut Vec<u8>, first: &[(u16, u32)]) {
        let others = [(INITIAL_WINDOW_SIZE, self.window), (MAX_HEADER_LIST_SIZE, self.head_bytes_max)];
        frame::push_head(out, SETTING_BYTES * (first.len() + others.len()), frame::Kind::Settings, 0, 0);
        for &(id, value) in first.iter().chain(&others) {
            out.extend_from_slice(&id.to_be_bytes());
            out.extend_from_slice(&value.to_be_bytes());
        }
        let more = self.connection_window.saturating_sub(PeerSettings::default().window);
        if more > 0 {
            frame::push_window_update(out, 0, more);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_told_that_its_priorities_are_without_effect_and_an_endpoint_is_not() {
        let own =
            OwnSettings { streams_max: 7, window: 65_535, connection_window: 65_535, head_bytes_max: 9, fields_max: 1 };
        let (mut down, mut up) = (Vec::new(), Vec::new());
        own.push(&mut down);
        own.push_asking(&mut up);
        let told = |frame: &[u8]| frame[9..].as_chunks::<SETTING_BYTES>().0.contains(&[0, 9, 0, 0, 0, 1]);
        assert_eq!((told(&down), told(&up)), (true, false));
    }

    #[test]
    fn settings_have_ranges() {
        let setting = |id: u16, value: u32| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
        let applied = |payload: &[u8]| {
            let mut settings = PeerSettings::default();
            settings.apply(payload).map(|()| (settings.window, settings.frame_max))
        };
        assert_eq!(applied(&[]), Ok((65_535, 16_384)));
        assert_eq!(applied(&setting(4, 0)), Ok((0, 16_384)));
        assert_eq!(applied(&setting(4, WINDOW_MAX)), Ok((WINDOW_MAX, 16_384)));
        assert_eq!(applied(&setting(4, WINDOW_MAX + 1)), Err(Code::FlowControl));
        assert_eq!(applied(&setting(5, 16_384)), Ok((65_535, 16_384)));
        assert_eq!(applied(&setting(5, 16_383)), Err(Code::Protocol));
        assert_eq!(applied(&setting(5, 1 << 24)), Err(Code::Protocol));
        assert_eq!(applied(&setting(5, (1 << 24) - 1)), Ok((65_535, (1 << 24) - 1)));
        assert_eq!(applied(&setting(2, 2)), Err(Code::Protocol));
        assert_eq!(applied(&setting(8, 2)), Err(Code::Protocol));
        let mut settings = PeerSettings::default();
        assert!(settings.apply(&[setting(8, 1), setting(8, 0)].concat()).is_ok() && settings.takes_connect);
        assert_eq!(applied(&[setting(2, 1), setting(0xabcd, 7), setting(4, 9)].concat()), Ok((9, 16_384)));
        assert_eq!(applied(&[0; 5]), Err(Code::FrameSize));
    }
}
