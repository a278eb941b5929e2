//! Entries of a Proxmox file: where each stands, and the file with one put in, every other byte as it was.
//! Not here: which entries make an object (`objects`), what a value means.

use std::ops::Range;

use crate::catalog::objects::{Grammar, USER_WORDS};

/// A section, a line or a field of JSON, without the end of its last line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigPart {
    pub id: String,
    /// The type of a section, the word of a line; empty for others.
    pub kind: String,
    pub at: Range<usize>,
}

/// Lists the entries of a text in their order; comments and blank lines between them belong to none.
/// Errors: why the text is not of this grammar.
pub fn entries(grammar: Grammar, text: &[u8]) -> Result<Vec<ConfigPart>, String> {
    Ok(match grammar {
        Grammar::Whole => vec![ConfigPart { id: String::new(), kind: String::new(), at: 0..text.len() }],
        Grammar::Sections(types) => {
            let of_type = |entry: &ConfigPart| types.is_empty() || types.contains(&entry.kind.as_str());
            blocks(text, section_header).into_iter().filter(of_type).collect()
        }
        Grammar::Bare => blocks(text, bare_header),
        Grammar::Lines(word) => user_lines(text).filter(|entry| entry.kind == word).collect(),
        Grammar::Member { word, .. } => user_lines(text).filter(|entry| entry.kind == word).collect(),
        Grammar::Keyed(separator) => lines(text).filter_map(|at| keyed(text, at, separator)).collect(),
        Grammar::Json(keys) => match object(text, keys)? {
            Some(at) => fields(text, &at)?,
            None => Vec::new(),
        },
        Grammar::AclOf | Grammar::AclAt(_) => user_lines(text).filter(|entry| entry.kind == "acl").collect(),
    })
}

/// Returns the text with `entry` at `at`.
pub fn replace(text: &[u8], at: &Range<usize>, entry: &[u8]) -> Vec<u8> {
    let (before, after) = (text.get(..at.start).unwrap_or_default(), text.get(at.end..).unwrap_or_default());
    [before, entry, after].concat()
}

/// Adds to the text an entry that it does not have yet, where the product would put it. `kind` is the word of a line.
/// Errors: why the text is not of this grammar.
pub fn add(grammar: Grammar, text: &[u8], kind: &str, id: &str, entry: &[u8]) -> Result<Vec<u8>, String> {
    match grammar {
        Grammar::Whole => Ok(entry.to_vec()),
        Grammar::Sections(_) | Grammar::Bare => Ok(add_section(text, entry)),
        Grammar::Json(keys) => add_field(text, keys, id, entry),
        Grammar::Keyed(_) => Ok(add_line(text, text.len(), entry)),
        Grammar::Lines(_) | Grammar::Member { .. } | Grammar::AclOf | Grammar::AclAt(_) => {
            // The parser wants to know a name before it is used.
            let rank = |word: &str| USER_WORDS.iter().position(|known| *known == word);
            let earlier = user_lines(text).filter(|entry| rank(&entry.kind) <= rank(kind));
            let at = earlier.last().map_or(0, |last| end_of_line(text, last.at.end));
            Ok(add_line(text, if rank(kind).is_none() { text.len() } else { at }, entry))
        }
    }
}

// ---- sections

fn blocks(text: &[u8], header: fn(&str) -> Option<(String, String)>) -> Vec<ConfigPart> {
    let mut found: Vec<ConfigPart> = Vec::new();
    let mut open = false;

    for at in lines(text) {
        let line = &text[at.clone()];
        let content = line.trim_ascii();
        if content.starts_with(b"#") {
            // Wherever it stands, it ends nothing.
        } else if content.is_empty() {
            open = false;
        } else if line.first().is_some_and(u8::is_ascii_whitespace) {
            if let Some(last) = found.last_mut().filter(|_| open) {
                last.at.end = at.end;
            }
        } else {
            let read = std::str::from_utf8(line).ok().and_then(header);
            open = read.is_some();
            found.extend(read.map(|(kind, id)| ConfigPart { id, kind, at }));
        }
    }
    found
}

fn section_header(line: &str) -> Option<(String, String)> {
    let (kind, id) = line.split_once(':')?;
    let (kind, id) = (kind.trim(), id.trim());
    let whole = |word: &str| !word.is_empty() && !word.contains(char::is_whitespace);
    (whole(kind) && whole(id)).then(|| (kind.to_owned(), id.to_owned()))
}

fn bare_header(line: &str) -> Option<(String, String)> {
    let id = line.trim();
    (!id.contains(char::is_whitespace)).then(|| (String::new(), id.to_owned()))
}

/// Proxmox VE ends every section with a blank line, the Backup Server stands one between them: as the text does.
fn add_section(text: &[u8], entry: &[u8]) -> Vec<u8> {
    let mut out = text.to_vec();
    let last = lines(text).last();
    let blank = last.as_ref().is_none_or(|at| text[at.clone()].trim_ascii().is_empty());
    if !blank {
        end_last_line(&mut out);
        out.push(b'\n');
    } else if !text.is_empty() {
        end_last_line(&mut out);
    }
    out.extend_from_slice(entry);
    out.push(b'\n');
    if blank && !text.is_empty() {
        out.push(b'\n');
    }
    out
}

// ---- lines

