//! Reader of the legacy `backup.env`, with all peculiarities of its loader. Lines that the loader ignored or changed
//! become warnings. Not here: the meaning of the values (`table`).

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use serde::Serialize;

use super::super::fault;
use crate::model::section::SyntaxError;

/// The legacy loader failed at a longer line.
const LINE_MAX_BYTES: usize = 64 * 1024;
/// Options that may be a block: `KEY="`, lines, `"`.
const BLOCKS: [&str; 2] = ["CUSTOM_BACKUP_PATHS", "BACKUP_BLACKLIST"];
/// Options whose single-line assignments add up. The last one counts for all others.
const ADDING: [&str; 4] =
    ["BACKUP_EXCLUDE_PATTERNS", "CUSTOM_BACKUP_PATHS", "BACKUP_BLACKLIST", "AGE_RECIPIENT"];
const BASE_DIR: &str = "BASE_DIR";
/// The legacy program's file has some 300 lines.
const LINES_MAX: usize = 10_000;
/// Depth limit of nested references; a loop ends earlier.
const DEPTH_MAX: usize = 32;
/// The limit of what one value becomes: names of variables and their texts. A few lines could double it without end.
const EXPANDED_MAX_BYTES: usize = 256 << 10;

/// Assignment as the legacy loader kept it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Assigned {
    line: usize,
    /// Value without its quotes, not expanded.
    raw: String,
}

/// Line of the file that the legacy loader ignored, or did not read as it looks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Warning {
    pub line: usize,
    /// Empty when the line has no key.
    pub key: String,
    pub what: String,
    /// True when the intention of the line is lost.
    #[serde(skip)]
    pub lost: bool,
}

#[derive(Debug)]
pub struct EnvFile {
    /// Install directory of the legacy program: `${BASE_DIR}`, whatever the file says.
    pub base_dir: String,
    keys: BTreeMap<String, Assigned>,
    pub remarks: Vec<Warning>,
    /// Environment of the process; empty unless requested.
    process: BTreeMap<String, String>,
    asked: bool,
}

/// Text of an option with its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionValue {
    /// Name that was read, perhaps an older one.
    pub name: String,
    /// None: from the environment of the process.
    pub line: Option<usize>,
    pub text: String,
    /// Variables without a definition: the legacy program took them from its environment, or they were empty.
    pub unknown: Vec<String>,
}

impl EnvFile {
    /// Reads the file. `process` is the environment that overrides it and defines variables; None ignores it.
    /// Errors: `Usage` with file and line for files that the legacy program rejected, and for text that is not UTF-8.
    pub fn parse(
        name: &str,
        bytes: &[u8],
        base_dir: &str,
        process: Option<BTreeMap<String, String>>,
    ) -> Result<Self> {
        check_utf8(name, bytes)?;
        let invalid = |line: usize, what: &str, hint: &str| invalid(name, line, what, hint);

        let text = String::from_utf8_lossy(bytes);
        let mut env = Self {
            base_dir: base_dir.to_owned(),
            keys: BTreeMap::new(),
            remarks: Vec::new(),
            asked: process.is_some(),
            process: process.unwrap_or_default(),
        };

        let mut lines = (1..).zip(text.strip_prefix('\u{feff}').unwrap_or(&text).split('\n'));
        while let Some((number, line)) = lines.next() {
            if number > LINES_MAX {
                let what = "has more lines than any configuration of the legacy program";
                return Err(invalid(number, what, "is it the right file?"));
            }
            if line.len() > LINE_MAX_BYTES {
                return Err(invalid(
                    number,
                    "is longer than 64 KiB",
                    "the legacy program did not read such a file either",
                ));
            }

            let line = line.strip_suffix('\r').unwrap_or(line).trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((left, right)) = line.split_once('=') else {
                env.remark(number, "", "has no '=': the legacy program ignored it", true);
                continue;
            };

            let exported = left.strip_prefix("export ");
            let key = exported.unwrap_or(left).trim().to_uppercase();
            if exported.is_none() && BLOCKS.contains(&&*key) && line[left.len()..] == *"=\"" {
                let block = block(&mut lines).ok_or_else(|| {
                    let what = format!("the block of {key} has no end");
                    invalid(number, &what, "a block ends with a line that is only \"; is the file complete?")
                })?;
                env.assign(key, number, block, true);
                continue;
            }
            env.single(number, key, right);
        }

        if !text.is_empty() && !text.ends_with('\n') {
            let last = text.lines().count();
            env.remark(last, "", "the last line has no line break: is the file complete?", false);
        }
        env.check_lengths(name)?;
        Ok(env)
    }

