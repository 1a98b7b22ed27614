//! Reads a parsed TOML document into the types of [`super::file`], and never stops at the first error.
//!
//! serde gives up at the first value that does not fit; an operator wants to see all of them. So the document is walked by hand:
//! [`Read`] turns one node into a value or reports what is wrong with it and says `None`, and its neighbours are read all the same.
//! A [`Scalar`] is a value without parts; [`super::tables`] writes a table's type, reader and schema. Nothing here knows a key
//! or a range.

use super::foreign;
use super::place::{Origin, Path, Place};
use super::problem::{Refusal, Sink, is_credential, listed, nearest};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use std::borrow::Cow;
use std::marker::PhantomData;
use std::ops::{Range, RangeInclusive};
use std::sync::OnceLock;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A value and where it stands.
#[derive(Clone, Copy)]
pub struct Node<'a> {
    /// As it was parsed.
    pub value: &'a DeValue<'a>,
    /// Its first byte in the file.
    pub(crate) start: usize,
    /// Behind its last byte in the file.
    pub(crate) end: usize,
    /// The way to it.
    pub path: Path<'a>,
    /// What the spans within `value` count from.
    pub(crate) origin: Origin<'a>,
}

impl<'a> Node<'a> {
    pub(crate) fn new(value: &'a Spanned<DeValue<'a>>, path: Path<'a>, origin: Origin<'a>) -> Self {
        let Range { start, end } = origin.span(value.span());
        Self { value: value.get_ref(), start, end, path, origin }
    }

    /// Bytes of the file where a key of this table stands.
    fn key_span(&self, key: &Spanned<Cow<'_, str>>) -> Range<usize> {
        self.origin.span(key.span())
    }

    /// Bytes of the file.
    #[must_use]
    pub fn span(&self) -> Range<usize> {
        self.start..self.end
    }
}

/// Something that a node can be read as.
pub trait Read: Sized {
    /// The value; or `None`, and `sink` knows why.
    fn read(node: Node<'_>, sink: &mut Sink<'_>) -> Option<Self>;
}

/// A value without parts.
pub trait Scalar: Sized {
    /// What is allowed, so that "must be …" is a sentence.
    fn allowed() -> String;

    /// The value.
    ///
    /// # Errors
    /// Why it is none.
    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal>;

    /// Its JSON schema, as an object.
    fn schema() -> serde_json::Value;
}

impl<T: Scalar> Read for T {
    fn read(node: Node<'_>, sink: &mut Sink<'_>) -> Option<Self> {
        match T::parse(node.value) {
            Ok(value) => Some(value),
            Err(refusal) => {
                sink.refuse(node.path, node.start, Some(node.span()), T::allowed(), refusal);
                None
            }
        }
    }
}

/// A value of the file, with its place for the checks that need more than one value.
#[derive(Clone, Debug)]
pub struct Written<T> {
    /// The value.
    pub value: T,
    /// Where it stands, in bytes of the file; of its table when it is a default.
    pub span: Range<usize>,
    /// False when it is the default.
    pub given: bool,
}

/// Between `MIN` and `MAX` values of one kind.
#[derive(Clone, Debug)]
pub struct List<T, const MIN: usize, const MAX: usize>(pub Vec<Written<T>>);

impl<T: Read, const MIN: usize, const MAX: usize> Read for List<T, MIN, MAX> {
    fn read(node: Node<'_>, sink: &mut Sink<'_>) -> Option<Self> {
        let mut list = Vec::with_capacity(node.value.as_array().map_or(0, |array| array.len().min(MAX)));
        each(node, MIN..=MAX, sink, |_, entry, _| list.push(entry))?;
        Some(Self(list))
    }
}

/// Reads the entries of a list one after the other and hands each on; says how many there are if there are not too few or too many.
pub(crate) fn each<T: Read>(
    node: Node<'_>,
    allowed: RangeInclusive<usize>,
    sink: &mut Sink<'_>,
    mut visit: impl FnMut(usize, Written<T>, &mut Sink<'_>),
) -> Option<usize> {
    let DeValue::Array(array) = node.value else {
        match node.value {
            DeValue::Table(_) if !sink.is_inline(node.start) => {
                let help = format!("write [[{}]]", node.path.without_rows());
                sink.place(node.path, node.start, "must be a list of tables".to_owned(), Some(help));
            }
            value => {
                let bracketed = matches!(value, DeValue::String(_) | DeValue::Table(_));
                let help = bracketed.then(|| "put it in brackets: [ … ]".to_owned());
                sink.value(node.path, node.span(), "must be a list".to_owned(), help);
            }
        }
        return None;
    };
    if !allowed.contains(&array.len()) {
        let message = format!("{} entries; must be {} to {}", array.len(), allowed.start(), allowed.end());
        sink.value(node.path, node.span(), message, None);
        return None;
    }
    for (index, value) in array.iter().enumerate() {
        let entry = Node::new(value, Path::Index(&node.path, index), node.origin);
        if let Some(value) = T::read(entry, sink) {
            visit(index, Written { value, span: entry.span(), given: true }, sink);
        }
    }
    Some(array.len())
}

impl<T: JsonSchema, const MIN: usize, const MAX: usize> JsonSchema for List<T, MIN, MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("List_{MIN}_{MAX}_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let items = serde_json::Value::from(generator.subschema_for::<T>());
        schemars::json_schema!({ "type": "array", "items": items, "minItems": MIN, "maxItems": MAX })
    }
}

