//! Section config, the grammar of `/etc/pve/storage.cfg`: text to sections and back, and one
//! section into any serde struct, every refusal with its file and line. It knows no kind and no
//! key, opens no file and merges no layers.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _};
use serde::de::{IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

/// What indents and separates. Not Unicode's white space: a pasted no-break space is refused as part
/// of a word, not guessed away.
const BLANKS: [char; 2] = [' ', '\t'];

/// Longer than any key of ours. A longer unknown "key" is taken for a secret on the wrong line.
const MAX_SHOWN_KEY_BYTES: usize = 32;

/// `kind: id` with the indented lines below it.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    pub kind: String,
    pub id: String,
    pub file: Arc<str>,
    /// The header's line, from 1.
    pub line: usize,
    /// In the order of the file; a key may repeat.
    pub entries: Vec<Entry>,
}

/// One `key value` line. It has its own file because a section's secrets come from another one.
/// Its Debug shows the value: not for logs.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub key: String,
    /// Trimmed; empty when the line holds the key alone.
    pub value: String,
    pub file: Arc<str>,
    pub line: usize,
    /// From a file that only root reads.
    pub private: bool,
}

/// A line that cannot stand, shown as `file:line: message`; what to do is the [`hint`](Self::hint).
#[derive(Clone, Debug, PartialEq)]
pub struct SyntaxError {
    pub file: Arc<str>,
    pub line: usize,
    pub message: String,
    hint: Option<String>,
}

impl SyntaxError {
    pub fn new(file: &Arc<str>, line: usize, message: impl Into<String>) -> Self {
        Self { file: Arc::clone(file), line, message: message.into(), hint: None }
    }

    #[must_use]
    pub fn hinted(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)
    }
}

impl std::error::Error for SyntaxError {}

/// The sections of `text` in their order; `file` is the name used in errors.
///
/// No error quotes a value, nor a line that is not understood: it may be a secret.
pub fn parse(file: &str, text: &str) -> Result<Vec<Section>, SyntaxError> {
    let file: Arc<str> = file.into();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut sections: Vec<Section> = Vec::new();
    let mut first: HashMap<(String, String), usize> = HashMap::new();
    for (number, line) in (1..).zip(text.split('\n')) {
        let line = line.strip_suffix('\r').unwrap_or(line);
        let content = line.trim_matches(BLANKS);
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let refused = |(message, hint)| SyntaxError::new(&file, number, message).hinted(hint);
        if line.starts_with(BLANKS) {
            let (key, value) = parse_entry(content).map_err(refused)?;
            let section = sections.last_mut().ok_or_else(|| refused(outside()))?;
            section.entries.push(Entry { key, value, file: Arc::clone(&file), line: number, private: false });
        } else {
            let (kind, id) = parse_header(content).map_err(refused)?;
            if let Some(first) = first.insert((kind.clone(), id.clone()), sections.len()) {
                return Err(refused(defined_twice(&sections[first])));
            }
            let (file, entries) = (Arc::clone(&file), Vec::new());
            sections.push(Section { kind, id, file, line: number, entries });
        }
    }
    Ok(sections)
}

