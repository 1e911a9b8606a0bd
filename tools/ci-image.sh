#!/usr/bin/env bash
# Prepares a runner of GitHub's Actions (Ubuntu) for `make image`, which needs 41 GB of disk and
# Apptainer: removes SDKs that no job of this project uses, and installs Apptainer from its PPA.
# It refuses any other machine.
set -euo pipefail
[ "${GITHUB_ACTIONS:-}" = true ] || { echo "ci-image: this removes software; it is for GitHub's runners alone" >&2; exit 1; }

sudo rm -rf /usr/share/dotnet /usr/local/lib/android /opt/ghc /usr/local/.ghcup /usr/share/swift
sudo add-apt-repository --yes ppa:apptainer/ppa
sudo apt-get install --yes --quiet apptainer-suid
df --human-readable /
apptainer --version
