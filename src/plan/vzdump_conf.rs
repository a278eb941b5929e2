//! Our line in vzdump.conf: put there and taken away so that every other byte stays as it was. One script can be
//! active only, so one that is there becomes a comment, and is the script that ours hands on to.

/// Stands before each `script:` line that was there.
const ASIDE: &[u8] = b"#pbx-config# ";
const BEGIN: &str = "# pbx-config hook, removed by `pbx-config hook disable vzdump`";
/// The text before it had no newline at its end.
const JOINED: &str = " (joined)";
/// There was no file.
const NEW: &str = " (new file)";
const END: &str = "# end of pbx-config hook";
const KEY: &[u8] = b"script:";

/// The owner of the script that vzdump runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookLine {
    None,
    /// Somebody else's.
    Other(Vec<u8>),
    /// Ours, which hands on to what was there.
    Ours {
        chained: Option<Vec<u8>>,
    },
}

/// The change that the file needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VzdumpChange {
    Nothing,
    Write(Vec<u8>),
    Remove,
}

/// The last `script` line counts, as vzdump reads it.
pub fn hook(text: &[u8], ours: &str) -> HookLine {
    let active = lines(text).filter_map(script).next_back();
    match active {
        None => HookLine::None,
        Some(path) if path == ours.as_bytes() => {
            let mut aside = lines(text).filter_map(|line| line.strip_prefix(ASIDE)).filter_map(script);
            HookLine::Ours { chained: aside.rfind(|path| *path != ours.as_bytes()).map(<[u8]>::to_vec) }
        }
        Some(path) => HookLine::Other(path.to_vec()),
    }
}

/// `text` is None when there is no file.
pub fn enable(text: Option<&[u8]>, ours: &str) -> VzdumpChange {
    let before = text.unwrap_or_default();
    if matches!(hook(before, ours), HookLine::Ours { .. }) {
        return VzdumpChange::Nothing;
    }

    // A block that somebody's later line overrules is made again.
    let clean = without(before, ours);
    let mut after = Vec::with_capacity(clean.len() + 256);
    for line in lines(&clean) {
        if script(line).is_some() {
            after.extend_from_slice(ASIDE);
        }
        after.extend_from_slice(line);
    }

    let how = match text {
        None => NEW,
        Some(_) if clean.last().is_some_and(|byte| *byte != b'\n') => {
            after.push(b'\n');
            JOINED
        }
        Some(_) => "",
    };
    after.extend_from_slice(format!("{BEGIN}{how}\nscript: {ours}\n{END}\n").as_bytes());
    VzdumpChange::Write(after)
}

pub fn disable(text: &[u8], ours: &str) -> VzdumpChange {
    let after = without(text, ours);
    if after == text {
        VzdumpChange::Nothing
    } else if after.is_empty() && lines(text).any(|line| is_mark(line, NEW)) {
        VzdumpChange::Remove
    } else {
        VzdumpChange::Write(after)
    }
}

/// The text without our block, what was set aside back in force.
fn without(text: &[u8], ours: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut joined = false;
    for line in lines(text) {
        if ["", JOINED, NEW].iter().any(|how| is_mark(line, how)) {
            joined = is_mark(line, JOINED);
        } else if let Some(was) = line.strip_prefix(ASIDE) {
            out.extend_from_slice(was);
        } else if trim(line) != END.as_bytes() && script(line) != Some(ours.as_bytes()) {
            joined = false;
            out.extend_from_slice(line);
        }
    }

    // Only when the block is still at the end: what came behind it needs the newline.
    if joined && out.last() == Some(&b'\n') {
        out.pop();
    }
    out
}

fn is_mark(line: &[u8], how: &str) -> bool {
    trim(line).strip_prefix(BEGIN.as_bytes()) == Some(how.as_bytes())
}

/// The path of a `script` line, trimmed as vzdump trims it.
fn script(line: &[u8]) -> Option<&[u8]> {
    trim(line).strip_prefix(KEY).map(trim)
}

fn trim(bytes: &[u8]) -> &[u8] {
    bytes.trim_ascii()
}

/// Returns the lines with their newlines.
fn lines(text: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    text.split_inclusive(|byte| *byte == b'\n')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    const OURS: &str = "/usr/share/x/hook";

    fn enabled(text: &[u8]) -> Vec<u8> {
        match enable(Some(text), OURS) {
            VzdumpChange::Write(after) => after,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_script_that_is_there_is_set_aside_and_handed_on_to() {
        let text = b"# vzdump default settings\nstorage: nas\nscript: /root/hook.pl\nmode: stop\n";
        let after = enabled(text);
        assert_eq!(hook(text, OURS), HookLine::Other(b"/root/hook.pl".to_vec()));
        assert_eq!(hook(&after, OURS), HookLine::Ours { chained: Some(b"/root/hook.pl".to_vec()) });
        assert!(after.starts_with(
            b"# vzdump default settings\nstorage: nas\n#pbx-config# script: /root/hook.pl\nmode:"
        ));
        assert_eq!(enable(Some(&after), OURS), VzdumpChange::Nothing);
    }

    #[test]
    fn of_two_scripts_the_last_counts_and_both_come_back() {
        let text = b"script: /a\r\nscript:   /b  \r\n";
        let after = enabled(text);
        assert_eq!(hook(&after, OURS), HookLine::Ours { chained: Some(b"/b".to_vec()) });
        assert_eq!(disable(&after, OURS), VzdumpChange::Write(text.to_vec()));
    }

    #[test]
    fn a_file_that_was_not_there_goes_again() {
        let VzdumpChange::Write(after) = enable(None, OURS) else { panic!() };
        assert_eq!(disable(&after, OURS), VzdumpChange::Remove);
        // Unless somebody wrote into it after we did.
        let more = [&after[..], b"mode: stop\n"].concat();
        assert_eq!(disable(&more, OURS), VzdumpChange::Write(b"mode: stop\n".to_vec()));
    }

    #[test]
    fn a_line_added_behind_keeps_its_own_line() {
        let more = [&enabled(b"storage: nas")[..], b"mode: stop\n"].concat();
        assert_eq!(disable(&more, OURS), VzdumpChange::Write(b"storage: nas\nmode: stop\n".to_vec()));
    }

    #[test]
    fn a_script_that_overrules_ours_later_is_somebody_elses_until_we_are_enabled_again() {
        let more = [&enabled(b"script: /a\n")[..], b"script: /b\n"].concat();
        assert_eq!(hook(&more, OURS), HookLine::Other(b"/b".to_vec()));
        let again = enabled(&more);
        assert_eq!(hook(&again, OURS), HookLine::Ours { chained: Some(b"/b".to_vec()) });
        assert_eq!(disable(&again, OURS), VzdumpChange::Write(b"script: /a\nscript: /b\n".to_vec()));
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        assert_eq!(disable(b"script: /a\n", OURS), VzdumpChange::Nothing);
        assert_eq!(disable(b"", OURS), VzdumpChange::Nothing);
        assert_eq!(hook(b"# script: /a\nscripts: /b\n", OURS), HookLine::None);
    }

    proptest! {
        #[test]
        fn disabling_gives_back_every_byte(
            lines in proptest::collection::vec("(#? ?script: ?/[a-z ]{0,3}|[a-z#: \t]{0,9}|\\PC{0,5})(\r?\n)", 0..8),
            tail in "([a-z]: [a-z]|script: /z)?",
        ) {
            let text = format!("{}{tail}", lines.concat());
            prop_assert_eq!(disable(&enabled(text.as_bytes()), OURS), VzdumpChange::Write(text.into_bytes()));
        }
    }
}