/// A message and its hint, for the caller who knows the line.
type Refusal = (String, &'static str);

fn parse_entry(content: &str) -> Result<(String, String), Refusal> {
    let (key, value) = content.split_once(BLANKS).unwrap_or((content, ""));
    let value = value.trim_start_matches(BLANKS);
    if let Some(c) = key.chars().chain(value.chars()).find(|c| c.is_control()) {
        let message = format!("this line holds the control character U+{:04X}", u32::from(c));
        return Err((message, "delete it: a value is plain text on one line"));
    }
    Ok((key.to_owned(), value.to_owned()))
}

fn parse_header(content: &str) -> Result<(String, String), Refusal> {
    let header = content.split_once(':').filter(|(kind, _)| !kind.contains(BLANKS));
    let (kind, id) = header.ok_or((
        "this line is neither a section header nor indented".into(),
        "a section begins with 'kind: id', as in 'dir: local'; its lines begin with a tab",
    ))?;
    let id = id.trim_start_matches(BLANKS);
    if !is_kind(kind) {
        let hint = "a kind is lower-case letters, digits and '-', as in 'dir: local'";
        return Err(("this is not the kind of a section".into(), hint));
    }
    if id.is_empty() {
        return Err((format!("'{kind}:' has no id"), "add a name, as in 'dir: local'"));
    }
    if !is_id(id) {
        let hint = "an id is letters, digits and . _ @ -, beginning with a letter or digit";
        return Err((format!("the id after '{kind}:' is not valid"), hint));
    }
    Ok((kind.to_owned(), id.to_owned()))
}

fn outside() -> Refusal {
    let hint = "put a header above it, as in 'dir: local', in the first column";
    ("this line belongs to no section".into(), hint)
}

fn defined_twice(first: &Section) -> Refusal {
    let message = first.titled(&format!("defined twice (first in line {})", first.line));
    (message, "rename one of them, or put their lines together")
}

fn is_kind(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_lowercase())
        && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

fn is_id(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_alphanumeric())
        && word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '@' | '-'))
}

/// The text of `sections`, as Proxmox writes it. What [`parse`] returned comes back the same but for
/// its line numbers. Values from elsewhere are not checked: a newline would end one, so parse again.
pub fn to_text(sections: &[Section]) -> String {
    let texts: Vec<String> = sections.iter().map(section_text).collect();
    texts.join("\n")
}

fn section_text(section: &Section) -> String {
    let mut text = format!("{}: {}\n", section.kind, section.id);
    for entry in &section.entries {
        let line = format!("{} {}", entry.key, entry.value);
        text.push('\t');
        text.push_str(line.trim_end_matches(BLANKS));
        text.push('\n');
    }
    text
}

impl Section {
    /// The value of `key`, the first one when it repeats.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.entry(key).map(|entry| entry.value.as_str())
    }

    /// This section as a `T`: a key is a field's name, a repeated key fills a `Vec`, a key alone is
    /// true. Give `T` `deny_unknown_fields`: an unknown key is refused without it too, but with no
    /// hint. Never `flatten` in it: that hides the types of its fields and accepts unknown keys.
    ///
    /// On an owned section Rust prefers [`Into::into`]; call it on a `&Section`.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, SyntaxError> {
        T::deserialize(MapAccessDeserializer::new(Keys::of(self))).map_err(|fault| {
            let place = fault.place.unwrap_or_else(|| (Arc::clone(&self.file), self.line));
            let error = SyntaxError::new(&place.0, place.1, self.titled(&fault.message));
            SyntaxError { hint: fault.hint, ..error }
        })
    }

    /// The entries with one of `keys`, and the others: two sections of the same header.
    pub fn split(&self, keys: &[&str]) -> (Self, Self) {
        let (with, without) =
            self.entries.iter().cloned().partition(|entry| keys.contains(&entry.key.as_str()));
        (Self { entries: with, ..self.clone() }, Self { entries: without, ..self.clone() })
    }

    /// Errors: one of `keys` stands in a file that others may read.
    pub fn refuse_public(&self, keys: &[&str]) -> Result<(), SyntaxError> {
        let public = self.entries.iter().find(|entry| keys.contains(&entry.key.as_str()) && !entry.private);
        let Some(entry) = public else { return Ok(()) };
        let message =
            self.titled(&format!("a secret ('{}') has no place in a file that others may read", entry.key));
        let hint = format!("put it under '{}: {}' in secrets.cfg, and make a new one", self.kind, self.id);
        Err(SyntaxError::new(&entry.file, entry.line, message).hinted(hint))
    }

    /// `message` at the line of `key`, or at the header when the section does not have it: for the
    /// rules between keys, which no type can hold.
    pub fn error_at(&self, key: &str, message: &str) -> SyntaxError {
        let entry = self.entry(key);
        let (file, line) = entry.map_or((&self.file, self.line), |entry| (&entry.file, entry.line));
        SyntaxError::new(file, line, self.titled(message))
    }

    fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    fn titled(&self, message: &str) -> String {
        format!("{} '{}': {message}", self.kind, self.id)
    }
}

