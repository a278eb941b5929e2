"""A base system of a Debian release, cached, and a throw-away root made of it."""

import os
import shutil
import subprocess
import tempfile
import zlib
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
CACHE = PROJECT / "target/chroots"
PACKAGE = "proxmox-backup-extra"
# What a bare system is missing for the package: fetched once, so that every test goes without a network.
FETCHED = ["libsqlite3-0"]
# What a host has that is booted, beside a bare system: tools the program asks for the state of it.
HOST_TOOLS = ["lvm2", "nftables", "iptables", "fdisk", "pciutils", "iproute2", "kmod", "python3",
              # To log in for real, and what a restore restarts or reloads.
              "openssh-server", "libpam-systemd", "cron", "ifupdown2"]
HANG_S = 600


def sh(*argv, check=True, timeout=HANG_S, **more):
    done = subprocess.run([str(word) for word in argv], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=timeout, **more)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, argv))}: exit {done.returncode}\n{done.stdout[-6000:]}")
    return done


def deb():
    found = sorted((PROJECT / "target/debian").glob(f"{PACKAGE}_*_{architecture()}.deb"))
    assert len(found) == 1, f"`make deb` makes one package: {found}"
    return found[0]


def architecture():
    return sh("dpkg", "--print-architecture").stdout.strip()


def mirror():
    """Where this machine itself gets Debian from."""
    own = next(line.split("=")[1].strip().strip('"') for line in open("/etc/os-release") if line.startswith("VERSION_CODENAME="))
    for attempt in range(2):
        targets = sh("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages").stdout
        for uri, release in (line.split(" ", 1) for line in targets.splitlines()):
            if release.rstrip("/") in (own, "stable"):
                return uri
        # Without lists apt tells nothing.
        if attempt == 0:
            sh("apt-get", "-q", "update")
    raise AssertionError(f"no source of {own} in this machine's apt sources: {targets}")


def base(suite, tools=False):
    """target/chroots/SUITE, or one with HOST_TOOLS, named after them: nobody writes to it any more."""
    extra = f"-{zlib.crc32(' '.join(HOST_TOOLS).encode()):08x}" if tools else ""
    root = CACHE / f"{suite}{extra}"
    if root.exists():
        return root
    part = Path(f"{root}.part")
    # What was interrupted may have this machine's /dev, /proc and /sys mounted in it: none of that is entered.
    sh("rm", "-rf", "--one-file-system", part)
    CACHE.mkdir(parents=True, exist_ok=True)
    include = ["systemd", "systemd-sysv", "dbus"] + (HOST_TOOLS if tools else [])
    fetch = "chroot \"$1\" apt-get -qq --download-only install " + " ".join(FETCHED)
    # The lists of apt stay, and the fetched packages.
    sh("mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(include)}", "--skip=cleanup/apt",
       f"--customize-hook={fetch}", suite, part, mirror())
    part.rename(root)
    return root


class Root:
    """A throw-away root; commands run in it with processes, mounts, host name and network of their own."""

    def __init__(self, suite, hostname="bare", tools=False):
        self.suite = suite
        self.hostname = hostname
        lower = base(suite, tools)
        self.work = Path(tempfile.mkdtemp(prefix=f"{suite}-", dir=CACHE))
        self.dir = self.work / "root"
        for name in ("root", "upper", "work"):
            (self.work / name).mkdir(mode=0o755)
        options = f"lowerdir={lower},upperdir={self.work}/upper,workdir={self.work}/work"
        self.overlay = sh("mount", "-t", "overlay", "overlay", "-o", options, self.dir, check=False).returncode == 0
        if not self.overlay:
            sh("cp", "-a", "--reflink=auto", f"{lower}/.", self.dir)
        self.write("etc/hostname", hostname + "\n")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.overlay:
            sh("umount", self.dir)
        shutil.rmtree(self.work)

    def path(self, path):
        return self.dir / path.lstrip("/")

    def write(self, path, text, mode=0o644):
        path = self.path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def run(self, command, check=True, timeout=HANG_S):
        """A line of shell; its result has the output of both streams in stdout."""
        inner = ('mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && mount -t tmpfs tmpfs "$0/run" && '
                 'hostname "$1" && exec chroot "$0" /bin/sh -c "$2"')
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root",
               "DEBIAN_FRONTEND": "noninteractive"}
        return sh("unshare", "--mount", "--pid", "--uts", "--net", "--fork", "--kill-child", "sh", "-c", inner,
                  self.dir, self.hostname, command, check=check, timeout=timeout, env=env)

    def take(self, file, name=None):
        """Brings a package into the root, as an admin's download."""
        target = self.path("root") / (name or file.name)
        shutil.copy(file, target)
        return f"/root/{target.name}"

    def snapshots(self):
        return sorted(self.path(f"var/lib/{PACKAGE}/store").glob("*/*.pbx.tar"))
