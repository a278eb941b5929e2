#!/bin/sh
# A walk through the main job on this machine: sh tests/demo.sh PROGRAM FOLDER
set -eu
program=$(realpath "$1")
folder=$2
rm -rf "$folder"
mkdir -m 0700 -p "$folder"
folder=$(realpath "$folder")

say() { printf '\n\033[1m$ pbx-config %s\033[0m\n' "$*"; }
run() { say "$@"; "$program" "$@"; }

# 3: done, with problems; they are shown and no reason to stop.
run backup --store "$folder/store" --note 'make demo' || [ $? -eq 3 ]
run list "$folder/store"
say show latest --files '| tail'
"$program" show latest --store "$folder/store" --files | tail -n 8
run cat latest etc/hostname --store "$folder/store"
run verify --store "$folder/store"
run restore latest --store "$folder/store" --to "$folder/files"

printf '\n\033[1m$ compare %s/files with this machine\033[0m\n' "$folder"
cd "$folder/files"
same=0
differ=0
list=$(mktemp)
trap 'rm -f "$list"' EXIT
find . -type f ! -path './.pbx/*' >"$list"
while IFS= read -r file; do
	if cmp -s "$file" "/${file#./}" && [ "$(stat -c '%a %u:%g %y' "$file")" = "$(stat -c '%a %u:%g %y' "/${file#./}")" ]; then
		same=$((same + 1))
	else
		differ=$((differ + 1))
		echo "differs: /${file#./}"
	fi
done <"$list"
echo "$same files are the same in content, mode, owner and time; $differ differ (changed since, or a database's copy)"
echo "left for you to look at: $folder"
