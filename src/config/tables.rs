//! Writes a table's mirror type, its reader and its JSON schema from one list of keys, so that the three cannot disagree.
//!
//! The macros are exported, because other programs of the workspace declare tables of their own ([`super::reading`]); what they write names
//! everything by its whole path, so that it needs no imports where it is used.

/// Writes a table's mirror type, reader and schema.
///
/// Each key is `required`, `optional` (absent is a meaning of its own), `default` (followed by `= literal`, written as in the file)
/// or `table` (absent means: all its defaults). A raw identifier (`r#match`) stands for a key that is a keyword.
#[macro_export]
#[doc(hidden)] // documented as `config::reading::table`
macro_rules! table {
    ($(#[doc = $doc:literal])* $name:ident { $($(#[doc = $key_doc:literal])* $kind:ident $key:ident: $type:ty $(= $default:tt)?;)* }) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug)]
        pub struct $name {
            /// Where the table stands.
            pub at: $crate::config::reading::Place,
            $($(#[doc = $key_doc])* pub $key: Option<$crate::config::reading::Written<$type>>,)*
        }

        impl $name {
            /// The table's keys, in the order of the documentation.
            pub const KEYS: &[&str] = &[$($crate::config::reading::key_name(stringify!($key))),*];
        }

        impl $crate::config::reading::Read for $name {
            fn read(
                node: $crate::config::reading::Node<'_>,
                sink: &mut $crate::config::reading::Sink<'_>,
            ) -> Option<Self> {
                let table = $crate::config::reading::TableReader::open(&node, Self::KEYS, sink)?;
                Some(Self { at: table.place(), $($key: $crate::read_key!($kind table, sink, $key, $type $(, $default)?)),* })
            }
        }

        impl $crate::config::reading::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(
                generator: &mut $crate::config::reading::SchemaGenerator,
            ) -> $crate::config::reading::Schema {
                let mut object = $crate::config::reading::ObjectSchema::new(&[$($doc),*]);
                $($crate::schema_key!($kind object, generator, $key, $type, [$($key_doc),*] $(, $default)?);)*
                object.finish()
            }
        }
    };
}

#[macro_export]
#[doc(hidden)]
macro_rules! read_key {
    (default $table:ident, $sink:ident, $key:ident, $type:ty, $default:tt) => {{
        static DEFAULT: std::sync::OnceLock<$type> = std::sync::OnceLock::new();
        $table.defaulted::<$type>(
            $crate::config::reading::key_name(stringify!($key)),
            stringify!($default),
            &DEFAULT,
            $sink,
        )
    }};
    ($kind:ident $table:ident, $sink:ident, $key:ident, $type:ty) => {
        $table.$kind::<$type>($crate::config::reading::key_name(stringify!($key)), $sink)
    };
}

#[macro_export]
#[doc(hidden)]
macro_rules! schema_key {
    (default $object:ident, $generator:ident, $key:ident, $type:ty, [$($doc:literal),*], $default:tt) => {
        $object.property::<$type>($crate::config::reading::key_name(stringify!($key)), &[$($doc),*], Some(stringify!($default)), $generator)
    };
    (required $object:ident, $generator:ident, $key:ident, $type:ty, [$($doc:literal),*]) => {
        $object.property::<$type>($crate::config::reading::key_name(stringify!($key)), &[$($doc),*], None, $generator);
        $object.require($crate::config::reading::key_name(stringify!($key)))
    };
    ($kind:ident $object:ident, $generator:ident, $key:ident, $type:ty, [$($doc:literal),*]) => {
        $object.property::<$type>($crate::config::reading::key_name(stringify!($key)), &[$($doc),*], None, $generator)
    };
}

/// The key that a field stands for: `r#match` is `match`.
#[must_use]
pub const fn key_name(field: &'static str) -> &'static str {
    match field.as_bytes() {
        [b'r', b'#', ..] => field.split_at(2).1,
        _ => field,
    }
}

/// The schema of scalars, which is always written where it is used.
#[macro_export]
#[doc(hidden)]
macro_rules! scalar_schema {
    ($($type:ident $(<$($parameter:ident),*>)?),* $(,)?) => {$(
        impl $(<$(const $parameter: u64),*>)? $crate::config::reading::JsonSchema for $type $(<$($parameter),*>)? {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn schema_id() -> std::borrow::Cow<'static, str> {
                format!(concat!(stringify!($type), "{:?}"), [0u64 $($(, $parameter)*)?]).into()
            }

            fn json_schema(_: &mut $crate::config::reading::SchemaGenerator) -> $crate::config::reading::Schema {
                let schema = <Self as $crate::config::reading::Scalar>::schema();
                $crate::config::reading::Schema::try_from(schema).expect("scalars have schemas that are objects")
            }
        }
    )*};
}

pub use {scalar_schema, table};
