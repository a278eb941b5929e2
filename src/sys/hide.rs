//! Known secrets, taken out of what others say: a server or a tool repeats what it was asked in a form of its own,
//! percent-encoded, escaped as JSON or HTML, in base64 within a longer text.
//! Not here: text that only looks like a secret (mask).

use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use crate::model::secret::MASK;

/// Shorter pieces of base64 stand in ordinary words.
const BASE64_MIN_BYTES: usize = 6;

/// Replaces each of `secrets` in `text`, in whatever usual form it stands there.
pub fn hide(text: &str, secrets: &[&str]) -> String {
    let needles: Vec<Vec<u8>> =
        secrets.iter().filter(|secret| !secret.is_empty()).flat_map(|secret| forms(secret)).collect();
    if needles.is_empty() {
        return text.to_owned();
    }

    let mut found: Vec<Range<usize>> = Vec::new();
    for view in View::all(text) {
        found.extend(needles.iter().flat_map(|needle| view.find(needle)));
    }
    found.sort_by_key(|range| (range.start, range.end));
    without(text, &found)
}

/// Returns `text` with every one of the sorted ranges replaced; those that overlap count as one.
fn without(text: &str, ranges: &[Range<usize>]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut end = 0;
    for range in ranges {
        if range.start >= end {
            out.push_str(&text[end..range.start]);
            out.push_str(MASK);
        }
        end = end.max(range.end);
    }
    out.push_str(&text[end..]);
    out
}

/// The secret itself, and the letters that it makes of base64 wherever in a text it begins.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let mut forms = vec![secret.as_bytes().to_vec()];
    for offset in 0..3 {
        let mut text = vec![0; offset];
        text.extend_from_slice(secret.as_bytes());
        // The first and the last letter hold bits of what stands beside the secret.
        let first = [0, 2, 3][offset];
        let last = text.len() * 8 / 6;
        for encoded in [STANDARD_NO_PAD.encode(&text), URL_SAFE_NO_PAD.encode(&text)] {
            let own = encoded.get(first..last).unwrap_or_default();
            if own.len() >= BASE64_MIN_BYTES {
                forms.push(own.as_bytes().to_vec());
            }
        }
    }
    forms.dedup();
    forms
}

/// A text as somebody who decodes it reads it: bytes, and the place in the text that each comes from.
#[derive(Clone)]
struct View {
    bytes: Vec<u8>,
    /// One more than there are bytes: the last is the end of the text.
    places: Vec<usize>,
}

/// Reads one encoded byte sequence at the start of the bytes: how many bytes it takes, and what they stand for.
type Decode = fn(&[u8]) -> Option<(usize, Vec<u8>)>;

impl View {
    fn all(text: &str) -> Vec<Self> {
        let plain = Self { bytes: text.as_bytes().to_vec(), places: (0..=text.len()).collect() };
        let mut views = vec![plain.clone()];
        for outer in [json as Decode, html] {
            views.push(plain.decoded(outer));
        }
        for n in 0..views.len() {
            for inner in [percent as Decode, form] {
                let once = views[n].decoded(inner);
                views.push(once.decoded(inner));
                views.push(once);
            }
        }
        views
    }

    fn decoded(&self, decode: Decode) -> Self {
        let (mut bytes, mut places) = (Vec::with_capacity(self.bytes.len()), Vec::new());
        let mut at = 0;
        while at < self.bytes.len() {
            let (len, meant) = decode(&self.bytes[at..]).unwrap_or_else(|| (1, vec![self.bytes[at]]));
            places.extend(meant.iter().map(|_| self.places[at]));
            bytes.extend(meant);
            at += len;
        }
        places.push(self.places[self.bytes.len()]);
        Self { bytes, places }
    }

    /// The places in the text where `needle` stands.
    fn find(&self, needle: &[u8]) -> Vec<Range<usize>> {
        let windows = self.bytes.windows(needle.len()).enumerate();
        let hits = windows.filter(|(_, window)| *window == needle);
        hits.map(|(at, _)| self.places[at]..self.places[at + needle.len()]).collect()
    }
}

/// `%2F`
fn percent(bytes: &[u8]) -> Option<(usize, Vec<u8>)> {
    let digits = bytes.strip_prefix(b"%")?.get(..2)?;
    Some((3, vec![hex(digits).and_then(|value| u8::try_from(value).ok())?]))
}

/// `%2F`, and `+` for a blank, as forms write it.
fn form(bytes: &[u8]) -> Option<(usize, Vec<u8>)> {
    if bytes.first() == Some(&b'+') { Some((1, vec![b' '])) } else { percent(bytes) }
}

