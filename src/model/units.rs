//! Sizes, counts and spans of time as people read them.

/// Bytes as Proxmox writes them.
#[allow(clippy::cast_precision_loss)] // one digit is shown
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut unit = 0;
    let mut scaled = bytes as f64 / 1024.0;
    while scaled >= 1024.0 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    format!("{scaled:.1} {}", UNITS[unit])
}

/// "1 path", "2 paths".
pub fn counted(number: impl TryInto<u64>, what: &str) -> String {
    let number = number.try_into().unwrap_or(u64::MAX);
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Seconds: "1.4 s", "2 min 5 s", "1 h 3 min".
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a negative one is 0
pub fn span(seconds: f64) -> String {
    if seconds < 60.0 {
        return format!("{:.1} s", seconds.max(0.0));
    }
    let whole = seconds as u64;
    match whole / 60 {
        minutes @ 0..=59 => format!("{minutes} min {} s", whole % 60),
        minutes => format!("{} h {} min", minutes / 60, minutes % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_in_binary_units() {
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(u64::MAX), "16384.0 PiB");
    }

    #[test]
    fn one_is_no_plural() {
        assert_eq!([0u64, 1, 2].map(|n| counted(n, "file")), ["0 files", "1 file", "2 files"]);
    }

    #[test]
    fn spans_have_two_units_at_most() {
        for (seconds, text) in
            [(0.24, "0.2 s"), (125.0, "2 min 5 s"), (3_800.0, "1 h 3 min"), (-1.0, "0.0 s")]
        {
            assert_eq!(span(seconds), text);
        }
    }
}
