//! Trees of small files, for the tests of this floor.
#![allow(clippy::unwrap_used)]

use std::fs;

/// Each path of these is a file that holds "x".
pub fn tree(paths: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for path in paths {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    }
    dir
}
