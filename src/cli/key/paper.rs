//! A sheet of paper that opens the snapshots: an identity as text and as a QR code of half blocks.

use anyhow::{Context, Result};
use jiff::Timestamp;
use qrcodegen::{QrCode, QrCodeEcc};
use zeroize::Zeroizing;

use crate::archive::identity::Identity;
use crate::cli::render;

/// White around it, in modules: scanners want four.
const QUIET: i32 = 4;

/// Text for a printer of fixed width. Errors: an SSH key, which is longer than what one types from paper.
pub fn sheet(node: &str, now: Timestamp, identity: &Identity) -> Result<Zeroizing<String>> {
    let secret = identity.to_text().context(
        crate::model::problem::Fault::new(
            crate::model::problem::FaultKind::Usage,
            "an SSH key is too long for a sheet of paper",
        )
        .hint("`pbx-config key generate` creates one that fits"),
    )?;
    let recipient = identity.recipient().map(|one| format!("Recipient    {one}\n")).unwrap_or_default();
    let recipient = recipient
        + &identity
            .recipient()
            .map(|one| format!("Fingerprint  {}\n", one.fingerprint()))
            .unwrap_or_default();
    let code = QrCode::encode_text(&secret, QrCodeEcc::Medium).context("a key of a sane length")?;
    Ok(Zeroizing::new(format!(
        "
KEY TO THE ENCRYPTED SNAPSHOTS OF {node}

Printed      {printed}
{recipient}
Anyone who has this sheet can read them; without a key nobody can. Do not keep it near this host.

{secret}

{code}
To use it, put the line AGE-SECRET-KEY-... into a file, as key.txt, and
    pbx-config restore SNAPSHOT --to DIR --identity key.txt
or, without this program, as HOWTO.txt in each snapshot file says, with `age -d -i key.txt`.
",
        printed = render::time(now),
        secret = *secret,
        code = *blocks(&code),
    )))
}

/// Two rows of modules in a line of text; dark is the ink of the paper.
fn blocks(code: &QrCode) -> Zeroizing<String> {
    let end = code.size() + QUIET;
    let mut text = Zeroizing::new(String::new());
    for y in (-QUIET..end).step_by(2) {
        for x in -QUIET..end {
            text.push(match (code.get_module(x, y), code.get_module(x, y + 1)) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            });
        }
        let ink = text.trim_end_matches(' ').len();
        text.truncate(ink);
        text.push('\n');
    }

    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_code_stands_as_the_crate_draws_it() {
        let code = QrCode::encode_text("AGE-SECRET-KEY-1", QrCodeEcc::Medium).unwrap();
        let text = blocks(&code);
        let lines: Vec<Vec<char>> = text.lines().map(|line| line.chars().collect()).collect();
        for y in 0..code.size() {
            for x in 0..code.size() {
                let (row, column) =
                    (usize::try_from(y + QUIET).unwrap(), usize::try_from(x + QUIET).unwrap());
                let shown = lines[row / 2].get(column).copied().unwrap_or(' ');
                let dark = if row % 2 == 0 { "█▀" } else { "█▄" }.contains(shown);
                assert_eq!(dark, code.get_module(x, y), "{x} {y}");
            }
        }
    }
}
