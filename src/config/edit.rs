//! Adds a line to a configuration file and keeps every other byte of it.

use anyhow::Result;

use super::{BACKUP, MAIN, fault};
use crate::model::section;

/// Returns `text` with `key value` in its `backup: main`: behind the last line of that key, or of the section, or in
/// a new section at the end. `name` is for errors. Errors: `text` cannot be read; such a file is not edited.
pub fn with_line(name: &str, text: &str, key: &str, value: &str) -> Result<String> {
    let sections = section::parse(name, text).map_err(fault)?;
    let end = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let Some(main) = sections.iter().find(|section| section.kind == BACKUP && section.id == MAIN) else {
        let mut text = text.to_owned();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push_str(end);
        }
        let gap = if text.is_empty() { "" } else { end };
        return Ok(format!("{text}{gap}{BACKUP}: {MAIN}{end}\t{key} {value}{end}"));
    };

    let same = main.entries.iter().rev().find(|entry| entry.key == key).or(main.entries.last());
    let behind = same.map_or(main.line, |entry| entry.line);

    let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
    let mut before = lines[..behind].concat();
    if !before.ends_with('\n') {
        before.push_str(end);
    }
    Ok(format!("{before}\t{key} {value}{end}{}", lines.split_off(behind).concat()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn with(text: &str) -> String {
        let new = with_line("f", text, "recipient", "age1x").unwrap();
        // Nothing was lost or moved; one line was added.
        let added = new.split_inclusive('\n').find(|line| line.trim() == "recipient age1x").unwrap();
        assert_eq!(new.replacen(added, "", 1).trim_end().replace('\r', ""), {
            let old = text.trim_end().replace('\r', "");
            if section::parse("f", text).unwrap().iter().any(|s| s.kind == "backup") {
                old
            } else {
                format!("{old}\n\nbackup: main").trim_start().to_owned()
            }
        });
        new
    }

    #[test]
    fn a_line_is_added_where_it_belongs() {
        assert_eq!(with(""), "backup: main\n\trecipient age1x\n");
        assert_eq!(with("dir: a\n\tpath /x"), "dir: a\n\tpath /x\n\nbackup: main\n\trecipient age1x\n");
        assert_eq!(with("backup: main\n"), "backup: main\n\trecipient age1x\n");
        assert_eq!(with("backup: main"), "backup: main\n\trecipient age1x\n");
        let two = "# mine\nbackup: main\n  recipient age1a # b\n\tskip state\n\n# other\ndir: a\n\tpath /x\n";
        assert_eq!(with(two), two.replace("b\n", "b\n\trecipient age1x\n"));
        let windows = "backup: main\r\n\tskip state\r\n\r\n";
        assert_eq!(with(windows), "backup: main\r\n\tskip state\r\n\trecipient age1x\r\n\r\n");
    }

    #[test]
    fn an_invalid_file_is_not_edited() {
        assert!(with_line("f", "backup: main\nno section\n", "recipient", "age1x").is_err());
    }
}
