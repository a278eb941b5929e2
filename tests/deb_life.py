"""Install, use, upgrade, remove, purge, install again; in chroots, where systemd does not run."""

import os
import re
import shutil
import sqlite3
import subprocess
import tempfile
import time
from pathlib import Path

from deb_chroot import PACKAGE, PROJECT, Root, deb, sh

STATE = f"var/lib/{PACKAGE}"
ETC = f"etc/{PACKAGE}"
UNITS = "usr/lib/systemd/system"
TIMERS = [f"{PACKAGE}.timer", f"{PACKAGE}-verify.timer"]
BOOT_UNITS = ["pbx-config-armed.service", "pbx-config-armed-late.service"]
SERVICES = [f"{PACKAGE}.service", f"{PACKAGE}-vzdump.service", f"{PACKAGE}-verify.service"]
# Of `systemd-analyze security`, in tenths.
EXPOSURE_MAX = 52
# `pbx-config`: done, or done with problems.
SAVED = (0, 3)


def apt(root, words, **more):
    # Asked about an edited conffile, dpkg's own default is to keep it; unattended it is told so.
    return root.run(f"apt-get -y -q -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confold {words}", **more)


def install(root, file=None, **more):
    return apt(root, f"install {root.take(file or deb())}", **more)


def status(root):
    return root.run(f"dpkg-query -W -f '${{db:Status-Status}}' {PACKAGE}", check=False).stdout