/// A list as [`List`], whose entries are read one by one when their turn comes, and not with the table that it stands in: so many that
/// it matters what all of them together take.
#[derive(Clone, Copy, Debug)]
pub struct Later<T, const MIN: usize, const MAX: usize>(PhantomData<T>);

impl<T, const MIN: usize, const MAX: usize> Read for Later<T, MIN, MAX> {
    fn read(_: Node<'_>, _: &mut Sink<'_>) -> Option<Self> {
        Some(Self(PhantomData))
    }
}

impl<T: JsonSchema, const MIN: usize, const MAX: usize> JsonSchema for Later<T, MIN, MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        List::<T, MIN, MAX>::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        List::<T, MIN, MAX>::json_schema(generator)
    }
}

/// Up to `MAX` keys of the user's choice with their values, in file order.
#[derive(Clone, Debug)]
pub struct Map<K, V, const MAX: usize>(pub Vec<(Written<K>, Written<V>)>);

impl<K: Scalar, V: Read, const MAX: usize> Read for Map<K, V, MAX> {
    fn read(node: Node<'_>, sink: &mut Sink<'_>) -> Option<Self> {
        let DeValue::Table(table) = node.value else {
            sink.value(node.path, node.span(), "must be a table".to_owned(), None);
            return None;
        };
        if table.len() > MAX {
            sink.value(node.path, node.span(), format!("{} entries; must be at most {MAX}", table.len()), None);
            return None;
        }
        let mut map = Vec::with_capacity(table.len());
        for (key, value) in in_file_order(table) {
            let path = Path::Key(&node.path, key.get_ref());
            let name = K::parse(&DeValue::String(Cow::Borrowed(key.get_ref())));
            let name = name.map_err(|refusal| sink.refuse(path, node.key_span(key).start, None, K::allowed(), refusal));
            let entry = Node::new(value, path, node.origin);
            let value = V::read(entry, sink);
            map.extend(name.ok().zip(value).map(|(name, value)| {
                let name = Written { value: name, span: node.key_span(key), given: true };
                (name, Written { value, span: entry.span(), given: true })
            }));
        }
        Some(Self(map))
    }
}

impl<K, V: JsonSchema, const MAX: usize> JsonSchema for Map<K, V, MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Map_{MAX}_{}", V::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let values = serde_json::Value::from(generator.subschema_for::<V>());
        schemars::json_schema!({ "type": "object", "additionalProperties": values, "maxProperties": MAX })
    }
}

/// The parser sorts keys by name; people and precedence go by where they stand.
fn in_file_order<'a>(table: &'a DeTable<'a>) -> Vec<(&'a Spanned<Cow<'a, str>>, &'a Spanned<DeValue<'a>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

/// The key that somebody means who writes a text for a whole table.
fn main_key(keys: &[&str]) -> Option<&'static str> {
    ["address", "rate", "to", "body", "path"].into_iter().find(|key| keys.contains(key))
}

/// One table while it is read.
pub struct TableReader<'a> {
    node: Node<'a>,
    table: &'a DeTable<'a>,
}

impl<'a> TableReader<'a> {
    /// `None` when the node is no table; keys that are not among `keys` are reported.
    pub fn open(node: &Node<'a>, keys: &[&str], sink: &mut Sink<'_>) -> Option<Self> {
        let DeValue::Table(table) = node.value else {
            // a key of this table where the table's name should stand: [upstream] for [upstream.NAME]
            let help = match node.path {
                Path::Key(parent, key) if keys.contains(&key) => Some(format!("write [{parent}.NAME] above it")),
                _ if is_credential(&node.path.text()) => None,
                _ => node.value.as_str().zip(main_key(keys)).map(|(text, key)| format!("write {{ {key} = {text:?} }}")),
            };
            sink.value(node.path, node.span(), "must be a table".to_owned(), help);
            return None;
        };
        let is_unknown = |key: &Spanned<Cow<'_, str>>| !keys.contains(&key.get_ref().as_ref());
        let unknown = if table.keys().any(is_unknown) { in_file_order(table) } else { Vec::new() };
        for (key, _) in unknown.iter().filter(|(key, _)| is_unknown(key)) {
            let path = Path::Key(&node.path, key.get_ref());
            let message = format!("unknown key; known here: {}", listed(keys));
            let near = || nearest(key.get_ref(), keys.iter().copied()).map(|near| format!("did you mean {near:?}?"));
            let help = foreign::key(key.get_ref()).or_else(near);
            sink.place(path, node.key_span(key).start, message, help);
        }
        Some(Self { node: *node, table })
    }