/// The word of `known` that `word` was probably meant to be: at most a third of its letters differ.
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let word: Vec<char> = word.to_lowercase().chars().collect();
    let scored = known.iter().filter_map(|candidate| {
        let letters: Vec<char> = candidate.to_lowercase().chars().collect();
        let longer = word.len().max(letters.len());
        let limit = (longer / 3).max(1).min(longer.saturating_sub(1));
        // The lengths first, so that a pasted key of kilobytes costs nothing.
        let alike = word.len().abs_diff(letters.len()) <= limit;
        let distance = alike.then(|| distance(&word, &letters))?;
        (distance <= limit).then_some((distance, *candidate))
    });
    scored.min_by_key(|(distance, _)| *distance).map(|(_, candidate)| candidate)
}

/// Letters added, dropped, replaced or swapped with their neighbour.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let kept = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = kept.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

/// An error on its way through serde, which does not know where it is: the nearest entry adds it.
#[derive(Debug)]
struct Fault {
    place: Option<(Arc<str>, usize)>,
    message: String,
    hint: Option<String>,
}

impl Fault {
    fn placed(self, entry: &Entry) -> Self {
        Self { place: Some((Arc::clone(&entry.file), entry.line)), ..self }
    }

    /// The fault of this entry's value, unless it has a place already.
    fn of_value(self, entry: &Entry) -> Self {
        match self.place {
            Some(_) => self,
            None => Self::custom(format!("{}: {}", entry.key, self.message)).hinted(self.hint).placed(entry),
        }
    }

    fn hinted(self, hint: Option<String>) -> Self {
        Self { hint, ..self }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl serde::de::Error for Fault {
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
struct Keys<'a> {
    rest: std::vec::IntoIter<Values<'a>>,
    next: Option<Values<'a>>,
}

impl<'a> Keys<'a> {
    fn of(section: &'a Section) -> Self {
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

impl<'de> MapAccess<'de> for Keys<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        self.next = self.rest.next();
        let Some(Values { first, .. }) = self.next else { return Ok(None) };
        let key = seed.deserialize(first.key.as_str().into_deserializer());
        key.map(Some).map_err(|fault: Fault| fault.placed(first))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        let values = self.next.take().ok_or_else(|| Fault::custom("a value without its key"))?;
        let first = values.first;
        seed.deserialize(values).map_err(|fault| fault.of_value(first))
    }
}

/// All entries of one key: for a list its elements, for every other type one value.
struct Values<'a> {
    first: &'a Entry,
    more: Vec<&'a Entry>,
}

impl<'a> Values<'a> {
    fn one(&self) -> Result<&'a str, Fault> {
        let first = self.first;
        let Some(second) = self.more.first() else { return Ok(&first.value) };
        let file = if first.file == second.file { "line " } else { &format!("{}:", first.file) };
        let message = format!("'{}' is given twice (first in {file}{})", first.key, first.line);
        let hint = Some("delete one of the two lines".into());
        Err(Fault::custom(message).hinted(hint).placed(second))
    }
}

fn boolean(text: &str) -> Result<bool, Fault> {
    match text.to_ascii_lowercase().as_str() {
        "" | "1" | "yes" | "true" | "on" => Ok(true),
        "0" | "no" | "false" | "off" => Ok(false),
        _ => Err(Fault::custom(format!("'{text}' is neither yes nor no"))),
    }
}

/// Through i128, which holds every range asked for, so that -1 is out of range and not a non-number.
fn integer<T>(text: &str, least: T, most: T) -> Result<T, Fault>
where
    T: TryFrom<i128> + fmt::Display + Copy,
{
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Fault::custom(format!("'{text}' is not a whole number")));
    }
    let number = text.parse::<i128>().ok().and_then(|number| T::try_from(number).ok());
    number.ok_or_else(|| Fault::custom(format!("'{text}' is not between {least} and {most}")))
}

fn float(text: &str) -> Result<f64, Fault> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
    number.ok_or_else(|| Fault::custom(format!("'{text}' is not a number")))
}

