//! A format number is a promise: what was ever released restores for ever.
//! tests/format holds snapshots as they were written then; they are never made anew.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::TestHost;

fn archives() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/format");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|ext| ext == "tar")).collect();
    files.sort();
    files
}

#[test]
fn every_format_ever_released_is_read_to_the_last_byte() {
    let archives = archives();
    assert_eq!(archives.len(), 6, "one for each codec of format 1");
    for file in archives {
        let host = TestHost::empty();
        let file = file.to_str().unwrap();
        host.run(&["verify", file]).ok();
        assert_eq!(host.run(&["cat", file, "etc/hostname"]).ok().out, "deb1\n");
        let target = host.beside("out");
        host.run(&["restore", file, "--to", target.to_str().unwrap()]).ok();
        assert_eq!(fs::read_to_string(target.join("etc/hostname")).unwrap(), "deb1\n", "{file}");
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &fs::metadata(target.join("etc/shadow")).unwrap().permissions(),
        );
        assert_eq!(mode & 0o7777, 0o640);
    }
}
