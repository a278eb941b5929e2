#!/bin/sh
# Licences, bans and sources of all that is linked: sh tests/deny.sh CARGO-DENY [ADVISORY-DB]
# Nothing is fetched; advisories are checked against a copy of the RustSec database, when one is given.
set -eu
"$1" check bans licenses sources
if [ -z "${2:-}" ]; then
	echo 'advisories were NOT checked: no ADVISORY_DB was given'
	exit
fi
[ -d "$2/crates" ] || { echo "$2: is no advisory database: it has no crates/" >&2; exit 1; }
# It looks for its default database under this name, and for the time of a fetch.
copy=target/advisory-db/advisory-db-3157b0e258782691
rm -rf "$copy"
mkdir -p "$copy/.git"
cp -r "$2/." "$copy"
touch "$copy/.git/FETCH_HEAD"
"$1" --offline check advisories
