#!/usr/bin/env bash
# Builds the image that jobs run in, as containers/medscale-<digest>.sif with a .json of what it was made of, turns the link
# containers/medscale.sif to it, and runs the image's own test with the network off:
#   tools/image.sh docker [BASE]         docker build → docker save → SIF
#   tools/image.sh apptainer [BASE]      the same without docker, from containers/apptainer.def; BASE may be a folder
#   tools/image.sh test                  the test alone
# BASE: another base image than the Dockerfile's. DOCKER, APPTAINER: other programs than those on PATH.
# Certificates (SSL_CERT_FILE), proxies and package indexes (UV_*, PIP_*) of this machine are used and left out of the image.
# Images that are there stay, whoever made them.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\033[1m==> %s\033[0m\n' "$*" >&2; }
die() { printf 'image: %s\n' "$*" >&2; exit 1; }
timed() { local start=$SECONDS; "$@"; say "$1 $2: $((SECONDS - start)) s"; }

docker=${DOCKER:-docker} apptainer=${APPTAINER:-apptainer}
folder=$PWD/containers link=$PWD/containers/medscale.sif
squash="-comp zstd -Xcompression-level 1"

need_apptainer() {
  command -v "$apptainer" >/dev/null || die "Apptainer is missing. Install it from your system's packages (apt-get, dnf: apptainer); on Debian 12, which has none, tools/cluster/install-apptainer.sh FOLDER unpacks it"
}
need_docker() {
  command -v "$docker" >/dev/null || die "docker is missing. Install it (Debian: apt-get install docker.io), or build without it: tools/image.sh apptainer"
  "$docker" version >/dev/null 2>&1 || die "no docker daemon answers at ${DOCKER_HOST:-its usual socket}. Start it (systemctl start docker; without systemd: eval \"\$(tools/cluster/docker-up.sh FOLDER)\"), ask to join the group docker, or build without it: tools/image.sh apptainer"
}

own_repository() { # whether git's top level is this checkout, and not a repository around it
  [ "$(git rev-parse --show-toplevel 2>/dev/null)" = "$(pwd -P)" ]
}

checkout_facts() { # version, commit and lock file of this checkout, as NAME=VALUE
  printf 'VERSION=%s\n' "$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)"
  printf 'COMMIT=%s\n' "$(own_repository && git rev-parse HEAD 2>/dev/null || echo unknown)"
  printf 'DIRTY=%s\n' "$(own_repository && git diff --quiet HEAD -- . ':(exclude)profiles/slurm/site.yaml' 2>/dev/null && echo false || echo true)"
  printf 'LOCK=%s\n' "$(sha256sum requirements.lock | cut -d' ' -f1)"
}

gather_secrets() { # this machine's certificates and package index, for the steps that fetch
  mkdir -p "$work/secrets"
  local name
  for name in UV_DEFAULT_INDEX UV_INDEX UV_INDEX_URL UV_EXTRA_INDEX_URL UV_HTTP_TIMEOUT PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_DEFAULT_TIMEOUT; do
    [ -z "${!name:-}" ] || printf '%s=%q\n' "$name" "${!name}"
  done >"$work/secrets/index"
  : >"$work/secrets/ca"
  if [ -n "${SSL_CERT_FILE:-${PIP_CERT:-}}" ]; then cat "${SSL_CERT_FILE:-$PIP_CERT}" >"$work/secrets/ca"; fi
}

build_docker() { # $1: base or nothing
  local arguments=() part name
  for part in $(checkout_facts) ${1:+BASE=$1}; do arguments+=(--build-arg "$part"); done
  for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
    [ -z "${!name:-}" ] || arguments+=(--build-arg "$name=${!name}")
  done
  DOCKER_BUILDKIT=1 "$docker" build --progress=plain --network=host "${arguments[@]}" --iidfile "$work/id" \
    --secret "id=ca,src=$work/secrets/ca" --secret "id=index,src=$work/secrets/index" \
    -f containers/Dockerfile -t medscale:latest . >"$work/log" 2>&1 \
    || { grep -E ' (ERROR|E:|error)' "$work/log" | tail -n 8 >&2; keep_log; die "docker build failed; all it said is in containers/build.log"; }
}

keep_log() { cp "$work/log" "$folder/build.log"; }

need_disk() { # $1: MB that a step takes below containers/ for a while
  local free
  free=$(df -Pm "$folder" | awk 'NR==2 {print $4}')
  [ "$free" -ge "$1" ] || die "$folder has $free MB free; this step needs $1 MB for a while. Free some disk and type the same again: finished steps are kept"
}

