#!/usr/bin/env bash
# Stops the daemon that docker-up.sh started below the folder $1, by its own pid file. What it built stays in $1/data.
set -euo pipefail
pidfile=${1:?usage: docker-down.sh FOLDER}/docker.pid
[ -s "$pidfile" ] || exit 0
pid=$(cat "$pidfile")
[ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dockerd ] || exit 0
kill "$pid"
for _ in $(seq 150); do [ -e "/proc/$pid" ] || exit 0; sleep 0.2; done
echo "docker-down: process $pid still runs after 30 s" >&2
exit 1
