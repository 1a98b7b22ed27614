//! Bytes in, values out: HTTP/1.1 without sockets, clocks or waiting.
