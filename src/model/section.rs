//! Section config, the grammar of `/etc/pve/storage.cfg`: text to sections and back, every refusal with its file
//! and line; `fields` makes any serde struct of one. It knows no kind and no key, opens no file and merges no layers.

mod fields;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::de::value::MapAccessDeserializer;

use self::fields::SectionKeys;
use super::problem::Fault;

/// Characters that indent and separate. Not Unicode's white space: a pasted no-break space is refused as part
/// of a word, not guessed away.
const BLANKS: [char; 2] = [' ', '\t'];

/// `kind: id` with the indented lines below it.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    pub kind: String,
    pub id: String,
    pub file: Arc<str>,
    /// The header's line, from 1.
    pub line: usize,
    /// Entries in the order of the file; a key may repeat.
    pub entries: Vec<SectionEntry>,
}

/// One `key value` line. It has its own file because a section's secrets come from another one.
/// Its Debug shows the value: not for logs.
#[derive(Clone, Debug, PartialEq)]
pub struct SectionEntry {
    pub key: String,
    /// Trimmed; empty when the line holds the key alone.
    pub value: String,
    pub file: Arc<str>,
    pub line: usize,
    /// Set for an entry of a file that only root reads.
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

impl From<SyntaxError> for Fault {
    fn from(error: SyntaxError) -> Self {
        Self { hint: error.hint.clone(), ..Self::usage(error.to_string()) }
    }
}

/// The lines of a file at most: each takes a hundred times its bytes in memory.
const LINES_MAX: usize = 100_000;

/// The sections of `text` in their order; `file` is the name used in errors.
///
/// No error quotes a value, nor a line that is not understood: it may be a secret.
pub fn parse(file: &str, text: &str) -> Result<Vec<Section>, SyntaxError> {
    let file: Arc<str> = file.into();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut sections: Vec<Section> = Vec::new();
    let mut first: HashMap<(String, String), usize> = HashMap::new();

    for (number, line) in (1..).zip(text.split('\n')) {
        if number > LINES_MAX {
            let error = SyntaxError::new(&file, number, "there are more lines than any host needs");
            return Err(error.hinted("is it the right file?"));
        }
        let line = line.strip_suffix('\r').unwrap_or(line);
        let content = line.trim_matches(BLANKS);
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let refused = |(message, hint)| SyntaxError::new(&file, number, message).hinted(hint);
        if line.starts_with(BLANKS) {
            let (key, value) = parse_entry(content).map_err(refused)?;
            let section = sections.last_mut().ok_or_else(|| refused(outside()))?;
            section.entries.push(SectionEntry {
                key,
                value,
                file: Arc::clone(&file),
                line: number,
                private: false,
            });
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
        let message = format!("this line contains the control character U+{:04X}", u32::from(c));
        return Err((message, "delete it: a value is plain text on one line"));
    }
    Ok((key.to_owned(), value.to_owned()))
}

fn parse_header(content: &str) -> Result<(String, String), Refusal> {
    let header = content.split_once(':').filter(|(kind, _)| !kind.contains(BLANKS));
    let (kind, id) = header.ok_or((
        "this line is neither a section header nor indented".into(),
        "a section begins with 'kind: id', for example 'dir: local'; its lines begin with a tab",
    ))?;
    let id = id.trim_start_matches(BLANKS);
    if !is_kind(kind) {
        let hint = "a kind is lower-case letters, digits and '-', for example 'dir: local'";
        return Err(("this is not the kind of a section".into(), hint));
    }

    if id.is_empty() {
        return Err((format!("'{kind}:' has no id"), "add a name, for example 'dir: local'"));
    }
    if !is_id(id) {
        let hint = "an id is letters, digits and . _ @ -, beginning with a letter or digit";
        return Err((format!("the id after '{kind}:' is not valid"), hint));
    }
    Ok((kind.to_owned(), id.to_owned()))
}

fn outside() -> Refusal {
    let hint = "put a header above it, for example 'dir: local', in the first column";
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
    /// Call it on a `&Section`: of an owned one Rust prefers [`Into::into`].
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, SyntaxError> {
        T::deserialize(MapAccessDeserializer::new(SectionKeys::of(self))).map_err(|fault| {
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
            self.titled(&format!("a secret ('{}') must not be in a file that others can read", entry.key));
        let hint = format!("create a new one, and put it under '{}: {}' in secrets.cfg", self.kind, self.id);
        Err(SyntaxError::new(&entry.file, entry.line, message).hinted(hint))
    }

    /// `message` at the line of `key`, or at the header when the section does not have it: for the
    /// rules between keys, which no type can hold.
    pub fn error_at(&self, key: &str, message: &str) -> SyntaxError {
        let entry = self.entry(key);
        let (file, line) = entry.map_or((&self.file, self.line), |entry| (&entry.file, entry.line));
        SyntaxError::new(file, line, self.titled(message))
    }

    fn entry(&self, key: &str) -> Option<&SectionEntry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    fn titled(&self, message: &str) -> String {
        format!("{} '{}': {message}", self.kind, self.id)
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
            ("dir: a\n\tpath /m\0nt", "f:2: this line contains the control character U+0000"),
            ("dir: a\n\tpath a\tb", "f:2: this line contains the control character U+0009"),
            ("dir: a\n\tpa\u{1b}th a", "f:2: this line contains the control character U+001B"),
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
            (2, "mountpoint maybe", "mountpoint: 'maybe' is not yes or no"),
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
        let entry = SectionEntry { file: "secrets.cfg".into(), line: 4, ..section.entries[0].clone() };
        section.entries.push(entry);
        let section = &section;
        assert_eq!(
            refused(section.read::<Store>()).0,
            "secrets.cfg:4: rclone 'offsite': 'remote' is given twice (first in pbx.cfg:2)"
        );
        assert_eq!(section.error_at("remote", "no").to_string(), "pbx.cfg:2: rclone 'offsite': no");
        assert_eq!(section.error_at("path", "no").to_string(), "pbx.cfg:1: rclone 'offsite': no");
    }

    fn any_section() -> impl Strategy<Value = Section> {
        let entry = ("[!-\"$-~ä][!-~ä]{0,9}", "([!-~é€]([ -~é€]{0,20}[!-~é€])?)?")
            .prop_map(|(key, value)| SectionEntry { key, value, file: "f".into(), line: 0, private: false });
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
