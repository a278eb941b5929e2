//! Places in a text where a name may stand, by the form of the reference. Not here: the names (`references`).

use std::ops::Range;

use crate::catalog::restore::references::ReferenceForm;

/// Finds the places in a line where names may stand.
pub(crate) fn in_line(form: ReferenceForm, line: &str) -> Vec<Range<usize>> {
    match form {
        ReferenceForm::Key(key) => listed(line, key),
        ReferenceForm::Property { key, sub } => properties(line, key, sub),
        ReferenceForm::HeaderEnd(end) => header_end(line, end).into_iter().collect(),
        ReferenceForm::AclPath(before) => acl_path(line, before).into_iter().collect(),
        ReferenceForm::RuleOption(options) => {
            let all: Vec<_> = words(line, |c| !c.is_whitespace()).collect();
            let pairs = all.windows(2).filter(|pair| options.contains(&&line[pair[0].clone()]));
            pairs.map(|pair| pair[1].clone()).collect()
        }
        // Not a matter of lines.
        ReferenceForm::Json(_) => Vec::new(),
        ReferenceForm::Assigned(keys) => match line.split_once('=') {
            Some((key, value)) if keys.contains(&key.trim()) => {
                whole_names(value).into_iter().map(|at| shifted(&at, key.len() + 1)).collect()
            }
            _ => Vec::new(),
        },
        ReferenceForm::Words => whole_names(line),
    }
}

/// Returns the value of an indented `key value`, and where it begins.
fn value_of<'a>(line: &'a str, key: &str) -> Option<(usize, &'a str)> {
    let content = line.trim_start();
    let value = content.strip_prefix(key)?.strip_prefix([' ', '\t'])?.trim_start();
    (content.len() < line.len()).then_some((line.len() - value.len(), value))
}

/// Finds the names of a list; in `node:2` the number is a priority.
fn listed(line: &str, key: &str) -> Vec<Range<usize>> {
    let Some((start, value)) = value_of(line, key) else { return Vec::new() };
    words(value, |c| !matches!(c, ',' | ';' | ' ' | '\t'))
        .map(|at| {
            let name = value[at.clone()].split(':').next().unwrap_or_default();
            start + at.start..start + at.start + name.len()
        })
        .collect()
}

/// Finds the values of `sub` in `key a=1,sub=2`.
fn properties(line: &str, key: &str, sub: &str) -> Vec<Range<usize>> {
    let Some((start, value)) = value_of(line, key) else { return Vec::new() };
    let found = words(value, |c| !matches!(c, ',')).filter_map(|at| {
        let (name, rest) = value[at.clone()].split_once('=')?;
        let begin = start + at.start + name.len() + 1;
        (name.trim() == sub).then(|| begin..begin + rest.trim_end().len())
    });
    found.collect()
}

/// Finds the name after the last `_` of a section's id, when its type ends so.
fn header_end(line: &str, end: &str) -> Option<Range<usize>> {
    let (kind, id) = line.split_once(':').filter(|(kind, _)| kind.ends_with(end))?;
    let id = id.trim_end();
    id.rfind('_').map(|at| kind.len() + 1 + at + 1..kind.len() + 1 + id.len())
}

/// Finds the name in the path of a permission, after `before`.
fn acl_path(line: &str, before: &str) -> Option<Range<usize>> {
    let path = line.strip_prefix("acl:").and_then(|rest| rest.split(':').nth(1))?;
    let name = path.strip_prefix(before)?.split('/').next().unwrap_or_default();
    let start = line.find(path).unwrap_or_default() + before.len();
    Some(start..start + name.len())
}

/// Finds all names; after a dot is only part of another one.
fn whole_names(line: &str) -> Vec<Range<usize>> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let is_whole = |at: &Range<usize>| at.start == 0 || line.as_bytes()[at.start - 1] != b'.';
    words(line, is_name).filter(is_whole).collect()
}

fn shifted(at: &Range<usize>, by: usize) -> Range<usize> {
    at.start + by..at.end + by
}

/// An object or a list of JSON that is open.
#[derive(Clone, Copy)]
#[allow(clippy::struct_excessive_bools)] // where it is
struct OpenJson {
    is_object: bool,
    /// It is the value of one of the keys.
    is_below: bool,
    /// The key that was read last is one of them.
    is_key: bool,
    awaits_key: bool,
}

impl OpenJson {
    /// Reports whether a value that stands here belongs to one of the keys.
    fn is_value_below(self) -> bool {
        if self.is_object { self.is_key } else { self.is_below }
    }
}

/// Finds names below one of these keys. Text that is no JSON has none.
pub(crate) fn in_json(text: &str, keys: &[&str]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    if serde_json::from_str::<serde::de::IgnoredAny>(text).is_err() {
        return found;
    }

    let mut open: Vec<OpenJson> = Vec::new();
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            begin @ (b'{' | b'[') => {
                let is_object = begin == b'{';
                let is_below = open.last().is_some_and(|last| last.is_value_below());
                open.push(OpenJson { is_object, is_below, is_key: false, awaits_key: is_object });
            }
            b'}' | b']' => drop(open.pop()),
            b',' => {
                if let Some(last) = open.last_mut() {
                    last.awaits_key = last.is_object;
                }
            }
            b'"' => {
                let string = at + 1..string_end(bytes, at + 1);
                let inner = &text[string.clone()];
                let mut is_name = open.last().is_some_and(|last| last.is_value_below());
                if let Some(last) = open.last_mut().filter(|last| last.awaits_key) {
                    is_name = last.is_below;
                    (last.is_key, last.awaits_key) = (keys.contains(&inner), false);
                }
                if is_name {
                    let listed = words(inner, |c| !matches!(c, ',' | ';' | ' ' | ':'));
                    found.extend(listed.map(|word| shifted(&word, string.start)));
                }
                at = string.end;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// Returns the place of the quote that ends a string of JSON.
fn string_end(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at.min(bytes.len())
}

/// Finds the longest runs of such characters.
pub(crate) fn words(text: &str, is: impl Fn(char) -> bool) -> impl Iterator<Item = Range<usize>> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let start = from + text.get(from..)?.find(&is)?;
        let end = text[start..].find(|c| !is(c)).map_or(text.len(), |len| start + len);
        from = end;
        Some(start..end)
    })
}