convert() { # holds the archive, its layers, the files and the SIF at the same time
  need_disk 32000
  "$docker" save "$(cat "$work/id")" | python3 tools/store_layers.py >"$work/image.tar"
  "$apptainer" build --force --disable-cache --mksquashfs-args "$squash" "$work/image.sif" "docker-archive:$work/image.tar" \
    >"$work/log" 2>&1 || { tail -n 2 "$work/log" >&2; keep_log; die "Apptainer could not convert the image; all it said is in containers/build.log"; }
  rm "$work/image.tar"
}

build_apptainer() { # $1: base or nothing; a folder is a system's files
  local arguments=() part bootstrap=docker
  need_disk 16000
  if [ -e "${1:-}" ]; then bootstrap=localimage; fi
  for part in $(checkout_facts) ${1:+BASE=$1}; do arguments+=(--build-arg "$part"); done
  "$apptainer" build --force --disable-cache --mksquashfs-args "$squash" --build-arg "BOOTSTRAP=$bootstrap" "${arguments[@]}" \
    --bind "$work/secrets:/run/secrets" "$work/image.sif" containers/apptainer.def >"$work/log" 2>&1 \
    || { tail -n 5 "$work/log" >&2; keep_log; die "apptainer build failed; all it said is in containers/build.log"; }
}

known() { # $1: docker's id; the image file made of it, if there is one
  { grep -ls "\"image\": \"$1\"" "$folder"/medscale-*.json || true; } | head -n 1 | sed 's/json$/sif/'
}

put() { # $1: base; gives the finished file its name, its .json, and the link
  local sum name
  sum=$(sha256sum "$work/image.sif" | cut -d' ' -f1)
  name=medscale-${sum:0:12}
  env $(checkout_facts) BASE="$1" SUM="$sum" BYTES="$(stat -c %s "$work/image.sif")" IMAGE="$(cat "$work/id" 2>/dev/null)" \
    APPTAINER="$("$apptainer" --version)" python3 - >"$work/image.json" <<'PYTHON'
import json, os
keys = {"sha256": "SUM", "image": "IMAGE", "base": "BASE", "version": "VERSION", "commit": "COMMIT", "lock": "LOCK", "apptainer": "APPTAINER"}
about = {key: os.environ[name] or None for key, name in keys.items()}
print(json.dumps(about | {"bytes": int(os.environ["BYTES"]), "dirty": os.environ["DIRTY"] == "true"}, indent=2, sort_keys=True))
PYTHON
  mv "$work/image.json" "$folder/$name.json"
  mv "$work/image.sif" "$folder/$name.sif"
  point "$name.sif"
}

point() { ln -sfn "$1" "$work/link" && mv -T "$work/link" "$link"; say "containers/medscale.sif -> $1 ($(du -hL "$link" | cut -f1))"; }

test_image() { # in an empty folder, as little of this machine as possible, and no network
  local cut=(--net --network none)
  [ -e "$link" ] || die "there is no image yet: make image"
  mkdir -p "$work/test"
  "$apptainer" exec "${cut[@]}" --containall "$link" true 2>/dev/null || { cut=(); say "this user may not cut the network off: testing with it on"; }
  (cd "$work/test" && "$apptainer" exec "${cut[@]}" --containall --home "$work/test" --pwd "$work/test" "$(readlink -f "$link")" \
    /opt/medscale/containers/test.sh) || die "the image's own test failed (see above)"
}

mkdir -p "$folder"
work=$(mktemp -d "$folder/.build.XXXXXX")
trap 'rm -rf "$work"' EXIT
export APPTAINER_TMPDIR=$work APPTAINER_CACHEDIR=$work/cache
base=${2:-$(sed -n 's/^ARG BASE=\(.*\)/\1/p' containers/Dockerfile)}
case ${1:-} in
docker)
  need_docker; need_apptainer; gather_secrets
  say "building from $base; the first time that takes some minutes"
  timed build_docker "${2:-}"
  there=$(known "$(cat "$work/id")")
  if [ -n "$there" ]; then point "$(basename "$there")"; else timed convert image; put "$base"; fi
  timed test_image offline
  ;;
apptainer)
  need_apptainer; gather_secrets
  say "building from $base without docker"
  timed build_apptainer "${2:-}"
  put "$base"
  timed test_image offline
  ;;
test) need_apptainer; timed test_image offline ;;
*) die "say which way: tools/image.sh docker|apptainer [BASE], or tools/image.sh test" ;;
esac
