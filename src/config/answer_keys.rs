//! The keys of what a route answers itself: `respond` and `redirect`.

use super::names::HeaderText;
use super::paths::{Body, RedirectTo};
use super::tables::table;
use super::values::Int;

table! {
    /// An answer that the gateway gives itself.
    Respond {
        /// 200 to 599.
        default status: Int<200, 599> = 200;
        /// At most 64 KiB.
        default body: Body = "";
        /// The body's media type.
        default content_type: HeaderText = "text/plain; charset=utf-8";
    }
}

table! {
    /// A redirect.
    Redirect {
        /// A URL or a path; {path} (or {path_and_query}) stands for the request's path and query, {host}, {scheme} and {query} for those.
        required to: RedirectTo;
        /// 301, 302, 303, 307 or 308.
        default status: Int<301, 308> = 308;
    }
}