macro_rules! deserialize_integers {
    ($($deserialize:ident $visit:ident $type:ident,)*) => {$(
        fn $deserialize<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            visitor.$visit(integer(self.one()?, $type::MIN, $type::MAX)?)
        }
    )*};
}

impl<'de> Deserializer<'de> for Values<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_str(self.one()?)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_bool(boolean(self.one()?)?)
    }

    deserialize_integers! {
        deserialize_i8 visit_i8 i8, deserialize_u8 visit_u8 u8,
        deserialize_i16 visit_i16 i16, deserialize_u16 visit_u16 u16,
        deserialize_i32 visit_i32 i32, deserialize_u32 visit_u32 u32,
        deserialize_i64 visit_i64 i64, deserialize_u64 visit_u64 u64,
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_f64(float(self.one()?)?)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_seq(Elements(std::iter::once(self.first).chain(self.more)))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_enum(self.one()?.into_deserializer())
    }

    /// What a struct that does not deny unknown fields does with one. We refuse it all the same.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Fault> {
        Err(Fault::unknown_field(&self.first.key, &[]).placed(self.first))
    }

    forward_to_deserialize_any! {
        i128 u128 f32 char str string bytes byte_buf unit unit_struct tuple tuple_struct map struct
        identifier
    }
}

struct Elements<I>(I);