/// Returns the place of each line, without its end.
pub fn lines(text: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    text.split_inclusive(|byte| *byte == b'\n').map(move |line| {
        let at = start
            ..start
                + line
                    .strip_suffix(b"\n")
                    .map_or(line, |line| line.strip_suffix(b"\r").unwrap_or(line))
                    .len();
        start += line.len();
        at
    })
}

fn end_of_line(text: &[u8], at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    rest.iter().position(|byte| *byte == b'\n').map_or(text.len(), |end| at + end + 1)
}

fn end_last_line(text: &mut Vec<u8>) {
    if text.last().is_some_and(|byte| *byte != b'\n') {
        text.push(b'\n');
    }
}

fn add_line(text: &[u8], at: usize, entry: &[u8]) -> Vec<u8> {
    let (before, after) = text.split_at_checked(at).unwrap_or((text, &[]));
    let mut out = before.to_vec();
    end_last_line(&mut out);
    out.extend_from_slice(entry);
    out.push(b'\n');
    out.extend_from_slice(after);
    out
}

fn user_lines(text: &[u8]) -> impl Iterator<Item = ConfigPart> {
    lines(text).filter_map(|at| {
        let mut fields = std::str::from_utf8(&text[at.clone()]).ok()?.split(':');
        let kind = fields.next().filter(|word| USER_WORDS.contains(word))?.to_owned();
        Some(ConfigPart { id: fields.next()?.to_owned(), kind, at })
    })
}

fn keyed(text: &[u8], at: Range<usize>, separator: u8) -> Option<ConfigPart> {
    let (id, _) = std::str::from_utf8(&text[at.clone()]).ok()?.split_once(char::from(separator))?;
    let named = !id.is_empty() && !id.starts_with('#');
    named.then(|| ConfigPart { id: id.to_owned(), kind: String::new(), at })
}

// ---- fields of a JSON object

/// Finds the object that `keys` lead to. None: one of them is missing. Everything below relies on the
/// whole text having been read as JSON here.
fn object(text: &[u8], keys: &[&str]) -> Result<Option<Range<usize>>, String> {
    if text.trim_ascii().is_empty() {
        return Ok(None);
    }
    serde_json::from_slice::<serde::de::IgnoredAny>(text).map_err(|error| format!("is not JSON: {error}"))?;
    let start = skip_blanks(text, 0);
    let mut at = start..skip_value(text, start);
    for key in keys {
        let found = fields(text, &at)?.into_iter().find(|field| field.id == **key);
        match found {
            Some(field) => at = value(text, &field.at),
            None => return Ok(None),
        }
    }
    if text.get(at.start) == Some(&b'{') { Ok(Some(at)) } else { Err("contains no object there".to_owned()) }
}

/// Lists `"key": value` of an object that is valid JSON.
fn fields(text: &[u8], object: &Range<usize>) -> Result<Vec<ConfigPart>, String> {
    if text.get(object.start) != Some(&b'{') {
        return Err("contains no object there".to_owned());
    }

    let mut found = Vec::new();
    let mut at = skip_blanks(text, object.start + 1);
    while text.get(at) == Some(&b'"') {
        let key = at..skip_value(text, at);
        let id = serde_json::from_slice(&text[key.clone()]).map_err(|error| error.to_string())?;
        let start = skip_blanks(text, skip_blanks(text, key.end) + 1);
        let end = skip_value(text, start);
        found.push(ConfigPart { id, kind: String::new(), at: key.start..end });
        at = skip_blanks(text, end);
        if text.get(at) == Some(&b',') {
            at = skip_blanks(text, at + 1);
        }
    }
    Ok(found)
}

/// Returns the place of the value of a field.
fn value(text: &[u8], field: &Range<usize>) -> Range<usize> {
    let key_end = skip_value(text, field.start);
    skip_blanks(text, skip_blanks(text, key_end) + 1)..field.end
}

fn add_field(text: &[u8], keys: &[&str], id: &str, entry: &[u8]) -> Result<Vec<u8>, String> {
    let text = if text.trim_ascii().is_empty() { b"{}" } else { text };
    if let Some(at) = object(text, keys)? {
        let last = fields(text, &at)?.pop();
        let (place, comma) = last.map_or((at.start + 1, ""), |last| (last.at.end, ","));
        return Ok(replace(text, &(place..place), &[comma.as_bytes(), entry].concat()));
    }
    let Some((last, above)) = keys.split_last() else { return Err(format!("has no place for '{id}'")) };
    let inner = [b"\"", last.as_bytes(), b"\":{", entry, b"}"].concat();
    add_field(text, above, last, &inner)
}

fn skip_blanks(text: &[u8], mut at: usize) -> usize {
    while text.get(at).is_some_and(u8::is_ascii_whitespace) {
        at += 1;
    }
    at
}

/// Returns the place behind the value that begins at `at`.
fn skip_value(text: &[u8], mut at: usize) -> usize {
    let mut depth = 0_usize;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => at = skip_string(text, at),
            b'{' | b'[' => {
                depth += 1;
                at += 1;
                continue;
            }
            b'}' | b']' => {
                at += 1;
                depth = depth.saturating_sub(1);
            }
            b',' | b':' => at += 1,
            byte if byte.is_ascii_whitespace() => at += 1,
            _ => {
                let rest = &text[at..];
                let ends = |byte: &u8| b",]}: \t\r\n".contains(byte);
                at += rest.iter().position(ends).unwrap_or(rest.len());
            }
        }
        if depth == 0 {
            break;
        }
    }

    at
}

fn skip_string(text: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(byte) = text.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}
