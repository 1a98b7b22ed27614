//! Error codes, and how far an error reaches: one stream, or the connection with all of them (RFC 9113 §5.4, §7).

use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $word:literal;)*) => {
        /// Why a stream was reset or a connection ended (RFC 9113 §7).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Code { $($(#[$doc])* $name = $number),* }

        impl Code {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The word for it in logs and metrics.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word),* }
            }
        }
    };
}

codes! {
    /// Nothing is wrong.
    NoError = 0, "no_error";
    /// A rule of the protocol was broken for which there is no better code.
    Protocol = 1, "protocol_error";
    /// A defect of whoever says it.
    Internal = 2, "internal_error";
    /// More was sent than a window had room for.
    FlowControl = 3, "flow_control_error";
    /// Our SETTINGS were not acknowledged in time.
    SettingsTimeout = 4, "settings_timeout";
    /// A frame for a stream whose sender had ended it.
    StreamClosed = 5, "stream_closed";
    /// A frame of a size that it cannot have.
    FrameSize = 6, "frame_size_error";
    /// Nothing was done with the stream: it may be tried again (§8.7).
    RefusedStream = 7, "refused_stream";
    /// The stream is not needed any more.
    Cancel = 8, "cancel";
    /// The dynamic table of HPACK is not what it must be.
    Compression = 9, "compression_error";
    /// The connection of a CONNECT broke.
    Connect = 10, "connect_error";
    /// The peer makes more work than is taken from it.
    EnhanceYourCalm = 11, "enhance_your_calm";
    /// TLS below what HTTP/2 asks for (§9.2).
    InadequateSecurity = 12, "inadequate_security";
    /// Only HTTP/1.1 will do.
    Http11Required = 13, "http_1_1_required";
}

impl Code {
    /// What a frame's 32 bits say. Unknown codes have no meaning of their own (§7) and are read as [`Code::Internal`].
    #[must_use]
    pub fn from_wire(code: u32) -> Self {
        Self::ALL.get(code as usize).copied().unwrap_or(Self::Internal)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What a peer has done wrong, and whom it costs what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// The connection is lost: GOAWAY, and it is closed (§5.4.1).
    Connection(Code),
    /// One stream is: RST_STREAM (§5.4.2).
    Stream(u32, Code),
}

impl Violation {
    /// The code that the peer is told.
    #[must_use]
    pub fn code(self) -> Code {
        match self {
            Self::Connection(code) | Self::Stream(_, code) => code,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_its_place_in_the_list() {
        for (number, code) in Code::ALL.iter().enumerate() {
            assert_eq!((*code as usize, Code::from_wire(number as u32)), (number, *code));
        }
        assert_eq!(Code::from_wire(14), Code::Internal);
        assert_eq!(Code::from_wire(u32::MAX), Code::Internal);
    }
}