impl<'a, 'de, I: Iterator<Item = &'a Entry>> SeqAccess<'de> for Elements<I> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let Some(first) = self.0.next() else { return Ok(None) };
        let element = seed.deserialize(Values { first, more: Vec::new() });
        element.map(Some).map_err(|fault| fault.of_value(first))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::HashMap;

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(try_from = "String")]
    struct Absolute(String);

    impl TryFrom<String> for Absolute {
        type Error = &'static str;

        fn try_from(path: String) -> Result<Self, Self::Error> {
            if path.starts_with('/') { Ok(Self(path)) } else { Err("must begin with '/'") }
        }
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "lowercase")]
    enum When {
        Info,
        Warning,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "kebab-case", deny_unknown_fields)]
    struct Store {
        remote: String,
        keep_last: Option<u8>,
        #[serde(default)]
        mountpoint: bool,
        #[serde(default)]
        include: Vec<Absolute>,
        when: Option<When>,
        ratio: Option<f64>,
    }

    fn section(body: &str) -> Section {
        parse("pbx.cfg", &format!("rclone: offsite\n{body}")).unwrap().remove(0)
    }

    fn store(body: &str) -> Result<Store, SyntaxError> {
        let section = &section(body);
        section.read()
    }

    /// The error and its hint, as the user sees them.
    fn refused<T: fmt::Debug>(result: Result<T, SyntaxError>) -> (String, String) {
        let error = result.unwrap_err();
        (error.to_string(), error.hint().unwrap_or_default().to_owned())
    }

    fn unlined(mut sections: Vec<Section>) -> Vec<Section> {
        for section in &mut sections {
            section.line = 0;
            section.entries.iter_mut().for_each(|entry| entry.line = 0);
        }
        sections
    }

    #[test]
    fn a_section_ends_at_the_next_header_and_not_at_a_blank_line() {
        let text = "\u{feff}#\r\ndir: a\r\n\tpath \t /a b \r\n\r\n  # note\n  flag\npbs:b@c.d_e-f\n";
        let sections = parse("f", text).unwrap();
        assert_eq!(to_text(&sections), "dir: a\n\tpath /a b\n\tflag\n\npbs: b@c.d_e-f\n");
        let [dir, pbs] = &sections[..] else { unreachable!() };
        assert_eq!((dir.get("path"), dir.get("flag"), dir.get("x")), (Some("/a b"), Some(""), None));
        assert_eq!((dir.line, dir.entries[1].line, pbs.line), (2, 6, 7));
    }

    #[test]
    fn every_malformed_line_is_refused_where_it_stands() {
        for (text, expected) in [
            ("\n\tpath /mnt", "f:2: this line belongs to no section"),
            ("dir:\n", "f:1: 'dir:' has no id"),
            ("dir: a b", "f:1: the id after 'dir:' is not valid"),
            ("dir: ../a", "f:1: the id after 'dir:' is not valid"),
            ("Dir: a", "f:1: this is not the kind of a section"),
            (": a", "f:1: this is not the kind of a section"),
            ("dir: a\npath /mnt", "f:2: this line is neither a section header nor indented"),
            ("password s3cr:et", "f:1: this line is neither a section header nor indented"),
            ("dir: a\n\tpath /m\0nt", "f:2: this line holds the control character U+0000"),
            ("dir: a\n\tpath a\tb", "f:2: this line holds the control character U+0009"),
            ("dir: a\n\tpa\u{1b}th a", "f:2: this line holds the control character U+001B"),
            ("dir: a\n\npbs: a\n\ndir: a", "f:5: dir 'a': defined twice (first in line 1)"),
        ] {
            let (message, hint) = refused(parse("f", text));
            assert_eq!(message, expected, "{text:?}");
            assert!(!hint.is_empty(), "{text:?} has no hint");
        }
    }

    #[test]
    fn a_file_full_of_sections_or_keys_is_read_in_a_moment() {
        /// Whoever compares each with each needs a minute.
        const MANY: usize = 60_000;
        const LIMIT: std::time::Duration = std::time::Duration::from_secs(10);
        let start = std::time::Instant::now();
        let lines = |before: &str| (0..MANY).map(|n| format!("{before}{n}\n")).collect::<Vec<_>>().concat();
        assert_eq!(parse("f", &lines("a: ")).unwrap().len(), MANY);
        let sections = parse("f", &format!("a: b\n{}", lines("\tk"))).unwrap();
        assert_eq!(sections[0].read::<HashMap<String, bool>>().unwrap().len(), MANY);
        assert!(start.elapsed() < LIMIT, "{:?}", start.elapsed());
    }

    #[test]
    fn every_type_of_field_is_read() {
        let body = "\tremote b2:pbx\n\tkeep-last 7\n\tmountpoint\n\tinclude /a\n\twhen warning";
        let expected = Store {
            remote: "b2:pbx".into(),
            keep_last: Some(7),
            mountpoint: true,
            include: vec![Absolute("/a".into()), Absolute("/b c".into())],
            when: Some(When::Warning),
            ratio: Some(0.5),
        };
        assert_eq!(store(&format!("{body}\n\tinclude /b c\n\tratio 0.5")).unwrap(), expected);
        let least = store("\tremote").unwrap();
        assert_eq!((least.remote.as_str(), least.mountpoint, least.include), ("", false, vec![]));
        assert_eq!(store("\tremote r\n\tinclude /a").unwrap().include, [Absolute("/a".into())]);
    }

    #[test]
    fn a_bool_is_every_word_proxmox_takes_for_one() {
        for (words, expected) in [("1 Yes TRUE on", true), ("0 no False OFF", false)] {
            for word in words.split(' ') {
                let store = store(&format!("\tremote r\n\tmountpoint {word}"));
                assert_eq!(store.unwrap().mountpoint, expected, "{word}");
            }
        }
    }

    #[test]
    fn a_refused_value_names_its_line_its_key_and_what_is_allowed() {
        let huge = "9".repeat(50);
        for (line, body, expected) in [
            (2, "keep-last 300", "keep-last: '300' is not between 0 and 255"),
            (2, "keep-last -1", "keep-last: '-1' is not between 0 and 255"),
            (2, &format!("keep-last {huge}"), &format!("keep-last: '{huge}' is not between 0 and 255")),
            (2, "keep-last", "keep-last: '' is not a whole number"),
            (2, "mountpoint maybe", "mountpoint: 'maybe' is neither yes nor no"),
            (2, "ratio inf", "ratio: 'inf' is not a number"),
            (3, "include /a\n\tinclude b", "include: must begin with '/'"),
            (2, "when never", "when: 'never' is not one of: info, warning"),
            (4, "ratio 1\n\n\tratio 1", "'ratio' is given twice (first in line 2)"),
            (1, "keep-last 1", "'remote' is missing"),
            (1, "", "'remote' is missing"),
        ] {
            let (message, _) = refused(store(&format!("\t{body}")));
            assert_eq!(message, format!("pbx.cfg:{line}: rclone 'offsite': {expected}"));
        }
    }

    #[test]
    fn a_near_miss_gets_a_suggestion_and_anything_else_the_list() {
        let (message, hint) = refused(store("\tremot b2:"));
        assert_eq!(message, "pbx.cfg:2: rclone 'offsite': unknown key 'remot'");
        assert_eq!(hint, "did you mean 'remote'?");
        assert_eq!(refused(store("\twhen warnign")).1, "did you mean 'warning'?");
        let (_, hint) = refused(store("\tcolour red"));
        assert_eq!(hint, "the keys are: remote, keep-last, mountpoint, include, when, ratio");
        assert!(!refused(store("\tAGE-SECRET-KEY-1QQQ")).0.contains("QQQ"));
    }

    #[test]
    fn a_struct_that_forgets_to_deny_unknown_keys_does_not_accept_them() {
        #[derive(Debug, Deserialize)]
        struct Lax {}
        let section = &section("\tcolour red");
        let (message, _) = refused(section.read::<Lax>());
        assert_eq!(message, "pbx.cfg:2: rclone 'offsite': unknown key 'colour'");
    }

    #[test]
    fn an_entry_from_another_file_is_reported_there() {
        let mut section = section("\tremote r");
        let entry = Entry { file: "secrets.cfg".into(), line: 4, ..section.entries[0].clone() };
        section.entries.push(entry);
        let section = &section;
        assert_eq!(
            refused(section.read::<Store>()).0,
            "secrets.cfg:4: rclone 'offsite': 'remote' is given twice (first in pbx.cfg:2)"
        );
        assert_eq!(section.error_at("remote", "no").to_string(), "pbx.cfg:2: rclone 'offsite': no");
        assert_eq!(section.error_at("path", "no").to_string(), "pbx.cfg:1: rclone 'offsite': no");
    }

    #[test]
    fn only_a_word_that_is_close_is_near() {
        let verbs = ["restore", "prune", "diff", "log"];
        for (word, expected) in [
            ("restroe", Some("restore")),
            ("Prune", Some("prune")),
            ("idff", Some("diff")),
            ("backup", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, &verbs), expected, "{word}");
        }
        assert_eq!(nearest("x", &["", "y"]), None);
    }

    fn any_section() -> impl Strategy<Value = Section> {
        let entry = ("[!-\"$-~ä][!-~ä]{0,9}", "([!-~é€]([ -~é€]{0,20}[!-~é€])?)?")
            .prop_map(|(key, value)| Entry { key, value, file: "f".into(), line: 0, private: false });
        let entries = prop::collection::vec(entry, 0..5);
        ("[a-z][a-z0-9-]{0,5}", "[A-Za-z0-9][A-Za-z0-9._@-]{0,5}", entries)
            .prop_map(|(kind, id, entries)| Section { kind, id, file: "f".into(), line: 0, entries })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(mut sections in prop::collection::vec(any_section(), 0..5)) {
            sections.sort_by(|a, b| (&a.kind, &a.id).cmp(&(&b.kind, &b.id)));
            sections.dedup_by(|a, b| a.kind == b.kind && a.id == b.id);
            prop_assert_eq!(unlined(parse("f", &to_text(&sections)).unwrap()), sections);
        }

        #[test]
        fn no_text_makes_it_panic(
            noise in any::<String>(),
            soup in "([a-z]{1,2}: ?[a-z0-9]|[ \t#]|remote|include|when|[0-9/]|\r?\n\t?){0,60}",
        ) {
            for text in [noise, format!("rclone: o\n\t{soup}")] {
                let sections = parse("f", &text).unwrap_or_default();
                for section in &sections {
                    let _ = (section.read::<Store>(), section.read::<String>());
                    let _ = section.read::<HashMap<String, Vec<Option<i8>>>>();
                }
                let again = parse("f", &to_text(&sections)).unwrap();
                prop_assert_eq!(unlined(again), unlined(sections));
            }
        }
    }
}
