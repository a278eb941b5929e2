//! A picture of a tree: all that must survive a backup and an extraction, path by path.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// One path as lstat, readlink and listxattr tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub kind: &'static str,
    pub mode: u32,
    pub owner: (u32, u32),
    pub mtime: (i64, i64),
    pub size: u64,
    /// SHA-256 of a file's contents.
    pub content: String,
    pub link: Option<Vec<u8>>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first path, in byte order, that is the same file.
    pub same_as: Option<PathBuf>,
}

/// Paths relative to a root.
pub type Tree = BTreeMap<PathBuf, Seen>;

/// Everything below `top`, itself included; `top` is relative to `root` and may be empty.
pub fn picture(root: &Path, top: &str) -> Tree {
    let mut tree = Tree::new();
    look(root, Path::new(top), &mut tree);
    let mut first: HashMap<(u64, u64), PathBuf> = HashMap::new();
    for (path, seen) in &mut tree {
        let meta = fs::symlink_metadata(root.join(path)).unwrap();
        if meta.is_file() {
            let name = first.entry((meta.dev(), meta.ino())).or_insert_with(|| path.clone());
            seen.same_as = (name != path).then(|| name.clone());
        }
    }
    tree
}

fn look(root: &Path, path: &Path, tree: &mut Tree) {
    let full = if path.as_os_str().is_empty() { root.to_owned() } else { root.join(path) };
    let meta = fs::symlink_metadata(&full).unwrap_or_else(|error| panic!("{}: {error}", full.display()));
    let kind = match meta.mode() & libc::S_IFMT {
        libc::S_IFREG => "file",
        libc::S_IFDIR => "folder",
        libc::S_IFLNK => "link",
        _ => "special",
    };
    let read = |kind| if kind == "file" { fs::read(&full).unwrap() } else { Vec::new() };
    // /etc/pve has none.
    let xattrs: Vec<_> = match xattr::list(&full) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Vec::new(),
        names => names.unwrap().collect(),
    };
    let seen = Seen {
        kind,
        mode: meta.mode() & 0o7777,
        owner: (meta.uid(), meta.gid()),
        mtime: (meta.mtime(), meta.mtime_nsec()),
        size: if kind == "file" { meta.size() } else { 0 },
        content: pbx_config::sys::hex(&Sha256::digest(read(kind))),
        link: (kind == "link").then(|| fs::read_link(&full).unwrap().as_os_str().as_bytes().to_vec()),
        xattrs: xattrs
            .into_iter()
            .map(|name| (name.as_bytes().to_vec(), xattr::get(&full, &name).unwrap().unwrap_or_default()))
            .collect(),
        same_as: None,
    };
    tree.insert(path.to_owned(), seen);
    if kind == "folder" {
        for entry in fs::read_dir(&full).unwrap() {
            look(root, &path.join(entry.unwrap().file_name()), tree);
        }
    }
}

/// Fails with each path that differs.
#[track_caller]
pub fn assert_same(is: &Tree, should: &Tree) {
    let mut wrong = Vec::new();
    for (path, should) in should {
        match is.get(path) {
            None => wrong.push(format!("{}: is missing", path.display())),
            Some(is) if is != should => {
                wrong.push(format!("{}:\n  is     {is:?}\n  should {should:?}", path.display()));
            }
            Some(_) => {}
        }
    }
    wrong.extend(
        is.keys().filter(|path| !should.contains_key(*path)).map(|path| format!("{}: extra", path.display())),
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
