//! Export and import of the configuration as YAML or JSON. Every value is text, as in the section files, so that an
//! export can be imported without a change. Not here: who may write which file (the caller).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use anyhow::Result;
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Deserializer, Serialize};
use serde_saphyr::Spanned;

use super::{Config, fault};
use crate::model::secret::MASK;
use crate::model::section::{Section, SectionEntry, SyntaxError, parse, to_text};

/// Version of the document format. It is increased when an older program cannot read the new form.
const FORMAT: u64 = 1;
/// Size limit; a real configuration is much smaller.
pub const MAX_BYTES: u64 = 4 << 20;
const HINT: &str = "`pbx-config config export` shows the form";

/// Document that `config export` prints.
#[derive(Debug, Serialize)]
pub struct Document {
    format: u64,
    sections: Vec<Exported>,
}

#[derive(Debug, Serialize)]
struct Exported {
    kind: String,
    id: String,
    #[serde(skip_serializing_if = "Keys::is_empty")]
    keys: Keys,
    /// Masked, unless the export reveals secrets.
    #[serde(skip_serializing_if = "Keys::is_empty")]
    secrets: Keys,
}

/// Keys in the order of the section. A key that repeats is a list.
#[derive(Debug, Default)]
struct Keys(Vec<(String, Vec<String>)>);

impl Keys {
    fn of<'a>(entries: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut keys: Vec<(String, Vec<String>)> = Vec::new();
        for (key, value) in entries {
            match keys.iter_mut().find(|(known, _)| known == key) {
                Some((_, values)) => values.push(value.to_owned()),
                None => keys.push((key.to_owned(), vec![value.to_owned()])),
            }
        }
        Self(keys)
    }

    #[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Keys {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, values) in &self.0 {
            match &values[..] {
                [one] => map.serialize_entry(key, one)?,
                many => map.serialize_entry(key, many)?,
            }
        }
        map.end()
    }
}

/// Exports the sections of the files, without the defaults. Secrets are masked unless `reveal`.
pub fn export(config: &Config, reveal: bool) -> Document {
    let sections = config.sections.iter().filter(|section| config.files.iter().any(|f| **f == *section.file));
    let exported = sections.map(|section| {
        let (secret, public): (Vec<&SectionEntry>, Vec<&SectionEntry>) =
            section.entries.iter().partition(|entry| entry.private);
        Exported {
            kind: section.kind.clone(),
            id: section.id.clone(),
            keys: Keys::of(public.iter().map(|entry| (&*entry.key, &*entry.value))),
            secrets: Keys::of(
                secret.iter().map(|entry| (&*entry.key, if reveal { &*entry.value } else { MASK })),
            ),
        }
    });
    Document { format: FORMAT, sections: exported.collect() }
}

impl Document {
    pub fn yaml(&self) -> Result<String> {
        Ok(serde_saphyr::to_string(self)?)
    }

    /// Returns the number of secrets in it, masked or not.
    pub fn secrets(&self) -> usize {
        self.sections.iter().flat_map(|section| &section.secrets.0).map(|(_, values)| values.len()).sum()
    }
}

/// Sections read from a document, with their line numbers there.
#[derive(Debug)]
pub struct Imported {
    pub sections: Vec<Section>,
}

impl Imported {
    /// Reads a document. Errors: `Usage` with file and line, never with a value: it may be a secret.
    pub fn parse(name: &str, text: &str, known: &KnownSecrets) -> Result<Self> {
        let file: Arc<str> = name.into();
        // JSON is a subset of YAML, and gets its line numbers this way.
        let document: Read = serde_saphyr::from_str(text).map_err(|error| {
            let line = error.location().map_or(1, |at| line(&at));
            let message = format!("cannot be read as a configuration: {}", reason(&error));
            fault(SyntaxError::new(&file, line, message).hinted(HINT))
        })?;
        if document.format.value != FORMAT {
            let message = format!("has format {}, this version reads {FORMAT}", document.format.value);
            let at = line(&document.format.referenced);
            return Err(fault(SyntaxError::new(&file, at, message).hinted("upgrade proxmox-backup-extra")));
        }
        let reader = Reader { text, file, known };
        let sections = document.sections.into_iter().map(|read| reader.section(read));
        let sections = sections.collect::<Result<Vec<_>, _>>().map_err(fault)?;
        reader.check_twice(&sections).map_err(fault)?;
        Ok(Self { sections })
    }

