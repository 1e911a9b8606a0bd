#!/usr/bin/env bash
# Sets up the virtual environment from the hash-locked requirements. Arguments add to it: "latex" the
# system's LaTeX, "browser" Chromium for the tests of the web page, "bench" .venv-bench with the
# packages that benchmarks compare against, "audit" .venv-audit with scanners for known faults.
# Every missing prerequisite is answered with what to do, before anything heavy is downloaded.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -z "${MEDSCALE_BUNDLE:-}" ] || exit 0 # run.sh of `make gpu-bundle` has put the packages on the paths

NEED_DISK_MB=9000
LATEX_PACKAGES=$(cat tools/latex.txt)
LATEX_PROGRAMS="latexmk pdflatex biber pdftotext"

say() { printf '\033[1m==> %s\033[0m\n' "$*" >&2; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

as_root() { # runs apt-get as root, through sudo where that needs no password prompt or a person can answer it
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then sudo "$@"
  else return 77; fi
}

apt_install() { # $1: what for; rest: packages
  local why=$1; shift
  command -v apt-get >/dev/null || die "$why is missing and there is no apt-get. Install these (Debian's names) and run again: $*"
  say "installing $why with apt-get"
  as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null \
    || die "$why is missing and could not be installed (no root, no sudo, or no network). Ask an administrator for:
    apt-get install $*"
}

find_python() { # PYTHON names another one than the oldest that fits
  for p in ${PYTHON:-python3.11 python3.12 python3.13 python3}; do
    if command -v "$p" >/dev/null && "$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo "$p"; return; fi
  done
  die "Python 3.11 or newer is needed and none was found on PATH${PYTHON:+ as $PYTHON}. On Debian 12: apt-get install python3 python3-venv"
}

setup_latex() {
  for program in $LATEX_PROGRAMS; do
    # shellcheck disable=SC2086
    command -v "$program" >/dev/null || { apt_install "LaTeX (about 700 MB)" $LATEX_PACKAGES; return; }
  done
  kpsewhich biblatex.sty siunitx.sty booktabs.sty >/dev/null || apt_install "LaTeX packages" $LATEX_PACKAGES
}

setup_browser() {
  for program in chromium chromium-browser google-chrome; do
    ! command -v "$program" >/dev/null || return 0
  done
  apt_install "Chromium for the tests of the web page (about 400 MB)" chromium
}

setup_venv() { # $1: folder; $2: lock file
  local venv=$1 lock=$2 stamp=$1/.medscale-setup want
  want="$(cat "$lock" tools/setup.sh pyproject.toml | sha256sum | cut -d' ' -f1) $PWD"
  [ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$want" ] && return
  local python free
  python=$(find_python)
  free=$(df -Pm . | awk 'NR==2 {print $4}')
  [ -d "$venv" ] || [ "$free" -ge $NEED_DISK_MB ] || die "$PWD has $free MB free; the environment and the demo need $NEED_DISK_MB MB. Free some disk, or clone onto a larger one."
  "$python" -c 'import venv, ensurepip' 2>/dev/null || apt_install "Python's venv module" python3-venv
  [ -x .tools/bin/uv ] || { say "installing uv"; "$python" -m venv .tools && .tools/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r tools/uv.txt; } \
    || die "uv could not be installed: is a Python package index reachable?"
  say "installing the locked requirements into $venv (5.5 GB; a few minutes the first time)"
  [ -x "$venv/bin/python" ] || .tools/bin/uv venv -q --python "$python" "$venv"
  export UV_LINK_MODE=${UV_LINK_MODE:-hardlink} UV_HTTP_TIMEOUT=${UV_HTTP_TIMEOUT:-300}
  .tools/bin/uv pip sync -q --python "$venv/bin/python" --require-hashes "$lock" \
    || die "the locked requirements could not be installed (see the message above)."
  .tools/bin/uv pip install -q --python "$venv/bin/python" --no-deps --no-build-isolation -e .
  echo "$want" > "$stamp"
}

setup_audit() { # scanners for known faults, in a separate environment
  cmp -s tools/audit.txt .venv-audit/.medscale-setup && return
  say "installing scanners for known faults into .venv-audit (100 MB)"
  .tools/bin/uv venv -q --clear --python .venv/bin/python .venv-audit
  .tools/bin/uv pip sync -q --python .venv-audit/bin/python --require-hashes tools/audit.txt \
    || die "pip-audit and zizmor could not be installed (see the message above)."
  cp tools/audit.txt .venv-audit/.medscale-setup
}

has_argument() { [[ " $arguments " == *" $1 "* ]]; }

arguments=$*
! has_argument latex || setup_latex
! has_argument browser || setup_browser
setup_venv .venv requirements.lock
! has_argument audit || setup_audit
! has_argument bench || setup_venv .venv-bench requirements-bench.lock
