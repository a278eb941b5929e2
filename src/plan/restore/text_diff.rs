//! A short picture of how a file changes: some lines of a unified diff, or only their number when it holds secrets.

use serde::{Deserialize, Serialize};
use similar::{ChangeTag, TextDiff};

/// Lines shown of one file.
const MAX_LINES: usize = 24;
/// Larger texts are told by their number of bytes: a plan has to be quick.
const MAX_BYTES: usize = 128 << 10;
/// Unchanged lines beside a change.
const CONTEXT: usize = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excerpt {
    pub added: usize,
    pub removed: usize,
    /// Lines as a unified diff has them, masked. Empty for a secret file and for a file that is not text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<String>,
    /// Lines that are not shown.
    #[serde(default)]
    pub more: usize,
}

/// None for what is no text or is too long to be compared.
pub fn between(old: &[u8], new: &[u8], secret: bool, mask: fn(&str) -> String) -> Option<Excerpt> {
    if old.len().max(new.len()) > MAX_BYTES || old == new {
        return None;
    }

    let (old, new) = (std::str::from_utf8(old).ok()?, std::str::from_utf8(new).ok()?);
    if old.contains('\0') || new.contains('\0') {
        return None;
    }

    let diff = TextDiff::from_lines(old, new);
    let count = |tag| diff.iter_all_changes().filter(|change| change.tag() == tag).count();
    let mut excerpt = Excerpt {
        added: count(ChangeTag::Insert),
        removed: count(ChangeTag::Delete),
        lines: Vec::new(),
        more: 0,
    };
    if secret {
        return Some(excerpt);
    }
    for (n, group) in diff.grouped_ops(CONTEXT).iter().enumerate() {
        if n > 0 {
            excerpt.lines.push("@@".to_owned());
        }
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let text = mask(change.value().trim_end_matches(['\n', '\r']));
            excerpt.lines.push(format!("{}{text}", change.tag()));
        }
    }

    excerpt.more = excerpt.lines.len().saturating_sub(MAX_LINES);
    excerpt.lines.truncate(MAX_LINES);
    Some(excerpt)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn plain(text: &str) -> String {
        text.to_owned()
    }

    #[test]
    fn a_change_is_shown_with_its_neighbours() {
        let excerpt = between(b"a\nb\nc\nd\n", b"a\nb\nX\nd\n", false, plain).unwrap();
        assert_eq!((excerpt.added, excerpt.removed), (1, 1));
        assert_eq!(excerpt.lines, [" b", "-c", "+X", " d"]);
    }

    #[test]
    fn of_a_secret_only_the_number_of_lines_is_told() {
        let excerpt = between(b"key 1\n", b"key 2\n", true, plain).unwrap();
        assert!(excerpt.lines.is_empty());
        assert_eq!((excerpt.added, excerpt.removed), (1, 1));
    }

    #[test]
    fn what_is_no_text_is_not_compared() {
        assert_eq!(between(b"\xff\xfe", b"a", false, plain), None);
        assert_eq!(between(b"a\0", b"a", false, plain), None);
    }

    #[test]
    fn a_long_change_is_cut() {
        let lines: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        let new = lines.join("\n") + "\n";
        let excerpt = between(b"", new.as_bytes(), false, plain).unwrap();
        assert_eq!((excerpt.lines.len(), excerpt.more), (MAX_LINES, 76));
    }
}