    /// Returns the two section files: the public one, and the secrets, None when there are none.
    pub fn files(&self) -> (String, Option<String>) {
        let part = |secret: bool| -> Vec<Section> {
            let of = |section: &Section| {
                let entries = section.entries.iter().filter(|entry| entry.private == secret);
                Section { entries: entries.cloned().collect(), ..section.clone() }
            };
            self.sections.iter().map(of).filter(|section| !secret || !section.entries.is_empty()).collect()
        };
        let secrets = part(true);
        (to_text(&part(false)), (!secrets.is_empty()).then(|| to_text(&secrets)))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    format: Spanned<u64>,
    #[serde(default)]
    sections: Vec<ReadSection>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadSection {
    kind: Spanned<String>,
    id: Spanned<String>,
    #[serde(default)]
    keys: ReadKeys,
    #[serde(default)]
    secrets: ReadKeys,
}

#[derive(Default)]
struct ReadKeys(Vec<(String, Spanned<ReadValue>)>);

impl<'de> Deserialize<'de> for ReadKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = ReadKeys;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("keys with their values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ReadKeys, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(ReadKeys(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

enum ReadValue {
    Text(String),
    /// A number or a boolean of YAML. The spelling in the document counts, not the value.
    Plain,
    Nothing,
    List(Vec<Spanned<ReadValue>>),
}

impl<'de> Deserialize<'de> for ReadValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = ReadValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value or a list of values")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ReadValue, E> {
                Ok(ReadValue::Text(text.to_owned()))
            }

            fn visit_bool<E: de::Error>(self, _: bool) -> Result<ReadValue, E> {
                Ok(ReadValue::Plain)
            }

            fn visit_i64<E: de::Error>(self, _: i64) -> Result<ReadValue, E> {
                Ok(ReadValue::Plain)
            }

            fn visit_u64<E: de::Error>(self, _: u64) -> Result<ReadValue, E> {
                Ok(ReadValue::Plain)
            }

            fn visit_i128<E: de::Error>(self, _: i128) -> Result<ReadValue, E> {
                Ok(ReadValue::Plain)
            }

            fn visit_u128<E: de::Error>(self, _: u128) -> Result<ReadValue, E> {
                Ok(ReadValue::Plain)
            }

            fn visit_f64<E: de::Error>(self, _: f64) -> Result<ReadValue, E> {
                Ok(ReadValue::Plain)
            }

            fn visit_unit<E: de::Error>(self) -> Result<ReadValue, E> {
                Ok(ReadValue::Nothing)
            }

            fn visit_none<E: de::Error>(self) -> Result<ReadValue, E> {
                Ok(ReadValue::Nothing)
            }

            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<ReadValue, D::Error> {
                deserializer.deserialize_any(Self)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<ReadValue, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = list.next_element()? {
                    values.push(value);
                }
                Ok(ReadValue::List(values))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// Describes an error in our own words. The parser's message may repeat a value, which may be a secret.
fn reason(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error;
    let name = |text: &str| {
        let is_name = text.len() <= 40 && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
        if is_name { format!("'{text}'") } else { "this key".to_owned() }
    };

    match error.without_snippet() {
        Error::AliasError { error, .. } => reason(error),
        Error::DuplicateMappingKey { key, .. } => {
            format!("{} is given twice", name(key.as_deref().unwrap_or(" ")))
        }
        Error::SerdeUnknownField { field, expected, .. } => {
            format!("{} is not allowed here, only {}", name(field), expected.join(", "))
        }
        Error::SerdeMissingField { field, .. } => format!("'{field}' is missing"),
        Error::MultipleDocuments { .. } => "it contains more than one document".to_owned(),
        Error::Eof { .. } => "it ends too early".to_owned(),
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. } => {
            "it is nested too deeply or has too many references".to_owned()
        }
        Error::SerdeInvalidType { .. } | Error::Unexpected { .. } | Error::InvalidScalar { .. } => {
            "this value has the wrong type".to_owned()
        }
        _ => "this is neither YAML nor JSON".to_owned(),
    }
}

fn line(at: &serde_saphyr::Location) -> usize {
    usize::try_from(at.line()).unwrap_or(1).max(1)
}

/// Converts values into those of section files.
struct Reader<'a> {
    text: &'a str,
    file: Arc<str>,
    /// Secrets that a mask stands for.
    known: &'a KnownSecrets,
}

impl Reader<'_> {
    fn section(&self, read: ReadSection) -> Result<Section, SyntaxError> {
        let (kind, id) = (read.kind.value, read.id.value);
        let at = line(&read.kind.referenced);
        // The grammar decides which words can be a header.
        let header = parse(&self.file, &format!("{kind}: {id}\n"));
        let is_header = header.is_ok_and(
            |found| matches!(&found[..], [one] if one.kind == kind && one.id == id && one.entries.is_empty()),
        );
        if !is_header {
            let error = SyntaxError::new(&self.file, at, "this is not the kind and id of a section");
            return Err(
                error.hinted("a kind has lower-case letters, digits and '-'; an id may also have . _ @")
            );
        }

        let mut section = Section { kind, id, file: Arc::clone(&self.file), line: at, entries: Vec::new() };
        for (keys, private) in [(read.keys, false), (read.secrets, true)] {
            for (key, value) in keys.0 {
                let values = match value.value {
                    ReadValue::List(values) => values,
                    one => vec![Spanned { value: one, ..value }],
                };
                let mut kept = if private { self.kept(&section, &key, &values)? } else { &[] }.iter();
                for value in values {
                    let entry = self.entry(&key, &value, private, &mut kept)?;
                    section.entries.push(entry);
                }
            }
        }

        Ok(section)
    }

