"""The file that `make deb` makes."""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from deb_chroot import PACKAGE, PROJECT, architecture, deb, sh

# The goal of the first days was 2.5 MB, without sealing, mail, TLS to anywhere, and restoring.
SIZE_MAX = 3_700_000
CARGO_DEB = next(PROJECT.glob("target/tools/cargo-deb-*/bin/cargo-deb"), "cargo-deb")


def unpacked(folder):
    sh("dpkg-deb", "--raw-extract", deb(), folder)
    return Path(folder)


def lintian_has_nothing_to_say():
    said = sh("lintian", "--allow-root", "--fail-on", "error,warning", deb(), check=False)
    assert said.returncode == 0 and not said.stdout.strip(), said.stdout


def packing_again_gives_the_same_bytes():
    """In another zone and language, with another umask, and files touched since."""
    mine = deb()
    content = mine.read_bytes()
    with tempfile.TemporaryDirectory() as again:
        (PROJECT / "debian/HOWTO.txt").touch()
        env = {**os.environ, "CARGO_DEB": str(CARGO_DEB), "TZ": "Asia/Tokyo", "LC_ALL": "C"}
        try:
            sh("sh", "-c", f"umask 077; sh debian/package '' {again}", cwd=PROJECT, env=env)
        finally:
            # cargo-deb clears target/debian wherever it writes to.
            mine.write_bytes(content)
        other = next(Path(again).glob("*.deb"))
        assert other.read_bytes() == content, "packed twice, two files"


def a_clean_build_elsewhere_gives_the_same_bytes():
    """Another folder, another home of cargo, nothing compiled before: `make deb` as a stranger runs it."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "another/place"
        files = sh("git", "ls-files", "-co", "--exclude-standard", cwd=PROJECT).stdout.splitlines()
        untracked = [name for name in ("examples", "hooks") if (PROJECT / name).is_dir()]
        for name in files:
            if (PROJECT / name).exists():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(PROJECT / name, copy / name, follow_symlinks=False)
        for name in untracked:
            shutil.copytree(PROJECT / name, copy / name, dirs_exist_ok=True)
        # The manual need not be built again: it is not what is compared.
        shutil.copytree(PROJECT / "target/manual", copy / "target/manual")
        home = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"))
        (Path(folder) / "cargo").mkdir()
        for name in ("registry", "git"):
            if (home / name).exists():
                (Path(folder) / "cargo" / name).symlink_to(home / name)
        env = {**os.environ, "CARGO_HOME": f"{folder}/cargo", "CARGO_DEB": str(CARGO_DEB)}
        sh("make", "build", cwd=copy, env=env, timeout=3600)
        sh("sh", "debian/package", cwd=copy, env=env)
        other = next((copy / "target/debian").glob("*.deb"))
        assert other.read_bytes() == deb().read_bytes(), "built twice, two files"


def the_package_is_small():
    size = deb().stat().st_size
    assert size < SIZE_MAX, f"{size} bytes"
    return f"{size} bytes"


def the_program_tells_nothing_of_its_builder():
    with tempfile.TemporaryDirectory() as folder:
        program = unpacked(folder) / "usr/bin/pbx-config"
        content = program.read_bytes()
        home = os.environ.get("CARGO_HOME", f"{Path.home()}/.cargo")
        # Not ~/.cargo itself: the catalogue names it, as a thing not to save.
        for place in (f"{PROJECT}/", f"{home}/registry", ".rustup/toolchains"):
            assert place.encode() not in content, place
        sections = sh("readelf", "--wide", "--sections", program).stdout
        assert not any(name in sections for name in (".comment", ".symtab")), sections


def dependencies_are_computed_and_met_by_both_releases():
    """glibc 2.36 and SQLite 3.40 are Debian 12's; a newer builder would ask for more."""
    depends = dict(re.match(r"(\S+) \(>= ([^)]+)\)", word).groups() for word in field("Depends").split(", "))
    assert set(depends) == {"libc6", "libsqlite3-0"}, depends
    for name, most in (("libc6", "2.36"), ("libsqlite3-0", "3.40.1")):
        sh("dpkg", "--compare-versions", depends[name], "le", most)
    return field("Depends")


def field(name):
    return sh("dpkg-deb", "--field", deb(), name).stdout.strip()


def the_changelog_speaks_of_this_version():
    manifest = (PROJECT / "Cargo.toml").read_text()
    version = re.search(r'^version = "(.*)"', manifest, re.M).group(1)
    assert field("Version").rsplit("-", 1)[0] == version, (field("Version"), version)


def the_copyright_names_every_crate_in_the_program():
    target = subprocess.run(["rustc", "-vV"], text=True, capture_output=True, check=True).stdout
    target = re.search(r"^host: (.*)", target, re.M).group(1)
    tree = sh("cargo", "tree", "--quiet", "--locked", "--offline", "--edges", "normal,no-proc-macro", "--prefix", "none",
              "--format", "{p}", "--target", target, cwd=PROJECT)
    linked = {line.split()[0] for line in tree.stdout.splitlines() if line and not line.startswith(PACKAGE)}
    named = set(re.findall(r"cargo/([^/\s]+)/\*", (PROJECT / "debian/copyright").read_text()))
    assert len(linked) > 20 and linked == named, f"missing: {linked - named}, gone: {named - linked}"


BUILD_TESTS = [
    the_package_is_small,
    the_program_tells_nothing_of_its_builder,
    dependencies_are_computed_and_met_by_both_releases,
    the_changelog_speaks_of_this_version,
    the_copyright_names_every_crate_in_the_program,
    lintian_has_nothing_to_say,
    packing_again_gives_the_same_bytes,
]
CLEAN_BUILD_TESTS = [a_clean_build_elsewhere_gives_the_same_bytes]
