#!/usr/bin/env bash
# A docker daemon of its own below the folder $1, for machines whose system starts none: no bridge, no firewall rules, so builds and
# containers use --network=host. Prints what the shell needs; run it as   eval "$(tools/cluster/docker-up.sh FOLDER)"   as root.
set -euo pipefail
die() { printf 'docker-up: %s\n' "$*" >&2; exit 1; }

folder=$(mkdir -p "${1:?usage: docker-up.sh FOLDER}" && cd "$1" && pwd)
# Debian's client and daemon go together; another docker may stand before them on PATH.
client=/usr/bin/docker daemon=/usr/sbin/dockerd
[ "$(id -u)" = 0 ] || die "the daemon needs root"
[ -x $client ] && [ -x $daemon ] || die "there is no docker: apt-get install docker.io"
socket=unix://$folder/docker.sock
[ ${#socket} -le 100 ] || die "$folder is too long a path for a socket; take a shorter folder"

answers() { DOCKER_HOST=$socket $client version >/dev/null 2>&1; }
if ! answers; then
  mkdir -p "$folder/data" "$folder/exec"
  rm -f "$folder/docker.pid"
  setsid $daemon --data-root "$folder/data" --exec-root "$folder/exec" --host "$socket" --pidfile "$folder/docker.pid" \
    --bridge=none --iptables=false --ip-forward=false >"$folder/dockerd.log" 2>&1 </dev/null &
  for _ in $(seq 150); do answers && break; sleep 0.2; done
  answers || { tail -n 5 "$folder/dockerd.log" >&2; die "the daemon did not answer within 30 s; its log is $folder/dockerd.log"; }
fi
printf 'export DOCKER_HOST=%q DOCKER=%q\n' "$socket" $client
