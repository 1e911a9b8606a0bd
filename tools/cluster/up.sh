#!/usr/bin/env bash
# A SLURM cluster on this machine, below the folder $1: munge, MariaDB, slurmdbd, slurmctld and two nodes with four pretended GPUs each;
# partition main, and urgent, for which jobs of main give way. Prints what the shell needs; run it as
#   eval "$(tools/cluster/up.sh FOLDER)"        as root on Debian; twice does no harm; tools/cluster/down.sh FOLDER stops it.
set -euo pipefail
die() { printf 'cluster up: %s\n' "$*" >&2; exit 1; }

packages="slurmctld slurmd slurmdbd slurm-client munge mariadb-server"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=$(mkdir -p "${1:?usage: up.sh FOLDER}" && cd "$1" && pwd)
[ "$(id -u)" = 0 ] || die "the daemons need root"
[ ${#folder} -le 80 ] || die "$folder is too long a path for a socket; take a shorter folder"
if ! dpkg -s $packages >/dev/null 2>&1; then
  command -v apt-get >/dev/null || die "this is for Debian; elsewhere install $packages"
  printf '#!/bin/sh\nexit 101\n' >"$folder/policy" && chmod 755 "$folder/policy"   # the packages' own services stay stopped
  [ -e /usr/sbin/policy-rc.d ] || { ln -s "$folder/policy" /usr/sbin/policy-rc.d; trap 'rm -f /usr/sbin/policy-rc.d' EXIT; }
  apt-get -qq update >&2
  DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends $packages >"$folder/apt.log" 2>&1 ||
    die "apt-get install $packages failed; see $folder/apt.log"
fi

await() { # what it is, then the command that succeeds once it is there
  local what=$1; shift
  for _ in $(seq 300); do "$@" >/dev/null 2>&1 && return 0; sleep 0.1; done
  die "$what is not there after 30 s; its log is below $folder"
}
lives() { [ -s "$1" ] && [ "$(cat "/proc/$(cat "$1")/comm" 2>/dev/null)" = "$2" ]; }

mkdir -p "$folder"/{bin,etc,control/state,nodes/node1,nodes/node2,munge,database}
chmod 755 "$folder"
chown -R slurm: "$folder/control"
chown munge: "$folder/munge"
chown mysql: "$folder/database"
for number in 0 1 2 3; do [ -e "$folder/gpu$number" ] || mknod -m 666 "$folder/gpu$number" c 1 3; done
for file in slurm.conf gres.conf slurmdbd.conf; do
  sed -e "s#@FOLDER@#$folder#g" -e "s/@HOST@/$(hostname -s)/" "$here/$file" >"$folder/etc/$file"
done
chown slurm: "$folder/etc/slurmdbd.conf"
chmod 600 "$folder/etc/slurmdbd.conf"
# Job steps are started without any SLURM_ variable: the programs find their cluster by where they lie on PATH.
printf '#!/bin/sh\nSLURM_CONF=%s exec "/usr/bin/$(basename "$0")" "$@"\n' "$folder/etc/slurm.conf" >"$folder/bin/with-conf"
chmod 755 "$folder/bin/with-conf"
for program in sbatch srun squeue scancel scontrol sinfo sacct sacctmgr sshare sstat; do ln -sfn with-conf "$folder/bin/$program"; done
export PATH=$folder/bin:$PATH SLURM_CONF=$folder/etc/slurm.conf

if ! lives "$folder/munge/pid" munged; then
  [ -s "$folder/munge/key" ] || { head -c 1024 /dev/urandom >"$folder/munge/key"; chown munge: "$folder/munge/key"; chmod 400 "$folder/munge/key"; }
  runuser -u munge -- /usr/sbin/munged --socket="$folder/munge/socket" --key-file="$folder/munge/key" --pid-file="$folder/munge/pid" \
    --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"
fi
if ! lives "$folder/database/pid" mariadbd; then
  [ -d "$folder/database/mysql" ] ||
    mariadb-install-db --no-defaults --user=mysql --datadir="$folder/database" --skip-test-db >"$folder/database.log" 2>&1
  setsid mariadbd --no-defaults --user=mysql --datadir="$folder/database" --socket="$folder/database/socket" --pid-file="$folder/database/pid" \
    --bind-address=127.0.0.1 --port=13306 --innodb-buffer-pool-size=128M --innodb-lock-wait-timeout=900 >>"$folder/database.log" 2>&1 </dev/null &
  await "the database" mariadb-admin --no-defaults -S "$folder/database/socket" ping
  mariadb --no-defaults -S "$folder/database/socket" -e "CREATE DATABASE IF NOT EXISTS accounting;
    CREATE USER IF NOT EXISTS slurm@'127.0.0.1' IDENTIFIED BY 'slurm'; GRANT ALL ON accounting.* TO slurm@'127.0.0.1';
    CREATE USER IF NOT EXISTS slurm@localhost IDENTIFIED BY 'slurm'; GRANT ALL ON accounting.* TO slurm@localhost;"
fi
lives "$folder/control/slurmdbd.pid" slurmdbd || slurmdbd
await "the accounting" sacctmgr -n show cluster
known() { [ -n "$(sacctmgr -n list "$@")" ]; } # adding what is there fails
known cluster pretended || sacctmgr -i add cluster pretended >/dev/null
known account study || sacctmgr -i add account study Description=study Organization=study >/dev/null
known assoc account=study user=root || sacctmgr -i add user root Account=study AdminLevel=Admin >/dev/null
lives "$folder/control/slurmctld.pid" slurmctld || slurmctld
await "the controller" scontrol ping
for node in node1 node2; do lives "$folder/nodes/$node.pid" slurmd || slurmd -N "$node"; done
ready() { [ "$(sinfo -h -N -p main -t idle,mixed,allocated -o %N | sort -u | wc -l)" = 2 ]; }
await "a node" ready
printf 'export PATH=%q:"$PATH"\n' "$folder/bin"
