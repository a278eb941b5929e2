//! Progress of a run, on one line of a terminal that is overwritten.

use crate::cli::render;
use crate::sys::mask;
use crate::task::backup;

/// Whoever sets `NO_COLOR` to anything wants none.
fn colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|word| word.is_empty())
}

/// A live line on a terminal; nothing elsewhere.
pub(in crate::cli) struct Progress {
    pub live: bool,
}

impl Progress {
    const WIDTH: usize = 76;

    /// A step stays on the terminal, and stands in the journal; a detail is overwritten by the next one.
    #[allow(clippy::print_stderr)] // the live line is not a record of the log
    pub fn say(&self, what: &str) {
        let step = what.starts_with(backup::STEP);
        log::log!(if step { log::Level::Info } else { log::Level::Debug }, "{what}");
        if self.live {
            let shown = mask::mask(what);
            let line: String = render::one_line(&shown).chars().take(Self::WIDTH).collect();
            let line = if step { render::step(&line, colours()) } else { line };
            eprint!("\r\x1b[K{line}{}", if step { "\n" } else { "" });
        }
    }

    #[allow(clippy::print_stderr)]
    pub fn clear(&self) {
        if self.live {
            eprint!("\r\x1b[K");
        }
    }
}
