//! The reader of this configuration's TOML by itself, for other programs of the workspace that have a file of their own.
//!
//! What makes it worth sharing: all errors are told at once, each with `file:line:column`, the key, the value, what is allowed and what
//! was probably meant; and a table's type, its reader and its JSON schema are written once. [`table`] declares a table, [`words`] a
//! closed list of words, [`scalar_schema`] completes a [`Scalar`] of one's own; [`document`] reads a text. Keys and ranges are the
//! caller's. It is for this workspace: it changes with the configuration, and makes no promise beyond it.

use super::check::report_syntax;
use super::document::Document;
use crate::limits::CONFIG_BYTES_MAX;

pub use super::check::text_of;
pub use super::names::{Cores, Expect, Header, HeaderText, MethodText, Name, Workers};
pub use super::place::{KeyOf, Path, Place};
pub use super::probe::ProbeHost;
pub use super::problem::{Errors, Problem, Refusal, Sink, did_you_mean, listed};
pub use super::read::{List, Map, Node, ObjectSchema, Read, Scalar, TableReader, Written};
pub use super::tables::{key_name, scalar_schema, table};
pub use super::values::{DAY, HOUR, Int, MINUTE, PerTime, SECOND, Share, Size, Time};
pub use super::values::{bytes, integer, measure, number, one_of, text, word, words};
pub use schemars::{JsonSchema, Schema, SchemaGenerator};
pub use serde_json::json;
pub use toml::de::DeValue;

/// Reads a text, which messages call `file_name`, as one table, and hands it to `check`, which compares what concerns more than one key
/// and makes of it what is used. `check` says `None` only when it has reported something.
///
/// # Errors
/// Everything that is wrong with it.
///
/// # Panics
/// `check` says `None` without a report.
pub fn document<T: Read, V>(
    text: &str,
    file_name: &str,
    check: impl FnOnce(&T, &mut Sink<'_>) -> Option<V>,
) -> Result<V, Errors> {
    if text.len() as u64 > CONFIG_BYTES_MAX {
        return Err(Errors::of_file(file_name, format!("larger than {CONFIG_BYTES_MAX} bytes"), None));
    }
    let mut sink = Sink::new(file_name, text);
    let document = match Document::whole(text) {
        Ok(document) => document,
        Err(errors) => {
            report_syntax(&errors, (0, usize::MAX), &mut sink);
            return Err(sink.finish().expect_err("there is at least one"));
        }
    };
    let value = T::read(document.root(), &mut sink).and_then(|table| check(&table, &mut sink));
    sink.finish().map(|()| value.expect("what is missing was reported"))
}

/// The JSON schema of a file (draft 2020-12), as text that ends with a newline.
#[must_use]
pub fn schema_of<T: JsonSchema>(title: &str) -> String {
    let mut schema = SchemaGenerator::default().into_root_schema_for::<T>();
    schema.insert("title".to_owned(), json!(title));
    let mut text = serde_json::to_string_pretty(&schema).expect("a schema is JSON");
    text.push('\n');
    text
}

#[cfg(test)]
#[allow(unreachable_pub, dead_code, reason = "a table as another crate has it, of which this test reads a part")]
mod tests {
    use super::*;

    table! {
        /// A table of somebody else.
        Tea {
            /// Cups, 1 to 9.
            required cups: Int<1, 9>;
            /// Steeped for, 0s to 1h.
            default steeped: Time<0, HOUR> = "3m";
        }
    }

    #[test]
    fn a_file_of_ones_own_is_read_with_all_its_errors() {
        let cups = |tea: &Tea, _: &mut Sink<'_>| Some((tea.cups.as_ref()?.value.0, tea.steeped.as_ref()?.value.0));
        let (count, time) = document::<Tea, _>("cups = 2\n", "tea.toml", cups).expect("it is one");
        assert_eq!((count, time.as_secs()), (2, 180));
        let errors = document::<Tea, _>("cups = 0\nsteped = \"3m\"\n", "tea.toml", cups).unwrap_err().to_string();
        assert!(errors.contains("tea.toml:1:8: cups = 0") && errors.contains("did you mean \"steeped\"?"), "{errors}");
        assert!(document::<Tea, _>("cups = ", "tea.toml", cups).unwrap_err().to_string().contains("not TOML"));
        assert!(schema_of::<Tea>("tea").contains("\"default\": \"3m\""));
    }
}
