#!/usr/bin/env bash
# The image for the tests, on a machine that reaches Debian's packages and no registry: docker of its own below the folder $1,
# a base by debootstrap, and `tools/image.sh`. Says how long each step took.
set -euo pipefail
folder=${1:?usage: build_image.sh FOLDER}
cd "$(dirname "$0")/../.."
step() { local begun=$SECONDS; "${@:2}"; echo "image: $1 took $((SECONDS - begun)) s" >&2; }
install_docker() {
  DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends docker.io debootstrap \
    >"$folder/apt-docker.log" 2>&1
}
step "installing docker" install_docker
eval "$(tools/cluster/docker-up.sh "$folder/docker")"
trap 'tools/cluster/docker-down.sh "$folder/docker"' EXIT
step "the base" tools/base-image.sh medscale-base:test
step "the image" tools/image.sh docker medscale-base:test