    /// Errors: a value that its variables make longer than any.
    fn check_lengths(&self, name: &str) -> Result<()> {
        for (key, Assigned { line, raw }) in &self.keys {
            let mut expansion = Expansion::of(key);
            self.expand(raw, &mut expansion);
            if expansion.left == 0 {
                let what = format!("{key} becomes longer than any value when its variables are replaced");
                return Err(invalid(name, *line, &what, "write the value without them"));
            }
        }
        Ok(())
    }

    fn remark(&mut self, line: usize, key: &str, what: impl Into<String>, lost: bool) {
        self.remarks.push(Warning { line, key: key.to_owned(), what: what.into(), lost });
    }

    fn single(&mut self, number: usize, key: String, right: &str) {
        match scalar(right.trim()) {
            Scalar::Whole(value) => self.assign(key, number, value, false),
            Scalar::Cut(value) => {
                let what =
                    "the legacy program cut the value at the '#', which starts a comment outside quotes";
                self.remark(number, &key, what, false);
                self.assign(key, number, value, false);
            }
            Scalar::Open if BLOCKS.contains(&&*key) => {
                let what = "a block starts with `KEY=\"` alone, without `export` and without a value: the legacy \
                            program ignored this one";
                self.remark(number, &key, what, true);
            }
            Scalar::Open => self.remark(number, &key, "the closing quote is missing", true),
        }
    }

    fn assign(&mut self, key: String, line: usize, raw: String, block: bool) {
        if let Some(earlier) = self.keys.get_mut(&key) {
            if ADDING.contains(&&*key) && !block {
                earlier.raw.push('\n');
                earlier.raw.push_str(&raw);
                return;
            }
            let what = format!("set again in line {line}, and the last one counts");
            let earlier = earlier.line;
            self.remark(earlier, &key, what, false);
        }
        self.keys.insert(key, Assigned { line, raw });
    }

    /// Returns the keys of the file, each once, with their lines.
    pub fn keys(&self) -> impl Iterator<Item = (&str, usize)> {
        self.keys.iter().map(|(key, assigned)| (key.as_str(), assigned.line))
    }

    /// Returns the first of `names` with a value. `overridable`: the process may override it.
    /// `expand` replaces variables, which the legacy program did in texts only.
    pub fn value(&self, names: &[&str], overridable: bool, expand: bool) -> Option<OptionValue> {
        let mut empty = None;
        for name in names {
            let found = self.one(name, overridable, expand);
            match found {
                Some(value) if value.text.is_empty() => empty = empty.or(Some(value)),
                Some(value) => return Some(value),
                None => {}
            }
        }
        empty
    }

    fn one(&self, name: &str, overridable: bool, expand: bool) -> Option<OptionValue> {
        let process = self.process.get(name).filter(|text| overridable && !text.is_empty());
        if let Some(text) = process {
            let (name, text) = (name.to_owned(), text.clone());
            return Some(OptionValue { name, line: None, text, unknown: Vec::new() });
        }
        let Assigned { line, raw } = self.keys.get(name)?;
        let mut expansion = Expansion::of(name);
        let text = if expand { self.expand(raw, &mut expansion) } else { raw.clone() };
        let unknown = expansion.unknown.into_iter().collect();
        Some(OptionValue { name: name.to_owned(), line: Some(*line), text: text.trim().to_owned(), unknown })
    }

    /// Replaces `${VAR}` and `$VAR` by the install directory, keys of this file or the process, else by nothing.
    fn expand(&self, raw: &str, expansion: &mut Expansion) -> String {
        expansion.left = expansion.left.saturating_sub(1 + raw.len());
        if expansion.left == 0 {
            return String::new();
        }
        let mut text = String::new();
        let mut rest = raw;
        while let Some(at) = rest.find('$') {
            text.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            let Some((name, after)) = reference(rest) else {
                text.push('$');
                continue;
            };
            if !name.is_empty() {
                let value = self.variable(name, expansion);
                expansion.left = expansion.left.saturating_sub(value.len());
                text.push_str(&value);
            }
            rest = after;
        }
        text + rest
    }