def newer(folder, change=None, version="99.0-1"):
    """The package of a later version, as `change` makes it."""
    tree = Path(folder) / f"tree-{version}"
    sh("dpkg-deb", "--raw-extract", deb(), tree)
    control = tree / "DEBIAN/control"
    control.write_text(re.sub(r"(?m)^Version: .*$", f"Version: {version}", control.read_text()))
    if change:
        change(tree)
    file = Path(folder) / f"{PACKAGE}_{version}.deb"
    sh("dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, file)
    return file


def backup_and_list(root):
    made = root.run("pbx-config backup", check=False)
    assert made.returncode in SAVED, made.stdout
    listed = root.run("pbx-config list").stdout
    assert root.hostname in listed, listed
    return made


def on_a_bare_system_apt_install_brings_it(suite):
    with Root(suite) as root:
        if suite == "bookworm":
            # Debian 13's own tools bring it.
            bare = root.run("dpkg-query -W -f '${db:Status-Status}' libsqlite3-0", check=False)
            assert "installed" not in bare.stdout.replace("not-installed", ""), "nothing to bring along"
        began = time.monotonic()
        install(root)
        took = time.monotonic() - began
        assert status(root) == "installed"
        assert root.run(f"dpkg --verify {PACKAGE}").stdout == "", "files differ from what was packed"
        mode = root.path(STATE).stat()
        assert (mode.st_mode & 0o7777, mode.st_uid, mode.st_gid) == (0o700, 0, 0), oct(mode.st_mode)
        for name in TIMERS:
            assert root.path(f"etc/systemd/system/timers.target.wants/{name}").is_symlink(), f"{name} is not enabled"
        for name in BOOT_UNITS:
            assert root.path(f"etc/systemd/system/multi-user.target.wants/{name}").is_symlink(), f"{name} is not enabled"
        assert not root.snapshots(), "installing made a backup"
        conffiles = root.run(f"dpkg-query -W -f '${{Conffiles}}' {PACKAGE}").stdout
        assert set(re.findall(r"/etc/\S+", conffiles)) == {f"/{ETC}/pbx-config.cfg", f"/{ETC}/secrets.cfg.example"}
        for path in ("usr/share/man/man1/pbx-config.1.gz", "usr/share/man/man5/pbx-config.cfg.5.gz",
                     f"usr/share/man/man7/{PACKAGE}.7.gz", "usr/share/bash-completion/completions/pbx-config",
                     "usr/share/zsh/vendor-completions/_pbx-config",
                     "usr/share/fish/vendor_completions.d/pbx-config.fish"):
            assert root.path(path).is_file(), path
        for hook in (PROJECT / "hooks").glob("*-hook"):
            there = root.path(f"usr/share/{PACKAGE}/hooks/{hook.name}")
            assert there.read_bytes() == hook.read_bytes() and there.stat().st_mode & 0o777 == 0o755, hook.name
        return f"apt took {took:.1f} s"


def with_no_further_step_it_saves_and_lists(suite):
    with Root(suite) as root:
        install(root)
        assert backup_and_list(root).returncode == 0, "problems on a bare system"
        assert len(root.snapshots()) == 1
        root.run("pbx-config config check && pbx-config verify --all")
        assert_howto_is_that_of_the_snapshot(root)


def assert_howto_is_that_of_the_snapshot(root):
    (file,) = root.snapshots()
    ours = root.path(f"usr/share/doc/{PACKAGE}/HOWTO.txt").read_text()
    theirs = sh("tar", "-xOf", file, "HOWTO.txt").stdout.replace(file.name, "HOST_TIME.pbx.tar")
    # Its first two lines name the host and the time.
    for line in theirs.splitlines()[3:]:
        assert line in ours.splitlines(), f"debian/HOWTO.txt misses: {line}"


def units_are_sound(suite):
    with Root(suite) as root:
        install(root)
        # With the release's own systemd. The manual is checked by its own tests, and man is not here.
        said = root.run(f"systemd-analyze --man=no verify {' '.join(SERVICES + TIMERS + BOOT_UNITS)}")
        assert said.stdout.strip() == "", said.stdout
        exposed = []
        for name in SERVICES:
            text = root.run(f"systemd-analyze security --offline=true --threshold={EXPOSURE_MAX} {name}").stdout
            exposed.append(re.search(r"Overall exposure level for (\S+): ([\d.]+)", text).group(2))
            # The drop-in of the prefix reaches every service.
            assert "SystemCallFilter=~@module" in text and "✗ SystemCallFilter=~@module" not in text, text
        return "exposure " + " ".join(exposed)


def an_upgrade_keeps_what_the_admin_edited(suite):
    with Root(suite) as root, tempfile.TemporaryDirectory() as folder:
        install(root)
        edited = "dir: local\n\tpath /srv/pbx\n"
        root.write(f"{ETC}/pbx-config.cfg", edited)
        root.write(f"{ETC}/secrets.cfg", "", 0o600)
        root.run(f"chmod 0750 /{STATE} && systemctl disable {TIMERS[1]}")
        backup_and_list(root)

        def change(tree):
            for name in ("pbx-config.cfg", "secrets.cfg.example"):
                with (tree / ETC / name).open("a") as file:
                    file.write("# of the next version\n")

        install(root, newer(folder, change), timeout=120)
        assert status(root) == "installed"
        assert root.path(f"{ETC}/pbx-config.cfg").read_text() == edited
        assert root.path(f"{ETC}/pbx-config.cfg.dpkg-dist").read_text().endswith("# of the next version\n")
        assert root.path(f"{ETC}/secrets.cfg.example").read_text().endswith("# of the next version\n")
        assert root.path(STATE).stat().st_mode & 0o777 == 0o750, "the admin's mode of the state folder is gone"
        wanted = root.path("etc/systemd/system/timers.target.wants")
        assert (wanted / TIMERS[0]).is_symlink() and not (wanted / TIMERS[1]).exists(), "enabled what was disabled"
        backup_and_list(root)
        assert len(list(root.path("srv/pbx").glob("*/*.pbx.tar"))) == 2


def what_an_admin_masked_stays_masked(suite):
    with Root(suite) as root, tempfile.TemporaryDirectory() as folder:
        install(root)
        root.run(f"systemctl mask {TIMERS[0]}")
        install(root, newer(folder))
        mask = root.path(f"etc/systemd/system/{TIMERS[0]}")
        assert mask.is_symlink() and os.readlink(mask) == "/dev/null"


def remove_leaves_configuration_and_snapshots_and_purge_only_snapshots(suite):
    with Root(suite) as root:
        install(root)
        root.write(f"{ETC}/secrets.cfg", "", 0o600)
        backup_and_list(root)
        stamps = [root.path(f"var/lib/systemd/timers/stamp-{name}") for name in TIMERS]
        for stamp in stamps:
            stamp.parent.mkdir(parents=True, exist_ok=True)
            stamp.touch()
        snapshots = {file: file.read_bytes() for file in root.snapshots()}

        apt(root, f"remove {PACKAGE}")
        assert status(root) == "config-files"
        assert not root.path("usr/bin/pbx-config").exists()
        assert root.path(f"{ETC}/pbx-config.cfg").exists() and root.path(f"{ETC}/secrets.cfg").exists()
        assert not any(stamp.exists() for stamp in stamps), "a stamp would make the next install run a backup"

        root.run(f"mkdir -p /run/{PACKAGE}")
        said = apt(root, f"purge {PACKAGE}").stdout
        assert status(root) in ("", "not-installed", f"dpkg-query: no packages found matching {PACKAGE}\n"), status(root)
        assert f"the snapshots in /{STATE} are kept" in said, said
        assert {file: file.read_bytes() for file in root.snapshots()} == snapshots
        assert_nothing_left(root)

        install(root)
        assert len(root.snapshots()) == 1, "installing again made a backup"
        assert "bare" in root.run("pbx-config list").stdout
        backup_and_list(root)


def assert_nothing_left(root):
    """Of the package's names, in all of the system but the store, the logs, and what apt itself keeps."""
    left = [path for path in root.dir.rglob(f"*{PACKAGE}*") if not path.is_relative_to(root.path("root"))]
    left += list(root.dir.rglob("*pbx-config*"))
    ours = [str(path.relative_to(root.dir)) for path in left if not path.is_relative_to(root.path(STATE))]
    assert [path for path in ours if not path.startswith(("var/cache/apt", "var/log"))] == [], ours


def a_package_that_was_never_used_leaves_nothing(suite):
    with Root(suite) as root:
        install(root)
        said = apt(root, f"purge {PACKAGE}").stdout
        assert not root.path(STATE).exists() and "snapshots" not in said, said
        assert_nothing_left(root)


def removal_asks_the_hooks_to_let_go_and_goes_on_when_they_fail(suite):
    """With a stand-in for the program: what is tested is who calls it, when, and with which words."""
    stand_in = '#!/bin/sh\necho "$*" >>/root/called\n[ "$*" = "hook --help" ]\n'

    def change(tree):
        (tree / "usr/bin/pbx-config").write_text(stand_in)

    with Root(suite) as root, tempfile.TemporaryDirectory() as folder:
        install(root)
        install(root, newer(folder, change))
        install(root, newer(folder, change, "99.1-1"))
        called = root.path("root/called")
        assert not called.exists(), "called by an upgrade"
        apt(root, f"remove {PACKAGE}")
        assert called.read_text().splitlines() == ["hook --help", "hook disable vzdump", "hook disable apt"]


def make_database(file, tree):
    """A config.db with the tree of a folder, made as pmxcfs would (tests/common/mod.rs)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = []

    def insert(folder, parent):
        for path in sorted(folder.iterdir()):
            inode = len(rows) + 1
            content = None if path.is_dir() else path.read_bytes()
            rows.append((inode, parent, inode, 0, 1700000000, 4 if path.is_dir() else 8, path.name, content))
            if path.is_dir():
                insert(path, inode)

    insert(tree, 0)
    rows.append((0, 0, len(rows) + 1, 0, 1700000000, 8, "__version__", None))
    db = sqlite3.connect(file)
    db.execute("CREATE TABLE tree (inode INTEGER PRIMARY KEY NOT NULL, parent INTEGER NOT NULL, version INTEGER NOT NULL, "
               "writer INTEGER NOT NULL, mtime INTEGER NOT NULL, type INTEGER NOT NULL, name TEXT NOT NULL, data BLOB)")
    db.executemany("INSERT INTO tree VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
    db.commit()
    db.close()


# What the golden hosts have and the chroot needs as its own.
CHROOTS_OWN = ["etc/passwd", "etc/shadow", "etc/group", "etc/gshadow", "etc/apt", "etc/os-release", "etc/resolv.conf",
               "etc/pam.d", "etc/systemd", "etc/login.defs", "etc/hostname", "etc/machine-id", "var/lib/dpkg"]


def dress(root, golden):
    """Lays a golden host of tests/hosts over a chroot, with its tools and its /etc/pve as database."""
    golden = PROJECT / "tests/hosts" / golden
    for source in sorted((golden / "root").rglob("*")):
        name = str(source.relative_to(golden / "root"))
        if any(name == own or name.startswith(own + "/") for own in CHROOTS_OWN):
            continue
        target = root.path(name)
        if source.is_dir() and not source.is_symlink():
            target.mkdir(parents=True, exist_ok=True)
        elif not target.is_symlink():
            shutil.copy2(source, target, follow_symlinks=False)
    for tool in (golden / "bin").iterdir():
        if not any(root.path(f"{place}/{tool.name}").exists() for place in ("usr/bin", "usr/sbin")):
            shutil.copy(tool, root.path(f"usr/bin/{tool.name}"))
            root.path(f"usr/bin/{tool.name}").chmod(0o755)
    if (golden / "pve").is_dir():
        root.path("etc/pve").mkdir()
        make_database(root.path("var/lib/pve-cluster/config.db"), golden / "pve")
    return golden


def on_a_pve_host_it_saves_the_cluster_file_system(suite):
    with Root(suite, "pve1") as root:
        golden = dress(root, "pve-single")
        install(root)
        assert "Proxmox VE" in backup_and_list(root).stdout
        saved = root.run("pbx-config cat latest etc/pve/storage.cfg").stdout
        assert saved == (golden / "pve/storage.cfg").read_text(), saved
        # The chroot has no package of the product that would tell a version.
        assert "product    Proxmox VE\n" in root.run("pbx-config show latest").stdout


def hooks_that_are_on_work_and_removal_takes_them_out(suite):
    apt_hook = f"etc/apt/apt.conf.d/80{PACKAGE}"
    with Root(suite, "pve1") as root, tempfile.TemporaryDirectory() as folder:
        golden = dress(root, "pve-single")
        before = (golden / "root/etc/vzdump.conf").read_bytes()
        install(root)
        root.run("pbx-config hook enable vzdump && pbx-config hook enable apt")
        assert f"{PACKAGE}/hooks/vzdump-hook".encode() in root.path("etc/vzdump.conf").read_bytes()
        install(root, newer(folder))
        assert len(root.snapshots()) == 1, "apt made no snapshot before it changed packages"
        assert root.path(apt_hook).exists(), "an upgrade switched the hook off"
        apt(root, f"remove {PACKAGE}")
        assert root.path("etc/vzdump.conf").read_bytes() == before, "vzdump.conf is not what it was"
        assert not root.path(apt_hook).exists()
        # apt goes on without it.
        install(root)


def on_a_pbs_host_it_saves_the_server(suite):
    with Root(suite, "pbs1") as root:
        golden = dress(root, "pbs")
        install(root)
        assert "Proxmox Backup Server" in backup_and_list(root).stdout
        saved = root.run("pbx-config cat latest etc/proxmox-backup/datastore.cfg").stdout
        assert saved == (golden / "root/etc/proxmox-backup/datastore.cfg").read_text(), saved
        apt(root, f"purge {PACKAGE}")
        assert len(root.snapshots()) == 1


def apt_installs_it_from_the_signed_repository(suite):
    with Root(suite) as root, tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "gnupg"
        home.mkdir(mode=0o700)
        env = {**os.environ, "GNUPGHOME": str(home)}
        try:
            sh("gpg", "--batch", "--passphrase", "", "--quick-generate-key", "Repository <repository@example.org>",
               "ed25519", "sign", "never", env=env)
            refused = sh("sh", "debian/repo", "", f"{folder}/repo", cwd=PROJECT, env=env, check=False)
            assert refused.returncode == 2 and "REPO_KEY" in refused.stdout, refused.stdout
            sh("sh", "debian/repo", "repository@example.org", f"{folder}/repo", cwd=PROJECT, env=env)
        finally:
            subprocess.run(["gpgconf", "--kill", "all"], env=env, check=False)
        shutil.copytree(f"{folder}/repo", root.path("srv/repo"))
        # apt reads as a user of its own.
        root.run(f"install -m 644 -D /srv/repo/{PACKAGE}.asc /etc/apt/keyrings/{PACKAGE}.asc")
        source = f"deb [signed-by=/etc/apt/keyrings/{PACKAGE}.asc] file:/srv/repo ./\n"
        root.write(f"etc/apt/sources.list.d/{PACKAGE}.list", source)
        only = f"-o Dir::Etc::sourcelist=sources.list.d/{PACKAGE}.list -o Dir::Etc::sourceparts=- -o APT::Get::List-Cleanup=0"
        said = apt(root, f"{only} update").stdout
        assert "W:" not in said and "E:" not in said, said
        apt(root, f"install {PACKAGE}")
        assert status(root) == "installed"
        backup_and_list(root)

        # Somebody else's hands: the index changed, the signature did not.
        root.run("cd /srv/repo && rm Packages.xz && sed -i 's/^Description:.*/&!/' Packages && rm /var/lib/apt/lists/_srv_repo*")
        refused = apt(root, f"{only} -o Acquire::AllowInsecureRepositories=false update", check=False)
        assert refused.returncode != 0 and "Hash Sum mismatch" in refused.stdout, refused.stdout


LIFE_TESTS = [
    on_a_bare_system_apt_install_brings_it,
    with_no_further_step_it_saves_and_lists,
    units_are_sound,
    an_upgrade_keeps_what_the_admin_edited,
    what_an_admin_masked_stays_masked,
    remove_leaves_configuration_and_snapshots_and_purge_only_snapshots,
    a_package_that_was_never_used_leaves_nothing,
    removal_asks_the_hooks_to_let_go_and_goes_on_when_they_fail,
]
HOST_TESTS = [
    on_a_pve_host_it_saves_the_cluster_file_system,
    hooks_that_are_on_work_and_removal_takes_them_out,
    on_a_pbs_host_it_saves_the_server,
    apt_installs_it_from_the_signed_repository,
]
