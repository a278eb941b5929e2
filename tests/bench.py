#!/usr/bin/env python3
"""Side by side with the tools a person would use: medians of interleaved runs on generated trees.

Usage: bench.py PROGRAM DOUBLE [--only a,b,...] [--runs N]. Run as root (it drops the page cache and mounts the
double of pmxcfs). Prints a table in Markdown; asserts nothing: speed depends on the machine, so no test is timed.

  a  write a snapshot, and read it back      e  list, verify, cat with 10 and 10,000 snapshots
  b  the same from a cold cache              f  start-up
  c  the other codecs                        g  memory
  d  /etc/pve of 80 and 12,000 files         h  size of the program
  i  a phase of vzdump through the hook      j  three stores at once
  k  retention of 10,000 snapshots           l  plan, restore, undo
  m  the predecessor's: migrate, and a list of 1,000 archives
  n  a store of 1,000 hosts with 100 snapshots each
  s  sealing
"""
import argparse, datetime, io, json, os, platform, random, shutil, statistics, subprocess, tarfile, tempfile, time

HEAD = ("what", "ours", "theirs", "ratio", "goal", "beside")
PVE_ROWS = "guests"


def generate(root, files, target_bytes, folders):
    """A host's /etc in spirit: many small text files, few large ones; always the same."""
    rng = random.Random(20261122)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=rng.randint(2, 11))) for _ in range(5000)]
    sizes = [int(min(13_000_000, max(20, rng.lognormvariate(7.0, 1.6)))) for _ in range(files)]
    sizes[0] = max(sizes[0], int((target_bytes - sum(sizes)) * 0.75))
    sizes[1] = max(sizes[1], target_bytes - sum(sizes))
    for n, size in enumerate(sizes):
        folder = f"{root}/srv/tree/d{n % folders:04}"
        os.makedirs(folder, exist_ok=True)
        with open(f"{folder}/file{n}.conf", "w") as out:
            left = size
            while left > 0:
                line = f"{rng.choice(words)}-{rng.choice(words)} = {rng.choice(words)} {rng.randint(0, 99999)}\n"
                out.write(line[:left])
                left -= len(line)
    named(root)


def named(root):
    os.makedirs(f"{root}/etc/proxmox-backup-extra", exist_ok=True)
    with open(f"{root}/etc/hostname", "w") as out:
        out.write("bench\n")


def configure(root, extra=""):
    with open(f"{root}/etc/proxmox-backup-extra/pbx-config.cfg", "w") as out:
        out.write("backup: main\n\tinclude /srv/tree\n" + extra)


def shell(command):
    start = time.perf_counter()
    subprocess.run(["bash", "-c", command], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def timed(*command, statuses=(0,)):
    """One process, without a shell's own time."""
    start = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    took = time.perf_counter() - start
    assert done.returncode in statuses, (command, done.returncode, done.stderr)
    return took


def cold():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as out:
        out.write("3")


def peak_mib(command, statuses=(0,)):
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open("/dev/null", os.O_WRONLY), 1)
        os.execvp(command[0], command)
    _, status, usage = os.wait4(pid, 0)
    assert os.waitstatus_to_exitcode(status) in statuses, command
    return usage.ru_maxrss / 1024


def ms(seconds):
    return f"{seconds * 1000:.1f} ms" if seconds < 0.01 else f"{seconds * 1000:.0f} ms"