    /// Returns the secrets that the masks of a key stand for, in their order.
    fn kept(
        &self,
        section: &Section,
        key: &str,
        values: &[Spanned<ReadValue>],
    ) -> Result<&[String], SyntaxError> {
        let masks: Vec<_> = values.iter().filter(|value| is_mask(value)).collect();
        let Some(first) = masks.first() else { return Ok(&[]) };
        let name = (section.kind.clone(), section.id.clone(), key.to_owned());
        let known = self.known.get(&name).map_or(&[][..], Vec::as_slice);
        if known.len() == masks.len() {
            return Ok(known);
        }

        let (kind, id) = (&section.kind, &section.id);
        let message = match (known.len(), masks.len()) {
            (0, 1) => format!("{kind} '{id}': the secret is masked, and this host has no such secret"),
            (there, here) => {
                format!("{kind} '{id}': {key}: {here} masked secrets, but this host has {there}")
            }
        };
        let error = SyntaxError::new(&self.file, line(&first.referenced), message);
        Err(error.hinted("export it with --secrets, or enter the secret here"))
    }

    fn entry(
        &self,
        key: &str,
        value: &Spanned<ReadValue>,
        private: bool,
        kept: &mut std::slice::Iter<String>,
    ) -> Result<SectionEntry, SyntaxError> {
        let at = line(&value.referenced);
        let refused = |message: &str| SyntaxError::new(&self.file, at, message);
        let text = match &value.value {
            ReadValue::Text(text) => text.as_str(),
            ReadValue::Nothing => "",
            ReadValue::Plain => self.spelled(value).ok_or_else(|| refused("put this value in quotes"))?,
            ReadValue::List(_) => return Err(refused("a list inside a list is not allowed").hinted(HINT)),
        };
        let text = if is_mask(value) { kept.next().map_or(text, String::as_str) } else { text };

        // A value that a section file would give back changed is rejected.
        let one = parse(&self.file, &format!("x: x\n\t{key} {text}\n"));
        let same = one.is_ok_and(|sections| {
            matches!(&sections[..], [one] if matches!(&one.entries[..], [e] if e.key == key && e.value == text))
        });
        if !same {
            let error = refused("this key or value does not fit on one line of a section file");
            return Err(
                error.hinted("a value is plain text without line breaks, and without blanks at its ends")
            );
        }

        let file = Arc::clone(&self.file);
        Ok(SectionEntry { key: key.to_owned(), value: text.to_owned(), file, line: at, private })
    }

    /// Returns a plain scalar as it was typed: `007` is not 7, and `yes` is not `true`.
    fn spelled(&self, value: &Spanned<ReadValue>) -> Option<&str> {
        let (start, len) = (value.defined.span().byte_offset()?, value.defined.span().byte_len()?);
        let (start, len) = (usize::try_from(start).ok()?, usize::try_from(len).ok()?);
        let text = self.text.get(start..start.checked_add(len)?)?.trim();
        let plain = |c: char| c.is_ascii_alphanumeric() || "+-._".contains(c);
        (!text.is_empty() && text.chars().all(plain)).then_some(text)
    }

    fn check_twice(&self, sections: &[Section]) -> Result<(), SyntaxError> {
        let mut first: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for section in sections {
            if let Some(line) = first.insert((&section.kind, &section.id), section.line) {
                let message =
                    format!("{} '{}': defined twice (first in line {line})", section.kind, section.id);
                return Err(SyntaxError::new(&self.file, section.line, message).hinted("delete one of them"));
            }
        }
        Ok(())
    }
}

fn is_mask(value: &Spanned<ReadValue>) -> bool {
    matches!(&value.value, ReadValue::Text(text) if text == MASK)
}

/// Secrets of secrets.cfg by kind, id and key. A key that repeats has several.
pub type KnownSecrets = BTreeMap<(String, String, String), Vec<String>>;

pub fn secrets(config: &Config) -> KnownSecrets {
    let mut known = KnownSecrets::new();
    for section in &config.sections {
        for entry in section.entries.iter().filter(|entry| entry.private) {
            let name = (section.kind.clone(), section.id.clone(), entry.key.clone());
            known.entry(name).or_default().push(entry.value.clone());
        }
    }
    known
}

/// Converts the bytes of a file to text. Errors: `Usage` with the line of the first bad byte.
pub fn utf8(name: &str, bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|error| {
        let bad = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..bad].iter().filter(|byte| **byte == b'\n').count() + 1;
        fault(SyntaxError::new(&name.into(), line, "is not UTF-8").hinted("save it as UTF-8"))
    })
}