    /// Reports whether a value of the file uses this key as a variable.
    pub fn is_variable(&self, key: &str) -> bool {
        let named = |raw: &str| {
            raw.split('$').skip(1).any(|rest| reference(rest).is_some_and(|(name, _)| name == key))
        };
        self.keys.values().any(|assigned| named(&assigned.raw))
    }

    fn variable(&self, name: &str, expansion: &mut Expansion) -> String {
        if name == BASE_DIR {
            return self.base_dir.clone();
        }
        let within = &mut expansion.within;
        if within.iter().any(|known| known == name) || within.len() > DEPTH_MAX {
            return String::new();
        }
        if let Some(assigned) = self.keys.get(name) {
            within.push(name.to_owned());
            let text = self.expand(&assigned.raw, expansion);
            expansion.within.pop();
            return text;
        }
        let process = self.process.get(name).cloned();
        if process.is_none() && !self.asked {
            expansion.unknown.insert(name.to_owned());
        }
        process.unwrap_or_default()
    }
}

/// The replacing of the variables of one value.
struct Expansion {
    /// Names of the variables whose values are being replaced.
    within: Vec<String>,
    /// Variables without a definition.
    unknown: BTreeSet<String>,
    /// Bytes that may still be read; 0 when it was cut short.
    left: usize,
}

impl Expansion {
    fn of(name: &str) -> Self {
        Self { within: vec![name.to_owned()], unknown: BTreeSet::new(), left: EXPANDED_MAX_BYTES }
    }
}

fn invalid(name: &str, line: usize, what: &str, hint: &str) -> anyhow::Error {
    fault(SyntaxError::new(&name.into(), line, what).hinted(hint))
}

/// Errors: a line that is not UTF-8. Comments may have any encoding.
fn check_utf8(name: &str, bytes: &[u8]) -> Result<()> {
    let is_wrong =
        |line: &[u8]| !line.trim_ascii_start().starts_with(b"#") && std::str::from_utf8(line).is_err();
    match bytes.split(|byte| *byte == b'\n').position(is_wrong) {
        Some(at) => Err(invalid(name, at + 1, "is not UTF-8", "save it as UTF-8: iconv -f LATIN1 -t UTF-8")),
        None => Ok(()),
    }
}

/// Returns the name behind a `$` and the rest; None when the `$` is plain text.
fn reference(rest: &str) -> Option<(&str, &str)> {
    if let Some(braced) = rest.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
        return Some(braced);
    }
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
    (end > 0).then(|| rest.split_at(end))
}

/// Reads the lines of a block, without comments and blank lines; None when it does not end.
fn block<'a>(lines: &mut impl Iterator<Item = (usize, &'a str)>) -> Option<String> {
    let mut kept = Vec::new();
    for (_, line) in lines {
        let line = line.strip_suffix('\r').unwrap_or(line).trim();
        match line {
            "\"" => return Some(kept.join("\n")),
            "" => {}
            _ if line.starts_with('#') => {}
            _ => kept.push(line),
        }
    }
    None
}

enum Scalar {
    Whole(String),
    /// The value ends at a `#` directly behind a character.
    Cut(String),
    /// The quote does not end.
    Open,
}

fn scalar(text: &str) -> Scalar {
    if let Some(quote) = text.chars().next().filter(|c| matches!(c, '"' | '\'')) {
        let inner = &text[1..];
        let mut before = ' ';
        for (at, c) in inner.char_indices() {
            if c == quote && before != '\\' {
                return Scalar::Whole(inner[..at].to_owned());
            }
            before = c;
        }
        return Scalar::Open;
    }

    let (mut before, mut within) = (' ', None);
    for (at, c) in text.char_indices() {
        match (c, within) {
            ('#', None) if before != '\\' => {
                let value = text[..at].trim().to_owned();
                let glued = at > 0 && !before.is_whitespace();
                return if glued { Scalar::Cut(value) } else { Scalar::Whole(value) };
            }
            ('"' | '\'', None) if before != '\\' => within = Some(c),
            (quote, Some(open)) if quote == open && before != '\\' => within = None,
            _ => {}
        }
        before = c;
    }

    Scalar::Whole(text.to_owned())
}

/// Reads a boolean: `true`, `1`, `yes`, `on` and `enabled` are yes, everything else is no.
pub fn boolean(text: &str) -> bool {
    ["true", "1", "yes", "on", "enabled"].contains(&text.trim().to_ascii_lowercase().as_str())
}

