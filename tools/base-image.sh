#!/usr/bin/env bash
# A Debian 12 base image from Debian's packages alone (debootstrap), for machines that reach no image registry:
#   tools/base-image.sh NAME            imported into docker as NAME, as root
#   tools/base-image.sh NAME FOLDER     the same, and its files stay in FOLDER, from which apptainer.def can start
set -euo pipefail
die() { printf 'base-image: %s\n' "$*" >&2; exit 1; }

name=${1:?usage: base-image.sh NAME [FOLDER]}
docker=${DOCKER:-docker}
[ "$(id -u)" = 0 ] || die "debootstrap needs root"
command -v debootstrap >/dev/null || die "debootstrap is missing: apt-get install debootstrap"
"$docker" version >/dev/null 2>&1 || die "no docker daemon answers at ${DOCKER_HOST:-its usual socket}; tools/cluster/docker-up.sh starts one"
archive=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' 2>/dev/null | head -n 1)

work=$(mktemp -d "${TMPDIR:-/var/tmp}/base-image.XXXXXX")
trap 'rm -rf "$work"' EXIT
root=${2:-$work/root}
[ ! -e "$root/etc/os-release" ] || die "$root holds a system already; take another folder"
debootstrap --variant=minbase bookworm "$root" ${archive:+"$archive"} >"$work/log" 2>&1 \
  || { tail -n 5 "$work/log" >&2; die "debootstrap failed"; }
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
tar -C "$root" --numeric-owner -c . | "$docker" import - "$name"
