//! Datastores come back only where their disk is: one without its directory would be made again on the root disk.

use std::collections::{BTreeSet, HashSet};

/// The part of a `datastore.cfg` that can come back.
#[derive(Debug, PartialEq, Eq)]
pub struct Mounted {
    pub text: String,
    /// Names of datastores whose directory is not here.
    pub missing: Vec<String>,
}

/// Keeps the sections whose directory is here, and those that the live file has, too. `Removable` ones (a relative path
/// on a disk that comes and goes) and those on S3, whose path is a cache, are kept.
pub fn mounted(text: &str, live: &str, here: &BTreeSet<String>) -> Mounted {
    let known: HashSet<&str> = live.lines().filter_map(name).collect();
    let mut mounted = Mounted { text: String::new(), missing: Vec::new() };

    for section in sections(text) {
        let first = section.lines().find_map(name);
        let value = |key: &str| {
            let mut lines = section.lines().filter(|line| line.starts_with([' ', '\t']));
            lines.find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(' ').map(str::trim))
        };
        let is_fixed = value("backing-device").is_none() && value("backend").is_none();
        let is_here = value("path").is_none_or(|path| here.contains(path));
        match first {
            Some(name) if is_fixed && !is_here && !known.contains(name) => {
                mounted.missing.push(name.to_owned());
            }
            _ => mounted.text.push_str(section),
        }
    }
    mounted
}

fn name(line: &str) -> Option<&str> {
    line.strip_prefix("datastore:").map(str::trim)
}

/// Splits into sections, each from its head to the next head; what stands before the first is a section, too.
fn sections(text: &str) -> Vec<&str> {
    let mut starts = vec![0];
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if name(line).is_some() && at > 0 {
            starts.push(at);
        }
        at += line.len();
    }
    starts.push(text.len());
    starts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "datastore: a\n\tcomment x\n\tpath /mnt/a\n\ndatastore: b\n\tpath /mnt/b\n\n\
                        datastore: stick\n\tbacking-device 1-2\n\tpath rel\n\ndatastore: s3\n\tbackend type=s3\n\tpath /c\n";

    #[test]
    fn only_what_is_mounted_comes_back() {
        let here = BTreeSet::from(["/mnt/a".to_owned()]);
        let mounted = mounted(TEXT, "", &here);
        assert_eq!(mounted.missing, ["b"]);
        assert!(mounted.text.contains("datastore: a\n\tcomment x\n"));
        assert!(mounted.text.contains("datastore: stick") && mounted.text.contains("datastore: s3"));
        assert!(!mounted.text.contains("/mnt/b"));
    }

    #[test]
    fn what_the_live_file_has_stays_as_the_snapshot_says() {
        let mounted = mounted(TEXT, "datastore: b\n\tpath /old\n", &BTreeSet::new());
        assert_eq!(mounted.missing, ["a"]);
        assert!(mounted.text.contains("/mnt/b"));
        assert_eq!(super::mounted(TEXT, TEXT, &BTreeSet::new()).text, TEXT);
    }
}
