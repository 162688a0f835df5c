//! Statistics as fields of a `GstStructure`.

use gst::glib::value::FromValue;

/// A value with a place in a structure: a number, several under one name, or a structure inside.
pub trait Field: Default {
    fn write(&self, name: &str, s: &mut gst::StructureRef);

    /// What [`write`](Field::write) wrote, the default where it is missing.
    fn read(name: &str, s: &gst::StructureRef) -> Self;
}

/// The number called `name`, the default where it is missing.
pub fn read<T: Default + for<'a> FromValue<'a>>(s: &gst::StructureRef, name: &str) -> T {
    s.get(name).unwrap_or_default()
}

macro_rules! number {
    ($($kind:ty),*) => { $(
        impl Field for $kind {
            fn write(&self, name: &str, s: &mut gst::StructureRef) {
                s.set(name, *self);
            }

            fn read(name: &str, s: &gst::StructureRef) -> Self {
                read(s, name)
            }
        }
    )* };
}

number!(u64, i64, f64);

/// Makes a type for statistics, a field a line, with `to_structure` and `from_structure`: in the structure a `_` of a
/// field's name is a `-`.
macro_rules! statistics {
    (
        $(#[$doc:meta])*
        pub struct $type:ident = $structure:literal {
            $($(#[$field_doc:meta])* pub $field:ident: $kind:ty,)*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $type {
            $($(#[$field_doc])* pub $field: $kind,)*
        }

        impl $type {
            /// What the property `stats` gives.
            pub fn to_structure(&self) -> gst::Structure {
                let mut s = gst::Structure::new_empty($structure);
                $($crate::stats::Field::write(&self.$field, &stringify!($field).replace('_', "-"), &mut s);)*
                s
            }

            /// What the property `stats` gave; fields that are missing have their defaults.
            pub fn from_structure(s: &gst::StructureRef) -> Self {
                Self { $($field: $crate::stats::Field::read(&stringify!($field).replace('_', "-"), s),)* }
            }
        }

        impl $crate::stats::Field for $type {
            fn write(&self, name: &str, s: &mut gst::StructureRef) {
                s.set(name, self.to_structure());
            }

            fn read(name: &str, s: &gst::StructureRef) -> Self {
                s.get::<gst::Structure>(name).map(|inner| Self::from_structure(&inner)).unwrap_or_default()
            }
        }
    };
}

pub(crate) use statistics;