/// `\"`, `\/`, `\u00e9`, also a pair of them.
fn json(bytes: &[u8]) -> Option<(usize, Vec<u8>)> {
    let rest = bytes.strip_prefix(b"\\")?;
    let plain = match rest.first()? {
        b'n' => b'\n',
        b't' => b'\t',
        b'r' => b'\r',
        b'b' => 8,
        b'f' => 12,
        b'u' => {
            let unit = |at: usize| Some(u16::try_from(hex(rest.get(at..at + 4)?)?).unwrap_or_default());
            let first = unit(1)?;
            let second = rest.get(5..7).filter(|mark| mark == b"\\u").and_then(|_| unit(7));
            let both = second.and_then(|second| String::from_utf16(&[first, second]).ok());
            // Two letters that are no pair are read one at a time.
            let pair = both.filter(|text| text.chars().count() == 1);
            let len = if pair.is_some() { 12 } else { 6 };
            return Some((len, pair.or_else(|| String::from_utf16(&[first]).ok())?.into_bytes()));
        }
        other => *other,
    };
    Some((2, vec![plain]))
}

/// `&amp;`, `&#38;`, `&#x26;`
fn html(bytes: &[u8]) -> Option<(usize, Vec<u8>)> {
    let rest = bytes.strip_prefix(b"&")?;
    let end = rest.iter().take(10).position(|byte| *byte == b';')?;
    let name = std::str::from_utf8(&rest[..end]).ok()?;
    let letter = match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        _ => {
            let number = name.strip_prefix('#')?;
            let value = match number.strip_prefix(['x', 'X']) {
                Some(digits) => hex(digits.as_bytes())?,
                None => number.parse().ok()?,
            };
            char::from_u32(value)?
        }
    };
    Some((end + 2, letter.to_string().into_bytes()))
}

fn hex(digits: &[u8]) -> Option<u32> {
    let all_hex = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    u32::from_str_radix(std::str::from_utf8(digits).ok().filter(|_| all_hex)?, 16).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    const SECRET: &str = "S3CRET/w1+p&ss \"w%rd\" é😀";

    fn percent_encoded(text: &str, keep: fn(u8) -> bool) -> String {
        text.bytes().map(|b| if keep(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
    }

    #[test]
    fn a_secret_is_hidden_in_every_form_in_which_it_is_repeated() {
        let encoded = percent_encoded(SECRET, |byte| byte.is_ascii_alphanumeric());
        let twice = percent_encoded(&encoded, |byte| byte.is_ascii_alphanumeric());
        let as_json = serde_json::to_string(SECRET).unwrap();
        let ascii: Vec<String> = SECRET.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
        let forms = [
            SECRET.to_owned(),
            encoded.clone(),
            encoded.to_lowercase().replace("s3cret", "S3CRET"),
            encoded.replace("%20", "+"),
            percent_encoded(SECRET, |_| false),
            twice,
            as_json.trim_matches('"').to_owned(),
            as_json.trim_matches('"').replace('/', "\\/"),
            ascii.concat(),
            SECRET.replace('&', "&amp;").replace('"', "&quot;"),
            SECRET.replace('&', "&#38;").replace('"', "&#x22;"),
        ];
        for form in forms {
            let shown = hide(&format!("no such hook: {form}, sorry"), &[SECRET]);
            assert_eq!(shown, format!("no such hook: {MASK}, sorry"), "of {form}");
        }
    }

    #[test]
    fn base64_of_a_text_with_the_secret_in_it_is_hidden_at_any_offset() {
        for before in ["", "a", "ab", "abc", "user:"] {
            for after in ["", "x", "yz", ":rest"] {
                for engine in [&STANDARD, &base64::engine::general_purpose::URL_SAFE] {
                    let said = engine.encode(format!("{before}hunter2-hunter2~~~?{after}"));
                    let shown = hide(&format!("bad login {said}"), &["hunter2-hunter2~~~?"]);
                    assert!(shown.contains(MASK), "{said}: {shown}");
                    let left = shown.replace("bad login ", "").replace(MASK, "");
                    // At most the letters that share bits with what stands beside it.
                    assert!(left.len() <= 4 + 4 * (before.len() / 3 + 1 + after.len() / 3 + 1), "{shown}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_secret_stays_as_it_is() {
        for text in ["100 % of it", "a + b & c; \\x \\", "&nothing; %zz %4", "\\ud800 é 😀", ""] {
            assert_eq!(hide(text, &["hunter2"]), text);
        }
        assert_eq!(hide("aa aaa", &["aa"]), format!("{MASK} {MASK}"));
        assert_eq!(hide("x", &[""]), "x");
    }
}
