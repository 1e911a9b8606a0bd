#!/bin/sh
# The steps that build the image: system, uv, requirements, package; one step in each call.
# Dockerfile and apptainer.def both call this script, so that both images have the same content.
# Certificates and index settings of the building machine are in /run/secrets during a step only;
# the image does not contain them.
set -eu
here=/opt/medscale venv=/opt/venv uv=/opt/uv
[ ! -s /run/secrets/ca ] || export SSL_CERT_FILE=/run/secrets/ca PIP_CERT=/run/secrets/ca
[ ! -s /run/secrets/index ] || { set -a; . /run/secrets/index; set +a; }
python() { if command -v python3.11 >/dev/null; then python3.11 "$@"; else python3 "$@"; fi; }

case ${1:?system, uv, requirements or package} in
system) # LaTeX, a compiler (for torch.compile and Triton), Python if the base has none
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  command -v python3.11 >/dev/null || apt-get install -y -qq --no-install-recommends python3 python3-venv python3-dev
  # shellcheck disable=SC2046
  apt-get install -y -qq --no-install-recommends ca-certificates g++ $(cat "$here/tools/latex.txt") >/dev/null
  rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/log/apt /var/log/*.log
  ;;
uv)
  python -m venv "$uv"
  "$uv/bin/pip" install -q --no-cache-dir --disable-pip-version-check --require-hashes -r "$here/tools/uv.txt"
  ;;
requirements) # the cache is on the same file system, so that files are linked, and is then removed
  python -m venv --without-pip "$venv"
  export UV_CACHE_DIR=/opt/.uv-cache UV_LINK_MODE=hardlink UV_HTTP_TIMEOUT="${UV_HTTP_TIMEOUT:-300}"
  "$uv/bin/uv" pip sync -q --python "$venv/bin/python" --require-hashes --compile-bytecode "$here/requirements.lock"
  rm -rf "$UV_CACHE_DIR"
  ;;
package)
  "$uv/bin/uv" pip install -q --no-cache --python "$venv/bin/python" --no-deps --no-build-isolation -e "$here"
  "$venv/bin/python" -m compileall -q "$here/src"
  # `apptainer run --app serve` reads these files (a SCIF app) in images of both builders
  mkdir -p /scif/apps/serve/scif
  printf '#!/bin/sh\nexec medscale serve "$@"\n' >/scif/apps/serve/scif/runscript
  echo "A web page and an HTTP API for trained runs: apptainer run --app serve medscale.sif RESULT..." >/scif/apps/serve/scif/runscript.help
  chmod 755 /scif/apps/serve/scif/runscript
  ;;
*) echo "install.sh: there is no step $1" >&2; exit 2 ;;
esac
