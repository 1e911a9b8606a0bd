#!/usr/bin/env bash
# Stops what up.sh started below the folder $1, by its own pid files, jobs first; its logs and accounts stay there.
set -euo pipefail
folder=${1:?usage: down.sh FOLDER}
stop() { # pid file, name of the program
  [ -s "$1" ] || return 0
  local pid; pid=$(cat "$1")
  [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$2" ] || return 0
  kill "$pid"
  for _ in $(seq 150); do [ -e "/proc/$pid" ] || return 0; sleep 0.1; done
  echo "cluster down: $2 (process $pid) still runs after 15 s" >&2
}
if [ -x "$folder/bin/squeue" ] && timeout 10 "$folder/bin/scontrol" ping >/dev/null 2>&1; then
  timeout 10 "$folder/bin/scancel" --user=root || true
  for _ in $(seq 150); do [ -n "$(timeout 10 "$folder/bin/squeue" -h)" ] || break; sleep 0.1; done
fi
stop "$folder/nodes/node1.pid" slurmd
stop "$folder/nodes/node2.pid" slurmd
stop "$folder/control/slurmctld.pid" slurmctld
stop "$folder/control/slurmdbd.pid" slurmdbd
stop "$folder/database/pid" mariadbd
stop "$folder/munge/pid" munged
