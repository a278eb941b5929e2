#!/usr/bin/env python3
"""Side by side with the tools a person would use: medians of interleaved runs on a generated host tree.

Usage: bench.py PROGRAM [--runs N]. Run as root (it drops the page cache). Prints a table; asserts nothing:
speed depends on the machine, so no test is timed.
"""
import json, os, random, shutil, statistics, subprocess, sys, tempfile, time

program = os.path.realpath(sys.argv[1])
runs = int(sys.argv[sys.argv.index("--runs") + 1]) if "--runs" in sys.argv else 15
rows = []


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
    os.makedirs(f"{root}/etc/proxmox-backup-extra", exist_ok=True)
    open(f"{root}/etc/hostname", "w").write("bench\n")


def configure(root, extra=""):
    with open(f"{root}/etc/proxmox-backup-extra/pbx-config.cfg", "w") as out:
        out.write("backup: main\n\tinclude /srv/tree\n" + extra)


def shell(command):
    start = time.perf_counter()
    subprocess.run(["bash", "-c", command], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def ours(root, store, *more):
    shutil.rmtree(store, ignore_errors=True)
    done = subprocess.run(
        [program, "--root", root, "backup", "--store", store, "--only", "include", "--json", *more],
        stdout=subprocess.PIPE, check=True)
    report = json.loads(done.stdout)
    return report["phases"]["prepare"] + report["phases"]["write"], report["took"]


def cold():
    os.sync()
    open("/proc/sys/vm/drop_caches", "w").write("3")


def peak_mib(command):
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open("/dev/null", os.O_WRONLY), 1)
        os.execvp(command[0], command)
    _, status, usage = os.wait4(pid, 0)
    assert status == 0, command
    return usage.ru_maxrss / 1024


def row(what, own, other, name, goal):
    own, other = statistics.median(own), statistics.median(other)
    rows.append((what, f"{own * 1000:.0f} ms", f"{other * 1000:.0f} ms", f"{own / other:.2f}", goal, name))


def main():
    work = tempfile.mkdtemp(prefix="pbx-bench-")
    try:
        root, store, out = f"{work}/root", f"{work}/store", f"{work}/out"
        generate(root, 4500, 40_000_000, 900)
        configure(root)
        tar = f"tar -c -C {root} srv"
        write, whole, pipe, proof = [], [], [], []
        for _ in range(runs):
            pipe.append(shell(f"{tar} | zstd -q -3 -T0 -f -o {out}; sync {out}"))
            w, t = ours(root, store)
            write.append(w)
            whole.append(t)
            proof.append(shell(f"{tar} | zstd -q -3 -T0 -f -o {out}; sync {out}; zstd -dc {out} | sha256sum"))
        row("write a snapshot, warm", write, pipe, "tar | zstd -3 -T0; sync", "1.05")
        row("whole run with reading back", whole, proof, "the same; zstd -dc | sha256sum", "0.90")
        own, other = [], []
        for _ in range(max(3, runs // 3)):
            cold()
            other.append(shell(f"{tar} | zstd -q -3 -T0 -f -o {out}; sync {out}"))
            cold()
            own.append(ours(root, store)[0])
        row("write a snapshot, cold", own, other, "tar | zstd -3 -T0; sync", "0.75")
        for codec, other, goal in (("gzip", "pigz -6" if shutil.which("pigz") else "gzip -6", "1.0"), ("xz", "xz -6 -T0", "1.1")):
            configure(root, f"\tcompression {codec}\n")
            own, ref = [], []
            for _ in range(3):
                ref.append(shell(f"{tar} | {other} > {out}; sync {out}"))
                own.append(ours(root, store)[0])
            row(f"write with {codec}", own, ref, f"tar | {other}", goal)
        configure(root)
        start = [shell(f"{program} --version") - shell("true") for _ in range(50)]
        rows.append(("start, --version", f"{statistics.median(start) * 1000:.1f} ms", "-", "-", "2 ms", "over an empty shell command"))
        small = peak_mib([program, "--root", root, "backup", "--store", store, "--only", "include", "--json"])
        rows.append(("peak memory, 40 MB", f"{small:.0f} MiB", "-", "-", "40 MiB", "zstd -3"))
        many = f"{work}/many"
        generate(many, 4500, 1_000_000_000, 900)
        configure(many)
        large = peak_mib([program, "--root", many, "backup", "--store", store, "--only", "include", "--json"])
        rows.append(("peak memory, 1 GB", f"{large:.0f} MiB", "-", "-", "40 MiB", "zstd -3"))
        rows.append(("program", f"{os.path.getsize(program) / 2**20:.1f} MiB", "-", "-", "6 MiB", "stripped"))
    finally:
        shutil.rmtree(work)
    head = ("what", "ours", "theirs", "ratio", "goal", "beside")
    print("| " + " | ".join(head) + " |")
    print("| --- | ---: | ---: | ---: | ---: | --- |")
    for line in rows:
        print("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |")


main()
