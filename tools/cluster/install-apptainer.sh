#!/usr/bin/env bash
# Apptainer on Debian 12, which has none, into the folder $1: the package of Debian's sid is unpacked there, not installed, beside the C
# library of trixie that it was built against. The system's own C library and package database stay as they are.
# As root, for the helper programs; then   export PATH=FOLDER/usr/bin:$PATH
# FOLDER/package.txt says which package it was (version and SHA-256): sid moves on.
set -euo pipefail
die() { printf 'install-apptainer: %s\n' "$*" >&2; exit 1; }

target=${1:?usage: install-apptainer.sh FOLDER}
[ "$(dpkg --print-architecture 2>/dev/null)" = amd64 ] || die "this is for Debian on amd64; elsewhere install Apptainer's own package"
[ "$(id -u)" = 0 ] || die "installing its helper programs needs root"
if [ -s "$target/package.txt" ] && "$target/usr/bin/apptainer" --version >/dev/null 2>&1; then
  cat "$target/package.txt"
  exit 0
fi

archive=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Codename: $(. /etc/os-release && echo "$VERSION_CODENAME")" | head -n 1)
[ -n "$archive" ] || { apt-get update -qq; die "apt's own sources name no Debian archive: apt-get update, and try again"; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{lists/partial,cache/archives/partial,parts,debs}
printf 'Types: deb\nURIs: %s\nSuites: trixie sid\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n' \
  "$archive" >"$work/both.sources"
apart=(-o "Dir::Etc::sourcelist=$work/both.sources" -o "Dir::Etc::sourceparts=$work/parts" -o "Dir::State::lists=$work/lists"
  -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=root)
apt-get "${apart[@]}" -qq update
(cd "$work/debs" && apt-get "${apart[@]}" -qq download apptainer/sid libc6/trixie)
DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends \
  patchelf squashfs-tools libseccomp2 libsqlite3-0 ca-certificates uidmap fuse2fs >/dev/null

rm -rf "$target"
mkdir -p "$target"
target=$(cd "$target" && pwd)
dpkg -x "$work"/debs/apptainer_*.deb "$target"
dpkg -x "$work"/debs/libc6_*.deb "$target/glibc"
libc=$target/glibc/usr/lib/x86_64-linux-gnu
for program in usr/bin/apptainer usr/lib/x86_64-linux-gnu/apptainer/bin/starter; do
  patchelf --set-interpreter "$libc/ld-linux-x86-64.so.2" \
    --set-rpath "$libc:/lib/x86_64-linux-gnu:/usr/lib/x86_64-linux-gnu" "$target/$program"
done
# Apptainer finds its configuration and its session folder from where it lies itself.
ln -sfn ../etc "$target/usr/etc"
mkdir -p "$target"/usr/{var,lib/var,lib/x86_64-linux-gnu/var}/lib/apptainer/mnt/session
# Root of a machine that is a container itself lacks capabilities that Apptainer would pass on.
sed -i 's/^root default capabilities = full/root default capabilities = no/' "$target/etc/apptainer/apptainer.conf"
"$target/usr/bin/apptainer" --version >/dev/null || die "the unpacked program does not start"
for deb in "$work"/debs/*.deb; do
  printf '%s %s sha256:%s\n' $(dpkg-deb -W --showformat='${Package} ${Version}' "$deb") "$(sha256sum "$deb" | cut -d' ' -f1)"
done >"$target/package.txt"
cat "$target/package.txt"
