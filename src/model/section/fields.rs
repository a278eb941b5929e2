//! One section as a serde struct: a key is a field's name, and every refusal knows its entry. Not here: the grammar.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::{Section, SectionEntry, is_kind};
use crate::model::nearest::nearest;

/// Longer than any key of ours. A longer unknown "key" is taken for a secret on the wrong line.
const MAX_SHOWN_KEY_BYTES: usize = 32;

/// An error on its way through serde, which does not know where it is: the nearest entry adds it.
#[derive(Debug)]
pub(super) struct FieldFault {
    pub place: Option<(Arc<str>, usize)>,
    pub message: String,
    pub hint: Option<String>,
}

impl FieldFault {
    fn placed(self, entry: &SectionEntry) -> Self {
        Self { place: Some((Arc::clone(&entry.file), entry.line)), ..self }
    }

    /// The fault of this entry's value, unless it has a place already.
    fn of_value(self, entry: &SectionEntry) -> Self {
        match self.place {
            Some(_) => self,
            None => Self::custom(format!("{}: {}", entry.key, self.message)).hinted(self.hint).placed(entry),
        }
    }

    fn hinted(self, hint: Option<String>) -> Self {
        Self { hint, ..self }
    }
}

impl fmt::Display for FieldFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for FieldFault {}

impl serde::de::Error for FieldFault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { place: None, message: message.to_string(), hint: None }
    }

    fn missing_field(key: &'static str) -> Self {
        let hint = format!("add a line '{key} VALUE' to this section");
        Self::custom(format!("'{key}' is missing")).hinted(Some(hint))
    }

    fn unknown_field(key: &str, known: &'static [&'static str]) -> Self {
        let near = did_you_mean(key, known);
        let shown = near.is_some() || (is_kind(key) && key.len() <= MAX_SHOWN_KEY_BYTES);
        let key = if shown { format!("'{key}'") } else { "(hidden, it may be a secret)".into() };
        let list = (!known.is_empty()).then(|| format!("the keys are: {}", known.join(", ")));
        Self::custom(format!("unknown key {key}")).hinted(near.or(list))
    }

    fn unknown_variant(word: &str, known: &'static [&'static str]) -> Self {
        Self::custom(format!("'{word}' is not one of: {}", known.join(", ")))
            .hinted(did_you_mean(word, known))
    }
}

fn did_you_mean(word: &str, known: &[&str]) -> Option<String> {
    nearest(word, known).map(|near| format!("did you mean '{near}'?"))
}

/// A section as serde's map: each key once, with all its entries.
pub(super) struct SectionKeys<'a> {
    rest: std::vec::IntoIter<Values<'a>>,
    next: Option<Values<'a>>,
}

impl<'a> SectionKeys<'a> {
    pub fn of(section: &'a Section) -> Self {
        let mut keys: Vec<Values> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        for entry in &section.entries {
            let place = *places.entry(&entry.key).or_insert(keys.len());
            match keys.get_mut(place) {
                Some(values) => values.more.push(entry),
                None => keys.push(Values { first: entry, more: Vec::new() }),
            }
        }
        Self { rest: keys.into_iter(), next: None }
    }
}

impl<'de> MapAccess<'de> for SectionKeys<'_> {
    type Error = FieldFault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, FieldFault> {
        self.next = self.rest.next();
        let Some(Values { first, .. }) = self.next else { return Ok(None) };
        let key = seed.deserialize(first.key.as_str().into_deserializer());
        key.map(Some).map_err(|fault: FieldFault| fault.placed(first))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, FieldFault> {
        let values = self.next.take().ok_or_else(|| FieldFault::custom("a value without its key"))?;
        let first = values.first;
        seed.deserialize(values).map_err(|fault| fault.of_value(first))
    }
}

/// All entries of one key: for a list its elements, for every other type one value.
struct Values<'a> {
    first: &'a SectionEntry,
    more: Vec<&'a SectionEntry>,
}

impl<'a> Values<'a> {
    fn one(&self) -> Result<&'a str, FieldFault> {
        let first = self.first;
        let Some(second) = self.more.first() else { return Ok(&first.value) };
        let file = if first.file == second.file { "line " } else { &format!("{}:", first.file) };
        let message = format!("'{}' is given twice (first in {file}{})", first.key, first.line);
        let hint = Some("delete one of the two lines".into());
        Err(FieldFault::custom(message).hinted(hint).placed(second))
    }
}

fn boolean(text: &str) -> Result<bool, FieldFault> {
    match text.to_ascii_lowercase().as_str() {
        "" | "1" | "yes" | "true" | "on" => Ok(true),
        "0" | "no" | "false" | "off" => Ok(false),
        _ => Err(FieldFault::custom(format!("'{text}' is not yes or no"))),
    }
}

/// Through i128, which holds every range asked for, so that -1 is out of range and not a non-number.
fn integer<T>(text: &str, least: T, most: T) -> Result<T, FieldFault>
where
    T: TryFrom<i128> + fmt::Display + Copy,
{
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(FieldFault::custom(format!("'{text}' is not a whole number")));
    }
    let number = text.parse::<i128>().ok().and_then(|number| T::try_from(number).ok());
    number.ok_or_else(|| FieldFault::custom(format!("'{text}' is not between {least} and {most}")))
}

fn float(text: &str) -> Result<f64, FieldFault> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
    number.ok_or_else(|| FieldFault::custom(format!("'{text}' is not a number")))
}

macro_rules! deserialize_integers {
    ($($deserialize:ident $visit:ident $type:ident,)*) => {$(
        fn $deserialize<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldFault> {
            visitor.$visit(integer(self.one()?, $type::MIN, $type::MAX)?)
        }
    )*};
}

impl<'de> Deserializer<'de> for Values<'_> {
    type Error = FieldFault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldFault> {
        visitor.visit_str(self.one()?)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldFault> {
        visitor.visit_bool(boolean(self.one()?)?)
    }

    deserialize_integers! {
        deserialize_i8 visit_i8 i8, deserialize_u8 visit_u8 u8,
        deserialize_i16 visit_i16 i16, deserialize_u16 visit_u16 u16,
        deserialize_i32 visit_i32 i32, deserialize_u32 visit_u32 u32,
        deserialize_i64 visit_i64 i64, deserialize_u64 visit_u64 u64,
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldFault> {
        visitor.visit_f64(float(self.one()?)?)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldFault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, FieldFault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldFault> {
        visitor.visit_seq(Elements(std::iter::once(self.first).chain(self.more)))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FieldFault> {
        visitor.visit_enum(self.one()?.into_deserializer())
    }

    /// Refuses an unknown field, also for a struct that does not deny unknown fields.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, FieldFault> {
        Err(FieldFault::unknown_field(&self.first.key, &[]).placed(self.first))
    }

    forward_to_deserialize_any! {
        i128 u128 f32 char str string bytes byte_buf unit unit_struct tuple tuple_struct map struct
        identifier
    }
}

struct Elements<I>(I);

impl<'a, 'de, I: Iterator<Item = &'a SectionEntry>> SeqAccess<'de> for Elements<I> {
    type Error = FieldFault;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, FieldFault> {
        let Some(first) = self.0.next() else { return Ok(None) };
        let element = seed.deserialize(Values { first, more: Vec::new() });
        element.map(Some).map_err(|fault| fault.of_value(first))
    }
}
