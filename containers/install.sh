#!/bin/sh
# What goes into the image, one step a call, so that Dockerfile and apptainer.def are made of the same: system, uv, requirements, package.
# The building machine's own certificates and index settings lie in /run/secrets while a step runs; none of it stays in the image.
set -eu
here=/opt/medscale venv=/opt/venv uv=/opt/uv
[ ! -s /run/secrets/ca ] || export SSL_CERT_FILE=/run/secrets/ca PIP_CERT=/run/secrets/ca
[ ! -s /run/secrets/index ] || { set -a; . /run/secrets/index; set +a; }
python() { if command -v python3.11 >/dev/null; then python3.11 "$@"; else python3 "$@"; fi; }

case ${1:?system, uv, requirements or package} in
system) # LaTeX, a compiler (torch.compile and Triton call one), and Python where the base has none
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  command -v python3.11 >/dev/null || apt-get install -y -qq --no-install-recommends python3 python3-venv python3-dev
  # shellcheck disable=SC2046
  apt-get install -y -qq --no-install-recommends ca-certificates g++ $(cat "$here/tools/latex.txt") >/dev/null
  rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/log/apt /var/log/*.log
  ;;
uv)
  python -m venv "$uv"
  "$uv/bin/pip" install -q --no-cache-dir --disable-pip-version-check -r "$here/tools/uv.txt"
  ;;
requirements) # the cache lies beside the environment, so that files are linked and not copied, and goes with the step
  python -m venv --without-pip "$venv"
  export UV_CACHE_DIR=/opt/.uv-cache UV_LINK_MODE=hardlink UV_HTTP_TIMEOUT="${UV_HTTP_TIMEOUT:-300}"
  "$uv/bin/uv" pip sync -q --python "$venv/bin/python" --require-hashes --compile-bytecode "$here/requirements.lock"
  rm -rf "$UV_CACHE_DIR"
  ;;
package)
  "$uv/bin/uv" pip install -q --no-cache --python "$venv/bin/python" --no-deps --no-build-isolation -e "$here"
  "$venv/bin/python" -m compileall -q "$here/src"
  ;;
*) echo "install.sh: there is no step $1" >&2; exit 2 ;;
esac
