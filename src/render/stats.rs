//! The `stats` of an element as JSON.

use gst::{glib, prelude::*};
use serde_json::{Map, Value};

/// The property `stats` of `element`; null where it has none.
pub fn of(element: &gst::Element) -> Value {
    if element.find_property("stats").is_none() {
        return Value::Null;
    }
    element.property::<Option<gst::Structure>>("stats").map_or(Value::Null, |s| structure(&s))
}

fn structure(s: &gst::StructureRef) -> Value {
    Value::Object(s.iter().map(|(name, value)| (name.to_string(), json(value))).collect::<Map<_, _>>())
}

fn json(value: &glib::SendValue) -> Value {
    macro_rules! number {
        ($($kind:ty),*) => { $(if let Ok(n) = value.get::<$kind>() { return Value::from(n); })* };
    }
    number!(i32, u32, i64, u64, f32, f64, bool);
    if let Ok(list) = value.get::<gst::Array>() {
        return list.as_slice().iter().map(json).collect();
    }
    if let Ok(inner) = value.get::<gst::Structure>() {
        return structure(&inner);
    }
    if let Ok(text) = value.get::<Option<String>>() {
        return text.map_or(Value::Null, Value::String);
    }
    value.serialize().map_or(Value::Null, |text| Value::String(text.to_string()))
}