    /// Where the table stands.
    #[must_use]
    pub fn place(&self) -> Place {
        Place { path: self.node.path.text(), offset: self.node.start }
    }

    /// The key's value; `None` when it is absent or wrong.
    pub fn optional<T: Read>(&self, key: &str, sink: &mut Sink<'_>) -> Option<Written<T>> {
        self.given(key, self.table.get(key)?, sink)
    }

    /// The key's value; absent is an error.
    pub fn required<T: Read>(&self, key: &str, sink: &mut Sink<'_>) -> Option<Written<T>> {
        let Some(value) = self.table.get(key) else {
            let path = Path::Key(&self.node.path, key);
            sink.place(path, self.node.start, "missing: this key has no default".to_owned(), None);
            return None;
        };
        self.given(key, value, sink)
    }

    /// The key's value, or the default that is written in `text`, which is read once.
    pub fn defaulted<T: Read + Clone>(
        &self,
        key: &str,
        text: &'static str,
        cell: &OnceLock<T>,
        sink: &mut Sink<'_>,
    ) -> Option<Written<T>> {
        if let Some(value) = self.table.get(key) {
            return self.given(key, value, sink);
        }
        let value = cell.get_or_init(|| read_default(text)).clone();
        Some(Written { value, span: self.node.span(), given: false })
    }

    /// The key's table; an absent one is read as an empty one, so that it consists of defaults.
    pub fn table<T: Read>(&self, key: &str, sink: &mut Sink<'_>) -> Option<Written<T>> {
        if let Some(value) = self.table.get(key) {
            return self.given(key, value, sink);
        }
        let empty = DeValue::Table(DeTable::new());
        let path = Path::Key(&self.node.path, key);
        let value = T::read(Node { value: &empty, end: self.node.start, path, ..self.node }, sink)?;
        Some(Written { value, span: self.node.span(), given: false })
    }

    fn given<T: Read>(&self, key: &str, value: &'a Spanned<DeValue<'a>>, sink: &mut Sink<'_>) -> Option<Written<T>> {
        let node = Node::new(value, Path::Key(&self.node.path, key), self.node.origin);
        let value = T::read(node, sink)?;
        Some(Written { value, span: node.span(), given: true })
    }
}

/// A default is written as the file would write it and read as the file is, so that it obeys the same range.
fn read_default<T: Read>(text: &'static str) -> T {
    let value = DeValue::parse(text).unwrap_or_else(|error| panic!("default {text} is not TOML: {error}"));
    let mut sink = Sink::new("default", text);
    let read = T::read(Node::new(&value, Path::Root, Origin::FILE), &mut sink);
    read.unwrap_or_else(|| panic!("default {text} is not allowed: {:?}", sink.finish()))
}

/// The JSON schema of a table, key by key.
pub struct ObjectSchema {
    description: String,
    properties: serde_json::Map<String, serde_json::Value>,
    required: Vec<&'static str>,
}

impl ObjectSchema {
    /// A table without keys; `doc` says what it is.
    #[must_use]
    pub fn new(doc: &[&str]) -> Self {
        Self { description: prose(doc), properties: serde_json::Map::new(), required: Vec::new() }
    }

    /// One key; `default` as the file would write it, which is JSON too.
    pub fn property<T: JsonSchema>(
        &mut self,
        key: &'static str,
        doc: &[&str],
        default: Option<&str>,
        generator: &mut SchemaGenerator,
    ) {
        let mut schema = serde_json::Value::from(generator.subschema_for::<T>());
        schema["description"] = prose(doc).into();
        if let Some(text) = default {
            schema["default"] = serde_json::from_str(text).expect("defaults are literals that TOML and JSON share");
        }
        self.properties.insert(key.to_owned(), schema);
    }

    /// The key has no default.
    pub fn require(&mut self, key: &'static str) {
        self.required.push(key);
    }

    /// The schema.
    #[must_use]
    pub fn finish(self) -> Schema {
        schemars::json_schema!({
            "type": "object",
            "description": self.description,
            "properties": self.properties,
            "required": self.required,
            "additionalProperties": false,
        })
    }
}

fn prose(doc: &[&str]) -> String {
    doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}