class Bench:
    def __init__(self, program, double, runs, work):
        self.program, self.double, self.runs, self.work = program, double, runs, work
        self.store, self.out = f"{work}/store", f"{work}/out"
        self.rows = []

    def row(self, what, own, other, beside, goal):
        own, other = statistics.median(own), statistics.median(other)
        self.rows.append((what, ms(own), ms(other), f"{own / other:.2f}", goal, beside))

    def alone(self, what, value, goal="-", beside="-"):
        self.rows.append((what, value, "-", "-", goal, beside))

    def backup(self, root, *more, only="include", statuses=(0,)):
        """Seconds until the snapshot stands, and of the whole run with reading back."""
        shutil.rmtree(self.store, ignore_errors=True)
        done = subprocess.run(
            [self.program, "--root", root, "backup", "--store", self.store, "--only", only, "--json", *more],
            stdout=subprocess.PIPE)
        assert done.returncode in statuses, (done.returncode, done.stdout)
        self.report = json.loads(done.stdout)
        return self.report["phases"]["prepare"] + self.report["phases"]["write"], self.report["took"]

    def tree(self):
        root = f"{self.work}/root"
        if not os.path.isdir(root):
            generate(root, 4500, 40_000_000, 900)
        configure(root)
        return root, f"tar -c -C {root} srv"

    def a(self):
        root, tar = self.tree()
        zstd = f"{tar} | zstd -q -3 -T0 -f -o {self.out}; sync {self.out}"
        write, whole, pipe, proof = [], [], [], []
        for _ in range(self.runs):
            pipe.append(shell(zstd))
            w, t = self.backup(root)
            write.append(w)
            whole.append(t)
            proof.append(shell(f"{zstd}; zstd -dc {self.out} | sha256sum"))
        self.row("write a snapshot, warm", write, pipe, "tar | zstd -3 -T0; sync", "1.05")
        self.row("whole run with reading back", whole, proof, "the same; zstd -dc | sha256sum", "0.90")

    def recipients(self):
        """Two, as most would have."""
        root, _ = self.tree()
        return "".join(
            "\trecipient %s\n" % json.loads(subprocess.check_output(
                [self.program, "--root", root, "key", "generate", "--json"]))["recipient"] for _ in range(2))

    def s(self):
        """3: nobody has proven a key."""
        root, _ = self.tree()
        keys = self.recipients()
        clear, sealed, blind = [], [], []
        for _ in range(self.runs):
            configure(root)
            clear.append(self.backup(root)[1])
            configure(root, keys)
            sealed.append(self.backup(root, statuses=(3,))[1])
            configure(root, keys + "\treadback-key no\n")
            blind.append(self.backup(root, statuses=(3,))[1])
        self.row("whole run, sealed", sealed, clear, "the same in the clear", "1.10")
        self.row("whole run, sealed, readback-key no", blind, clear, "the same in the clear", "1.10")

    def b(self):
        root, tar = self.tree()
        own, other = [], []
        for _ in range(max(3, self.runs // 3)):
            cold()
            other.append(shell(f"{tar} | zstd -q -3 -T0 -f -o {self.out}; sync {self.out}"))
            cold()
            own.append(self.backup(root)[0])
        self.row("write a snapshot, cold", own, other, "tar | zstd -3 -T0; sync", "0.75")

    def c(self):
        root, tar = self.tree()
        gzip = "pigz -6" if shutil.which("pigz") else "gzip -6"
        for codec, tool, goal in (("gzip", gzip, "1.0"), ("xz", "xz -6 -T0", "1.1")):
            configure(root, f"\tcompression {codec}\n")
            own, other = [], []
            for _ in range(3):
                other.append(shell(f"{tar} | {tool} > {self.out}; sync {self.out}"))
                own.append(self.backup(root)[0])
            self.row(f"write with {codec}", own, other, f"tar | {tool}", goal)

    def d(self):
        for files in (80, 12_000):
            root, seed = f"{self.work}/pve{files}", f"{self.work}/seed{files}"
            rng = random.Random(files)
            for n in range(files):
                folder = f"{seed}/nodes/node{n % 16:02}/{'qemu-server' if n % 3 else 'lxc'}"
                os.makedirs(folder, exist_ok=True)
                with open(f"{folder}/{100 + n}.conf", "w") as out:
                    out.write("".join(f"key{line}: {rng.randint(0, 10**20)}\n" for line in range(rng.randint(10, 40))))
            named(root)
            mount, database = f"{root}/etc/pve", f"{root}/var/lib/pve-cluster/config.db"
            for folder in (mount, os.path.dirname(database), f"{root}/usr/bin"):
                os.makedirs(folder)
            # What tells the host's product.
            open(f"{root}/usr/bin/pmxcfs", "w").close()
            subprocess.run([self.double, "--mount", mount, "--db", database, "--node", "bench", "--import", seed,
                            "--pidfile", f"{self.work}/pid"], check=True)
            try:
                own, walk, other = [], [], []
                for _ in range(max(3, self.runs // 3)):
                    other.append(shell(f"tar -c -C {root} etc/pve | zstd -q -3 -T0 -f -o {self.out}; sync {self.out}"))
                    own.append(self.backup(root, only=PVE_ROWS)[0])
                    counted = self.report["snapshot"]["counts"]["files"]
                    assert counted >= files, counted
                    # Without the file the mount is the only way; the daemon keeps its own open.
                    os.rename(database, f"{database}.away")
                    walk.append(self.backup(root, only=PVE_ROWS, statuses=(0, 3))[0])
                    assert self.report["snapshot"]["counts"]["files"] == counted
                    os.rename(f"{database}.away", database)
                self.row(f"/etc/pve of {files:,} files, from the database", own, other,
                         "tar of the mount | zstd -3 -T0; sync", "1.0")
                self.row("the same", own, walk, "ourselves from the mount", "1.0")
            finally:
                subprocess.run(["umount", "-l", mount], check=True)

    def e(self):
        root = f"{self.work}/small"
        generate(root, 40, 400_000, 8)
        configure(root)
        self.backup(root)
        first = self.report["snapshot"]["id"]
        where = ["--store", self.store]
        subprocess.run([self.program, "--root", root, "backup", "--only", "include", *where], check=True,
                       stdout=subprocess.DEVNULL)
        folder = f"{self.store}/bench"
        oldest = min(os.listdir(folder))
        with open(f"{folder}/{oldest}", "rb") as file:
            snapshot = file.read()
        end = 512 + int(snapshot[124:135], 8)
        assert snapshot[:end].count(first.encode()) == 1
        at = datetime.datetime.fromisoformat(first.split("/")[1])
        made = 0
        for count in (10, 10_000):
            # Older ones for the list, which reads the manifest; the two that are verified are true.
            for made in range(made + 1, count - 1):
                then = at - datetime.timedelta(hours=made)
                head = snapshot[:end].replace(first.encode(), f"bench/{then:%Y-%m-%dT%H:%M:%SZ}".encode())
                with open(f"{folder}/bench_{then:%Y%m%dT%H%M%SZ}.pbx.tar", "wb") as out:
                    out.write(head + snapshot[end:])
            assert len(os.listdir(folder)) == count
            goal = {"list": "500 ms", "list --json": "500 ms"} if count == 10_000 else {}
            for words in ("list", "list --json", "show LATEST", "verify LATEST", f"verify {first}",
                          "cat LATEST srv/tree/d0003/file3.conf"):
                command = words.replace("LATEST", "bench/latest").split()
                took = statistics.median(timed(self.program, "--root", root, *command, *where) for _ in range(self.runs))
                shown = words.replace("LATEST", "latest").replace(first, "SNAP")
                self.alone(f"{shown}, {count:,} snapshots", ms(took), goal.get(shown, "-"))
            taken = []
            for _ in range(3):
                cold()
                taken.append(timed(self.program, "--root", root, "list", *where))
            self.alone(f"list, {count:,} snapshots, cold", ms(statistics.median(taken)))

    def f(self):
        empty = [timed("true") for _ in range(200)]
        start = [timed(self.program, "--version") for _ in range(200)]
        self.row("start, --version", start, empty, "true", "2 ms")

    def g(self):
        root, _ = self.tree()
        many = f"{self.work}/many"
        for size, tree in (("40 MB", root), ("1 GB", many)):
            if tree == many:
                generate(many, 4500, 1_000_000_000, 900)
                configure(many)
            shutil.rmtree(self.store, ignore_errors=True)
            peak = peak_mib([self.program, "--root", tree, "backup", "--store", self.store, "--only", "include", "--json"])
            self.alone(f"peak memory, {size}", f"{peak:.0f} MiB", "40 MiB", "zstd -3")
        stores = "".join(f"dir: {name}\n\tpath {self.work}/stores/{name}\n" for name in "abc")
        configure(many, self.recipients() + stores)
        peak = peak_mib([self.program, "--root", many, "backup", "--only", "include", "--json"], statuses=(3,))
        self.alone("peak memory, 1 GB, sealed, three stores", f"{peak:.0f} MiB", "40 MiB", "zstd -3")

    def h(self):
        self.alone("program", f"{os.path.getsize(self.program) / 2**20:.1f} MiB", "6 MiB", "stripped")


    def i(self):
        """What the hook costs a vzdump job: a phase, with the package's script and a script from before behind it."""
        root = f"{self.work}/node"
        hook, chained = f"{root}/usr/share/proxmox-backup-extra/hooks/vzdump-hook", f"{root}/root/old-hook"
        for path, text in ((hook, open("hooks/vzdump-hook").read()
                            .replace("exec /usr/bin/pbx-config", f"exec {self.program} --root {root}")
                            .replace("/usr/bin/pbx-config", self.program)), (chained, "#!/bin/sh\nexit 0\n")):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            open(path, "w").write(text)
            os.chmod(path, 0o755)
        for folder in ("etc", "usr/bin", "var/lib/dpkg"):
            os.makedirs(f"{root}/{folder}", exist_ok=True)
        named(root)
        open(f"{root}/usr/bin/pmxcfs", "w").close()
        shutil.copy("/var/lib/dpkg/status", f"{root}/var/lib/dpkg/status")
        open(f"{root}/etc/vzdump.conf", "w").write("script: /root/old-hook\n")
        subprocess.run([self.program, "--root", root, "hook", "enable", "vzdump"], check=True, stdout=subprocess.DEVNULL)
        phase = ("backup-end", "snapshot", "100")
        through = [timed("env", "-i", hook, *phase) for _ in range(100)]
        alone = [timed("env", "-i", chained, *phase) for _ in range(100)]
        self.row("a phase of vzdump through the hook", through, alone, "the script from before alone", "30 ms more")

    def o(self):
        """What completeness and the preflight cost, on this machine's own /etc and packages."""
        root = f"{self.work}/host"
        for path in ("etc", "var/lib/dpkg"):
            os.makedirs(os.path.dirname(f"{root}/{path}"), exist_ok=True)
            subprocess.run(["cp", "-a", f"/{path}", f"{root}/{path}"], check=True)
        named(root)
        configure(root)
        taken = [timed(self.program, "--root", root, "check", "--complete", statuses=(0, 3)) for _ in range(self.runs)]
        self.alone("completeness of a host, with all of its packages", ms(statistics.median(taken)), "500 ms")
        prepare = {}
        for word in ("warn", "off") * self.runs:
            configure(root, f"\tpreflight {word}\n")
            self.backup(root, only="hostname", statuses=(0, 3))
            prepare.setdefault(word, []).append(self.report["phases"]["prepare"])
        more = statistics.median(prepare["warn"]) - statistics.median(prepare["off"])
        self.alone("preflight before a backup", ms(max(more, 0)), "50 ms")


    def stores(self, root, text):
        named(root)
        folder = f"{root}/etc/proxmox-backup-extra"
        os.makedirs(folder, exist_ok=True)
        open(f"{folder}/pbx-config.cfg", "w").write(text)

    def j(self):
        """Three stores, one of them behind a server: what they take together, and the slowest of them alone."""
        root, far = f"{self.work}/three", f"{self.work}/far"
        generate(root, 200, 20_000_000, 20)
        os.makedirs(far)
        server = subprocess.Popen(["rclone", "serve", "webdav", "--addr", "127.0.0.1:18973", far, "--config=/notfound"],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            self.stores(root, "backup: main\n\tinclude /srv/**\n\tcompression none\ndir: a\n\tpath /a\ndir: b\n\tpath /b\n"
                        "rclone: c\n\tremote :webdav,url=\"http://127.0.0.1:18973\",vendor=other:x\n\tchecksum download\n")
            command = [self.program, "--root", root, "backup", "--only", "include", "--json"]

            def took(*names):
                done = subprocess.run(command + [f"--store={name}" for name in names], stdout=subprocess.PIPE)
                assert done.returncode == 0, done.stdout
                return json.loads(done.stdout)["phases"]["store"]

            while subprocess.run(command + ["--store=c"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
                time.sleep(0.1)
            runs = max(3, self.runs // 3)
            slowest = [took("c") for _ in range(runs)]
            together = [took("a", "b", "c") for _ in range(runs)]
            self.row("three stores", together, slowest, "the slowest alone", "1.20")
        finally:
            server.kill()
            server.wait()

    def k(self):
        """10,000 snapshots of one host, of which a hundred stay."""
        root = f"{self.work}/pruned"
        generate(root, 5, 20_000, 1)
        os.makedirs(f"{root}/etc", exist_ok=True)
        open(f"{root}/etc/machine-id", "w").write("0123456789abcdef0123456789abcdef\n")
        self.stores(root, "backup: main\n\tinclude /srv/**\ndir: a\n\tpath /a\n\tkeep-last 100\n")
        subprocess.run([self.program, "--root", root, "backup"], check=True, stdout=subprocess.DEVNULL)
        folder = next(entry.path for entry in os.scandir(f"{root}/a") if entry.is_dir())
        name = os.listdir(folder)[0]
        snapshot = open(f"{folder}/{name}", "rb").read()
        host, stamp = name.removesuffix(".pbx.tar").rsplit("_", 1)
        at = datetime.datetime.strptime(stamp, "%Y%m%dT%H%M%SZ")
        for hours in range(1, 10_000):
            then = at - datetime.timedelta(hours=hours)
            with open(f"{folder}/{host}_{then:%Y%m%dT%H%M%SZ}.pbx.tar", "wb") as out:
                out.write(snapshot.replace(f"{host}/{at:%Y-%m-%dT%H:%M:%SZ}".encode(), f"{host}/{then:%Y-%m-%dT%H:%M:%SZ}".encode(), 1))
        plan = statistics.median(timed(self.program, "--root", root, "prune", "--dry-run") for _ in range(self.runs))
        self.alone("prune --dry-run, 10,000 snapshots", ms(plan), "1 s")
        self.alone("prune, 9,900 of 10,000 go", ms(timed(self.program, "--root", root, "prune")), "1 s")
        assert len(os.listdir(folder)) == 100

    def l(self):
        """A plan of a whole node, one guest brought back, and undo beside apply: 600 files of /etc, 200 guests."""
        root = f"{self.work}/restored"
        generate(root, 600, 4 << 20, 20)
        configure(root)
        for folder in ("usr/bin", "var/lib/pve-cluster", "etc/pve", "run"):
            os.makedirs(f"{root}/{folder}", exist_ok=True)
        open(f"{root}/usr/bin/pmxcfs", "w").close()
        node = f"{self.work}/tree/nodes/bench/qemu-server"
        os.makedirs(node)
        for n in range(100, 300):
            open(f"{node}/{n}.conf", "w").write(f"name: vm{n}\nmemory: 2048\nscsi0: local:vm-{n}-disk-0,size=32G\n")
        subprocess.run([self.double, "--mount", f"{root}/etc/pve", "--db", f"{root}/var/lib/pve-cluster/config.db",
                        "--node", "bench", "--import", f"{self.work}/tree"], check=True, stdout=subprocess.DEVNULL)
        ours = [self.program, "--root", root]
        try:
            subprocess.run([*ours, "backup"], stdout=subprocess.DEVNULL)
            plan = [timed(*ours, "restore", "latest", "--dry-run") for _ in range(self.runs)]
            self.alone("plan of a whole node", ms(statistics.median(plan)), "300 ms", "800 files, 200 of /etc/pve")
            one, back, all_, undo = [], [], [], []
            guest = f"{root}/etc/pve/nodes/bench/qemu-server/101.conf"
            for _ in range(self.runs):
                os.remove(guest)
                one.append(timed(*ours, "restore", "latest", "vm/101", "--yes", statuses=(0, 3)))
                back.append(timed(*ours, "undo", statuses=(0, 3)))
                subprocess.run([*ours, "restore", "latest", "vm/101", "--yes"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self.alone("one guest restored", ms(statistics.median(one)), "500 ms", "its plan, copies and journal with it")
            for _ in range(self.runs):
                shutil.rmtree(f"{root}/srv/tree/d0001")
                for n in range(100, 140):
                    os.remove(f"{root}/etc/pve/nodes/bench/qemu-server/{n}.conf")
                all_.append(timed(*ours, "restore", "latest", "--yes", statuses=(0, 3)))
                undo.append(timed(*ours, "undo", statuses=(0, 3)))
                subprocess.run([*ours, "restore", "latest", "--yes"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self.row("undo of 70 paths", undo, all_, "their restore", "1.0")
        finally:
            subprocess.run(["umount", "-l", f"{root}/etc/pve"])

    def m(self):
        """The predecessor's: its configuration, and a thousand of its archives in a folder."""
        root, old = f"{self.work}/moved", f"{self.work}/old"
        os.makedirs(f"{root}/opt/proxsave/configs", exist_ok=True)
        os.makedirs(f"{root}/etc", exist_ok=True)
        named(root)
        with open(f"{root}/opt/proxsave/configs/backup.env", "w") as env:
            env.writelines(f"BACKUP_EXCLUDE_PATTERNS=/srv/{n}/**\n" for n in range(200))
            env.write("COMPRESSION_TYPE=xz\nMAX_LOCAL_BACKUPS=15\nSECONDARY_ENABLED=true\nSECONDARY_PATH=/mnt/nas\n")
        took = statistics.median(timed(self.program, "--root", root, "migrate") for _ in range(self.runs))
        self.alone("migrate", ms(took), "50 ms")
        os.makedirs(old)
        for n in range(1000):
            at = datetime.datetime(2024, 1, 1) + datetime.timedelta(hours=6 * n)
            name = f"n1.lan-backup-{at:%Y%m%d-%H%M%S}.tar.xz"
            manifest = json.dumps({"archive_path": f"/opt/proxsave/backup/{name}", "created_at": f"{at.isoformat()}Z",
                                   "hostname": "n1.lan", "compression_type": "xz", "sha256": "0" * 64}).encode()
            with tarfile.open(f"{old}/{name}.bundle.tar", "w") as bundle:
                for member, data in ((f"{name}.metadata", manifest), (name, random.randbytes(100_000))):
                    info = tarfile.TarInfo(member)
                    info.size = len(data)
                    bundle.addfile(info, io.BytesIO(data))
        took = statistics.median(timed(self.program, "--root", root, "list", old) for _ in range(self.runs))
        self.alone("list, 1,000 old archives", ms(took), "1,000 ms")

    def n(self):
        """A fleet in one store: all hosts and their clusters at a glance, and every snapshot listed."""
        root = f"{self.work}/fleet"
        generate(root, 10, 40_000, 2)
        configure(root)
        self.backup(root)
        first = self.report["snapshot"]["id"]
        folder = f"{self.store}/bench"
        with open(f"{folder}/{os.listdir(folder)[0]}", "rb") as file:
            snapshot = file.read()
        end = 512 + int(snapshot[124:135], 8)
        at = datetime.datetime.fromisoformat(first.split("/")[1])
        for host in range(1000):
            name = f"h{host:04}"
            os.makedirs(f"{self.store}/{name}")
            for hour in range(100):
                then = at - datetime.timedelta(hours=hour)
                head = snapshot[:end].replace(first.encode(), f"{name}/{then:%Y-%m-%dT%H:%M:%SZ}".encode())
                with open(f"{self.store}/{name}/{name}_{then:%Y%m%dT%H%M%SZ}.pbx.tar", "wb") as out:
                    out.write(head)
        where = ["--store", self.store]
        for words, goal in (("status --fleet", "1 s"), ("list --host *", "5 s"), ("list --host h0042", "100 ms")):
            command = [self.program, "--root", root, *words.split(), *where]
            took = statistics.median(timed(*command, statuses=(0, 1, 2)) for _ in range(3))
            self.alone(f"{words}, 1,000 hosts x 100 snapshots", ms(took), goal)
        peak = peak_mib([self.program, "--root", root, "status", "--fleet", "--max-age", "9d", *where], (0, 1, 2))
        self.alone("peak memory of status --fleet there", f"{peak:.0f} MiB", "64 MiB")


def machine(work):
    with open("/proc/cpuinfo") as lines:
        cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = platform.freedesktop_os_release()["PRETTY_NAME"]
    kind = subprocess.run(["findmnt", "-n", "-o", "FSTYPE", "-T", work], check=True, capture_output=True, text=True)
    load = os.getloadavg()[0]
    return (f"{cpu}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB; {system}, Linux {platform.release().split('-')[0]}, "
            f"{kind.stdout.strip()}; {datetime.date.today()}; load before {load:.1f}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("double")
    parser.add_argument("--only", default="")
    parser.add_argument("--runs", type=int, default=15)
    args = parser.parse_args()
    letters = [letter for letter in args.only.replace(",", "").lower()] or list("abcdefghijklmnos")
    work = tempfile.mkdtemp(prefix="pbx-bench-")
    bench = Bench(os.path.realpath(args.program), os.path.realpath(args.double), args.runs, work)
    about = machine(work)
    try:
        for letter in letters:
            getattr(bench, letter)()
    finally:
        shutil.rmtree(work)
    print(f"{about}; medians.\n")
    print("| " + " | ".join(HEAD) + " |")
    print("| --- | ---: | ---: | ---: | ---: | --- |")
    for line in bench.rows:
        print("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |")


main()
