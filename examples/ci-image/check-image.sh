#!/bin/sh
# Checks the chroots of an unpacked image, and leaves reports for a CI system.
#
#   check-image.sh DIRECTORY REPORTS [INSTANCE]...
#
# DIRECTORY is the root of the image, REPORTS is made where it is missing. Whoever names the INSTANCEs that the image
# should have learns that one is not there; without names an image without any would pass. The exit status is that of
# "chrootsync check": 0 in sync, 1 drift (warnings count), 2 a mistake in the call or the rules.
set -eu

if [ $# -lt 2 ]; then
    sed -n 's/^#   //p' "$0" >&2
    exit 2
fi
image=$1 reports=$2
shift 2

mkdir -p "$reports"
# chrootsync reads rules that belong to root or to its own user alone; a checkout may belong to somebody else.
rules=$(mktemp -d)
trap 'rm -rf "$rules"' EXIT
cp "$(dirname "$0")"/rules/*.toml "$rules"
chmod 644 "$rules"/*.toml

# On GitHub each drift becomes an annotation of the run.
format=plain
if [ "${GITHUB_ACTIONS:-}" = true ]; then format=github; fi

chrootsync check "$@" --root "$image" --rules "$rules" --strict --format "$format" \
    --report "junit=$reports/chrootsync.junit.xml" \
    --report "sarif=$reports/chrootsync.sarif" \
    --report "json=$reports/chrootsync.json" \
    --report "html=$reports/chrootsync.html"
