//! HTML and SVG that is well-formed by construction.
//!
//! Elements nest by closures, so none stays open; text and attributes are escaped where they are written, so there is no place at which a name
//! from a plan or a result could become markup. What is written is XML as well, which is what the tests check it by.

use std::fmt::Write as _;

/// A page as it grows.
#[derive(Debug, Default)]
pub(super) struct Markup {
    text: String,
}

/// Attributes of an element: name and value.
pub(super) type Attributes<'a> = &'a [(&'static str, &'a str)];

impl Markup {
    /// `<tag …>` what `inside` writes `</tag>`.
    pub(super) fn element(&mut self, tag: &'static str, attributes: Attributes, inside: impl FnOnce(&mut Self)) {
        self.open(tag, attributes);
        self.text.push('>');
        inside(self);
        self.text.extend(["</", tag, ">"]);
    }

    /// An element that holds only text.
    pub(super) fn leaf(&mut self, tag: &'static str, attributes: Attributes, text: &str) {
        self.element(tag, attributes, |inner| inner.text(text));
    }

    /// An element without content: `<path …/>`, `<meta …/>`.
    pub(super) fn empty(&mut self, tag: &'static str, attributes: Attributes) {
        self.open(tag, attributes);
        self.text.push_str("/>");
    }

    /// Text, escaped.
    pub(super) fn text(&mut self, text: &str) {
        for symbol in text.chars().map(harmless) {
            match symbol {
                '&' => self.text.push_str("&amp;"),
                '<' => self.text.push_str("&lt;"),
                '>' => self.text.push_str("&gt;"),
                '"' => self.text.push_str("&quot;"),
                '\'' => self.text.push_str("&#39;"),
                _ => self.text.push(symbol),
            }
        }
    }

    /// The style sheet: a constant, which has neither `<` nor `&`.
    pub(super) fn style(&mut self, css: &'static str) {
        debug_assert!(!css.contains(['<', '&']), "a style sheet is written as it is");
        self.text.extend(["<style>", css, "</style>"]);
    }

    /// A line break in the source, where a part of the page begins.
    pub(super) fn line(&mut self) {
        self.text.push('\n');
    }

    /// The page, with what makes it HTML.
    pub(super) fn into_page(self) -> String {
        format!("<!DOCTYPE html>\n{}\n", self.text)
    }

    /// What was written, to be set into another page.
    pub(super) fn into_fragment(self) -> String {
        self.text
    }

    fn open(&mut self, tag: &'static str, attributes: Attributes) {
        self.text.extend(["<", tag]);
        for (name, value) in attributes {
            self.text.extend([" ", name, "=\""]);
            self.text(value);
            self.text.push('"');
        }
    }
}

/// The character, or U+FFFD for one that no page and no terminal should be given: controls, which move a terminal's cursor and are not XML,
/// and marks that turn the direction of the text after them.
pub(super) fn harmless(symbol: char) -> char {
    match symbol {
        '\n' | '\t' => symbol,
        _ if symbol.is_control() => '\u{fffd}',
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}' | '\u{ffff}' => '\u{fffd}',
        _ => symbol,
    }
}

/// A number for an attribute: at most two places after the point, which is a hundredth of a pixel.
pub(super) fn px(value: f64) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write!(text, "{value:.2}");
    let short = text.trim_end_matches('0').trim_end_matches('.');
    if short == "-0" { "0".to_owned() } else { short.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_attributes_cannot_become_markup() {
        let mut page = Markup::default();
        page.leaf("p", &[("title", "\"><script>")], "</p><img src=x onerror='1'> & \u{1b}[2J \u{202e}");
        assert_eq!(
            page.into_fragment(),
            "<p title=\"&quot;&gt;&lt;script&gt;\">&lt;/p&gt;&lt;img src=x onerror=&#39;1&#39;&gt; &amp; \u{fffd}[2J \u{fffd}</p>"
        );
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([px(1.0), px(0.125), px(-0.001), px(10.5)], ["1", "0.12", "0", "10.5"]);
    }
}