/// Reports whether the legacy program knew this word for yes or no.
pub fn is_boolean(text: &str) -> bool {
    boolean(text)
        || ["false", "0", "no", "off", "disabled", ""].contains(&text.trim().to_ascii_lowercase().as_str())
}

/// Splits at `,` `;` `|` and line breaks, never at blanks, and removes outer quotes.
pub fn list(text: &str) -> Vec<String> {
    let trimmed = text.split([',', ';', '|', '\n']).map(|item| {
        let item = item.trim();
        let quoted =
            ['"', '\''].iter().find_map(|q| item.strip_prefix(*q).and_then(|rest| rest.strip_suffix(*q)));
        quoted.unwrap_or(item).trim().to_owned()
    });
    trimmed.filter(|item| !item.is_empty()).collect()
}

/// Splits like `list`, and at blanks too.
pub fn numbers(text: &str) -> Vec<String> {
    list(text)
        .iter()
        .flat_map(|item| item.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

/// Reads a duration of Go, `1h30m` or `90s`, in seconds; None when it is invalid.
pub fn duration(text: &str) -> Option<u64> {
    let (mut rest, mut total) = (text.trim(), 0.0);
    if rest.is_empty() {
        return None;
    }

    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit_end = rest[end..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| end + at);
        let unit = match &rest[end..unit_end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            "us" | "µs" => 0.000_001,
            "ns" => 0.000_000_001,
            _ => return None,
        };
        total += number * unit;
        rest = &rest[unit_end..];
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // bounded right here
    (1.0..1e9).contains(&total).then_some(total as u64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn env(text: &str) -> EnvFile {
        EnvFile::parse("backup.env", text.as_bytes(), "/opt/proxsave", None).unwrap()
    }

    fn read(text: &str, key: &str) -> String {
        env(text).value(&[key], false, true).unwrap().text
    }

    fn warnings(text: &str) -> Vec<String> {
        env(text)
            .remarks
            .iter()
            .map(|remark| format!("{} {}: {}", remark.line, remark.key, remark.what))
            .collect()
    }

    #[test]
    fn lines_are_read_like_the_legacy_loader() {
        for (text, expected) in [
            ("KEY=a b", "a b"),
            ("  export key = a ", "a"),
            ("KEY=a\r", "a"),
            ("KEY=\"a # b\" # c", "a # b"),
            ("KEY='a\\'b' c", "a\\'b"),
            ("KEY=\"it's\"", "it's"),
            ("KEY=a # comment", "a"),
            ("KEY=pw=a#b", "pw=a"),
            ("KEY=a\\#b", "a\\#b"),
            ("KEY=--x=\"a#b\" # c", "--x=\"a#b\""),
            ("KEY=#all", ""),
            ("KEY=1\nKEY=2", "2"),
            ("KEY=", ""),
            ("\u{feff}KEY=a", "a"),
        ] {
            assert_eq!(read(text, "KEY"), expected, "{text:?}");
        }
    }

    #[test]
    fn ignored_lines_become_warnings() {
        assert_eq!(
            warnings("A=x#y\n"),
            ["1 A: the legacy program cut the value at the '#', which starts a comment outside quotes"]
        );
        assert_eq!(warnings("A=1\nB=2\nA=3\n"), ["1 A: set again in line 3, and the last one counts"]);
        assert_eq!(warnings("nonsense\n"), ["1 : has no '=': the legacy program ignored it"]);
        assert_eq!(warnings("A=\"x\nB=1\n"), ["1 A: the closing quote is missing"]);
        assert_eq!(warnings("A=1"), ["1 : the last line has no line break: is the file complete?"]);
        assert!(warnings("export BACKUP_BLACKLIST=\"\n/a\n\"\n")[0].contains("a block starts"));
    }

    #[test]
    fn blocks_and_repeated_lines_add_up() {
        let text =
            "BACKUP_BLACKLIST=/old\nBACKUP_BLACKLIST=\"\n# no\n/a\n\n /b c \n\"\nBACKUP_BLACKLIST=/d\nX=1\n";
        assert_eq!(read(text, "BACKUP_BLACKLIST"), "/a\n/b c\n/d");
        assert_eq!(read(text, "X"), "1");
        assert_eq!(read("AGE_RECIPIENT=a\nAGE_RECIPIENT=\"b\"\n", "AGE_RECIPIENT"), "a\nb");
        assert_eq!(read("CUSTOM_BACKUP_PATHS=\"/a\" # b\n", "CUSTOM_BACKUP_PATHS"), "/a");
    }

    #[test]
    fn invalid_files_are_errors_with_a_line() {
        let error = |text: &[u8]| format!("{:#}", EnvFile::parse("f", text, "/", None).unwrap_err());
        assert_eq!(error(b"A=1\nBACKUP_BLACKLIST=\"\n/a\n"), "f:2: the block of BACKUP_BLACKLIST has no end");
        assert_eq!(
            error(format!("A=1\nB={}\n", "x".repeat(65_536)).as_bytes()),
            "f:2: is longer than 64 KiB"
        );
        assert_eq!(error(b"A=1\nB=\xff\n"), "f:2: is not UTF-8");
        let latin = EnvFile::parse("f", b"# f\xfcr\nA=1\n", "/", None).unwrap();
        assert_eq!(latin.value(&["A"], true, true).unwrap().text, "1", "a comment may be of any encoding");
    }

    #[test]
    fn what_grows_without_measure_is_an_error() {
        let error =
            |text: &str| format!("{:#}", EnvFile::parse("f", text.as_bytes(), "/", None).unwrap_err());
        let doubled = |last: &str| {
            let lines = (0..30).map(|n| format!("A{n}=$A{m}$A{m}\n", m = n + 1));
            lines.collect::<String>() + &format!("A30={last}\n")
        };
        for last in ["x", ""] {
            assert!(error(&doubled(last)).contains("becomes longer than any value"));
        }
        assert!(error(&"A=1\n".repeat(LINES_MAX + 1)).contains("has more lines than any"));
        let adding = "AGE_RECIPIENT=x\n".repeat(LINES_MAX - 1);
        assert_eq!(read(&adding, "AGE_RECIPIENT").len(), 2 * LINES_MAX - 3);
    }

    #[test]
    fn variables_are_expanded() {
        let text = "BASE_DIR=/wrong\nA=${BASE_DIR}/x$B.y\nB=b${C}\nC=$C$A\nD='${HOME}'\nE=5$ ${}\n";
        assert_eq!(read(text, "A"), "/opt/proxsave/xb.y");
        assert_eq!(read(text, "E"), "5$");
        let value = env(text).value(&["D"], false, true).unwrap();
        assert_eq!((value.text.as_str(), &value.unknown[..]), ("", &["HOME".to_owned()][..]));
        assert!(env(text).is_variable("C") && env(text).is_variable("B") && !env(text).is_variable("D"));
        let process =
            BTreeMap::from([("HOME".to_owned(), "/root".to_owned()), ("D".to_owned(), "over".to_owned())]);
        let with = EnvFile::parse("f", text.as_bytes(), "/opt/proxsave", Some(process)).unwrap();
        assert_eq!(with.value(&["D"], false, true).unwrap().text, "/root");
        assert_eq!(with.value(&["D"], true, true).unwrap().text, "over");
        assert_eq!(with.value(&["A"], true, false).unwrap().text, "${BASE_DIR}/x$B.y");
    }

    #[test]
    fn the_first_name_with_a_value_wins() {
        let text = "LOCAL_BACKUP_PATH=\nBACKUP_PATH=/b\n";
        assert_eq!(env(text).value(&["LOCAL_BACKUP_PATH", "BACKUP_PATH"], true, true).unwrap().text, "/b");
        assert_eq!(env("").value(&["A"], true, true), None);
    }

    #[test]
    fn lists_and_durations_are_read_like_the_legacy_loader() {
        assert_eq!(list("a b, 'c';\"d\"|e\n\nf"), ["a b", "c", "d", "e", "f"]);
        assert_eq!(numbers("1 2,3\t4"), ["1", "2", "3", "4"]);
        for (text, expected) in [
            ("1h30m", Some(5400)),
            ("90s", Some(90)),
            ("1.5m", Some(90)),
            ("5", None),
            ("-1s", None),
            ("0s", None),
        ] {
            assert_eq!(duration(text), expected, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_file_causes_a_panic(text in "([A-E]{1,2}|[= #\"'\\\\${}\n\r]|export |BACKUP_BLACKLIST=\"\n){0,60}") {
            if let Ok(env) = EnvFile::parse("f", text.as_bytes(), "/opt", None) {
                for (key, _) in env.keys() {
                    let _ = env.value(&[key], true, true);
                }
            }
        }
    }
}
